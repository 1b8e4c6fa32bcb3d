"""Linear systems that trip conversions, and responses computed straight from their matrices."""

import numpy as np
import pytest
import scipy.sparse

from lqo_mor import DiagonalLQOSystem, LQOSystem


def random_system(dt, n=7, m=2, p=3, radius=0.8):
    """A dense system with distinct numbers of states, inputs and outputs, unstable for a `radius` above one."""
    rng = np.random.default_rng([n, m, p])
    A = rng.standard_normal((n, n))
    A *= radius / np.abs(np.linalg.eigvals(A)).max()
    if dt == 0:
        A -= np.eye(n)
    return LQOSystem(A, rng.standard_normal((n, m)), rng.standard_normal((p, n)), rng.standard_normal((p, m)), dt=dt)


def _read_only(array, order="C"):
    array = np.array(array, order=order)
    array.flags.writeable = False
    return array


_JORDAN = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]])
SYSTEMS = {
    "discrete": random_system(1.0),
    "discrete, step 0.1": random_system(0.1),
    "discrete, step not said": random_system(True),
    "continuous": random_system(0),
    "unstable": random_system(0.1, radius=1.3),
    "one state": LQOSystem([[0.5]], [[2.0]], [[-3.0]], dt=0.1),
    "feedthrough only": LQOSystem(np.diag([0.5, 0.2]), np.zeros((2, 2)), np.zeros((1, 2)), [[1.5, -2.0]], dt=1.0),
    "not minimal": LQOSystem(np.diag([0.5, 0.2, 0.1]), [[1.0], [0.0], [1.0]], [[1.0, 1.0, 0.0]], dt=True),
    "not diagonalisable": LQOSystem(_JORDAN, [[0.0], [0.0], [1.0]], [[1.0, 0.0, 0.0]], dt=1.0),
    "pole at zero": LQOSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]], [[1.0, 0.0]], dt=1.0),
    "integers": LQOSystem(np.array([[0, 1], [-2, -3]]), np.array([[0], [1]]), np.array([[1, 0]]), dt=0),
    "Fortran order, read-only": LQOSystem(
        _read_only(_JORDAN, "F"), _read_only(np.ones((3, 2)), "F"), _read_only(np.eye(3)[:2], "F"), dt=1.0
    ),
    "sparse": LQOSystem(scipy.sparse.csr_array(_JORDAN), scipy.sparse.eye_array(3, 1), scipy.sparse.eye_array(1, 3), dt=1.0),
    "diagonal": DiagonalLQOSystem([0.9j, 0.5], [[1.0, 2.0], [1.0, -1.0]], [[1 + 2j, 3.0]], [[0.5, 0.0]], dt=0.1),
    "diagonal, continuous": DiagonalLQOSystem([-0.1 + 2j, -1.0], [[1.0], [1.0]], [[1j, 3.0], [1.0, 0.0]], dt=0),
}
DISCRETE = {name: sys for name, sys in SYSTEMS.items() if not sys.is_continuous}
parametrize = pytest.mark.parametrize("sys", SYSTEMS.values(), ids=SYSTEMS)
parametrize_discrete = pytest.mark.parametrize("sys", DISCRETE.values(), ids=DISCRETE)


def response(sys, points):
    """``C (z I − A)⁻¹ B + D`` at complex points, (p, m, len(points)); slot by slot for a diagonal system."""
    values = []
    for z in points:
        if isinstance(sys, DiagonalLQOSystem):
            pair = sys.poles.imag != 0
            value = sys.C @ (sys.B / (z - sys.poles)[:, np.newaxis])
            value = value + (sys.C.conj() * pair) @ (sys.B.conj() / (z - sys.poles.conj())[:, np.newaxis])
        else:
            value = sys.C @ np.linalg.solve(z * np.eye(sys.order) - sys.A, sys.B)
        values.append(value + sys.D)
    return np.stack(values, axis=-1)


def points(dt, frequencies):
    """Where a frequency response is taken, for angular frequencies per second (per sample for ``dt=True``)."""
    return 1j * frequencies if dt == 0 else np.exp(1j * frequencies * float(dt))


FREQUENCIES = np.array([0.05, 0.7, 2.9])


def assert_close(actual, wanted, rtol):
    """To `rtol` of the largest entry."""
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=rtol * np.abs(wanted).max())


def assert_same_matrices(a, b):
    for name in "ABCD":
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.dt == b.dt
    assert isinstance(a.dt, bool) == isinstance(b.dt, bool)
