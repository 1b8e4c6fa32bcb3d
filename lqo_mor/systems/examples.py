"""Example systems that the literature uses, and random ones: for trying out, for tests and for comparisons."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.synthetic import check_count, check_positive, random_lqo, s4d, with_energy_output

_PATCHES = ((0.15, 0.35, 0.15, 0.35), (0.6, 0.8, 0.45, 0.75))  # left, right, bottom, top of what each input heats


__all__ = [
    "advection_diffusion",
    "heat_equation_2d",
    "lightly_damped",
    "mass_spring_damper",
    "random_lqo",
    "s4d",
    "triple_chain",
    "with_energy_output",
]


def advection_diffusion(n: int = 200, *, diffusion: float = 0.01, velocity: float = 1.0, reference: float = 1.0) -> LQOSystem:
    """Advection and diffusion on a rod, steered at the inflow, with the tracking cost as its output.

    ``∂z/∂t = α ∂²z/∂ξ² − β ∂z/∂ξ`` on ``0 < ξ < 1`` with ``z(0, t) = u(t)`` and ``∂z/∂ξ(1, t) = 0``, by finite
    differences (upwind for the advection) at `n` points. The output is
    ``½ ∫ (z − z₀)² dξ − ½ z₀² = ∫ (½ z² − z₀ z) dξ``: the mean of the field is its linear part, the energy of the field
    its quadratic part.

    Parameters
    ----------
    n : int, default 200
        Points, and states.
    diffusion, velocity : float, default 0.01 and 1.0
        The coefficients `α` and `β`, positive and not negative.
    reference : float, default 1.0
        The value `z₀` that is tracked; 0 leaves the energy alone.

    Returns
    -------
    LQOSystem
        Continuous, one input, one output, `M` dense.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    References
    ----------
    Diaz, Heinkenschloss, Gosea, Antoulas, "Interpolatory model reduction of quadratic-bilinear dynamical systems with
    quadratic-bilinear outputs", Adv. Comput. Math. 49 (2023); Reiter, Pontes Duff, Gosea, Gugercin, arXiv:2405.05951.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.examples.advection_diffusion(100)
    LQOSystem(order=100, inputs=1, outputs=1, quadratic=dense, dt=0.0)
    """
    check_count("n", n, 2)
    check_positive(diffusion=diffusion)
    if not 0 <= velocity < np.inf:
        raise InvalidInputError(f"velocity must be a number, at least 0; got {velocity!r}")
    diffuse, advect = diffusion * n**2, velocity * n
    A = _tridiagonal(n, diffuse + advect, -2 * diffuse - advect, diffuse)
    A[-1, -1] += diffuse  # no flux at the outflow
    B = np.zeros((n, 1))
    B[0] = diffuse + advect
    return LQOSystem(A, B, np.full((1, n), -reference / n), M=0.5 / n * np.eye(n), dt=0)


def mass_spring_damper(
    masses: int = 60,
    *,
    mass: ArrayLike = (1.0, 1.5, 2.0),
    stiffness: float = 4.0,
    alpha: float = 0.02,
    beta: float = 0.02,
    linear: bool = True,
) -> LQOSystem:
    """A chain of masses between two walls, pushed at the first mass; the outputs hold its kinetic and potential energy.

    Parameters
    ----------
    masses : int, default 60
        Number of masses; there are twice as many states, positions first.
    mass : float or sequence of float, default (1.0, 1.5, 2.0)
        The masses, repeated along the chain.
    stiffness : float, default 4.0
        Of every spring.
    alpha, beta : float, default 0.02
        Rayleigh damping: the damping matrix is ``α`` times the mass matrix plus ``β`` times the stiffness matrix.
    linear : bool, default True
        The first output is the displacement of the last mass plus the kinetic energy, the second one the velocity of the
        last mass plus the potential energy. False leaves the energies alone, ``C = 0``.

    Returns
    -------
    LQOSystem
        Continuous, one input, two outputs, `M` dense.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.examples.mass_spring_damper(10)
    LQOSystem(order=20, inputs=1, outputs=2, quadratic=dense, dt=0.0)
    """
    check_count("masses", masses, 1)
    check_positive(mass=mass, stiffness=stiffness, damping=alpha + beta)
    m, K = np.resize(mass, masses).astype(float), _tridiagonal(masses, -stiffness, 2 * stiffness, -stiffness)
    M = np.zeros((2, 2 * masses, 2 * masses))
    M[0, masses:, masses:] = 0.5 * np.diag(m)
    M[1, :masses, :masses] = 0.5 * K
    force = np.zeros(masses)
    force[0] = 1.0
    C = np.zeros((2, 2 * masses))
    C[[0, 1], [masses - 1, 2 * masses - 1]] = float(linear)
    return _second_order(m, alpha * np.diag(m) + beta * K, K, force, C, M)


def triple_chain(length: int = 20, *, alpha: float = 0.002, beta: float = 0.002, viscosity: float = 5.0) -> LQOSystem:
    """The triple chain of Truhar and Veselić: three chains of masses between walls and one heavy mass, lightly damped.

    Every mass is pushed by the same force. The outputs are the sum of all displacements, and the sum of their squares.

    Parameters
    ----------
    length : int, default 20
        Masses per chain; there are ``2 (3 length + 1)`` states, positions first.
    alpha, beta : float, default 0.002
        Rayleigh damping: ``α`` times the mass matrix plus ``β`` times the stiffness matrix.
    viscosity : float, default 5.0
        Of the three dampers at both ends of the first chain and at the wall end of the third.

    Returns
    -------
    LQOSystem
        Continuous, one input, one linear and one quadratic output, `M` dense.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    References
    ----------
    Truhar, Veselić, "An efficient method for estimating the optimal dampers' viscosity for linear vibrating systems using
    Lyapunov equation", SIAM J. Matrix Anal. Appl. 31 (2009), example 2; damping as in the M-M.E.S.S. toolbox.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.examples.triple_chain(5)
    LQOSystem(order=32, inputs=1, outputs=2, quadratic=dense, dt=0.0)
    """
    check_count("length", length, 1)
    check_positive(damping=alpha + beta)
    if not 0 <= viscosity < np.inf:
        raise InvalidInputError(f"viscosity must be a number, at least 0; got {viscosity!r}")
    n = 3 * length + 1
    m, K = np.concatenate([np.repeat([1.0, 2.0, 3.0], length), [10.0]]), np.zeros((n, n))
    K[-1, -1] = 50.0
    for chain, k in enumerate((10.0, 20.0, 1.0)):
        own, last = slice(chain * length, (chain + 1) * length), (chain + 1) * length - 1
        K[own, own] = _tridiagonal(length, -k, 2 * k, -k)
        K[last, -1] = K[-1, last] = -k
        K[-1, -1] += k
    D = alpha * np.diag(m) + beta * K
    for place in (0, length - 1, 2 * length):
        D[place, place] += viscosity
    C, M = np.zeros((2, 2 * n)), np.zeros((2, 2 * n, 2 * n))
    C[0, :n] = 1.0
    M[1, :n, :n] = np.eye(n)
    return _second_order(m, D, K, np.ones(n), C, M)


def lightly_damped(modes: int = 50, *, damping: float = 0.005, source: float = 0.13, sensor: float = 0.71) -> DiagonalLQOSystem:
    """A simply supported beam with modal damping: the velocity at one point, and its square.

    Mode ``k = 1, 2, …`` has the frequency ``k²`` (rad/s, the first one being 1) and the shape ``√2 sin(kπξ)``.

    Parameters
    ----------
    modes : int, default 50
        Modes, and slots: a conjugate pair each.
    damping : float, default 0.005
        Damping ratio of every mode, between 0 and 1.
    source, sensor : float, default 0.13 and 0.71
        Where the force acts and where the velocity is taken, as fractions of the length.

    Returns
    -------
    DiagonalLQOSystem
        Continuous, one input, one linear and one quadratic output of rank 1.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.examples.lightly_damped(10)
    DiagonalLQOSystem(order=20, slots=10, inputs=1, outputs=2, quadratic=rank 1, dt=0.0)
    """
    check_count("modes", modes, 1)
    if not 0 < damping < 1:
        raise InvalidInputError(f"damping must be a number between 0 and 1; got {damping!r}")
    k = np.arange(1, modes + 1)
    poles = k**2 * (-damping + 1j * np.sqrt(1 - damping**2))
    force, shape = (np.sqrt(2) * np.sin(k * np.pi * place) for place in (source, sensor))
    velocity = shape * poles / (poles - poles.conj())  # residues of s / (s² + 2ζω s + ω²)
    quadratic = QuadraticOutput(velocity[np.newaxis], velocity[np.newaxis], [[0.0], [1.0]])
    return DiagonalLQOSystem(poles, force[:, np.newaxis], [velocity, 0 * velocity], M=quadratic, dt=0)


def _tridiagonal(n: int, lower: float, middle: float, upper: float) -> np.ndarray:
    return np.diag(np.full(n, middle)) + np.diag(np.full(n - 1, lower), -1) + np.diag(np.full(n - 1, upper), 1)


def _second_order(mass: np.ndarray, D: np.ndarray, K: np.ndarray, force: np.ndarray, C: np.ndarray, M: np.ndarray) -> LQOSystem:
    """``m q̈ + D q̇ + K q = f u`` with a diagonal mass matrix as a system of first order with the states ``(q, q̇)``."""
    n, scale = mass.size, mass[:, np.newaxis]
    A = np.block([[np.zeros((n, n)), np.eye(n)], [-K / scale, -D / scale]])
    return LQOSystem(A, np.concatenate([np.zeros(n), force / mass])[:, np.newaxis], C, M=M, dt=0)


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
    >>> import lqo_mor as lqo
    >>> lqo.examples.heat_equation_2d(300)
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
