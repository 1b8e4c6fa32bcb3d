"""Balanced coefficients: states in units in which no row of `A` is much larger than its column.

Without it, a state in other units costs a dense solver as many digits as the units differ. Powers of two: nothing is rounded.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

_WORTH = 0.25  # of the norm of `A`: a gain of less is none of accuracy, and other units can cost a digit, too


def state_scales(A: np.ndarray) -> np.ndarray | None:
    """The units `d` (n,) in which ``A_ij d_j / d_i`` is balanced (LAPACK gebal); None if `A` nearly is."""
    gebal = lapack.zgebal if np.iscomplexobj(A) else lapack.dgebal
    balanced, _, _, scales, _ = gebal(A, scale=1, permute=0)
    if np.linalg.norm(balanced) > _WORTH * np.linalg.norm(A):
        return None
    return scales


def rescale(A: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """``D⁻¹ A D``."""
    return A * scales / scales[:, np.newaxis]
