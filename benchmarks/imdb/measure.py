"""What is measured on a compressed model of the IMDb experiment: sizes, accuracy, differences, bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import lqo_mor as lqo
from benchmarks.imdb.data import Reviews
from benchmarks.imdb.methods import HORIZON
from benchmarks.imdb.results import sha256

_BATCH = 50  # reviews that the module takes at once: more do not stay in the caches
_PROBE, _PROBES = 60, 2  # reviews that both forward passes are timed on, and how often
_FEW = 1000  # reviews for which that is not worth it


def numpy_logits(path: Path, windows: np.ndarray) -> np.ndarray:
    """Outputs of a stored model, in double precision, by the forward pass of the package."""
    return lqo.load_checkpoint(path)(windows)


def torch_logits(path: Path, windows: np.ndarray) -> np.ndarray:
    """Outputs of a stored model, in single precision, by the module that it was trained as."""
    import torch

    from lqo_mor.torch import LQODeepSSM

    net = LQODeepSSM.load(path).eval()  # takes a file only if it has all tensors, in the right shapes, and no other
    with torch.inference_mode():
        parts = [net(torch.from_numpy(windows[i : i + _BATCH]).int()) for i in range(0, len(windows), _BATCH)]
    return torch.cat(parts).numpy().astype(np.float64)


FORWARDS: dict[str, Callable] = {"numpy": numpy_logits, "torch": torch_logits}


def quick_logits(path: Path, windows: np.ndarray) -> tuple[np.ndarray, str]:
    """Outputs of a stored model by the forward pass that takes fewer processor seconds, and its name; both must agree."""
    if len(windows) < _FEW:
        return numpy_logits(path, windows), "numpy"
    probe, seconds, outputs = windows[:: len(windows) // _PROBE], {}, {}
    for name, forward in FORWARDS.items():
        try:
            forward(path, probe[:2])  # compiles
        except ImportError:
            continue
        times = []
        for _ in range(_PROBES):
            begin = time.process_time()  # of all threads: a core less is a core for somebody else
            outputs[name] = forward(path, probe)
            times.append(time.process_time() - begin)
        seconds[name] = min(times)
    for name, values in outputs.items():
        if not np.allclose(values, outputs["numpy"], rtol=1e-3, atol=1e-3 * np.max(np.abs(outputs["numpy"]))):
            raise ValueError(f"the outputs of {name} are not those of numpy")
    name = min(seconds, key=seconds.__getitem__)
    return FORWARDS[name](path, windows), name


def trainable_parameters(path: Path) -> int:
    """Numbers in a stored checkpoint, all of which were trained."""
    return sum(array.size for array in load_file(path).values())


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The full model and the reviews that compressed ones are compared with it on.

    Attributes
    ----------
    path : Path
        Checkpoint of the full model.
    model : DeepSSM
        The full model.
    windows, labels : (reviews, HORIZON) and (reviews,) ndarray
        Test reviews.
    bound_windows : (few, HORIZON) ndarray
        Reviews that calibrate the bound, and on which it is compared with the error.
    full : (reviews, 2) ndarray
        Outputs of the full model.
    """

    path: Path
    model: lqo.DeepSSM
    windows: np.ndarray
    labels: np.ndarray
    bound_windows: np.ndarray
    full: np.ndarray

    def facts(self) -> dict:
        """Size and accuracy of the full model."""
        right = float(np.mean(self.full.argmax(1) == self.labels))
        return {"parameters": trainable_parameters(self.path), "accuracy": right, "reviews": len(self.labels)}

    def measure(self, path: Path) -> dict:
        """All figures of the compressed model that is stored at `path`."""
        small, facts, count = lqo.load_checkpoint(path), self.facts(), trainable_parameters(path)
        begin = time.perf_counter()
        logits, forward = quick_logits(path, self.windows)
        seconds = time.perf_counter() - begin
        pairs = list(zip(self.model.blocks, small.blocks, strict=True))
        errors = [float(lqo.h2_error(a.ssm, b.ssm, HORIZON, relative=True, delay=0)) for a, b in pairs]
        accuracy = float(np.mean(logits.argmax(1) == self.labels))
        return {
            "states": [block.state_size for block in small.blocks],
            "parameters": count,
            "parameters_left": count / facts["parameters"],
            "accuracy": accuracy,
            "drop": facts["accuracy"] - accuracy,
            "agreement": float(np.mean(logits.argmax(1) == self.full.argmax(1))),
            "logits_rms": float(np.linalg.norm(logits - self.full) / np.linalg.norm(self.full)),
            "h2_mean": float(np.mean(errors)),
            "h2_max": float(np.max(errors)),
            "h2_layers": errors,
            **bounds(self.model, small, self.bound_windows),
            "evaluated_by": forward,
            "evaluation_seconds": seconds,
            "file_sha256": sha256(path),
        }


def bounds(model: lqo.DeepSSM, small: lqo.DeepSSM, windows: np.ndarray) -> dict:
    """Largest error of the outputs on some reviews, and the proven bounds: for all inputs, and for inputs like these.

    ``sum`` is the published form, a weighted sum of the h2 errors of the layers; ``bound`` the least of all estimates, which
    is often the range of the normalised outputs, the same for all reduced models.
    """
    found = lqo.output_error_bound(model, small, horizon=HORIZON, calibration=windows)
    observed = np.linalg.norm(small(windows) - model(windows), axis=1)

    def weighted(weights, terms):
        return float(np.sum(weights * found.layer_errors) + np.sum(terms))

    return {
        "observed_error": float(np.max(observed)),
        "bound": found.bound,
        "bound_by": found.used["bound"],
        "bound_sum": weighted(found.layer_weights, found.mixing_terms),
        "calibrated_bound": found.calibrated,
        "calibrated_bound_by": found.used["calibrated"],
        "calibrated_bound_sum": weighted(found.calibrated_weights, found.calibrated_mixing_terms),
        "bound_layers": [float(w * e) for w, e in zip(found.layer_weights, found.layer_errors, strict=True)],
    }


def evenly(reviews: Reviews, count: int | None) -> Reviews:
    """So many reviews spread evenly over a file, whose halves are positive and negative; all of them for None."""
    if count is None or count >= len(reviews):
        return reviews
    return reviews.take(np.round(np.linspace(0, len(reviews) - 1, count)).astype(int))


def cached_logits(path: Path, windows: np.ndarray, folder: Path) -> np.ndarray:
    """Outputs of the full model, which are kept in a file of `folder`."""
    file = folder / f"full-{sha256(path)[:12]}-{len(windows)}.npy"
    if not file.exists():
        np.save(file, quick_logits(path, windows)[0])
    return np.load(file)
