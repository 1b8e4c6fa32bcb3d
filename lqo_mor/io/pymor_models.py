"""Systems to and from pyMOR."""

from __future__ import annotations

from typing import Any

from scipy.sparse import csc_array

from lqo_mor.errors import InvalidInputError, MissingDependencyError
from lqo_mor.io.matrices import full, is_large, linear_matrices, no_quadratic
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.descriptor import without_descriptor
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem


def to_pymor(sys: AnySystem) -> Any:
    """A linear system as an `LTIModel` of pyMOR.

    Parameters
    ----------
    sys : LQOSystem, DiagonalLQOSystem or SparseLQOSystem
        Without quadratic output, for which pyMOR has no model; a diagonal system gets the coordinates of `to_dense`, a sparse
        one keeps its sparse matrices and its `E`.

    Returns
    -------
    pymor.models.iosys.LTIModel
        With copies of the matrices and `sampling_time` 0 (continuous) or the time step; 1 for ``dt=True``, since pyMOR knows no
        unspecified one.

    Raises
    ------
    InvalidInputError
        If `sys` has a quadratic output, or is a batch or no system.
    MissingDependencyError
        If pyMOR is not installed (extra ``pymor``).

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> from lqo_mor.io import to_pymor
    >>> to_pymor(lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=0.1)).sampling_time
    0.1
    """
    LTIModel = _lti_model("to_pymor")
    if isinstance(sys, SparseLQOSystem):
        no_quadratic(sys, "pyMOR")
        return LTIModel.from_matrices(sys.A, sys.B, sys.C, sys.D, sys.E, sampling_time=float(sys.dt))
    return LTIModel.from_matrices(*linear_matrices(sys, "pyMOR", takes_complex=True), sampling_time=float(sys.dt))


def from_pymor(model: Any) -> LQOSystem | SparseLQOSystem:
    """An `LTIModel` of pyMOR as an `LQOSystem`, or as a `SparseLQOSystem` if it is sparse and has more than 4096 states.

    Parameters
    ----------
    model : pymor.models.iosys.LTIModel
        Not parametric. For an `LQOSystem` an operator `E` is solved for: if it is symmetric positive definite by its Cholesky
        factor, which changes the states and keeps the symmetry of `A`, otherwise by LU.

    Returns
    -------
    LQOSystem or SparseLQOSystem
        With copies of the matrices and the `sampling_time` as `dt`. The initial state is not part of it: systems start at rest.

    Warns
    -----
    AccuracyWarning
        If the condition number of `E` exceeds 1e8, with its value.

    Raises
    ------
    InvalidInputError
        If `model` is no `LTIModel`, parametric, not made of matrices, or its `E` is singular.
    MissingDependencyError
        If pyMOR is not installed (extra ``pymor``).

    Examples
    --------
    >>> import numpy as np
    >>> from pymor.models.iosys import LTIModel
    >>> from lqo_mor.io import from_pymor
    >>> one = np.array([[1.0]])
    >>> from_pymor(LTIModel.from_matrices(-one, one, one, E=2 * one)).A
    array([[-0.5]])
    """
    LTIModel = _lti_model("from_pymor")
    from pymor.core.exceptions import RuleNotMatchingError

    if not isinstance(model, LTIModel):
        raise InvalidInputError(
            f"expected an LTIModel of pyMOR, got {type(model).__name__}; a model of second order has a method to_lti"
        )
    if model.parametric:
        raise InvalidInputError(
            f"the model depends on the parameters {', '.join(model.parameters)}; fix them: "
            "LTIModel.from_matrices(*model.to_matrices(mu=mu), sampling_time=model.sampling_time)"
        )
    try:
        matrices = LTIModel.to_matrices(model)  # a subclass, such as PHLTIModel, may give other ones
    except (RuleNotMatchingError, NotImplementedError) as err:
        raise InvalidInputError(f"an operator of the model cannot be written as a matrix: {err}") from None
    A, B, C, D, E = matrices
    if is_large(A, E):
        return SparseLQOSystem(csc_array(A), B, C, D, E=None if E is None else csc_array(E), dt=model.sampling_time)
    A, B, C, D, E = map(full, matrices)
    sys = LQOSystem(A, B, C, D, dt=model.sampling_time)
    return sys if E is None else without_descriptor(sys, E)


def _lti_model(purpose: str) -> Any:
    """The class of pyMOR."""
    try:
        from pymor.models.iosys import LTIModel
    except ImportError:
        raise MissingDependencyError("pyMOR", "pymor", purpose) from None
    return LTIModel
