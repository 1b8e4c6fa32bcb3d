"""Random systems, layers like those of a deep state-space model, and quadratic outputs added to linear systems."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.checks import as_array
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import check_kind


def random_lqo(
    n: int,
    m: int = 1,
    p: int = 1,
    seed: int = 0,
    *,
    quadratic: Literal["dense"] | int | None = "dense",
    continuous: bool = False,
    margin: float = 0.05,
) -> LQOSystem:
    """A random stable system with an indefinite quadratic output.

    Parameters
    ----------
    n, m, p : int
        States, inputs, outputs; the last two are 1 by default.
    seed : int, default 0
        Equal seeds give equal systems.
    quadratic : {"dense"}, int or None, default "dense"
        Dense symmetric matrices, factors of this rank, or a linear system.
    continuous : bool, default False
        Continuous instead of discrete time.
    margin : float, default 0.05
        Distance of the spectrum from the stability boundary: spectral radius ``1 − margin``, or spectral abscissa
        ``−margin``.

    Returns
    -------
    LQOSystem

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.examples.random_lqo(20, m=2, p=3, quadratic=4)
    LQOSystem(order=20, inputs=2, outputs=3, quadratic=rank 4, dt=1.0)
    """
    for name, value in (("n", n), ("m", m), ("p", p)):
        check_count(name, value, 1)
    if not 0 < margin < (np.inf if continuous else 1):
        raise InvalidInputError(f"margin must be positive{'' if continuous else ' and below 1'}; got {margin!r}")
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) / np.sqrt(n)
    poles = np.linalg.eigvals(A)
    A = A - (poles.real.max() + margin) * np.eye(n) if continuous else A * (1 - margin) / np.abs(poles).max()
    B, C = rng.standard_normal((n, m)), rng.standard_normal((p, n))
    M: np.ndarray | QuadraticOutput | None = None
    if isinstance(quadratic, str) and quadratic == "dense":
        half = rng.standard_normal((p, n, n)) / n
        M = half + half.transpose(0, 2, 1)
    elif quadratic is not None:
        check_count("the rank of quadratic", quadratic, 1)
        U, V = rng.standard_normal((2, quadratic, n)) / np.sqrt(n)
        M = QuadraticOutput(U, V, rng.standard_normal((p, quadratic)))
    return LQOSystem(A, B, C, M=M, dt=0 if continuous else 1.0)


def s4d(
    n_slots: int = 32,
    channels: int = 128,
    *,
    kind: str = "lin",
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    rank: int = 0,
    seed: int = 0,
) -> DiagonalLQOSystem:
    """The channels of an S4D layer as it is initialised, discretised by zero-order hold.

    Every channel has the same continuous poles, a time step of its own, log-uniform between `dt_min` and `dt_max`,
    inputs of 1 and standard normal complex outputs.

    Parameters
    ----------
    n_slots : int, default 32
        Conjugate pairs per channel, half the state size; the first pole of S4D-Lin is real.
    channels : int, default 128
        Size of the batch.
    kind : {"lin", "inv", "legs"}, default "lin"
        The poles, ``k = 0, 1, …`` and ``N = 2 n_slots``: S4D-Lin ``−½ + iπk``, S4D-Inv ``−½ + i (N/π) (N/(2k+1) − 1)``, or
        S4D-LegS, the eigenvalues of the normal part of the HiPPO-LegS matrix.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        Range of the time steps.
    rank : int, default 0
        Products of a random quadratic output, as in the layers of an LQO deep SSM; 0 for none.
    seed : int, default 0
        Equal seeds give equal layers.

    Returns
    -------
    DiagonalLQOSystem
        Discrete, of batch ``(channels,)``, one input and one output each.

    Raises
    ------
    InvalidInputError
        If a number is out of range or the kind is unknown.

    References
    ----------
    Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", NeurIPS 2022.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.examples.s4d(n_slots=8, channels=4, kind="legs")
    DiagonalLQOSystem(batch=(4,), order=16, slots=8, inputs=1, outputs=1, quadratic=none, dt=1.0)
    """
    check_count("n_slots", n_slots, 1)
    check_count("channels", channels, 1)
    check_count("rank", rank, 0)
    if not 0 < dt_min <= dt_max < np.inf:
        raise InvalidInputError(f"dt_min and dt_max must be positive and in this order; got {dt_min!r} and {dt_max!r}")
    N, k = 2 * n_slots, np.arange(n_slots)
    if kind == "lin":
        frequency = np.pi * k
    elif kind == "inv":
        frequency = N / np.pi * (N / (2 * k + 1) - 1)
    elif kind == "legs":
        scale = np.sqrt(2 * np.arange(N) + 1)
        skew = 0.5 * np.outer(scale, scale) * np.sign(np.subtract.outer(np.arange(N), np.arange(N)))
        frequency = np.linalg.eigvalsh(1j * skew)[n_slots:]
    else:
        raise InvalidInputError(f"unknown kind {kind!r}; known are 'lin', 'inv', 'legs'")
    rng = np.random.default_rng(seed)
    poles = -0.5 + 1j * frequency
    step = np.exp(rng.uniform(np.log(dt_min), np.log(dt_max), (channels, 1)))
    discrete = np.exp(step * poles)
    held = np.expm1(step * poles) / poles  # zero-order hold of an input of 1
    discrete, held = (np.where(frequency == 0, z.real, z) for z in (discrete, held))

    def rows(count: int) -> np.ndarray:
        real, imaginary = rng.standard_normal((2, channels, count, n_slots))
        z = (real + 1j * imaginary) / np.sqrt(2)
        return np.where(frequency == 0, 2 * z.real, z)  # a real pole stands for itself alone, not for a pair

    C, quadratic = rows(1), None
    if rank:
        quadratic = QuadraticOutput(rows(rank), rows(rank), rng.standard_normal((channels, 1, rank)) / np.sqrt(rank))
    return DiagonalLQOSystem(discrete, held[..., np.newaxis], C, M=quadratic, dt=1.0)


@overload
def with_energy_output(sys: LQOSystem, of: str = "output", weight: float = 1.0) -> LQOSystem: ...
@overload
def with_energy_output(sys: DiagonalLQOSystem, of: str = "output", weight: float = 1.0) -> DiagonalLQOSystem: ...
def with_energy_output(
    sys: LQOSystem | DiagonalLQOSystem, of: str = "output", weight: float = 1.0
) -> LQOSystem | DiagonalLQOSystem:
    """A linear system with one more output, the energy ``‖C x‖²`` of its outputs or ``‖x‖²`` of its states.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        Linear; a batch of diagonal ones gives every channel its own.
    of : {"output", "state"}, default "output"
        Whose energy. That of the outputs is stored in factors of rank `p`, that of the states of a dense system as a dense
        matrix. States of a diagonal system are those of `to_dense`.
    weight : float, default 1.0
        Factor of the energy.

    Returns
    -------
    LQOSystem or DiagonalLQOSystem
        With `p + 1` outputs, the last one purely quadratic.

    Raises
    ------
    InvalidInputError
        If `sys` has a quadratic output already, or an argument is none of the above.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.5]], [[1.0]], [[3.0]], dt=1.0)
    >>> lqo.examples.with_energy_output(sys).M.to_dense()[1]
    array([[9.]])
    """
    check_kind(sys)
    if sys.M is not None:
        raise InvalidInputError("the system has a quadratic output already")
    if of not in ("output", "state"):
        raise InvalidInputError(f"of must be 'output' or 'state'; got {of!r}")
    if not np.isfinite(weight):
        raise InvalidInputError(f"weight must be a finite number; got {weight!r}")
    p, batch = sys.n_outputs, () if isinstance(sys, LQOSystem) else sys.batch
    C = np.concatenate([sys.C, np.zeros((*batch, 1, sys.C.shape[-1]))], axis=-2)
    D = np.concatenate([sys.D, np.zeros((*batch, 1, sys.n_inputs))], axis=-2)
    if isinstance(sys, LQOSystem) and of == "state":
        M = np.zeros((p + 1, sys.order, sys.order))
        M[p] = weight * np.eye(sys.order)
        return LQOSystem(sys.A, sys.B, C, D, M, sys.dt)
    rows = _state_rows(sys) if isinstance(sys, DiagonalLQOSystem) and of == "state" else sys.C
    W = np.zeros((*batch, p + 1, rows.shape[-2]))
    W[..., p, :] = weight
    energy = QuadraticOutput(rows, rows, W)
    if isinstance(sys, LQOSystem):
        return LQOSystem(sys.A, sys.B, C, D, energy, sys.dt)
    return DiagonalLQOSystem(sys.poles, sys.B, C, D, energy, dt=sys.dt)


def _state_rows(sys: DiagonalLQOSystem) -> np.ndarray:
    """Rows (..., 2s, s) in half storage that read the real states of `to_dense`; those that a real pole lacks are zero."""
    real, root = sys.is_real_pole, np.sqrt(0.5)
    eye = np.eye(sys.n_slots)
    first, second = np.where(real, 1.0, root), np.where(real, 0.0, root)
    return np.concatenate([first[..., np.newaxis] * eye, 1j * second[..., np.newaxis] * eye], axis=-2)


def check_count(name: str, value: object, least: int) -> None:
    """Raise unless `value` is an integer of at least `least`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name} must be an integer, at least {least}; got {value!r}")


def check_positive(**numbers_by_name: ArrayLike) -> None:
    """Raise unless every entry of every number or array is positive and finite."""
    for name, value in numbers_by_name.items():
        array = as_array(name, value, np.float64)
        if array.size == 0 or not np.all(array > 0):
            raise InvalidInputError(f"{name} must be positive; got {value!r}")
