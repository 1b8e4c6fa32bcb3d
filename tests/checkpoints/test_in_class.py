"""Reductions that the class of a checkpoint can hold, where that is not any system; and other formats on the command line."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.cli.main import main
from lqo_mor.errors import CheckpointError, InvalidInputError


def linoss(path, rng, oscillators=8, width=3):
    shapes = {
        "A_diag": (oscillators,),
        "steps": (oscillators,),
        "B": (oscillators, width, 2),
        "C": (width, oscillators, 2),
        "D": (width,),
    }
    np.savez(path, **{f"blocks.{i}.ssm.{name}": abs(rng.normal(size=shape)) for i in range(2) for name, shape in shapes.items()})


def dss(path, rng, heads=3, slots=6):
    tensors = {
        "D": rng.normal(size=(1, heads)),
        "kernel.log_dt": rng.normal(size=heads) * 0.2 - 2,
        "kernel.W": rng.normal(size=(1, heads, slots, 2)),
        "kernel.Lambda_log_neg_re": rng.normal(size=slots) * 0.2 - 0.7,
        "kernel.Lambda_im": rng.uniform(0, 8, slots),
    }
    np.savez(path, **{f"net.{i}.{name}": value for i in range(2) for name, value in tensors.items()})


@pytest.mark.parametrize(("make", "settings"), [(linoss, {"discretization": "IM"}), (dss, {"version": "exp"})])
def test_the_class_holds_the_result(make, settings, tmp_path, capsys):
    path, out = tmp_path / "model.npz", tmp_path / "small.npz"
    make(path, np.random.default_rng(0))
    model = lqo.load_checkpoint(path, settings=settings)
    result = lqo.compress(model, keep=0.5, in_class=True)
    result.model.save(out)
    again = lqo.load_checkpoint(out)
    for full, small, stored, layer in zip(model.blocks, result.model.blocks, again.blocks, result.report.layers, strict=True):
        assert stored.state_size == full.state_size // 2
        assert np.all(lqo.h2_error(small.ssm, stored.ssm, relative=True, delay=0) < 1e-9)
        assert layer.states_after == stored.state_size and layer.parameters_after < layer.parameters_before
        np.testing.assert_allclose(layer.relative_error, lqo.h2_error(full.ssm, stored.ssm, relative=True, delay=0), rtol=1e-6)
    with pytest.raises(CheckpointError, match="native"):
        lqo.compress(model, keep=0.5).model.save(tmp_path / "any.npz")
    options = [f"{name}={value}" for name, value in settings.items()]
    command = ["compress", str(path), "--keep", "0.5", "--set", *options]
    assert main([*command, "-o", str(tmp_path / "cli.npz"), "--method", "class"]) == 0
    assert main([*command, "-o", str(tmp_path / "native.npz"), "--to", "native"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "native.npz")]) == 0
    assert "format native" in capsys.readouterr().out
    assert main([*command, "-o", str(tmp_path / "no.npz"), "--to", "nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err


def test_other_models_are_refused(tmp_path):
    rng = np.random.default_rng(1)
    linoss(tmp_path / "model.npz", rng)
    model = lqo.load_checkpoint(tmp_path / "model.npz", settings={"discretization": "IM"})
    with pytest.raises(InvalidInputError, match="one state size for all layers"):
        lqo.compress(model, state_size=[4, 8], in_class=True)
    bare = lqo.DeepSSM(None, model.blocks, None)
    with pytest.raises(InvalidInputError, match="read from a checkpoint"):
        lqo.compress(bare, keep=0.5, in_class=True)


def test_comparison_of_formats_with_other_settings(tmp_path, capsys):
    path = tmp_path / "model.npz"
    linoss(path, np.random.default_rng(2))
    model = lqo.load_checkpoint(path, settings={"discretization": "IM"})
    model.save(tmp_path / "native.npz", format="native")
    command = ["compare", str(path), str(tmp_path / "native.npz")]
    assert main([*command, "--set", "discretization=IM"]) == 0  # which the native file does not have
    worst = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("blocks.")]
    assert worst and all(float(error.rstrip("%")) < 1e-3 for error in worst)
