"""Solvers of other packages for the dense equations, as far as they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

Solver: TypeAlias = Callable[[], np.ndarray]

PACKAGES = {"slycot": "slycot", "python-control": "control", "pyMOR": "pymor"}  # SciPy is always there
_WRAPPERS = ("python-control", "pyMOR")  # they pass the equation on to Slycot where it is installed


def installed() -> dict[str, object]:
    """The modules of the optional peers by the peers' names; in place of a missing one, a string that says why."""
    found: dict[str, object] = {}
    for peer, module in PACKAGES.items():
        try:
            found[peer] = import_module(module)
        except ImportError as err:
            missing = isinstance(err, ModuleNotFoundError) and err.name == module
            found[peer] = "not installed" if missing else f"cannot be imported: {err}"
    return found


def solvers(continuous: bool, A: np.ndarray, root: np.ndarray, wrappers: bool = True) -> tuple[dict[str, Solver], dict[str, str]]:
    """Functions that solve ``A X Aᵀ − X + Q = 0`` (continuous: ``A X + X Aᵀ + Q = 0``) with ``Q = root rootᵀ``.

    `A` and `root` (n, n) are real. Also returned: the peers that take no part, and why. Without `wrappers` these include the
    packages that call the routine of another peer.
    """
    Q = root @ root.T
    modules = installed()
    functions: dict[str, Solver] = {
        "SciPy": (lambda: solve_continuous_lyapunov(A, -Q)) if continuous else (lambda: solve_discrete_lyapunov(A, Q))
    }
    absent = {peer: why for peer, why in modules.items() if isinstance(why, str)}
    makers: dict[str, Callable[..., Solver]] = {"slycot": _slycot, "python-control": _control, "pyMOR": _pymor}
    for peer, make in makers.items():
        if peer in absent:
            continue
        if peer in _WRAPPERS and not wrappers:
            other = "SciPy" if "slycot" in absent else "slycot"
            absent[peer] = f"calls {other}, see there"
            continue
        try:
            functions[peer] = make(modules[peer], continuous, A, root if peer == "pyMOR" else Q)
        except (ImportError, AttributeError):
            absent[peer] = "this version has no such solver"
    return functions, absent


def _slycot(slycot: Any, continuous: bool, A: np.ndarray, Q: np.ndarray) -> Solver:
    solve, kind = slycot.sb03md57, "C" if continuous else "D"

    def run() -> np.ndarray:  # the routine overwrites arrays in Fortran order
        out = solve(A.copy(order="F"), C=np.array(-Q, order="F"), dico=kind, trana="T")
        return out[2] / out[3]

    return run


def _control(control: Any, continuous: bool, A: np.ndarray, Q: np.ndarray) -> Solver:
    Q = 0.5 * (Q + Q.T)  # its check of symmetry is exact
    return (lambda: control.lyap(A, Q)) if continuous else (lambda: control.dlyap(A, Q))


def _pymor(pymor: Any, continuous: bool, A: np.ndarray, root: np.ndarray) -> Solver:
    from pymor.operators.numpy import NumpyMatrixOperator
    from pymor.solvers.matrix_equations.equations import LyapunovEquation

    operator = NumpyMatrixOperator(A)
    right = operator.source.from_numpy(root)

    def run() -> Any:
        return LyapunovEquation(operator, None, right, cont_time=continuous).solve()

    return run
