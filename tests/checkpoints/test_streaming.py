"""Safetensors files compressed layer by layer."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

import lqo_mor as lqo
from lqo_mor.checkpoints.streaming import compress_file
from lqo_mor.errors import CheckpointError, InvalidInputError, OrderError, OutputError


def layer(rng, width=3, slots=4):
    return {
        "D": rng.normal(size=width),
        "kernel.C": rng.normal(size=(width, slots, 2)),
        "kernel.log_dt": rng.normal(size=width) * 0.3 - 2,
        "kernel.log_A_real": rng.normal(size=(width, slots)) * 0.2 - 0.7,
        "kernel.A_imag": rng.normal(size=(width, slots)) * 3,
    }


def tensors(rng, n_layers=3, **sizes):
    state = {f"net.{i}.ssm.{name}": value for i in range(n_layers) for name, value in layer(rng, **sizes).items()}
    state = {key: value.astype(np.float32) for key, value in state.items()}
    return state | {
        "net.tokens.weight": rng.normal(size=(50, 3)).astype(np.float16),
        "net.step": np.array(7),
        "net.flag": np.array(True),
    }


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(tensors(np.random.default_rng(0)), path, {"made": "by hand"})
    return path


def test_the_same_file_as_in_memory(checkpoint, tmp_path):
    calls = []
    report = compress_file(checkpoint, tmp_path / "small.safetensors", state_size=4, progress=lambda *count: calls.append(count))
    result = lqo.compress(lqo.load_checkpoint(checkpoint), state_size=4)
    result.model.save(tmp_path / "expected.safetensors")
    small, expected = (safetensors.numpy.load_file(tmp_path / f"{name}.safetensors") for name in ("small", "expected"))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert small.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(small[key], value.astype(small[key].dtype), err_msg=key)
    assert small["net.tokens.weight"].dtype == np.float16  # copied as it is
    with safe_open(tmp_path / "small.safetensors", "numpy") as file:
        assert file.metadata() == {"made": "by hand"}
    for ours, theirs in zip(report.layers, result.report.layers, strict=True):
        assert (ours.parameters_before, ours.parameters_after) == (theirs.parameters_before, theirs.parameters_after)
        np.testing.assert_array_equal(ours.relative_error, theirs.relative_error)
    assert (report.parameters_before, report.parameters_after) == (
        result.report.parameters_before,
        result.report.parameters_after,
    )


def shared_poles(rng, slots, low_rank=False):
    """An S4 layer of version 4 whose three heads share their poles."""
    shapes = {"layer.D": (1, 3), "layer.kernel.C": (1, 3, slots, 2), "layer.kernel.B": (1, 1, slots, 2)}
    shapes |= {"layer.kernel.A_real": (1, slots), "layer.kernel.A_imag": (1, slots), "layer.kernel.inv_dt": (3, 1)}
    shapes |= {"layer.kernel.P": (1, 1, slots, 2)} if low_rank else {}
    state = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    state["layer.kernel.A_imag"] *= 0.1 if low_rank else 3  # near the real axis the low-rank term makes real poles
    return state | ({"layer.kernel.l_kernel": np.array(0)} if low_rank else {})


@pytest.mark.parametrize("options", [{"state_size": 8}, {"keep": 0.5}])
@pytest.mark.parametrize(("sizes", "low_rank"), [((8, 3, 8), False), ((4, 4, 6, 4), True)])
def test_layers_of_different_sizes_get_one_as_in_memory(tmp_path, sizes, low_rank, options):
    rng, settings = np.random.default_rng(2), {"dt_transform": "softplus", "dt_fast": False, "real_transform": "exp"}
    settings |= {"imag_transform": "none", "bandlimit": None, "l_max": None} | ({} if low_rank else {"disc": "zoh"})
    state = {f"net.{i}.{name}": value for i, n in enumerate(sizes) for name, value in shared_poles(rng, n, low_rank).items()}
    state = {key: value.astype(np.float32) if value.dtype.kind == "f" else value for key, value in state.items()}
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    options = options | {"method": "balanced", "horizon": 64}
    report = compress_file(tmp_path / "a.safetensors", tmp_path / "small.safetensors", settings=settings, **options)
    result = lqo.compress(lqo.load_checkpoint(tmp_path / "a.safetensors", settings=settings), **options)
    result.model.save(tmp_path / "expected.safetensors")
    small, expected = (safetensors.numpy.load_file(tmp_path / f"{name}.safetensors") for name in ("small", "expected"))
    assert small.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(small[key], value, err_msg=key)
    assert {small[f"net.{i}.layer.kernel.A_real"].shape for i in range(len(sizes))} == {small["net.0.layer.kernel.A_real"].shape}
    assert report.parameters_after == result.report.parameters_after
    assert (tmp_path / "small.safetensors.json").read_text() == (tmp_path / "expected.safetensors.json").read_text()


def test_settings_of_the_model_around_the_layers_are_passed_on(tmp_path):
    rng, width = np.random.default_rng(4), 3
    state = {f"s4_layers.{i}.{name}": value for i in range(2) for name, value in layer(rng).items()}
    for i in range(2):
        state |= {f"s4_layers.{i}.output_linear.0.weight": rng.normal(size=(2 * width, width, 1))}
        state |= {f"s4_layers.{i}.output_linear.0.bias": rng.normal(size=2 * width)}
        state |= {f"norms.{i}.weight": np.ones(width), f"norms.{i}.bias": np.zeros(width)}
    state |= {"encoder.weight": rng.normal(size=(width, 1)), "encoder.bias": np.zeros(width)}
    state |= {"decoder.weight": rng.normal(size=(2, width)), "decoder.bias": np.zeros(2)}
    safetensors.numpy.save_file({key: value.astype(np.float32) for key, value in state.items()}, tmp_path / "a.safetensors")
    model = lqo.load_checkpoint(tmp_path / "a.safetensors", settings={"prenorm": True})
    model.save(tmp_path / "b.safetensors")
    compress_file(tmp_path / "b.safetensors", tmp_path / "small.safetensors", state_size=4)
    small = lqo.load_checkpoint(tmp_path / "small.safetensors")
    assert small.source.assumed == {}
    u = rng.normal(size=(2, 20, 1))
    np.testing.assert_allclose(small(u), lqo.compress(model, state_size=4).model(u), atol=1e-5)


def test_keys_of_other_styles_come_back(tmp_path):
    state = {"params/" + key.replace(".ssm.", "/ssm/"): value for key, value in tensors(np.random.default_rng(3)).items()}
    state = {key.replace("kernel.", "kernel/"): value for key, value in state.items()}
    safetensors.numpy.save_file(state, tmp_path / "tree.safetensors")
    compress_file(tmp_path / "tree.safetensors", tmp_path / "small.safetensors", state_size=4)
    small = safetensors.numpy.load_file(tmp_path / "small.safetensors")
    assert small.keys() == state.keys()
    assert {key: value.shape[1] for key, value in small.items() if key.endswith("kernel/C")} == {
        f"params/net.{i}/ssm/kernel/C": 2 for i in range(3)
    }


def test_small_layers_stay_and_all_small_is_an_error(tmp_path):
    rng = np.random.default_rng(1)
    state = {f"a.{name}": value for name, value in layer(rng, slots=2).items()}
    state |= {f"b.{name}": value for name, value in layer(rng, slots=6).items()}
    safetensors.numpy.save_file(state, tmp_path / "mixed.safetensors")
    report = compress_file(tmp_path / "mixed.safetensors", tmp_path / "small.safetensors", state_size=4)
    assert [(one.states_before, one.states_after) for one in report.layers] == [(4, 4), (12, 4)]
    small = safetensors.numpy.load_file(tmp_path / "small.safetensors")
    np.testing.assert_array_equal(small["a.kernel.C"], state["a.kernel.C"])
    assert small["b.kernel.C"].shape == (3, 2, 2)
    with pytest.raises(OrderError, match="nothing to reduce"):
        compress_file(tmp_path / "mixed.safetensors", tmp_path / "other.safetensors", state_size=12)
    assert not (tmp_path / "other.safetensors").exists()


def test_bad_input_leaves_nothing(checkpoint, tmp_path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(OrderError, match="even"):
        compress_file(checkpoint, out, state_size=3)
    with pytest.raises(InvalidInputError, match="no setting"):
        compress_file(checkpoint, out, state_size=4, settings={"colour": "red"})
    with pytest.raises(InvalidInputError, match="format 'mamba'"):
        compress_file(checkpoint, out, state_size=4, format="mamba")
    with pytest.raises(OutputError, match="read"):
        compress_file(checkpoint, checkpoint, state_size=4, overwrite=True)
    with pytest.raises(OutputError, match=r"\.safetensors"):
        compress_file(checkpoint, tmp_path / "out.npz", state_size=4)
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(CheckpointError, match="damaged"):
        compress_file(tmp_path / "text.safetensors", out, state_size=4)
    broken = checkpoint.read_bytes()[:-5]
    (tmp_path / "short.safetensors").write_bytes(broken)
    with pytest.raises(CheckpointError, match="damaged"):
        compress_file(tmp_path / "short.safetensors", out, state_size=4)
    safetensors.numpy.save_file({"weight": np.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no layers recognised"):
        compress_file(tmp_path / "other.safetensors", out, state_size=4)
    state = tensors(np.random.default_rng(0))
    state["net.1.ssm.kernel.C"][0, 0, 0] = np.nan
    safetensors.numpy.save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match=r"nan.safetensors.*kernel.C has 1 entries"):
        compress_file(tmp_path / "nan.safetensors", out, state_size=4)
    assert not out.exists() and not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("room", [100, 2000])  # too little for the layers that are put aside, and for the file
def test_no_room_on_the_disk_leaves_nothing(room, checkpoint, tmp_path):
    resource = pytest.importorskip("resource")
    before, limits = set(tmp_path.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"small\.safetensors cannot be written: File too large"):
            compress_file(checkpoint, tmp_path / "small.safetensors", state_size=4, method="modal")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(tmp_path.iterdir()) == before


MEASURE = """
import json, resource, sys
from lqo_mor.checkpoints.streaming import compress_file
import lqo_mor as lqo
path, out = sys.argv[1:3]
lqo.reduce(lqo.examples.s4d(n_slots=8, channels=4), slots=2, method="modal")  # libraries and kernels are loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
compress_file(path, out, state_size=4, method="modal")
print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    rng = np.random.default_rng(2)
    state = tensors(rng, n_layers=2, width=16, slots=8)
    state |= {f"net.big.{i}": rng.normal(size=2**22).astype(np.float32) for i in range(16)}  # 256 MiB beside the layers
    safetensors.numpy.save_file(state, tmp_path / "big.safetensors")
    del state
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "big.safetensors"), str(tmp_path / "small.safetensors")]
    before, after = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert after - before < 128 * 1024  # KiB; a piece that is copied, and one layer
    assert (tmp_path / "small.safetensors").stat().st_size > 2**28
