"""What the kernels of the search know of one system with one input: a tuple, and the names of its entries.

A tuple costs a kernel nothing, a named one 2.5 µs a call; hence constants for ``data[LAM]``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Data: TypeAlias = tuple[Any, ...]

(
    CODE,  # of the pairing, and its parameters
    PARAMETERS,
    LAM,  # poles of the full system in half storage (n,), its input row (n,), and which poles are real
    B,
    REAL_POLES,
    ROOT,  # all-pass form: a factor of the observability Gramian, in which quadratic outputs count twice
    ROWS,  # all-pass form, quadratic outputs: real rows [U; V], WᵀW, and the pairings of all poles, plain and hermitian
    T,
    PLAIN,
    HERMITIAN,
    FEATURES,  # residue form: features of the poles (6, n), and outputs times inputs (p, n), a real pole by half
    OUTPUTS,
    SQUARED_NORM,  # of the full system
    RIDGE,  # on the squared residues
    ALLPASS,  # which of the two forms of the error is asked for
) = range(15)

_NONE, _NOTHING = np.zeros((0, 0)), np.zeros((0, 0), complex)


def kernel_data(
    pairing: tuple[int, np.ndarray],
    poles: np.ndarray,
    features: np.ndarray,
    outputs: np.ndarray,
    squared_norm: float,
    ridge: float,
    inputs: np.ndarray | None = None,
    allpass: tuple[np.ndarray, ...] | None = None,
) -> Data:
    """The tuple of one system; `allpass` holds ``ROOT, ROWS, T, PLAIN, HERMITIAN`` where that form is asked for."""
    inputs = np.ones(poles.size, complex) if inputs is None else inputs
    form = (_NONE, _NONE, _NONE, _NOTHING, _NOTHING) if allpass is None else allpass
    return (*pairing, poles, inputs, poles.imag == 0, *form, features, outputs, squared_norm, ridge, allpass is not None)
