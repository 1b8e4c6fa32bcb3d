"""A large example: heat in a square plate, with its mean temperature and its energy as outputs."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.synthetic import check_count, check_positive

_PATCHES = ((0.15, 0.35, 0.15, 0.35), (0.6, 0.8, 0.45, 0.75))  # left, right, bottom, top of what each input heats


def heat_equation_2d(nx: int = 100, ny: int | None = None, *, inputs: int = 1, diffusivity: float = 1.0) -> SparseLQOSystem:
    """Heat in a square plate with cold edges; the outputs are its mean temperature and its energy.

    ``∂θ/∂t = α Δθ + Σ_j 1_j(ξ) u_j(t)`` on the unit square with ``θ = 0`` on the boundary, by central differences at
    ``nx · ny`` inner points; ``1_j`` is one on the j-th heated patch and zero elsewhere. The outputs are
    ``y₁ = ∫ θ dξ`` (linear) and ``y₂ = ∫ θ² dξ`` (quadratic).

    Parameters
    ----------
    nx, ny : int, default 100 and `nx`
        Inner points in each direction; there are ``nx · ny`` states.
    inputs : {1, 2}, default 1
        Heated patches.
    diffusivity : float, default 1.0
        The coefficient `α`.

    Returns
    -------
    SparseLQOSystem
        Continuous, two outputs; `A` symmetric negative definite.

    Raises
    ------
    InvalidInputError
        If a number is out of range, or no point lies on a heated patch.

    Examples
    --------
    >>> from lqo_mor import heat_equation_2d
    >>> heat_equation_2d(300)
    SparseLQOSystem(order=90000, inputs=1, outputs=2, quadratic=sparse, dt=0.0)
    """
    ny = nx if ny is None else ny
    check_count("nx", nx, 1)
    check_count("ny", ny, 1)
    if inputs not in (1, 2):
        raise InvalidInputError(f"inputs must be 1 or 2; got {inputs!r}")
    check_positive(diffusivity=diffusivity)
    (x, along_x), (y, along_y) = _second_difference(nx), _second_difference(ny)
    kron, eye = scipy.sparse.kron, scipy.sparse.eye_array
    A = diffusivity * (kron(along_x, eye(ny)) + kron(eye(nx), along_y))
    B = np.zeros((nx * ny, inputs))
    for column, (left, right, bottom, top) in zip(B.T, _PATCHES, strict=False):
        column[:] = np.outer((left < x) & (x < right), (bottom < y) & (y < top)).ravel()
    if not np.all(np.any(B, axis=0)):
        raise InvalidInputError(f"no point of the {nx} by {ny} grid lies on a heated patch; take a finer one, from 10 points on")
    cell = 1.0 / ((nx + 1) * (ny + 1))
    C = np.zeros((2, nx * ny))
    C[0] = cell
    return SparseLQOSystem(A, B, C, M=[None, cell * eye(nx * ny)])


def _second_difference(points: int) -> tuple[np.ndarray, scipy.sparse.dia_array]:
    """The inner points of the unit interval, and the second difference on them for zero boundary values."""
    scale = float(points + 1) ** 2
    matrix = scipy.sparse.diags_array([scale, -2 * scale, scale], offsets=[-1, 0, 1], shape=(points, points))
    return np.arange(1, points + 1) / (points + 1), matrix
