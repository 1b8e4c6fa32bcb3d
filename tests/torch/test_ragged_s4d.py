"""The layers of the ragged format in PyTorch, beside the model in NumPy and in the place of the original layers."""

import numpy as np
import pytest

from lqo_mor.checkpoints.families.slots import PI32
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError, DimensionError, InvalidInputError, OutputError
from tests.checkpoints.ragged_states import WIDTH, ragged_model, s4d_model

torch = pytest.importorskip("torch")
from lqo_mor.torch import RaggedS4D, RaggedS4DModel, RaggedSlots, replace_s4d_layers  # noqa: E402 (needs torch)
from tests.s4d_example import S4D, S4DModel  # noqa: E402 (needs torch)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def outputs(model, u):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(u)).numpy()


def original_convention(prenorm):
    """The stock model with layers that return a pair, as the original class does."""

    class Layer(S4D):
        def forward(self, u, **kwargs):
            return super().forward(u), None

    class Model(S4DModel):
        def __init__(self):
            super().__init__(2, 5, WIDTH, 2, prenorm=prenorm)
            self.s4_layers = torch.nn.ModuleList(Layer(WIDTH, dropout=0.25) for _ in range(2))

        def forward(self, x):
            x = self.encoder(x)
            for layer, norm in zip(self.s4_layers, self.norms, strict=True):
                z, _ = layer((norm(x) if self.prenorm else x).transpose(1, 2))
                z = self.dropout(z.transpose(1, 2))
                x = x + z if self.prenorm else norm(x + z)
            return self.decoder(x.mean(dim=1))

    return Model()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
@pytest.mark.parametrize("prenorm", [False, True])
def test_the_module_gives_the_outputs_of_numpy(tmp_path, suffix, prenorm):
    path = tmp_path / f"r{suffix}"
    ragged_model(tmp_path, prenorm=prenorm).save(path, format="ragged")
    net = RaggedS4DModel.load(path)
    numpy_model = load_checkpoint(path)
    assert net.prenorm == prenorm
    assert set(net.state_dict()) == set(numpy_model.source.original.state)
    assert sum(value.numel() for value in net.state_dict().values()) == numpy_model.n_parameters
    u = np.random.default_rng(0).normal(size=(3, 500, 2)).astype(np.float32)
    expected = numpy_model(u)
    np.testing.assert_allclose(outputs(net, u), expected, atol=1e-5 * max(1, np.abs(expected).max()))
    net.save(tmp_path / "again.safetensors")
    again = load_checkpoint(tmp_path / "again.safetensors").source.original.state
    assert all(np.array_equal(again[key], value) for key, value in numpy_model.source.original.state.items())
    with pytest.raises(OutputError):
        net.save(tmp_path / "again.safetensors")


def test_in_double_precision_both_agree_to_rounding(tmp_path):
    ragged_model(tmp_path, np.float64).save(tmp_path / "r.npz", format="ragged")
    u = np.random.default_rng(0).normal(size=(2, 300, 2))
    got = outputs(RaggedS4DModel.load(tmp_path / "r.npz"), u)
    np.testing.assert_allclose(got, load_checkpoint(tmp_path / "r.npz")(u), rtol=1e-10, atol=1e-11)


def test_trained_parameters_of_any_value_agree_too(tmp_path):
    """Angles beyond π and complex residues at real poles, as training may leave them."""
    ragged_model(tmp_path).save(tmp_path / "r.npz", format="ragged")
    net = RaggedS4DModel.load(tmp_path / "r.npz")
    with torch.no_grad():
        for layer in net.s4_layers:
            layer.slots.residue.normal_()
            layer.slots.theta[::3] *= 5
            layer.slots.nu_log[::4] = 6.0
    net.save(tmp_path / "t.npz")
    u = np.random.default_rng(0).normal(size=(2, 300, 2)).astype(np.float32)
    expected = load_checkpoint(tmp_path / "t.npz")(u)
    np.testing.assert_allclose(outputs(net, u), expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("prenorm", [False, True])
def test_layers_take_the_place_of_the_original_ones(tmp_path, prenorm):
    ragged_model(tmp_path, prenorm=prenorm).save(tmp_path / "r.safetensors", format="ragged")
    u = np.random.default_rng(0).normal(size=(3, 200, 2)).astype(np.float32)
    expected = load_checkpoint(tmp_path / "r.safetensors")(u)
    single = S4DModel(2, 5, WIDTH, 2, d_state=64, prenorm=prenorm)
    assert replace_s4d_layers(single, tmp_path / "r.safetensors", returns_state=False) is single
    pairs = replace_s4d_layers(original_convention(prenorm), tmp_path / "r.safetensors")
    assert pairs.s4_layers[0].dropout.p == 0.25
    replace_s4d_layers(pairs, tmp_path / "r.safetensors")  # also a second time
    for net in (single, pairs):
        np.testing.assert_allclose(outputs(net, u), expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_the_padded_export_loads_in_the_original_class(tmp_path):
    ragged_model(tmp_path).save(tmp_path / "r.safetensors", format="ragged")
    model = load_checkpoint(tmp_path / "r.safetensors")
    model.save(tmp_path / "s.pt", format="s4d")
    net = S4DModel(2, 5, WIDTH, 2, d_state=2 * 6)
    net.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True)["model"], strict=True)
    u = np.random.default_rng(0).normal(size=(3, 200, 2)).astype(np.float32)
    expected = model(u)
    np.testing.assert_allclose(outputs(net, u), expected, atol=2e-5 * max(1, np.abs(expected).max()))


def test_models_that_do_not_fit_are_refused_unchanged(tmp_path):
    ragged_model(tmp_path).save(tmp_path / "r.npz", format="ragged")
    transposed = S4DModel(2, 5, WIDTH, 2)
    transposed.s4_layers[1].transposed = False
    for net, words in [
        (S4DModel(2, 5, WIDTH + 1, 2), "encoder.weight"),
        (S4DModel(2, 5, WIDTH, 3), "s4_layers.2"),
        (S4DModel(2, 5, WIDTH, 2, prenorm=True), "prenorm = True, the file says False"),
        (transposed, "batch, time, d_model"),
    ]:
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with pytest.raises(InvalidInputError, match=words):
            replace_s4d_layers(net, tmp_path / "r.npz")
        after = net.state_dict()
        assert set(after) == set(before)
        assert all(torch.equal(after[key], value) for key, value in before.items())


def test_files_of_another_format_are_refused(tmp_path):
    s4d_model(tmp_path)
    with pytest.raises(CheckpointError, match="ragged_s4d"):
        RaggedS4DModel.load(tmp_path / "s4d.npz")


def test_gradients_reach_every_parameter_and_agree_with_differences():
    slots = RaggedSlots([2, 0, 3]).double()
    names, values = zip(*slots.named_parameters(), strict=True)

    def kernels(*parameters):
        return torch.func.functional_call(slots, dict(zip(names, parameters, strict=True)), 12)

    assert torch.autograd.gradcheck(kernels, values)
    net = RaggedS4DModel(2, 3, [[2, 0, 3, 1], [0, 4, 1, 1]])
    net(torch.randn(2, 16, 2)).square().sum().backward()
    assert all(p.grad is not None and torch.any(p.grad != 0) for p in net.parameters())


def test_real_poles_stay_real_in_training():
    slots = RaggedSlots([2, 1])
    with torch.no_grad():
        slots.theta.copy_(torch.tensor([0.0, PI32, 1.0]))
        slots.residue[:2, 1] = 0.0
    optimiser = torch.optim.Adam(slots.parameters(), lr=0.01)
    for _ in range(20):
        optimiser.zero_grad()
        (slots(50) - 1).square().sum().backward()
        optimiser.step()
    assert slots.theta[:2].tolist() == [0, PI32]
    assert slots.residue[:2, 1].tolist() == [0, 0]
    assert slots.theta[2] != 1


def test_outputs_start_with_variance_of_order_one():
    layer = RaggedS4D([3, 20, 1, 8])
    layer.D.data.zero_()
    with torch.no_grad():
        variance = layer.convolve(torch.randn(4, 4, 4000)).var(dim=(0, 2))
    assert torch.all((variance > 0.05) & (variance < 20))


def test_channels_without_slots_pass_their_feedthrough():
    layer = RaggedS4D([0, 2, 0])
    u = torch.randn(2, 3, 10)
    with torch.no_grad():
        y = layer.convolve(u)
    torch.testing.assert_close(y[:, ::2], layer.D[::2, None].detach() * u[:, ::2], atol=1e-6, rtol=1e-5)
    empty = RaggedS4D([0, 0])
    assert empty(torch.randn(1, 2, 7), rate=1.0)[0].shape == (1, 2, 7)


def test_poles_are_marked_as_in_the_original_class():
    slots = RaggedSlots([1, 2])
    assert slots.nu_log._optim == slots.theta._optim == {"weight_decay": 0.0}


@pytest.mark.parametrize("counts", [[], [1, -1], [1.0], [[1]]])
def test_wrong_counts(counts):
    with pytest.raises(InvalidInputError, match="counts"):
        RaggedS4D(counts)


def test_wrong_inputs():
    with pytest.raises(DimensionError, match="expected"):
        RaggedS4D([1, 1])(torch.randn(3, 4, 5))


def test_a_state_dict_of_other_counts_takes_effect():
    """Same number of slots, split in another way: the channels follow the loaded counts."""
    a, b = RaggedS4D([1, 3]), RaggedS4D([3, 1])
    b.load_state_dict(a.state_dict())
    u = torch.randn(1, 2, 9)
    torch.testing.assert_close(a(u)[0], b(u)[0])
