"""Systems to and from python-control."""

from __future__ import annotations

from typing import Any

from lqo_mor.errors import InvalidInputError, MissingDependencyError
from lqo_mor.io.matrices import linear_matrices
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.system import AnySystem


def to_control(sys: AnySystem) -> Any:
    """A linear system as a `control.StateSpace`.

    Parameters
    ----------
    sys : LQOSystem, DiagonalLQOSystem or SparseLQOSystem
        Real, without quadratic output; a diagonal system gets the coordinates of `to_dense`, a sparse one of up to 4096 states
        dense matrices without `E`.

    Returns
    -------
    control.StateSpace
        With copies of the matrices and the same `dt`: 0 continuous, True or a number (seconds) discrete.

    Raises
    ------
    InvalidInputError
        If `sys` has a quadratic output or complex entries, which python-control would drop, or is a batch or no system.
    MissingDependencyError
        If python-control is not installed (extra ``control``).

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> from lqo_mor.io import to_control
    >>> sys = to_control(lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=0.1))
    >>> sys.A, sys.dt
    (array([[0.5]]), 0.1)
    """
    control = _control("to_control")
    A, B, C, D = linear_matrices(sys, "python-control")
    return control.StateSpace(A, B, C, D, sys.dt, remove_useless_states=False)


def from_control(sys: Any) -> LQOSystem:
    """A system of python-control as an `LQOSystem`.

    Parameters
    ----------
    sys : control.StateSpace or control.TransferFunction
        With at least one state and a time base. A transfer function is realised by `control.ss`.

    Returns
    -------
    LQOSystem
        With copies of the matrices and the same `dt`. Names of signals are not kept.

    Raises
    ------
    InvalidInputError
        If `sys` is neither of the two, improper, a static gain, has entries that are not finite, or ``dt = None``, which leaves
        open whether its time is continuous or discrete.
    MissingDependencyError
        If python-control is not installed (extra ``control``), or Slycot where `control.ss` needs it (extra ``slycot``).

    Examples
    --------
    >>> import control
    >>> from lqo_mor.io import from_control
    >>> from_control(control.tf([1.0], [1.0, 0.5], 0.1))
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=0.1)
    """
    control = _control("from_control")
    if isinstance(sys, control.TransferFunction):
        sys = _realised(control, sys)
    if not isinstance(sys, control.StateSpace):
        raise InvalidInputError(
            f"expected a StateSpace or TransferFunction of python-control, got {type(sys).__name__}; linearise a nonlinear "
            "system with control.linearize first"
        )
    if sys.nstates == 0:
        raise InvalidInputError("the system is a static gain: it has no states, and nothing can be reduced")
    if sys.dt is None:
        raise InvalidInputError(
            "dt of the system is None, which is neither continuous nor discrete time; set it first: sys.dt = 0 (continuous), "
            "True or the time step (discrete)"
        )
    return LQOSystem(sys.A, sys.B, sys.C, sys.D, dt=sys.dt)


def _control(purpose: str) -> Any:
    """The library."""
    try:
        import control
    except ImportError:
        raise MissingDependencyError("python-control", "control", purpose) from None
    return control


def _realised(control: Any, sys: Any) -> Any:
    """A transfer function in state space, by python-control."""
    if any(len(num) > len(den) for row in zip(sys.num, sys.den, strict=True) for num, den in zip(*row, strict=True)):
        raise InvalidInputError("the transfer function is improper (a numerator of higher degree than its denominator)")
    try:
        return control.ss(sys)
    except control.ControlMIMONotImplemented:
        purpose = "from_control of a transfer function with several inputs or outputs"
        raise MissingDependencyError("Slycot", "slycot", purpose) from None
    except (ValueError, ArithmeticError) as err:
        raise InvalidInputError(f"control.ss cannot convert the transfer function to state space: {err}") from None
