"""Continuous systems with a diagonal plus low-rank state matrix, discretised bilinearly, as batches of diagonal ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from lqo_mor.checkpoints.contracts import Layer
from lqo_mor.checkpoints.families.diagonal_kernels import backward_delay, half_storage
from lqo_mor.checkpoints.families.slots import discrete
from lqo_mor.errors import AccuracyWarning, CheckpointError, warn

_CONDITION = 1e8  # of the eigenvectors, from which the loss of digits is reported
_MOST_MODES = 2**10  # stored for a state matrix: its eigenvectors take seconds and 100 MB
_NEAREST = 1e-12  # distance of λ^L from 1 at which C̃ still tells C


@dataclass(frozen=True, eq=False)
class LowRank:
    """The numbers of a layer: ``A = diag(w, w̄) - [P; P̄] [Q; Q̄]ᵀ``, input ``[B; B̄]``, output ``[C; C̄]``.

    Head h has the row ``h mod S``.
    """

    w: np.ndarray  # (S, n)
    B: np.ndarray  # (S, n)
    P: np.ndarray  # (r, S, n)
    Q: np.ndarray  # (r, S, n)
    C: np.ndarray  # (p, H, n)
    dt: np.ndarray  # (H, 1) or (H, n)
    length: int  # of the kernel that `C` is for, 0 if it is the output itself
    D: np.ndarray  # (c, H)


def diagonal_layer(layer: str, m: LowRank, stable: bool) -> Layer:
    """The heads as a batch of systems; `stable` says that the parameters allow no other ones."""
    p, H, _ = m.C.shape
    backward = backward_delay(layer, "C", p, m.D)
    if m.w.shape[1] > _MOST_MODES:
        raise CheckpointError(f"{layer} has {m.w.shape[1]} modes; a dense state matrix of more than {_MOST_MODES} is refused")
    if H % len(m.w):
        raise CheckpointError(f"{layer}: {len(m.w)} state matrices (n_ssm) do not divide {H} heads")
    if not (np.all(np.isfinite(m.w)) and np.all(np.isfinite(m.dt)) and np.all(m.dt > 0)):
        raise CheckpointError(f"{layer} has state matrices or steps that are not finite, or steps that are not positive")
    tied, modes = m.dt.shape[1] == 1, {}
    poles, residues = [], []
    for h in range(H):
        key = h % len(m.w) if tied else h
        if key not in modes:
            modes[key] = _modes(layer, m, h % len(m.w), 1.0 if tied else m.dt[h])
        alpha, vectors, inputs, _ = modes[key]
        step = m.dt[h, 0] if tied else 1.0
        outputs = np.concatenate([m.C[:, h].real, -m.C[:, h].imag], axis=-1) @ vectors
        with np.errstate(all="ignore"):  # what is not finite is reported
            pole, gain = discrete(alpha, step, "bilinear")
            correction = 1 - pole**m.length if m.length else np.ones(1)
            residue = outputs * inputs * gain / correction
            residue = np.where(pole.imag == 0, 0.5, 1.0) * residue  # so that also two poles beside the axis count twice there
        if np.min(np.abs(correction)) < _NEAREST:
            raise CheckpointError(
                f"{layer}: head {h} has a pole with λ^L = 1 for the length L = {m.length} of its kernel, so C is not in the file"
            )
        poles.append(pole)
        residues.append(residue)
    worst = max(condition for *_, condition in modes.values())
    if worst > _CONDITION:
        warn(
            f"{layer}: the eigenvectors of its state matrix have condition number {worst:.1e}; its diagonal form loses up to "
            f"{np.log10(worst):.0f} of 16 digits",
            AccuracyWarning,
        )
    return Layer(half_storage(layer, *_stacked(poles, residues), 2, m.D.astype(np.float64), stable), backward)


def _modes(layer: str, m: LowRank, row: int, scale: np.ndarray | float) -> tuple[Any, Any, Any, float]:
    """Poles of one continuous system, one of each pair, its eigenvectors, its input in them, and their condition number.

    In the coordinates √2 (Re x, Im x) the matrix is real, so that the eigenvalues come in exact pairs.
    """
    scale = np.broadcast_to(scale, m.w.shape[1])
    A = scale[:, np.newaxis] * (np.diag(m.w[row]) - m.P[:, row].T @ m.Q[:, row])
    mixed = -scale[:, np.newaxis] * (m.P[:, row].T @ m.Q[:, row].conj())
    plus, minus, B = A + mixed, A - mixed, scale * m.B[row]
    alpha, vectors = scipy.linalg.eig(np.block([[plus.real, -minus.imag], [plus.imag, minus.real]]))
    condition = np.linalg.cond(vectors)
    if not condition < 1 / (alpha.size * np.finfo(float).eps):
        raise CheckpointError(
            f"{layer}: its state matrix is not diagonalisable to working precision (condition number {condition:.1e})"
        )
    half = alpha.imag >= 0
    inputs = scipy.linalg.solve(vectors, 2 * np.concatenate([B.real, B.imag]))
    return alpha[half], vectors[:, half], inputs[half], condition


def _stacked(poles: list[np.ndarray], residues: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Poles (H, s) and residues (H, p, s), filled up to the largest head: one with more real poles has more slots."""
    slots = max(row.size for row in poles)
    poles = [np.pad(row, (0, slots - row.size), constant_values=0.5) for row in poles]
    return np.stack(poles), np.stack([np.pad(rows, ((0, 0), (0, slots - rows.shape[1]))) for rows in residues])
