"""Slots of sections: poles one by one, as residues need them, and their derivatives by the parameters of the sections."""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS
from lqo_mor.reduction.sections.sections import FREE, N_CONSTANTS, PAIR, REAL, _constants, _poles, _size

_SMALLEST = 1e-12  # modulus of a real pole in discrete time, whose logarithm is needed
_PARTED = 2e-3  # distance of the two poles of a section, in units of the decay, that residues can tell


@njit(cache=True, error_model="numpy")
def _root_jet(continuous, mu, a1, first, second, out):
    """Derivatives of ``log μ`` (continuous: ``μ``) for a root of ``μ² − a₁ μ + a₂``, by two parameters; theory, eq. (6.13).

    `first` and `second` hold the derivatives of the coefficients: by each parameter, then second ones, (5,). `out` (5,) too.
    """
    inverse = 1.0 / (2.0 * mu - a1)
    for k in range(2):
        out[k] = (mu * first[k] - second[k]) * inverse
    for k in range(3):
        i, j = k // 2, (k + 1) // 2
        cross = out[i] * first[j] + out[j] * first[i] - 2.0 * out[i] * out[j]
        out[2 + k] = (cross + mu * first[2 + k] - second[2 + k]) * inverse
    if not continuous:
        inverse = 1.0 / mu
        for k in range(3):
            out[2 + k] = (out[2 + k] - out[k // 2] * out[(k + 1) // 2] * inverse) * inverse
        out[0] *= inverse
        out[1] *= inverse


@njit(cache=True, error_model="numpy")
def _coefficients(continuous, c, first, second):
    """Derivatives of both coefficients of a free section by its parameters, as `_root_jet` takes them; theory, eq. (6.13)."""
    first[:] = 0.0
    second[:] = 0.0
    if continuous:
        first[0] = first[2] = -c[0]
        second[1] = second[4] = c[1]
        return
    k1, k2, slope1, slope2 = c[6], c[7], c[4], c[5]
    first[0], first[1] = slope1 * (1.0 + k2), k1 * slope2
    first[2], first[3], first[4] = -2.0 * k1 * slope1 * (1.0 + k2), slope1 * slope2, -2.0 * k1 * k2 * slope2
    second[1], second[4] = slope2, -2.0 * k2 * slope2


@njit(cache=True, error_model="numpy")
def _parted(continuous, c):
    """The constants of a free section, its poles moved apart where they meet: residues need two of them."""
    if continuous:
        least, q = (_PARTED * c[0]) ** 2, 0.25 * c[0] ** 2 - c[1]
        if abs(q) < least:
            c[1] = 0.25 * c[0] ** 2 - (least if q >= 0 else -least)
    else:
        least = (_PARTED * c[2]) ** 2
        if abs(c[3]) < least:
            c[3] = least if c[3] >= 0 else -least


@njit(cache=True, error_model="numpy")
def _slots(code, kinds, x, least, mu, slot, unit, slopes, bends):
    """Slots of all sections, their number, and per real coordinate of the residues and poles its slot and derivatives.

    A pair has the coordinates ``Re c, Im c`` and ``Re z, Im z`` along `unit` 1 and i; a real pole ``c`` and ``z``. `slopes`
    (r, 2) and `bends` (r, 3) are the derivatives of the coordinates of ``z`` by the parameters of their section: theory,
    eq. (6.13).
    """
    continuous, constants = code >= CONTINUOUS, np.empty(N_CONSTANTS)
    first, second, jet, other = np.empty(5), np.empty(5), np.zeros(5, np.complex128), np.zeros(5, np.complex128)
    k, count = 0, 0
    for kind in kinds:
        _constants(continuous, kind, x[k], x[k + 1] if kind != REAL else 0.0, least, constants)
        if kind == FREE:
            _parted(continuous, constants)
        one, two = _poles(continuous, kind, constants)
        if kind == FREE:
            if not continuous:  # the logarithm of a pole is needed
                one = one if abs(one) > _SMALLEST else complex(_SMALLEST, 0.0)
                two = two if abs(two) > _SMALLEST else complex(_SMALLEST, 0.0)
            _coefficients(continuous, constants, first, second)
            _root_jet(continuous, one, (one + two).real, first, second, jet)
            _root_jet(continuous, two, (one + two).real, first, second, other)
        elif kind == PAIR:
            jet[:] = 0.0
            jet[0] = jet[2] = -constants[2]
            jet[1] = 1.0j
        elif continuous:
            jet[:] = 0.0
            jet[0] = jet[2] = one
        else:
            one = complex(np.copysign(max(abs(one.real), _SMALLEST), one.real), 0.0)
            jet[:] = 0.0
            m = one.real
            jet[0], jet[2] = constants[2] / m, -constants[2] * (1.0 / (m * m) + 1.0)
        mu[count], slot[k], unit[k] = one, count, 1.0
        slopes[k, 0], slopes[k, 1] = jet[0].real, jet[1].real
        for d in range(3):
            bends[k, d] = jet[2 + d].real
        if kind == PAIR or (kind == FREE and one.imag != 0.0):
            slot[k + 1], unit[k + 1] = count, 1.0j
            slopes[k + 1, 0], slopes[k + 1, 1] = jet[0].imag, jet[1].imag
            for d in range(3):
                bends[k + 1, d] = jet[2 + d].imag
        elif kind == FREE:
            count += 1
            mu[count], slot[k + 1], unit[k + 1] = two, count, 1.0
            slopes[k + 1, 0], slopes[k + 1, 1] = other[0].real, other[1].real
            for d in range(3):
                bends[k + 1, d] = other[2 + d].real
        count += 1
        k += _size(kind)
    return count
