"""Systems and models in PyTorch beside naive loops: outputs, steps, gradients, training and the way back."""

from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.errors import CheckpointError, DimensionError, InvalidInputError
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import BatchNorm, Linear
from lqo_mor.network.model import DeepSSM
from tests.checkpoints.s4d_states import s4d_state
from tests.network.random_models import naive_forward, naive_system, random_model, random_system

torch = pytest.importorskip("torch")
from lqo_mor.torch import LQODeepSSM, torch_layer, torch_model, update_model  # noqa: E402 (needs torch)

SYSTEMS = {
    "channels": ((3,), 1, 1, 0),
    "channels with outputs": ((3,), 1, 2, 0),
    "quadratic channels": ((3,), 1, 2, 3),
    "one system": ((), 3, 3, 0),
    "quadratic system": ((), 3, 2, 4),
}


def draw(name, seed=0):
    batch, inputs, outputs, rank = SYSTEMS[name]
    return random_system(np.random.default_rng(seed), batch, 5, inputs, outputs, rank)


def ordered(ssm, y):
    """Outputs of `naive_system`, (channel, output), in the order (output, channel) of a block."""
    return y if not ssm.batch else y.reshape(len(y), *ssm.batch, -1).swapaxes(1, 2).reshape(len(y), -1)


def reference(ssm, u, backward=None):
    """Outputs (batch, steps, features) by loops over time, backward ones from the reversed sequence."""
    y = np.array([ordered(ssm, naive_system(ssm, sequence)) for sequence in u])
    if backward is None:
        return y
    half = y.shape[2] // 2
    reverse = np.array([ordered(ssm, naive_system(ssm, sequence[::-1]))[::-1] for sequence in u])[..., half:]
    later = np.zeros_like(reverse)
    later[:, : reverse.shape[1] - backward] = reverse[:, backward:]
    return y[..., :half] + later


def inputs(steps=40, dtype=np.float64):
    return np.random.default_rng(7).normal(size=(2, steps, 3)).astype(dtype)


def steps_of(module, u):
    """Outputs one step at a time."""
    state, outputs = module.initial_state(len(u)), []
    with torch.no_grad():
        for k in range(u.shape[1]):
            y, state = module.step(u[:, k], state)
            outputs.append(y)
    return torch.stack(outputs, dim=1)


def close(a, b, tolerance):
    a, b = (x.detach().numpy() if isinstance(x, torch.Tensor) else x for x in (a, b))
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize("name", SYSTEMS)
def test_forward_and_steps_are_the_system(name):
    ssm, u = draw(name), inputs()
    layer, expected = torch_layer(ssm), reference(draw(name), u)
    close(layer(torch.from_numpy(u)), expected, 1e-12)
    close(steps_of(layer, torch.from_numpy(u)), expected, 1e-12)
    single = layer.float()
    close(single(torch.from_numpy(u).float()), expected, 1e-5)
    close(steps_of(single, torch.from_numpy(u).float()), expected, 1e-5)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_backward_outputs(delay, seed):
    ssm = random_system(np.random.default_rng(seed), ((3,), ())[seed], 4, (1, 3)[seed], 4, 0)
    layer, u = torch_layer(ssm, delay), inputs()
    close(layer(torch.from_numpy(u)), reference(ssm, u, delay), 1e-12)
    with pytest.raises(InvalidInputError, match="backward in time"):
        layer.step(torch.from_numpy(u[:, 0]), layer.initial_state(2))


@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients(name):
    layer, u = torch_layer(draw(name)), torch.from_numpy(inputs(6))
    values = [value.detach().clone().requires_grad_() for value in layer.parameters()]

    def run(*arrays):
        named = dict(zip(dict(layer.named_parameters()), arrays, strict=True))
        return torch.func.functional_call(layer, named, (u,)).square()

    assert torch.autograd.gradcheck(run, values, fast_mode=True)


def test_second_derivatives_and_transforms_of_torch():
    layer, u = torch_layer(draw("quadratic system")), torch.from_numpy(inputs(6)).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, u, fast_mode=True)
    parameters = dict(layer.named_parameters())

    def loss(values, sequence):
        return torch.func.functional_call(layer, values, (sequence[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, u.detach())
    layer(u).square().sum().backward()
    for name, parameter in parameters.items():
        close(each[name].sum(dim=0), parameter.grad.numpy(), 1e-10)


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_keeps_real_poles_padding_and_stability(name):
    ssm = draw(name)
    B, C = np.array(ssm.B), np.array(ssm.C)
    B[..., 4, :] = 0
    C[..., 4] = 0
    ssm = replace(ssm, B=B, C=C)
    layer = torch_layer(ssm).float()
    u = torch.from_numpy(inputs(30, np.float32))
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.05, weight_decay=0.1)
    first = None
    for _ in range(20):
        optimiser.zero_grad()
        loss = (layer(u) - 1).square().mean()
        first = loss.item() if first is None else first
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.9 * first
    assert all(p.grad is not None and torch.any(p.grad != 0) for p in layer.parameters())
    again = layer.system()
    assert np.array_equal(again.is_real_pole, ssm.is_real_pole)
    assert np.array_equal(again.poles.real[again.is_real_pole] > 0, ssm.poles.real[ssm.is_real_pole] > 0)
    assert not np.any(again.C[..., 4])
    assert np.abs(again.poles).max() < 1
    close(layer(u), reference(again, u.numpy().astype(float)), 1e-5)


def test_a_diagonal_feedthrough_stays_diagonal():
    ssm = draw("one system")
    assert torch_layer(ssm).D.shape == (3, 3)
    layer = torch_layer(replace(ssm, D=np.diag([1.0, 2.0, 0.0])))
    assert layer.D.shape == (3,)
    u = inputs()
    close(layer(torch.from_numpy(u)), reference(replace(ssm, D=np.diag([1.0, 2.0, 0.0])), u), 1e-12)
    assert np.array_equal(layer.system().D, np.diag([1.0, 2.0, 0.0]))


@pytest.mark.parametrize("name", SYSTEMS)
def test_poles_at_zero_and_on_the_circle(name):
    ssm = draw(name)
    poles = np.array(ssm.poles)
    poles[..., 0], poles[..., 2] = 0.0, np.exp(0.4j)
    ssm, u = replace(ssm, poles=poles), inputs()
    layer = torch_layer(ssm)
    close(layer(torch.from_numpy(u)), reference(ssm, u), 1e-10)
    assert np.abs(layer.system().poles).max() < 1


@pytest.mark.parametrize("batch", [(), (2,)])
def test_poles_outside_of_the_unit_circle(batch):
    rng, poles = np.random.default_rng(0), np.array([1.0015 * np.exp(0.3j), -1.01, 1.002, 0.9])
    rows = rng.standard_normal((*batch, 4, 1)), rng.standard_normal((*batch, 1, 4))
    ssm = lqo.DiagonalLQOSystem(np.broadcast_to(poles, (*batch, 4)), *rows, dt=1.0)
    layer, u = torch_layer(ssm), rng.standard_normal((1, 200, 2 if batch else 1))
    channels = [ssm[k] for k in range(2)] if batch else [ssm]
    wanted = np.stack([lqo.simulate(one, u[0, :, k : k + 1], delay=0)[:, 0] for k, one in enumerate(channels)], axis=-1)
    np.testing.assert_allclose(layer(torch.from_numpy(u)).detach().numpy()[0], wanted, rtol=1e-9, atol=1e-9)
    state, seen = layer.initial_state(1), []
    for sample in torch.from_numpy(u[0, :5]):
        y, state = layer.step(sample[np.newaxis], state)
        seen.append(y.detach().numpy()[0])
    np.testing.assert_allclose(seen, wanted[:5], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.system().poles, ssm.poles, rtol=1e-12)
    layer(torch.from_numpy(u)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_a_pair_on_the_real_axis_stays_a_pair():
    layer = torch_layer(draw("one system"))
    with torch.no_grad():
        layer.theta[2] = 0.0
        layer.theta[3] = np.pi
    u = inputs()
    close(layer(torch.from_numpy(u)), reference(layer.system(), u), 1e-9)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_layer_keeps_its_precision_and_device(name):
    u = torch.from_numpy(inputs(6, np.float32))
    torch.set_default_dtype(torch.float64)  # of other code in the process
    try:
        layer = torch_layer(draw(name)).float()
        y, state = layer.step(u[:, 0], layer.initial_state(2))
        assert (layer(u).dtype, y.dtype, state.dtype) == (torch.float32, torch.float32, torch.complex64)
    finally:
        torch.set_default_dtype(torch.float32)
    elsewhere = layer.to("meta")  # an operation that mixes devices raises, as on a GPU
    assert elsewhere(u.to("meta")).device.type == "meta"
    assert elsewhere.step(u[:, 0].to("meta"), elsewhere.initial_state(2))[0].device.type == "meta"


def test_long_sequences_in_single_precision():
    ssm = replace(draw("channels"), poles=np.where(draw("channels").is_real_pole, 0.999, 0.9999 * np.exp(2.9j)))
    u = inputs(4000)
    close(torch_layer(ssm).float()(torch.from_numpy(u).float()), reference(ssm, u), 2e-3)  # the angle 2.9 in single precision


def test_what_a_layer_refuses():
    ssm = draw("one system")
    with pytest.raises(InvalidInputError, match="continuous"):
        torch_layer(replace(ssm, dt=0.0))
    with pytest.raises(InvalidInputError, match="even number"):
        torch_layer(ssm, 1)
    with pytest.raises(InvalidInputError, match="None, 0 or 1"):
        torch_layer(ssm, 2)
    with pytest.raises(DimensionError, match="one axis and one input"):
        torch_layer(random_system(np.random.default_rng(0), (2, 2), 3, 1, 1, 0))
    layer = torch_layer(ssm)
    with pytest.raises(DimensionError, match=r"expected \(batch, steps, 3\)"):
        layer(torch.zeros(2, 3))
    with pytest.raises(DimensionError, match=r"expected \(batch, 3\) and \(batch, 5\)"):
        layer.step(torch.zeros(2, 3), torch.zeros(3, 5))


def test_inputs_of_another_precision_or_length_zero():
    for name in ("channels", "one system"):
        layer = torch_layer(draw(name))
        for u in (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3, dtype=torch.int64)):
            with pytest.raises(InvalidInputError, match=r"float64; convert u, or the module by \.float"):
                layer(u)
            with pytest.raises(InvalidInputError, match="convert u"):
                layer.step(u[:, 0], layer.initial_state(1))
        for shape in ((1, 0, 3), (0, 4, 3)):
            with pytest.raises(DimensionError, match="at least one sequence and step"):
                layer(torch.zeros(shape).double())
        close(layer(torch.ones(1, 1, 3).double()), steps_of(layer, torch.ones(1, 1, 3).double()), 1e-14)
    model, u = model_and_inputs({})
    with pytest.raises(InvalidInputError, match="convert u"):
        torch_model(model)(torch.from_numpy(u).float())
    with pytest.raises(DimensionError, match="expected"):
        torch_model(model)(torch.from_numpy(u[:, :0]))


def test_things_of_another_kind_are_named():
    for call, message in (
        (lambda: torch_layer(lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=1.0)), "to_diagonal converts"),
        (lambda: torch_model(draw("channels")), "expected a DeepSSM"),
        (lambda: update_model(model_and_inputs({})[0], torch.nn.Identity()), "expected an SSMModel"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            call()


MODELS = [
    {},
    {"prenorm": True, "pooling": None, "activation": "gelu_tanh", "rank": 2},
    {"mimo": True, "rank": 3, "pooling": "last", "activation": "relu", "gate": None},
    {"mimo": True, "prenorm": True, "activation": "identity", "tokens": 7},
]


def model_and_inputs(changes, dtype=np.float64):
    rng = np.random.default_rng(3)
    model = random_model(rng, **changes)
    u = rng.integers(0, 7, (2, 25)) if "tokens" in changes else rng.normal(size=(2, 25, 2)).astype(dtype)
    return model, u


@pytest.mark.parametrize("changes", MODELS)
def test_models_give_the_outputs_of_the_loops(changes):
    model, u = model_and_inputs(changes)
    module, expected = torch_model(model), np.array([naive_forward(model, sequence) for sequence in u])
    close(module(torch.from_numpy(u)), expected, 1e-10)
    outputs = steps_of(module, torch.from_numpy(u))
    if model.pooling is None:
        close(outputs, expected, 1e-10)
    else:
        for k in (1, 10, 25):  # a step gives the output of the sequence so far
            close(outputs[:, k - 1], np.array([naive_forward(model, sequence[:k]) for sequence in u]), 1e-10)


def test_batch_norm_backward_layers_and_blocks_without_parts():
    rng = np.random.default_rng(5)
    norms = [BatchNorm(rng.uniform(0.5, 1.5, 3), rng.normal(size=3)) for _ in range(3)]
    first = Block("a", random_system(rng, (3,), 4, 1, 2, 0), None, norms[0], True, "relu", backward=1)
    second = Block("b", random_system(rng, (), 4, 3, 3, 0), Linear(rng.normal(size=(3, 3))), norms[1], residual=False)
    model = DeepSSM(Linear(rng.normal(size=(3, 2))), (first, second), Linear(rng.normal(size=(4, 3))), norms[2], None)
    module, u = torch_model(model), rng.normal(size=(2, 20, 2))
    close(module(torch.from_numpy(u)), model(u), 1e-12)
    with pytest.raises(InvalidInputError, match="backward in time"):
        module.step(torch.from_numpy(u[:, 0]), module.initial_state(2))
    again = update_model(model, module)
    assert again.norm is model.norm and again.encoder is model.encoder
    assert all(a.ssm is b.ssm and a.mixing is b.mixing for a, b in zip(again.blocks, model.blocks, strict=True))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.01
    close(update_model(model, module)(u), module(torch.from_numpy(u)).detach().numpy(), 1e-11)


@pytest.mark.parametrize("changes", MODELS)
def test_every_parameter_trains(changes):
    model, u = model_and_inputs(changes)
    module = torch_model(model).float()
    u = torch.from_numpy(u if "tokens" in changes else u.astype(np.float32))
    module(u).square().sum().backward()
    assert all(p.requires_grad and p.grad is not None and torch.any(p.grad != 0) for p in module.parameters())


def test_models_of_systems_only_are_refused():
    model = DeepSSM(None, (Block("layer", draw("one system"), residual=False),), None)
    with pytest.raises(InvalidInputError, match="torch_layer"):
        torch_model(model)


def test_wrong_inputs_and_modules():
    model, u = model_and_inputs({})
    module = torch_model(model)
    with pytest.raises(DimensionError, match="2 features"):
        module(torch.zeros(2, 25, 3).double())
    tokens, _ = model_and_inputs({"tokens": 7})
    with pytest.raises(DimensionError, match="of tokens"):
        torch_model(tokens)(torch.from_numpy(u))
    other, _ = model_and_inputs({"slots": 5})
    with pytest.raises(InvalidInputError, match=r"blocks\.0\.ssm"):
        update_model(other, module)


def fine_tune(module, u, steps=2):
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-2)
    target = torch.zeros(())
    for _ in range(steps):
        optimiser.zero_grad()
        (module(u) - target).square().mean().backward()
        optimiser.step()
    return module


def s4d_module(state):
    """The class of the S4D example, with what a stored state says."""
    from tests.s4d_example import S4DModel

    width, slots, _ = state["s4_layers.0.kernel.C"].shape
    features, outputs = state["encoder.weight"].shape[1], len(state["decoder.bias"])
    original = S4DModel(features, outputs, width, 2, d_state=2 * slots)
    original.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=True)
    return original


def test_fine_tuned_s4d_model_loads_in_its_class(tmp_path):
    write_file(tmp_path / "model.npz", s4d_state(), None, {})
    model = lqo.compress(lqo.load_checkpoint(tmp_path / "model.npz"), state_size=4, method="balanced").model
    u = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 30, 2)).astype(np.float32))
    module = fine_tune(torch_model(model).float(), u)
    tuned = update_model(model, module)
    tuned.save(tmp_path / "small.npz")
    original = s4d_module(read_file(tmp_path / "small.npz").tree)
    with torch.no_grad():
        close(original(u), module(u), 2e-5)
        assert (module(u) - torch.from_numpy(model(u.numpy()))).abs().max() > 1e-3  # it was trained
    close(lqo.load_checkpoint(tmp_path / "small.npz")(u.numpy()), module(u).detach().numpy(), 2e-5)


def test_an_untrained_module_changes_nothing(tmp_path):
    write_file(tmp_path / "model.npz", s4d_state(), None, {})
    model = lqo.load_checkpoint(tmp_path / "model.npz")
    same = update_model(model, torch_model(model).float())
    assert all(a.ssm is b.ssm and a.norm is b.norm for a, b in zip(same.blocks, model.blocks, strict=True))
    same.save(tmp_path / "same.npz")
    assert all(np.array_equal(value, s4d_state()[key]) for key, value in read_file(tmp_path / "same.npz").tree.items())


def test_fine_tuned_lqo_model_loads_in_its_class(tmp_path):
    torch.manual_seed(0)
    LQODeepSSM(n_features=2, n_outputs=3, width=4, n_layers=2, n_slots=5, quadratic_rank=2).save(tmp_path / "model.npz")
    model = lqo.compress(lqo.load_checkpoint(tmp_path / "model.npz"), state_size=6, method="balanced").model
    u = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 30, 2)).astype(np.float32))
    module = fine_tune(torch_model(model).float(), u)
    update_model(model, module).save(tmp_path / "small.npz")
    again = LQODeepSSM.load(tmp_path / "small.npz").eval()
    with torch.no_grad():
        close(again(u), module(u), 2e-5)


def test_layers_in_another_model_store_what_they_can(tmp_path):
    """A format of layers takes trained systems; where other parts were trained too, it says so instead of dropping them."""
    state = {key: value for key, value in s4d_state().items() if ".kernel." in key or key.endswith(".D")}
    write_file(tmp_path / "model.npz", {f"net.{key}": value for key, value in state.items()}, None, {})
    systems = lqo.load_checkpoint(tmp_path / "model.npz")
    rng = np.random.default_rng(0)
    ends = Linear(rng.normal(size=(3, 2))), Linear(rng.normal(size=(1, 3)))
    blocks = tuple(replace(block, activation="gelu") for block in systems.blocks)
    whole = replace(systems, encoder=ends[0], decoder=ends[1], blocks=blocks)
    u = torch.from_numpy(rng.normal(size=(2, 30, 2)))
    module = torch_model(whole)
    tuned = update_model(whole, fine_tune(module, u))
    with pytest.raises(CheckpointError, match="encoder, decoder changed"):
        tuned.save(tmp_path / "bad.npz")
    stored = replace(tuned, encoder=None, decoder=None)
    stored.save(tmp_path / "small.npz")
    again = lqo.load_checkpoint(tmp_path / "small.npz")
    close(again.blocks[0].ssm.C, tuned.blocks[0].ssm.C, 1e-5)
