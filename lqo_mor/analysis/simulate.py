"""Simulation of discrete-time systems in both timings of the output, and impulse responses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import expm

from lqo_mor.analysis.door import check_delay
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.systems.checks import as_array
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System, check_kind


def simulate(sys: System, u: ArrayLike, *, delay: int = 1) -> np.ndarray:
    """Output of a discrete-time system that starts at rest.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The system, or a batch of diagonal ones.
    u : (..., steps, m) array_like
        Input; leading axes must fit the batch of `sys` (for a dense system they are independent runs).
    delay : {1, 0}, default 1
        1: the output reads the state before the update, ``y[k] = C x[k] + D u[k] + …`` with
        ``x[k+1] = A x[k] + B u[k]`` (control). 0: it reads the updated state, ``x[k] = A x[k-1] + B u[k]``
        (deep state-space models).

    Returns
    -------
    (..., steps, p) ndarray

    Raises
    ------
    DimensionError
        If `u` does not have `m` columns or does not fit the batch.
    InvalidInputError
        If `sys` is continuous, `u` is not finite or `delay` is neither 0 nor 1.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=1.0)
    >>> lqo.simulate(sys, [[1.0], [0.0], [0.0]]).ravel()
    array([0. , 1. , 0.5])
    >>> lqo.simulate(sys, [[1.0], [0.0], [0.0]], delay=0).ravel()
    array([1.  , 0.5 , 0.25])
    """
    check_kind(sys)
    if sys.is_continuous:
        raise InvalidInputError("simulate is for discrete time; this system is continuous (dt = 0), so discretise it first")
    check_delay(delay)
    u = as_array("u", u)
    if u.ndim < 2 or u.shape[-1] != sys.n_inputs:
        raise DimensionError(f"u has shape {u.shape}, expected (..., steps, {sys.n_inputs})")
    if isinstance(sys, LQOSystem):
        return _simulate_dense(sys, u, delay)
    try:
        batch = np.broadcast_shapes(sys.batch, u.shape[:-2])
    except ValueError:
        raise DimensionError(f"u has shape {u.shape}, whose leading axes do not fit the batch {sys.batch}") from None
    if np.iscomplexobj(u):
        raise InvalidInputError("a diagonal system in half storage is real, but u is complex")
    drive = u @ np.swapaxes(sys.B, -1, -2)
    start = np.zeros((*batch, sys.n_slots), complex)
    states = _states(lambda x: sys.poles * x, drive, start, delay)
    scale = np.where(sys.is_real_pole, 1.0, 2.0)[..., np.newaxis, :]

    def rows(Z: np.ndarray) -> np.ndarray:
        return (states @ np.swapaxes(scale * Z, -1, -2)).real

    y = rows(sys.C) + u @ np.swapaxes(sys.D, -1, -2)
    if sys.M is not None:
        q = sys.M
        y = y + (rows(q.U) * rows(q.V)) @ np.swapaxes(q.W, -1, -2)
    return y


def _simulate_dense(sys: LQOSystem, u: np.ndarray, delay: int) -> np.ndarray:
    drive = u @ sys.B.T
    start = np.zeros((*drive.shape[:-2], sys.order), np.result_type(drive, sys.A))
    states = _states(lambda x: x @ sys.A.T, drive, start, delay)
    y = states @ sys.C.T + u @ sys.D.T
    if isinstance(sys.M, QuadraticOutput):
        y = y + ((states @ sys.M.U.T) * (states @ sys.M.V.T)) @ sys.M.W.T
    elif sys.M is not None:
        y = y + np.einsum("...ka,iab,...kb->...ki", states, sys.M, states, optimize=True)
    return y


def _states(step: Callable[[np.ndarray], np.ndarray], drive: np.ndarray, x: np.ndarray, delay: int) -> np.ndarray:
    """The states (..., steps, n) that the output reads, from `x` (..., n) on, for the inputs to the state (..., steps, n)."""
    states = np.empty((*x.shape[:-1], drive.shape[-2], x.shape[-1]), x.dtype)
    for k in range(drive.shape[-2]):
        if delay == 1:
            states[..., k, :] = x
        x = step(x) + drive[..., k, :]
        if delay == 0:
            states[..., k, :] = x
    return states


def impulse_response(sys: System, time: np.ndarray) -> np.ndarray:
    """The linear kernel (p, m, steps) of one system, no batch: ``C exp(t A) B`` in continuous and ``C Aᵗ B`` in discrete time.

    In discrete time that is the answer of the linear part with delay 0, but for the feedthrough. `time` (steps,) is evenly
    spaced from 0; in discrete time all are integers.
    """
    values = []
    if isinstance(sys, LQOSystem):
        x, step = sys.B, expm(sys.A * (time[1] - time[0])) if sys.is_continuous else sys.A
        for _ in time:
            values.append(sys.C @ x)
            x = step @ x
    else:
        rows = np.where(sys.is_real_pole, 1, 2) * sys.C
        step = np.exp(sys.poles * (time[1] - time[0])) if sys.is_continuous else sys.poles
        for _ in time:
            values.append((rows @ sys.B).real)
            rows = rows * step
    return np.stack(values, axis=-1)
