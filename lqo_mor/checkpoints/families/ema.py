"""Moving averages with several decays per head: Mega, its port in transformers, and the kernel of state-spaces/s4.

Every head has `n` real poles ``q = 1 - p sigmoid(alpha)`` with ``p = sigmoid(delta)`` and the kernel
``K_j = Σ p beta gamma q^j / sqrt(n)`` (`MultiHeadEMA` of facebookresearch/mega, `EMAKernel` of state-spaces/s4). Each channel may
have poles of its own, and so have the two directions of Mega, which both read the present input; in S4 the second direction
begins at the next one.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.diagonal_kernels import forward_feedthrough, half_storage, length_setting, linear_parts
from lqo_mor.checkpoints.families.slots import WAY_OUT, check_layer
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_ROLES = ("delta", "alpha", "beta", "gamma", "D")
_MEGA = ("delta", "alpha", "beta", "gamma", "omega")
_TRANSFORMERS = ("damping_factor", "decay_factor", "ema_expansion_matrix", "kernel_projection_matrix", "residual_weight")
_S4 = ("kernel.delta", "kernel.alpha", "kernel.beta", "kernel.gamma", "D")
_ZERO = 1e-6  # below it q is lost in the rounding of 1 - q in float32; such a pole acts at lag 0


def _read(names: tuple[str, ...], layer: str, tensors: Tensors, settings: Settings) -> Layer:
    mega = names is not _S4
    by_role = {role: tensors[name] for role, name in zip(_ROLES, names, strict=True) if name in tensors}
    _check(names, layer, tensors, by_role, mega)
    length_setting(settings, "truncation" if mega else "l_max")
    delta, alpha, beta, gamma, D = (by_role[role].astype(np.float64) for role in _ROLES)
    D = np.atleast_2d(D)
    (channels, heads), (rows, slots) = D.shape, alpha.shape[:2]
    p = expit(delta[..., 0])
    poles, weights = 1 - p * expit(alpha[..., 0]), p * beta[..., 0] / np.sqrt(slots)
    gamma = gamma.reshape(-1, heads, slots)  # rows are in the order (channel, head)
    outputs = len(gamma)
    residues = gamma * weights.reshape(-1, heads, slots)
    if rows == heads:
        residues = np.swapaxes(residues, 0, 1)
    else:  # every channel has poles of its own
        poles = np.swapaxes(poles.reshape(outputs, heads, slots), 0, 1).reshape(heads, -1)
        residues = np.einsum("chn,cd->hcdn", residues, np.eye(outputs)).reshape(heads, outputs, -1)
    backward = None if outputs == channels else 0 if mega else 1
    return Layer(half_storage(layer, poles, residues, 1, D), backward)


def _check(names: tuple[str, ...], layer: str, tensors: Tensors, by_role: Tensors, mega: bool) -> None:
    """Raise unless the tensors are there and their shapes belong together."""
    delta, alpha, beta, gamma, D = names
    rows, slots = by_role["alpha"].shape[:2] if by_role["alpha"].ndim == 3 else (None, None)
    steps = by_role["delta"].shape[1] if not mega and by_role["delta"].ndim == 3 else slots
    total = rows if mega or "gamma" not in by_role else len(by_role["gamma"])
    shapes = {delta: (rows, 1 if steps == 1 else slots, 1), alpha: (rows, slots, 1), beta: (rows, slots, 1)}
    check_layer(layer, tensors, shapes | {gamma: (total, slots), D: (None,) if mega else (None, None)})
    width = by_role["D"].size
    if total not in (width, 2 * width) or rows not in (by_role["D"].shape[-1], total):
        raise CheckpointError(
            f"{layer}: {alpha} has {rows} rows and {gamma} {total}, but {D} has shape {by_role['D'].shape}; expected as many "
            "rows as it has entries, or twice as many for two directions"
        )


def _write(names: tuple[str, ...], layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    delta, alpha, beta, gamma, feedthrough = names
    residues, D = linear_parts(layer, ssm)
    silent = ~np.any(residues, axis=1)
    if not np.all(silent | (ssm.is_real_pole & (ssm.poles.real > -_ZERO))):
        raise CheckpointError(f"{layer} has complex or negative poles, but a moving average holds decays only; {WAY_OUT}")
    decay = 1 - np.maximum(stable_poles(layer, np.where(silent, 0.5, ssm.poles)).real, _ZERO)
    heads, _, slots = residues.shape
    tied = tensors[delta].shape[1] < tensors[alpha].shape[1]
    # One factor of the decay in delta, the other one in alpha, both between 0 and 1.
    p = np.sqrt(decay.max(axis=1, keepdims=True) if tied else decay)
    copies = len(tensors[alpha]) // heads
    return {
        delta: np.tile(logit(p), (copies, 1))[..., np.newaxis],
        alpha: np.tile(logit(decay / p), (copies, 1))[..., np.newaxis],
        beta: np.ones((copies * heads, slots, 1)),
        gamma: (np.swapaxes(residues.real, 0, 1) * np.sqrt(slots) / p).reshape(-1, slots),
        # Both directions of Mega read the present input, and share a feedthrough.
        feedthrough: D.sum(axis=0) if names is not _S4 else forward_feedthrough(layer, D, len(tensors[feedthrough])),
    }


def _family(name: str, what: str, names: tuple[str, ...], needed: set[str]) -> Family:
    return Family(
        name=name,
        looks_like=f"moving averages of {what} ({', '.join(names)})",
        markers=(names[0],),
        names=names,
        recognises=lambda found: needed <= found,
        read=lambda layer, tensors, settings: _read(names, layer, tensors, settings),
        write=lambda layer, ssm, tensors, settings: _write(names, layer, ssm, tensors, settings),
    )


# `needed` tells them apart from others with such a common name as "delta".
EMA = _family("ema", "Mega", _MEGA, {"delta", "alpha", "omega"})
EMA_TRANSFORMERS = _family("ema-transformers", "Mega in transformers", _TRANSFORMERS, {"damping_factor", "decay_factor"})
EMA_S4 = _family("ema-s4", "state-spaces/s4", _S4, {"kernel.delta", "kernel.alpha"})
