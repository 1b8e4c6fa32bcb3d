"""A checkpoint in, every method, a smaller checkpoint out, loaded strictly by the class that trained it."""

from importlib.resources import files

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.reduction.reduce import METHODS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::lqo_mor.errors.StabilityWarning")


FINITE = [method for method in METHODS if method != "irka"]  # which has no finite horizon


def s4d_model(**sizes):
    from tests.s4d_example import S4DModel

    torch.manual_seed(0)
    return S4DModel(**sizes)


def logits(module, inputs):
    with torch.no_grad():
        return module.eval()(torch.tensor(inputs, dtype=torch.float32)).numpy()


@pytest.mark.parametrize(
    ("size", "method"),
    [
        pytest.param(size, method, marks=pytest.mark.slow if size == 16 and method in ("projected_gradient", "tsia") else ())
        for size in (16, 4)
        for method in FINITE
    ],
)
def test_s4d(tmp_path, method, size):
    model = lqo.load_checkpoint(str(files("lqo_mor") / "data" / "demo_digits.safetensors"))
    result = lqo.compress(model, state_size=size, method=method, horizon=64)
    path = tmp_path / "small.pth"
    result.model.save(path)
    module = s4d_model(d_input=1, d_output=10, d_model=48, n_layers=3, d_state=size)
    saved = torch.load(path, weights_only=True)
    module.load_state_dict(saved.get("model", saved), strict=True)
    with np.load(str(files("lqo_mor") / "data" / "demo_digits.npz")) as file:
        inputs = file["inputs"][:20]
    wanted = result.model(inputs)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(logits(module, inputs), wanted, atol=2e-4 * scale)
    stored = lqo.load_checkpoint(path)
    np.testing.assert_allclose(stored(inputs), wanted, atol=2e-4 * scale)
    for full, small, layer in zip(model.blocks, stored.blocks, result.report.layers, strict=True):
        error = lqo.h2_error(full.ssm, small.ssm, 64, relative=True, delay=0)
        np.testing.assert_allclose(error, layer.relative_error, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", FINITE)
def test_lqo_deep_ssm(tmp_path, method):
    from lqo_mor.torch import LQODeepSSM

    torch.manual_seed(0)
    module = LQODeepSSM(n_features=2, n_outputs=3, width=4, n_layers=2, n_slots=6, quadratic_rank=2)
    module.save(tmp_path / "full.pth")
    model = lqo.load_checkpoint(tmp_path / "full.pth")
    result = lqo.compress(model, state_size=6, method=method, horizon=40)
    result.model.save(tmp_path / "small.safetensors")
    small = LQODeepSSM.load(tmp_path / "small.safetensors")
    inputs = np.random.default_rng(0).standard_normal((3, 40, 2))
    wanted = result.model(inputs)
    np.testing.assert_allclose(logits(small, inputs), wanted, atol=1e-4 * np.abs(wanted).max())
    assert result.report.parameters_after < result.report.parameters_before


def test_the_smaller_checkpoint_keeps_accuracy_and_epoch(tmp_path):
    module = s4d_model(d_input=2, d_output=3, d_model=4, n_layers=2, d_state=16)
    torch.save({"model": module.state_dict(), "acc": 71.5, "epoch": 12}, tmp_path / "full.pth")
    model = lqo.load_checkpoint(tmp_path / "full.pth")
    lqo.compress(model, keep=0.5).model.save(tmp_path / "small.pth")
    saved = torch.load(tmp_path / "small.pth", weights_only=True)
    assert (saved["acc"], saved["epoch"]) == (71.5, 12)
    s4d_model(d_input=2, d_output=3, d_model=4, n_layers=2, d_state=8).load_state_dict(saved["model"], strict=True)
