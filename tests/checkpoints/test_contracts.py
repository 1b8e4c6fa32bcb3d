"""What a family and a structure promise: a new family is one record, and whatever is known around layers is written back."""

from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints import load, source
from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.errors import CheckpointError
from lqo_mor.network.layers import BatchNorm, LayerNorm, Linear
from tests.checkpoints.s4d_states import s4d_state


def toy_read(layer, tensors, settings):
    poles = np.exp(-np.exp(tensors["rate"].astype(float)))
    ones = np.ones((*poles.shape, 1))
    return Layer(lqo.DiagonalLQOSystem(poles, ones, settings.number("gain", 2.0) * np.swapaxes(ones, 1, 2), dt=1.0))


def toy_write(layer, ssm, tensors, settings):
    if not np.all(ssm.is_real_pole):
        raise CheckpointError(f"{layer} has complex poles")
    return {"rate": np.log(-np.log(ssm.poles.real))}


TOY = Family("toy", "toy layers (rate)", markers=("rate",), names=("rate",), read=toy_read, write=toy_write)


def test_a_family_is_one_record(tmp_path, monkeypatch):
    for module in (load, source):
        monkeypatch.setattr(module, "FAMILIES", (*FAMILIES, TOY))
    state = {"net.1.rate": np.full((3, 2), -1.0, np.float32), "net.head": np.ones(4, np.float32)}
    np.savez(tmp_path / "a.npz", **state)
    model = lqo.load_checkpoint(tmp_path / "a.npz", settings={"gain": 3.0})
    assert (model.source.format, model.blocks[0].name, model.n_parameters) == ("toy", "net.1", 10)
    blocks = [replace(block, ssm=replace(block.ssm, poles=block.ssm.poles**2)) for block in model.blocks]
    replace(model, blocks=blocks).save(tmp_path / "b.npz")
    again = lqo.load_checkpoint(tmp_path / "b.npz")
    assert (again.source.settings, again.source.assumed) == ({"gain": 3.0}, {})
    np.testing.assert_allclose(again.blocks[0].ssm.poles, model.blocks[0].ssm.poles ** 2, rtol=1e-6)
    with np.load(tmp_path / "b.npz") as file:
        assert np.array_equal(file["net.head"], state["net.head"])


def example_layers(rng):
    """The S4D example with an encoder without bias, which the format "s4d" has not."""
    return {key: value for key, value in s4d_state(dtype=np.float64).items() if key != "encoder.bias"}


def framework(rng):
    names = {"encoder": "encoder.0", "decoder": "decoder.0.output_transform"}
    state = {}
    for key, value in s4d_state(dtype=np.float64).items():
        module, _, name = key.partition(".")
        if module == "s4_layers":
            state[f"model.layers.{name[0]}.layer.{name[2:]}"] = value
        elif module == "norms":
            state[f"model.layers.{name[0]}.norm.norm.{name[2:]}"] = value
        else:
            state[f"{names[module]}.{name}"] = value
    return state | {"model.norm.norm.weight": rng.normal(size=3), "model.norm.norm.bias": rng.normal(size=3)}


def lru(prefix, rng):
    sizes = {"nu_log": (5,), "theta_log": (5,), "gamma_log": (5,), "B_re": (5, 4), "B_im": (5, 4), "C_re": (4, 5), "C_im": (4, 5)}
    return {f"{prefix}.{name}": rng.uniform(-1, 0, shape) for name, shape in sizes.items()} | {f"{prefix}.D": rng.normal(size=4)}


def flax(rng):
    state = {}
    for name, shape in {"encoder.encoder": (2, 4), "decoder": (4, 3)}.items():
        state |= {f"{name}.kernel": rng.normal(size=shape), f"{name}.bias": rng.normal(size=shape[1])}
    for i in range(2):
        layer = f"encoder.layers_{i}"
        state |= lru(f"{layer}.seq", rng)
        state |= {f"{layer}.norm.scale": rng.normal(size=4), f"{layer}.norm.bias": rng.normal(size=4)}
        for name in ("out1", "out2"):
            state |= {f"{layer}.{name}.kernel": rng.normal(size=(4, 4)), f"{layer}.{name}.bias": rng.normal(size=4)}
    return state


def deep_lru(rng):
    shapes = {"encoder": (4, 2), "decoder": (3, 4)}
    shapes |= {f"blocks.{i}.ff.output_linear.0": (8, 4) for i in range(2)} | {f"blocks.{i}.ln": (4,) for i in range(2)}
    state = {f"{name}.weight": rng.normal(size=shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": rng.normal(size=shape[0]) for name, shape in shapes.items()}
    for i in range(2):
        state |= lru(f"blocks.{i}.lru", rng)
    return state


def changed(part):
    if part is None:
        return None
    return replace(part, **{name: 1.5 * value for name, value in vars(part).items() if isinstance(value, np.ndarray)})


def all_changed(model):
    blocks = tuple(replace(block, mixing=changed(block.mixing), norm=changed(block.norm)) for block in model.blocks)
    return replace(model, blocks=blocks, **{name: changed(getattr(model, name)) for name in ("encoder", "norm", "decoder")})


@pytest.mark.parametrize("make", [example_layers, framework, flax, deep_lru])
@pytest.mark.parametrize("format", [None, "native"])
def test_every_known_part_is_written_back(tmp_path, make, format):
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "a.npz", **make(rng))
    model, u = lqo.load_checkpoint(tmp_path / "a.npz"), rng.normal(size=(2, 20, 2))
    assert model.runs
    model = all_changed(model)
    model.save(tmp_path / "b.npz", format=format)
    again = lqo.load_checkpoint(tmp_path / "b.npz")
    np.testing.assert_allclose(again(u), model(u), rtol=1e-9, atol=1e-11)
    for a, b in zip(model.blocks, again.blocks, strict=True):
        assert a.norm is None or np.array_equal(a.norm.bias, b.norm.bias)


def test_what_no_file_can_hold_is_refused(tmp_path):
    rng = np.random.default_rng(1)
    state = framework(rng)
    for i in range(2):
        norm = f"model.layers.{i}.norm.norm"
        state |= {f"{norm}.running_mean": rng.normal(size=3), f"{norm}.running_var": rng.uniform(1, 2, 3)}
        state[f"{norm}.num_batches_tracked"] = np.array(7)
    np.savez(tmp_path / "a.npz", **state)
    model = lqo.load_checkpoint(tmp_path / "a.npz")
    assert isinstance(model.blocks[0].norm, BatchNorm)
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.layer: norm.* changed, but .* no changed batch normalisation"):
        all_changed(model).save(tmp_path / "b.npz")
    for other in (
        replace(model, pooling=None),
        replace(model, norm=None),
        replace(model, decoder=Linear(np.ones((4, 3)), np.ones(4))),
        replace(model, blocks=(replace(model.blocks[0], activation="relu"), model.blocks[1])),
        replace(model, blocks=(replace(model.blocks[0], norm=LayerNorm(np.ones(3), np.ones(3))), model.blocks[1])),
    ):
        with pytest.raises(CheckpointError, match="structure of the model was changed"):
            other.save(tmp_path / "b.npz")
    model.save(tmp_path / "b.npz")
