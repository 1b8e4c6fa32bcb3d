"""The public door: which norm the keywords `horizon` and `spectrum` mean, and which keywords a kind of system has."""

from __future__ import annotations

from typing import Any

import numpy as np

from lqo_mor.analysis.norm import HorizonNorm, Norm, finite
from lqo_mor.analysis.weighted import SpectrumNorm
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.balancing import rescale, state_scales
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import System, check_kind, instead_of

NORMS: tuple[type[Norm], ...] = (HorizonNorm, SpectrumNorm)  # another norm: a file with a subclass of `Norm`, and its line here


_RANGE = 480.0  # binary logarithm of a response, beyond which its square is out of range
_FAR = 150.0  # binary logarithm of inputs or outputs, beyond which a product of four is


def norm_of(sys: System, horizon: Any = None, spectrum: Any = None) -> Norm:
    """The norm that the keywords of a public function mean.

    The one place of these checks, but for `reduction.unstable.opened`: what takes a `Norm` makes none again. Raises
    `InvalidInputError` where `sys` is no system of lqo-mor, the horizon no positive length of time (an integer in discrete time)
    or the spectrum none for it, `DimensionError` where the spectrum has other inputs or another batch, and `UnstableSystemError`
    where the norm does not exist: `sys` is unstable and the horizon infinite, or what grows overflows within it.
    """
    norm = norm_asked(sys, horizon, spectrum)
    norm.check(sys)
    return norm


def norm_asked(sys: System, horizon: Any = None, spectrum: Any = None) -> Norm:
    """`norm_of`, whether or not it exists for the system."""
    check_kind(sys)
    for kind in NORMS:
        norm = kind.asked(sys.is_continuous, horizon, spectrum)
        if norm is not None:
            return norm
    raise InvalidInputError(f"spectrum must be an InputSpectrum, got {type(spectrum).__name__}")


def prepared(sys: System, horizon: Any = None, spectrum: Any = None) -> tuple[System, Norm]:
    """The system with its states in balanced units, and the norm; raises as `norm_of`."""
    norm = norm_of(sys, horizon, spectrum)
    return balanced_units(sys)[0], norm


def balanced_units(sys: System) -> tuple[System, np.ndarray]:
    """The system with its states in balanced units, and these units, (n,) or (1,): one where nothing is to be gained.

    Units that balance `A`, and far from one those in which inputs are as large as outputs; powers of two, so nothing is rounded.
    Raises `InvalidInputError` where the response is so large or small that its square is out of range.
    """
    d, gain = state_scales(sys.A) if isinstance(sys, LQOSystem) else None, _gain_scale(sys)
    if d is None and gain is None:
        return sys, np.ones(1)
    d = (np.ones(1) if d is None else d) * (1.0 if gain is None else gain)
    if isinstance(sys, DiagonalLQOSystem):
        quadratic = None if sys.M is None else QuadraticOutput(sys.M.U * d, sys.M.V * d, sys.M.W)
        return DiagonalLQOSystem(sys.poles, sys.B / d, sys.C * d, sys.D, quadratic, dt=sys.dt), d
    M = sys.M
    if isinstance(M, QuadraticOutput):
        M = QuadraticOutput(M.U * d, M.V * d, M.W)
    elif M is not None:
        M = M * d * d[:, np.newaxis]
    return LQOSystem(rescale(sys.A, d), sys.B / d[:, np.newaxis], sys.C * d, sys.D, M, sys.dt), d


def _gain_scale(sys: System) -> float | None:
    """The unit of all states in which inputs are as large as outputs; None where their products are far from out of range."""
    M = sys.M
    inputs, linear = _size(sys.B), _size(sys.C)
    quadratic = _size(M.U) + _size(M.V) + _size(M.W) if isinstance(M, QuadraticOutput) else _size(M)
    response = max(linear + inputs, quadratic + 2 * inputs)
    if response == -np.inf:
        return None
    if not abs(response) < _RANGE:
        raise InvalidInputError(
            f"the response of the system is about 2^{response:.0f}, whose square is out of range; take other units of its inputs "
            "or outputs"
        )
    output = max(linear, 0.5 * quadratic)
    return None if max(abs(inputs), abs(output)) < _FAR else float(2.0 ** np.round(0.5 * (inputs - output)))


def _size(array: np.ndarray | None) -> float:
    """The binary logarithm of the largest entry."""
    with np.errstate(divide="ignore"):
        return -np.inf if array is None else float(np.log2(np.max(np.abs(array), initial=0.0)))


def check_keywords(sys: object, horizon: Any, spectrum: Any, *, delay: Any = 1, slots: Any = None, **of_sparse: Any) -> None:
    """Raise `InvalidInputError` where a keyword of a public function is given that this kind of system does not have.

    Sparse systems have an infinite horizon, white input, delay 1, and budgets in states; `of_sparse` are keywords that only
    they have, None by default.
    """
    sparse = isinstance(sys, SparseLQOSystem)
    of_dense = {"horizon": finite(horizon), "spectrum": spectrum, "delay": None if delay == 1 else delay, "slots": slots}
    given = ", ".join(name for name, value in (of_dense if sparse else of_sparse).items() if value is not None)
    if given:
        kind = "not for a SparseLQOSystem" if sparse else f"only for a SparseLQOSystem, got {type(sys).__name__}"
        raise InvalidInputError(f"{given}: {kind}{instead_of(sys)}")


def check_delay(delay: int) -> None:
    """Raise `InvalidInputError` unless a delay is 0 or 1."""
    if not isinstance(delay, (int, np.integer)) or delay not in (0, 1):
        raise InvalidInputError(f"delay must be 0 or 1, got {delay!r}")
