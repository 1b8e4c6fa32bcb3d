"""Reductions that a class of layers can hold where it holds no other ones: some of its oscillators or shared poles stay.

What stays is chosen by orthogonal least squares (orthogonal matching pursuit) on the Gram matrices of the modes, which are known
in closed form.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.linalg

from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import half_gramians
from lqo_mor.analysis.norm import Norm
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction.refit import fit_outputs
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_RIDGE = 1e-6  # files are single precision: output weights must not grow and cancel between oscillators of like frequency
_FLOOR = 1e-12  # of the largest entry, for slots without input
_STEPS_AT_ONCE = 4096
_LOST = 1e-12  # part of a mode that is left beside the chosen ones, below which it is rounding


def keep_oscillators(model: DeepSSM, count: int, horizon: int | None = None) -> DeepSSM:
    """Keep the most important oscillators of every layer of a LinOSS model, with their output weights fitted again.

    The poles of a LinOSS layer lie on a curve and its residues have a fixed phase, so a system reduced by `compress` does not
    fit into the class. Here some of the oscillators stay, with the real and imaginary parts of their columns of C at the least
    h² distance to the full layer.

    Parameters
    ----------
    model : DeepSSM
        Read from a LinOSS checkpoint, and not reduced otherwise.
    count : int
        How many oscillators to keep in each layer. A layer that has no more than that stays as it is.
    horizon : int, optional
        Sequence length over which the error counts; infinite by default, which the discretization IMEX does not allow, since its
        oscillators never decay.

    Returns
    -------
    DeepSSM
        `save` writes it as a checkpoint for the class with ``ssm_size=count``.

    Raises
    ------
    OrderError
        If `count` is not a positive integer below the number of oscillators of some layer.
    InvalidInputError
        If the model has layers that are not made of oscillators, or `horizon` is not a positive integer.
    UnstableSystemError
        If the horizon is infinite, and an oscillator does not decay.

    Notes
    -----
    With the impulse responses ``h_s`` of the slots for columns of size one, the squared h² error of changed output weights is
    ``tr(ΔC K ΔCᵀ)``, ``K_st = (b_s · b_t) ⟨h_s, h_t⟩``. The oscillators are picked one by one, each the one that lowers the least
    error over the weights of all picked ones most; K gets 1e-6 of its diagonal added.

    Examples
    --------
    >>> import tempfile, numpy as np, lqo_mor as lqo
    >>> from lqo_mor.checkpoints.families.in_class import keep_oscillators
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"A_diag": (8,), "steps": (8,), "B": (8, 2, 2), "C": (2, 8, 2), "D": (2,)}
    >>> path = tempfile.mkdtemp() + "/linoss.npz"
    >>> np.savez(path, **{f"ssm.{name}": abs(rng.standard_normal(shape)) for name, shape in shapes.items()})
    >>> model = lqo.load_checkpoint(path, settings={"discretization": "IM"})
    >>> small = keep_oscillators(model, 6)
    >>> small.blocks[0].ssm.n_slots // 2
    6
    """
    if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 1:
        raise OrderError(f"the number of oscillators must be a positive integer, got {count!r}")
    if not isinstance(model, DeepSSM) or model.source is None or model.source.format != "linoss":
        raise InvalidInputError("keep_oscillators takes a model that was read from a LinOSS checkpoint")
    for block in model.blocks:
        poles = block.ssm.poles
        if len(poles) % 2 or np.any(poles[::2] != poles[1::2]):
            raise InvalidInputError(f"{block.name} was reduced to a system that is not made of oscillators")
    if all(2 * count >= block.ssm.n_slots for block in model.blocks):
        most = max(block.ssm.n_slots for block in model.blocks) // 2
        raise OrderError(f"nothing to reduce: the layers have no more than {most} oscillators, and {count} are to be kept")
    return replace(model, blocks=tuple(replace(block, ssm=_fewer(block.ssm, count, horizon)) for block in model.blocks))


def _fewer(ssm: DiagonalLQOSystem, count: int, horizon: int | None) -> DiagonalLQOSystem:
    if 2 * count >= ssm.n_slots:
        return ssm
    norm_of(ssm, horizon)  # refuses unstable systems
    # Columns of C are a real vector, the weights here, times the phase of an oscillator that starts at rest.
    factor = ssm.poles / (1j * np.abs(ssm.poles.imag))
    weights = (ssm.C / factor).real
    K = (ssm.B.real @ ssm.B.real.T) * _inner_products(ssm.poles, factor, horizon)
    diagonal = np.diag(K)
    K = K + np.diag(_RIDGE * diagonal + _FLOOR * np.max(diagonal) + np.finfo(float).tiny)
    pairs, size = np.arange(ssm.n_slots).reshape(-1, 2), np.sqrt(np.diag(K))
    unit = K / size / size[:, np.newaxis]  # of modes with norm one, whatever the rows of B are
    kept = pairs[_chosen(unit[np.newaxis], (unit @ (size * weights).T)[np.newaxis], pairs, count)].ravel()
    fitted = scipy.linalg.solve(K[np.ix_(kept, kept)], K[kept] @ weights.T, assume_a="pos").T
    return DiagonalLQOSystem(ssm.poles[kept], ssm.B[kept], fitted * factor[kept], ssm.D, dt=1.0)


def _inner_products(poles: np.ndarray, factor: np.ndarray, horizon: int | None) -> np.ndarray:
    """``⟨h_s, h_t⟩`` of ``h_s[k] = 2 Re(factor_s λ_s^k)``, without differences of large numbers where the horizon is finite."""
    if horizon is None:
        a, b = factor[:, np.newaxis], poles[:, np.newaxis]
        return 2 * (a * factor / (1 - b * poles) + a * factor.conj() / (1 - b * poles.conj())).real
    total = np.zeros((len(poles), len(poles)))
    for first in range(0, horizon, _STEPS_AT_ONCE):
        steps = np.arange(first, min(horizon, first + _STEPS_AT_ONCE))
        h = 2 * (factor[:, np.newaxis] * np.exp(np.log(poles)[:, np.newaxis] * steps)).real
        total += h @ h.T
    return total


def keep_shared_poles(model: DeepSSM, slots: int, horizon: int | None = None) -> DeepSSM:
    """Reduce layers whose heads share their poles slot by slot to layers that share fewer of them.

    For all heads of a layer the same slots are kept, chosen one by one so that the squared h2 errors of its heads, added up,
    fall most; then the outputs of every head are refitted, which is its h2 projection onto the poles that are left. A class
    like DSS stores the result.

    Parameters
    ----------
    model : DeepSSM
        All layers are batches (H,) of heads with one input, and slot j of every head comes from the same stored pole, as
        in what `load_checkpoint` reads from a DSS file.
    slots : int
        How many to keep in each layer. A layer with no more than that stays as it is.
    horizon : int, optional
        Number of samples over which the error counts; infinite by default.

    Returns
    -------
    DeepSSM
        With the source of `model`, so that ``save`` writes it.

    Raises
    ------
    OrderError
        If `slots` is no positive integer.
    InvalidInputError
        If a layer is no batch of heads, or has quadratic outputs.
    UnstableSystemError
        If the horizon is infinite and a system is not asymptotically stable.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from lqo_mor.checkpoints.families.in_class import keep_shared_poles
    >>> from lqo_mor.network import Block
    >>> z = np.array([[1.0], [0.5]]) * np.array([-0.1 + 1j, -0.2 + 2j, -0.4 + 3j])  # two heads, steps 1 and 0.5
    >>> ssm = lqo.DiagonalLQOSystem(np.exp(z), B=np.ones((2, 3, 1)), C=[[[1.0, 0.1, 0.2]], [[0.9, 0.0, 0.3]]], dt=1.0)
    >>> model = lqo.DeepSSM(None, (Block("layer", ssm, residual=False),), None)
    >>> small = keep_shared_poles(model, slots=2).blocks[0].ssm
    >>> np.array_equal(small.poles, ssm.poles[:, [0, 2]])
    True
    """
    if not isinstance(slots, (int, np.integer)) or isinstance(slots, bool) or slots < 1:
        raise OrderError(f"slots must be a positive integer, got {slots!r}")
    blocks = []
    for block in model.blocks:
        ssm = block.ssm
        if not ssm.batch or ssm.M is not None:
            raise InvalidInputError(f"{block.name} is no batch of heads with linear outputs; only those share their poles")
        if slots < ssm.n_slots:
            norm = norm_of(ssm, horizon)
            kept = _best_slots(ssm, int(slots), norm)
            ssm = fit_outputs(ssm, ssm.poles[:, kept], ssm.B[:, kept], norm)
        blocks.append(replace(block, ssm=ssm))
    return replace(model, blocks=tuple(blocks))


def _best_slots(ssm: DiagonalLQOSystem, slots: int, norm: Norm) -> list[int]:
    """The slots to keep, whose modes are the two signals Re x and Im x each."""
    plain, hermitian = half_gramians(ssm, norm)
    n = ssm.n_slots
    gram = 0.5 * np.block(
        [[(hermitian + plain).real, (plain - hermitian).imag], [(hermitian + plain).imag, (hermitian - plain).real]]
    )
    rows = np.where(ssm.is_real_pole, 1.0, 2.0)[:, np.newaxis] * ssm.C
    target = gram @ np.swapaxes(np.concatenate([rows.real, -rows.imag], axis=-1), -1, -2)
    return _chosen(gram, target, np.stack([np.arange(n), np.arange(n, 2 * n)], axis=-1), slots)


def _chosen(gram: np.ndarray, target: np.ndarray, pairs: np.ndarray, count: int) -> list[int]:
    """The pairs of signals to keep, in their order, one by one those that lower the error of all heads together most.

    From the Gram matrices `gram` (H, m, m) of the signals of each head, their products `target` (H, m, p) with the outputs, and
    the indices `pairs` (n, 2); what is chosen is projected out of all other signals, and out of the outputs.
    """
    least = _LOST * np.trace(gram[:, pairs[:, :, np.newaxis], pairs[:, np.newaxis]], axis1=-2, axis2=-1)
    chosen: list[int] = []
    for _ in range(count):
        own, seen = gram[:, pairs[:, :, np.newaxis], pairs[:, np.newaxis]], target[:, pairs]
        left = np.trace(own, axis1=-2, axis2=-1) > least
        inverse = np.linalg.pinv(np.where(left[..., np.newaxis, np.newaxis], own, 0), rcond=1e-10, hermitian=True)
        gain = np.einsum("hjap,hjab,hjbp->j", seen, inverse, seen)
        gain[chosen] = -1
        best = int(np.argmax(gain))
        chosen.append(best)
        columns = gram[:, :, pairs[best]]
        factors = columns @ inverse[:, best]
        gram = gram - factors @ np.swapaxes(columns, -1, -2)
        target = target - factors @ seen[:, best]
    return sorted(chosen)
