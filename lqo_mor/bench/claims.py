"""The list of claims, and the run of several of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lqo_mor import __version__
from lqo_mor.bench.dense import both_gramians, finite_horizon, lyapunov_dense, stein_dense
from lqo_mor.bench.diagonal import diagonal, diagonal_batch
from lqo_mor.bench.hankel import hankel_values
from lqo_mor.bench.low_rank import low_rank
from lqo_mor.bench.machine import machine_facts
from lqo_mor.bench.peers import installed
from lqo_mor.bench.timing import Row, Tell

_RESIDUAL, _ERROR = "residual", "largest error"


@dataclass(frozen=True)
class Claim:
    """One comparison."""

    title: str  # heading of its table
    # ``run(quick, progress)`` gives the rows; it calls ``progress(text)`` before each case
    run: Callable[[bool, Tell], list[Row]]
    accuracy: str = _RESIDUAL  # what the accuracies are: relative residuals, or largest relative errors


CLAIMS = {
    "stein_dense": Claim("Dense discrete equation A X Aᵀ − X + Q = 0", stein_dense),
    "lyapunov_dense": Claim("Dense continuous equation A X + X Aᵀ + Q = 0", lyapunov_dense),
    "finite_horizon": Claim("Finite horizon against infinite", finite_horizon),
    "both_gramians": Claim("Factors of both Gramians against two single ones", both_gramians),
    "low_rank": Claim("Factor for one input, dense A", low_rank),
    "diagonal": Claim("Gramian of a diagonal system", diagonal),
    "diagonal_batch": Claim("Batch of diagonal cross Gramians", diagonal_batch),
    "hankel_values": Claim(
        "Hankel singular values of a diagonal system, down to 1e-14 of the largest; error wanted: 1e-6", hankel_values, _ERROR
    ),
}
PACKAGES = ("lqo-mor", "numpy", "scipy", "numba", "slycot", "control", "pymor", "mpmath", "threadpoolctl")


@dataclass(frozen=True)
class Report:
    """What a run found."""

    rows: dict[str, list[Row]]  # by claim
    machine: dict[str, Any]  # what it was measured on
    missing: dict[str, str]  # peers that are not installed, and why they cannot be used
    quick: bool  # whether the sizes were the small ones
    seconds: float
    version: str = __version__


def run_claims(names: Iterable[str] = tuple(CLAIMS), quick: bool = False, progress: Tell | None = None) -> Report:
    """Measure the named claims, one after the other, with ``progress(text)`` before each case; `quick` takes the small sizes."""
    begin = time.perf_counter()

    def tell(name: str) -> Tell:
        return lambda text: None if progress is None else progress(f"{name}: {text}")

    missing = {peer: why for peer, why in installed().items() if isinstance(why, str)}
    rows = {name: CLAIMS[name].run(quick, tell(name)) for name in names}
    return Report(rows, machine_facts(*PACKAGES), missing, quick, time.perf_counter() - begin)
