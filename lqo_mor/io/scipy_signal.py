"""Systems to and from scipy.signal."""

from __future__ import annotations

from typing import Any

import numpy as np

from lqo_mor.errors import InvalidInputError
from lqo_mor.io.matrices import linear_matrices
from lqo_mor.systems.checks import check_dt
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.system import AnySystem


def to_scipy(sys: AnySystem) -> Any:
    """A linear system as a `scipy.signal.StateSpace`.

    Parameters
    ----------
    sys : LQOSystem, DiagonalLQOSystem or SparseLQOSystem
        As for `to_control`.

    Returns
    -------
    scipy.signal.StateSpace
        A `scipy.signal.lti` for ``dt = 0``, otherwise a `scipy.signal.dlti` with the same `dt` (True or a number, seconds). The
        matrices are copies.

    Raises
    ------
    InvalidInputError
        As for `to_control`; `scipy.signal.dlsim` would drop complex entries, too.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> from lqo_mor.io import to_scipy
    >>> to_scipy(lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=0.1)).dt
    0.1
    """
    import scipy.signal

    A, B, C, D = linear_matrices(sys, "scipy.signal")
    return scipy.signal.StateSpace(A, B, C, D, **({} if sys.is_continuous else {"dt": sys.dt}))


def from_scipy(sys: Any) -> LQOSystem:
    """A system of scipy.signal as an `LQOSystem`.

    Parameters
    ----------
    sys : scipy.signal.lti or scipy.signal.dlti
        A `StateSpace`; a `TransferFunction` or `ZerosPolesGain` is realised by its method ``to_ss``.

    Returns
    -------
    LQOSystem
        With copies of the matrices; ``dt = 0`` for an `lti`, otherwise the `dt` of the `dlti`.

    Raises
    ------
    InvalidInputError
        If `sys` is no such system, is improper, a static gain, has entries that are not finite, or is a `dlti` without a positive
        `dt`.

    Examples
    --------
    >>> import scipy.signal
    >>> from lqo_mor.io import from_scipy
    >>> from_scipy(scipy.signal.dlti([1.0], [1.0, 0.5], dt=True))
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=True)
    """
    import scipy.signal

    if not isinstance(sys, (scipy.signal.lti, scipy.signal.dlti)):
        raise InvalidInputError(f"expected a StateSpace, lti or dlti of scipy.signal, got {type(sys).__name__}")
    dt = check_dt(sys.dt) if isinstance(sys, scipy.signal.dlti) else 0.0
    if isinstance(sys, scipy.signal.dlti) and dt == 0:
        raise InvalidInputError("the system is discrete, but its dt is 0; give True or the time step")
    if not isinstance(sys, scipy.signal.StateSpace):
        try:
            sys = sys.to_ss()
        except ValueError as err:
            raise InvalidInputError(f"to_ss cannot convert the {type(sys).__name__} to state space: {err}") from None
    if not (np.any(sys.A) or np.any(sys.B) or np.any(sys.C)):  # SciPy gives a gain a state that nothing reaches
        raise InvalidInputError("the system is a static gain: it has no states, and nothing can be reduced")
    return LQOSystem(sys.A, sys.B, sys.C, sys.D, dt=dt)
