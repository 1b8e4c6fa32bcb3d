"""Checkpoints and data made by others; the expected numbers were measured with an independent implementation."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.cli.main import main
from lqo_mor.errors import CheckpointError

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not (DATA / "checkpoints").is_dir(), reason="the folder with real checkpoints is not here")
pytest.importorskip("torch")


def cifar(n):
    with np.load(DATA / "cifar10" / "cifar10_subset.npz") as file:
        images, labels = file["test_images"][:n] / 255, file["test_labels"][:n]
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    return ((images - mean[:, None, None]) / std[:, None, None]).reshape(n, 3, 1024).transpose(0, 2, 1), labels


def mnist(n):
    with gzip.open(DATA / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16)[: n * 784].reshape(n, 784, 1) / 255
    with gzip.open(DATA / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), np.uint8, offset=8)[:n]


def n_correct(name, inputs, labels):
    return int(np.sum(load_checkpoint(DATA / "checkpoints" / name)(inputs).argmax(1) == labels))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "correct"), [("s4d-scifar10-a.pth", 720), ("s4d-scifar10-b.pth", 681)])
def test_all_cifar_images(name, correct):
    assert n_correct(name, *cifar(846)) == correct


@pytest.mark.slow
def test_2000_mnist_digits():
    assert n_correct("s4d-smnist.pth", *mnist(2000)) == 1965


@pytest.mark.parametrize("name", ["s4d-scifar10-a.pth", "s4d-scifar10-b.pth"])
def test_first_cifar_images(name):
    assert n_correct(name, *cifar(40)) >= 28


def test_first_mnist_digits():
    assert n_correct("s4d-smnist.pth", *mnist(200)) >= 192


def test_same_logits_as_the_torch_class():
    import torch

    from tests.s4d_example import S4DModel

    model = load_checkpoint(DATA / "checkpoints" / "s4d-scifar10-a.pth")
    assert model.n_parameters == 201482
    content = torch.load(DATA / "checkpoints" / "s4d-scifar10-a.pth", map_location="cpu", weights_only=True)
    reference = S4DModel(3, 10, 128, 4, 64).eval()
    reference.load_state_dict(content["model"])
    u = cifar(2)[0].astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(u)).numpy()
    np.testing.assert_allclose(model(u), expected, rtol=0, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["s4d-scifar10-a.pth", "s4d-scifar10-b.pth", "s4d-smnist.pth"])
def test_command_line(tmp_path, capsys, name):
    path, small = str(DATA / "checkpoints" / name), str(tmp_path / "small.pth")
    assert main(["inspect", path]) == 0
    assert "format s4d, 4 layers" in capsys.readouterr().out
    assert main(["compress", path, "-o", small, "--state-size", "32", "--method", "modal", "--horizon", "784"]) == 0
    inputs, labels = mnist(4) if "smnist" in name else cifar(4)
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=labels)
    assert main(["compare", path, small, "--inputs", str(tmp_path / "data.npz")]) == 0
    assert "agreement" in capsys.readouterr().out


def test_a_file_without_its_oscillators_says_what_is_missing(capsys):
    path = DATA / "checkpoints" / "linoss-torch.pth"
    words = r"linOSS_layers\.0\.B\.weight belongs to .* LinOSS .* lacks the oscillators"
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)
    assert main(["inspect", str(path)]) == 1
    assert "A_diag = diag(A)" in capsys.readouterr().err
