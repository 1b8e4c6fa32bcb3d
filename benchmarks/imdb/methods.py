"""The reduction methods of the IMDb experiment, by the names that its tables use."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import lqo_mor as lqo
from lqo_mor.errors import StabilityWarning
from lqo_mor.systems.batches import pad

HORIZON = 1024  # the bytes that the model reads
ITERATIONS = 3000  # at most, of the projected gradient: its own default, with which no run takes longer than some minutes
_MARGIN = 0.5  # of the distance between the unit circle and the trained poles: optimised poles stay as far, as in compress

LABELS = {
    "hippo": "HiPPO",
    "modal": "modal",
    "balanced": "TLBT",
    "tsia": "TLH2",
    "gradient-hippo": "gradient from HiPPO",
    "gradient-balanced": "gradient from TLBT",
    "gradient-tsia": "gradient from TLH2",
    "optimal": "optimal h2 (ours)",
    "calibrated": "calibrated (ours)",
}
METHODS = tuple(LABELS)
RANDOM = ("calibrated",)  # methods whose result depends on a seed: the draw of the calibration reviews


@dataclass(frozen=True, eq=False)
class Reduced:
    """A reduced model in double precision, how many of its systems were repaired, and the time it took.

    `cpu_seconds` are those of the process on all cores, which other processes disturb less.
    """

    model: lqo.DeepSSM
    repaired: int
    seconds: float
    cpu_seconds: float


def reduce_model(
    model: lqo.DeepSSM, method: str, size: int, calibration: np.ndarray | None = None, iterations: int = ITERATIONS
) -> Reduced:
    """Reduce every layer of a model to `size` states.

    Parameters
    ----------
    model : DeepSSM
        The full model.
    method : str
        One of `METHODS`. All count errors over the horizon of `HORIZON` steps but "calibrated".
    size : int
        Real states of every layer, even.
    calibration : (reviews, HORIZON) ndarray of int, optional
        Windows for "calibrated".
    iterations : int
        Most steps of the projected gradient.

    Returns
    -------
    Reduced
        The seconds are those of the whole reduction, with its start.
    """
    begin, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # counted
        if method == "calibrated":
            result = lqo.compress(model, state_size=size, calibration=calibration, options=lqo.CalibrationOptions())
        elif method.startswith("gradient-"):
            result = lqo.compress(model, state_size=size, method=method.removeprefix("gradient-"), horizon=HORIZON)
        else:
            result = lqo.compress(model, state_size=size, method=method, horizon=HORIZON)
        small, repaired = result.model, sum(layer.repaired for layer in result.report.layers)
        if method.startswith("gradient-"):
            small = descended(model, small, iterations)
    return Reduced(small, repaired, time.perf_counter() - begin, time.process_time() - cpu)


def descended(model: lqo.DeepSSM, start: lqo.DeepSSM, iterations: int) -> lqo.DeepSSM:
    """The published method: projected gradient descent in every layer, from the systems of `start`."""
    blocks = []
    for full, begun in zip(model.blocks, start.blocks, strict=True):
        margin = _MARGIN * (1 - np.max(np.abs(full.ssm.poles)))
        options = {"margin": float(margin), "max_iterations": iterations, "horizon": HORIZON}
        found = lqo.reduce(full.ssm, slots=begun.ssm.n_slots, method="projected_gradient", start=begun.ssm, **options)
        blocks.append(replace(begun, ssm=pad(found.system, begun.ssm.n_slots)))  # as many as in the rows of other methods
    return replace(start, blocks=tuple(blocks))


def warm_up(model: lqo.DeepSSM, methods, report: Callable[[str], None]) -> None:
    """Run every method that needs no data once, so that no compilation is in the seconds."""
    small = replace(model, blocks=model.blocks[:1])
    for method in methods:
        if method not in RANDOM:
            report(f"compiling for {method}")
            reduce_model(small, method, 4, iterations=2)
