"""The LQO format: the training module and the model in NumPy are the same map."""

import json

import numpy as np
import pytest

from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError, DimensionError, InvalidInputError, OutputError
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.s4d_states import with_systems

torch = pytest.importorskip("torch")
from lqo_mor.torch import LQODeepSSM, random_system, torch_layer  # noqa: E402 (needs torch)


def module(**changes):
    torch.manual_seed(1)
    sizes = {"n_features": 2, "n_outputs": 3, "width": 4, "n_layers": 2, "n_slots": 5, "quadratic_rank": 2} | changes
    return LQODeepSSM(**sizes).eval()


def outputs(model, u):
    with torch.no_grad():
        return model(torch.from_numpy(u)).numpy()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prenorm": False, "pooling": None, "activation": "gelu_tanh"},
        {"quadratic_rank": 0, "gate": None, "activation": "relu"},
        {"n_features": None, "vocabulary": 9, "pooling": "last", "activation": "identity"},
        {"n_slots": [3, 6], "quadratic_rank": [0, 2], "dropout": 0.3},
    ],
)
def test_numpy_gives_the_outputs_of_the_module(tmp_path, suffix, changes):
    trained = module(**changes).double()
    rng = np.random.default_rng(0)
    u = rng.integers(0, 9, (3, 40)) if "vocabulary" in changes else rng.normal(size=(3, 40, 2))
    trained.save(tmp_path / f"m{suffix}")
    model = load_checkpoint(tmp_path / f"m{suffix}")
    np.testing.assert_allclose(model(u), outputs(trained, u), rtol=1e-9, atol=1e-10)
    assert model.n_parameters == sum(p.numel() for p in trained.parameters())
    again = LQODeepSSM.load(tmp_path / f"m{suffix}").eval()
    assert again.config == trained.config
    np.testing.assert_array_equal(outputs(again, u), outputs(trained, u))


def test_single_precision_over_a_long_sequence(tmp_path):
    trained = module(n_slots=30)
    trained.save(tmp_path / "m.safetensors")
    u = np.random.default_rng(0).normal(size=(2, 3000, 2)).astype(np.float32)
    expected = outputs(trained, u)
    np.testing.assert_allclose(load_checkpoint(tmp_path / "m.safetensors")(u), expected, atol=2e-5 * np.abs(expected).max())


def test_outputs_start_with_variance_of_order_one():
    torch.manual_seed(0)
    layer = torch_layer(random_system(8, 64, 4)).float()
    layer.D.data.zero_()
    u = torch.randn(4, 4000, 8)
    with torch.no_grad():
        both = layer(u)
        layer.W.data.zero_()
        linear = layer(u)
    assert 0.3 < linear.var() < 3
    assert 0.3 < (both - linear).var() < 6


def test_gradients_reach_every_parameter():
    trained = module().train()
    trained(torch.randn(2, 16, 2)).square().sum().backward()
    assert all(p.grad is not None and torch.any(p.grad != 0) for p in trained.parameters())


def small_systems(model):
    """Smaller layers with a positive, a negative and a zero real pole, and a pair; ranks as before."""
    systems = []
    for seed, block in enumerate(model.blocks):
        rng = np.random.default_rng(seed)
        poles = np.array([0.9, -0.7, 0.0, 0.8 * np.exp(1.2j)])[: 4 - seed]
        real = poles.imag == 0

        def rows(k, rng=rng, real=real):
            array = rng.normal(size=(k, real.size)) + 1j * rng.normal(size=(k, real.size))
            return np.where(real, array.real, array)

        quadratic = QuadraticOutput(rows(2), rows(2), block.ssm.M.W)
        systems.append(DiagonalLQOSystem(poles, rows(4).T, rows(4), block.ssm.D, quadratic, dt=1.0))
    return systems


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_reduced_model_loads_in_the_module(tmp_path, suffix):
    module().save(tmp_path / f"m{suffix}")
    model = load_checkpoint(tmp_path / f"m{suffix}")
    small = with_systems(model, *small_systems(model))
    small.save(tmp_path / f"s{suffix}")
    again = LQODeepSSM.load(tmp_path / f"s{suffix}").eval()
    assert again.config["n_slots"] == [4, 3]
    assert sum(p.numel() for p in again.parameters()) == small.n_parameters
    u = np.random.default_rng(0).normal(size=(2, 30, 2)).astype(np.float32)
    expected = small(u)
    np.testing.assert_allclose(outputs(again, u), expected, atol=2e-5 * np.abs(expected).max())
    back = load_checkpoint(tmp_path / f"s{suffix}")
    np.testing.assert_allclose(back(u), expected, atol=2e-5 * np.abs(expected).max())
    assert [int(block.ssm.is_real_pole.sum()) for block in back.blocks] == [3, 3]


def test_unchanged_model_is_written_bit_by_bit(tmp_path):
    module().save(tmp_path / "m.npz")
    load_checkpoint(tmp_path / "m.npz").save(tmp_path / "again.npz")
    a, b = read_file(tmp_path / "m.npz"), read_file(tmp_path / "again.npz")
    assert a.extras == b.extras
    assert a.tree.keys() == b.tree.keys()
    assert all(np.array_equal(a.tree[key], b.tree[key]) for key in a.tree)


def test_complex_rows_at_a_real_pole_are_two_states(tmp_path):
    trained = module().double()
    with torch.no_grad():
        trained.blocks[0].ssm.theta[:2] = torch.tensor([0.0, float(np.float32(np.pi))])
        trained.blocks[0].ssm.nu_log[2] = 30.0  # the pole underflows to zero
    trained.save(tmp_path / "m.npz")
    u = np.random.default_rng(0).normal(size=(2, 30, 2))
    np.testing.assert_allclose(load_checkpoint(tmp_path / "m.npz")(u), outputs(trained, u), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 5}, "expected (5"),
        ({"width": "4"}, "width = '4'"),
        ({"n_layers": 3}, "3 layers, found 2"),
        ({"n_layers": 10**12}, "n_layers"),
        ({"n_slots": [5]}, "1 entries for 2 layers"),
        ({"vocabulary": 3}, "either"),
        ({"gate": "swish"}, "gate = 'swish'"),
        ({"pooling": ["mean"]}, "pooling"),
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "lqo-deep-ssm"),
    ],
)
def test_wrong_configurations_are_refused(tmp_path, change, words):
    module().save(tmp_path / "m.npz")
    content = read_file(tmp_path / "m.npz")
    write_file(tmp_path / "bad.npz", content.tree, None, {"config": content.extras["config"] | change})
    for load in (load_checkpoint, LQODeepSSM.load):
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path / "bad.npz")
        assert words in str(caught.value)


def test_the_configuration_is_readable_by_others(tmp_path):
    import safetensors

    module().save(tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["config"])["width"] == 4


@pytest.mark.parametrize("feedthrough", [True, False])
def test_what_the_format_cannot_store_is_refused(tmp_path, feedthrough):
    module().save(tmp_path / "m.npz")
    model = load_checkpoint(tmp_path / "m.npz")
    D = np.ones((4, 4)) if feedthrough else np.eye(4)
    poles = [0.5 if feedthrough else 1.1]
    bad = DiagonalLQOSystem(poles, np.ones((1, 4)), np.ones((4, 1)), D, dt=1.0)
    with pytest.raises(CheckpointError, match="feedthrough" if feedthrough else "stable"):
        with_systems(model, bad, bad).save(tmp_path / "x.npz")


def test_user_errors():
    with pytest.raises(InvalidInputError, match="either n_features or vocabulary"):
        module(vocabulary=3)
    with pytest.raises(InvalidInputError, match="width = 0"):
        module(width=0)
    with pytest.raises(DimensionError, match="expected"):
        module()(torch.zeros(2, 3))


def test_prenorm_of_the_file_holds(tmp_path):
    module().save(tmp_path / "m.npz")
    assert load_checkpoint(tmp_path / "m.npz", settings={"prenorm": True}).blocks[0].prenorm
    with pytest.raises(CheckpointError, match="prenorm"):
        load_checkpoint(tmp_path / "m.npz", settings={"prenorm": False})
    with pytest.raises(OutputError):
        module().save(tmp_path / "m.npz")


@pytest.mark.parametrize("value", [torch.ones(2), np.ones(3), [torch.ones(2)], 10**400, b"x", 1.5])
@pytest.mark.parametrize(
    "field", ["format", "version", "activation", "gate", "pooling", "n_slots", "n_layers", "dropout", "prenorm"]
)
def test_a_field_of_another_type_is_refused(tmp_path, field, value):
    trained = module()
    torch.save({"model": trained.state_dict(), "config": trained.config | {field: value}}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth") as caught:
        load_checkpoint(tmp_path / "bad.pth")
    assert "understood" not in str(caught.value)  # a check of ours, not the safety net


def test_a_pole_on_the_unit_circle_is_pulled_inside(tmp_path):
    trained = module().double()
    with torch.no_grad():
        trained.blocks[0].ssm.nu_log[0] = -60.0
    trained.save(tmp_path / "m.npz")
    assert np.abs(load_checkpoint(tmp_path / "m.npz").blocks[0].ssm.poles).max() == pytest.approx(1 - 1e-12, abs=2e-16)
