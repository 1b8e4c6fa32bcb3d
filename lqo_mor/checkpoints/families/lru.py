"""LRU layers, linear recurrent units, with the names of JAX and of PyTorch code.

Every slot has the pole ``λ = exp(-exp(nu_log) + i exp(theta_log))`` and gives ``Re(C λ^k exp(gamma_log) B)``. Source: Orvieto
et al., *Resurrecting Recurrent Neural Networks for Long Sequences*, 2023; the code of minimal-LRU (JAX) and LRU-pytorch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.slots import (
    SMALLEST,
    check_layer,
    check_linear,
    diagonal_feedthrough,
    diagonal_of,
    from_half_storage,
    size,
    to_half_storage,
)
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_POLES = ("nu_log", "theta_log", "gamma_log")
_PARTS = ("B_re", "B_im", "C_re", "C_im")
_REAL_AXIS = -30.0  # exp(-30) is 1e-13, the angle of a positive real pole


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    parts = _in_parts(set(tensors))
    check_layer(layer, tensors, _shapes(tensors, parts), complexes=() if parts else ("B", "C"))
    nu_log, theta_log, gamma_log = (tensors[name].astype(np.float64) for name in _POLES)
    B, C = (tensors[f"{name}_re"] + 1j * tensors[f"{name}_im"].astype(np.float64) if parts else tensors[name] for name in "BC")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # exp(-exp(large)) is 0, the rest is reported
        poles = np.exp(-np.exp(nu_log)) * np.exp(1j * np.exp(theta_log))
        B = np.exp(gamma_log)[:, np.newaxis] * B.astype(np.complex128)
    if not (np.all(np.isfinite(poles)) and np.all(np.isfinite(B))):
        raise CheckpointError(f"{layer}: theta_log or gamma_log has an entry whose exponential overflows")
    poles, B, C = to_half_storage(stable_poles(layer, poles), B, C.astype(np.complex128), scale=1)
    D = tensors["D"].astype(np.float64)
    return Layer(DiagonalLQOSystem(poles, B, C, diagonal_feedthrough(layer, D) if D.ndim == 1 else D, dt=1.0))


def _in_parts(names: set[str]) -> bool:
    """Whether B and C are stored as real and imaginary parts."""
    return any(name in names for name in _PARTS)


def _shapes(tensors: Tensors, parts: bool) -> Shapes:
    """The expected shapes, with the sizes taken from the poles and from B and C."""
    B, C = (("B_re", "B_im"), ("C_re", "C_im")) if parts else (("B",), ("C",))
    n, p, diagonal = size(tensors, "nu_log", 0, 1), size(tensors, C[0], 0, 2), size(tensors, "D", 0, 1) is not None
    m = p if diagonal else size(tensors, B[0], 1, 2)
    shapes: Shapes = {**dict.fromkeys(_POLES, (n,)), **dict.fromkeys(B, (n, m)), **dict.fromkeys(C, (p, n))}
    return shapes | {"D": (p,) if diagonal else (p, m)}


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    check_linear(layer, ssm)
    poles, B, C = stable_poles(layer, ssm.poles), ssm.B, from_half_storage(ssm, scale=1)
    # A conjugated slot gives the same output; angles in [0, π] are the most accurate ones.
    below = poles.imag < 0
    B, C = np.where(below[:, np.newaxis], B.conj(), B), np.where(below, C.conj(), C)
    log_modulus = np.log(np.maximum(np.abs(poles), SMALLEST))
    gamma_log = np.log(-np.expm1(2 * log_modulus)) / 2
    gamma_log = gamma_log.astype(tensors["gamma_log"].dtype).astype(np.float64)  # as the class will read it
    B = B / np.exp(gamma_log)[:, np.newaxis]
    parts = {"B_re": B.real, "B_im": B.imag, "C_re": C.real, "C_im": C.imag}
    rows = parts if _in_parts(set(tensors)) else {"B": B, "C": C}
    return {
        "nu_log": np.log(-log_modulus),
        "theta_log": np.log(np.maximum(np.abs(np.angle(poles)), np.exp(_REAL_AXIS))),
        "gamma_log": gamma_log,
        **rows,
        "D": diagonal_of(layer, ssm.D) if tensors["D"].ndim == 1 else ssm.D,
    }


LRU = Family(
    name="lru",
    looks_like="LRU layers (nu_log, theta_log, gamma_log, B_re, B_im, C_re, C_im, D)",
    markers=("theta_log", "gamma_log"),
    names=(*_POLES, *_PARTS, "D"),
    recognises=_in_parts,
    read=_read,
    write=_write,
)
LRU_TORCH = replace(
    LRU,
    name="lru-torch",
    looks_like="LRU layers of PyTorch (nu_log, theta_log, gamma_log, complex B and C, D)",
    names=(*_POLES, *_PARTS, "B", "C", "D"),
    recognises=lambda names: not _in_parts(names),
)
