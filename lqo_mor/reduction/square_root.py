"""The square-root method: balancing projections from factors of the Gramians, and what they cut; theory, eq. (7.7)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from lqo_mor.errors import AccuracyWarning, InvalidInputError
from lqo_mor.reduction.budget import Budget
from lqo_mor.systems.batches import slot_count
from lqo_mor.systems.convert import to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import projected


@dataclass(frozen=True, eq=False)
class Balancing:
    """Balancing projections of one system, from which a reduced system of every order is cut."""

    sys: LQOSystem  # with dense matrices
    # (n, rank) like `W`, by decreasing Hankel singular values, to the numerical rank; of no column for a channel without
    # transfer
    V: np.ndarray
    W: np.ndarray
    hsv: np.ndarray  # (k,)


def projections(R: np.ndarray, S: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Balancing projections `V`, `W` (n, ≤ order) and all Hankel singular values; theory, eq. (7.7)."""
    Z, hsv, Yt = np.linalg.svd(S.T @ R, full_matrices=False)
    rank = np.count_nonzero(hsv > hsv[0] * np.finfo(float).eps) if hsv.size and hsv[0] > 0 else 0
    if rank == 0:
        raise InvalidInputError("the system has no transfer from input to output: its Hankel singular values are all zero")
    r = min(order, rank)
    root = np.sqrt(hsv[:r])
    return R @ Yt[:r].T / root, S @ Z[:, :r] / root, hsv


def project(sys: LQOSystem, V: np.ndarray, W: np.ndarray) -> LQOSystem:
    """``WᵀAV``, ``WᵀB``, ``CV``, ``VᵀMV``."""
    return LQOSystem(W.T @ sys.A @ V, W.T @ sys.B, sys.C @ V, sys.D, projected(sys.M, V), sys.dt)


def cut_to(balanced: Balancing, budget: Budget) -> DiagonalLQOSystem:
    """One diagonal system; with a budget of slots, the largest order whose poles fit it."""
    order, slots = budget.order, budget.slots
    sys, size = balanced.sys, order if slots is None else min(2 * slots, balanced.sys.order - 1)
    for r in range(min(size, balanced.V.shape[1]), 0, -1):
        candidate = project(sys, balanced.V[:, :r], balanced.W[:, :r])
        if slots is None or slot_count(np.linalg.eigvals(candidate.A)) <= slots:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", AccuracyWarning)  # the error of the result is computed anyway
                    return to_diagonal(candidate)
            except InvalidInputError:  # a defective state matrix: one state less has other poles
                continue
    raise InvalidInputError("balanced truncation found no diagonalisable reduced system; keep the system dense")
