"""Written checkpoints in the class that they were trained with."""

import numpy as np
import pytest

from lqo_mor.checkpoints.load import load_checkpoint
from tests.checkpoints.s4d_states import awkward_channels, with_systems

torch = pytest.importorskip("torch")
from tests.s4d_example import S4DModel  # noqa: E402 (needs torch)


@pytest.mark.parametrize("prenorm", [False, True])
def test_reduced_checkpoint_loads_strictly_and_gives_the_same_logits(tmp_path, prenorm):
    torch.manual_seed(0)
    original = S4DModel(2, 5, 3, 2, d_state=16, prenorm=prenorm).eval()
    torch.save({"model": original.state_dict(), "acc": 1.5, "epoch": 2}, tmp_path / "full.pth")
    model = load_checkpoint(tmp_path / "full.pth", settings={"prenorm": prenorm})
    u = torch.randn(4, 50, 2)
    with torch.no_grad():
        np.testing.assert_allclose(model(u.numpy()), original(u).numpy(), atol=1e-5)
    systems = [awkward_channels(1, 3, 3, model.blocks[0].ssm.D), awkward_channels(2, 3, 2, model.blocks[1].ssm.D)]
    small = with_systems(model, *systems)
    small.save(tmp_path / "small.pth")
    content = torch.load(tmp_path / "small.pth", weights_only=True)
    assert (content["acc"], content["epoch"]) == (1.5, 2)
    stock = S4DModel(2, 5, 3, 2, d_state=6, prenorm=prenorm).eval()
    stock.load_state_dict(content["model"], strict=True)
    assert sum(p.numel() for p in stock.parameters()) == small.n_parameters
    with torch.no_grad():
        expected = stock(u).numpy()
    np.testing.assert_allclose(small(u.numpy()), expected, atol=2e-5 * np.abs(expected).max())
    again = load_checkpoint(tmp_path / "small.pth", settings={"prenorm": prenorm})
    np.testing.assert_allclose(again(u.numpy()), expected, atol=2e-5)
