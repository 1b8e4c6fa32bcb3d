"""What the kinds of systems share: their sizes by the shapes of the matrices, and the checks of the matrices of an output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError
from lqo_mor.systems.checks import as_array, check_shape
from lqo_mor.systems.quadratic import QuadraticOutput


class StateSpace:
    """Numbers of inputs and outputs, and the kind of time; leading axes of the matrices are a batch."""

    B: np.ndarray
    C: np.ndarray
    dt: float | bool

    @property
    def n_inputs(self) -> int:
        """Number of inputs `m` of each system."""
        return self.B.shape[-1]

    @property
    def n_outputs(self) -> int:
        """Number of outputs `p` of each system."""
        return self.C.shape[-2]

    @property
    def is_continuous(self) -> bool:
        """True for continuous time (``dt = 0``)."""
        return self.dt is not True and self.dt == 0


def output_matrices(
    C: ArrayLike | None,
    D: ArrayLike | None,
    M: QuadraticOutput | Sequence[Any] | np.ndarray | None,
    n: int,
    m: int,
    dtype: type[np.float64] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`C` (p, n) and `D` (p, m), zero where they are None, for `n` states and `m` inputs; raises where the shapes do not fit.

    `M` holds the factors, which are checked, too, or one matrix per output, of which only the number counts here.
    """
    if C is None:
        if M is None:
            raise DimensionError("C is missing: give C of shape (p, n), or M for a purely quadratic output")
        C = np.zeros((M.n_outputs if isinstance(M, QuadraticOutput) else len(M), n))
    C = as_array("C", C, dtype)
    p = C.shape[0] if C.ndim == 2 else 1
    check_shape("C", C, (p, n), "(p, n)")
    if m == 0 or p == 0:
        raise DimensionError(f"the system has {m} inputs and {p} outputs; both must be at least 1")
    D = as_array("D", np.zeros((p, m)) if D is None else D, dtype)
    check_shape("D", D, (p, m), "(p, m)")
    if isinstance(M, QuadraticOutput):
        check_shape("M.U", M.U, (M.rank, n), "(c, n)")
        check_shape("M.W", M.W, (p, M.rank), "(p, c)")
    return C, D
