import dataclasses
import re

import numpy as np
import pytest

from lqo_mor import DiagonalLQOSystem, LQOError, QuadraticOutput, to_dense
from lqo_mor.errors import DimensionError, InvalidInputError
from tests.cases import diagonal, get, parametrize, select

POLES, B, C = np.array([0.5j, 0.2]), np.ones((2, 1)), np.ones((1, 2))


def factors(c=1, s=2, p=1, batch=()):
    return QuadraticOutput(np.ones((*batch, c, s)), np.ones((*batch, c, s)), np.ones((*batch, p, c)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"poles": 0.5}, "poles has shape (), expected (..., s)"),
        ({"poles": np.ones(0)}, "poles has shape (0,), expected (..., s) with at least one slot"),
        ({"poles": np.ones(3) / 2}, "B has shape (2, 1), expected (..., s, m) = (3, 1)"),
        ({"B": np.ones(2)}, "B has shape (2,), expected (..., s, m) = (2, 1); reshape it with B.reshape(2, 1)"),
        ({"B": np.ones((2, 0))}, "0 inputs"),
        ({"C": np.ones((1, 3))}, "C has shape (1, 3), expected (..., p, s) = (1, 2)"),
        ({"C": np.ones((0, 2))}, "0 outputs"),
        ({"C": np.ones((4, 1, 2))}, "C has shape (4, 1, 2)"),
        ({"D": np.ones((2, 1))}, "D has shape (2, 1), expected (..., p, m) = (1, 1)"),
        ({"M": factors(s=3)}, "M.U has shape (1, 3), expected (..., c, s) = (1, 2)"),
        ({"M": factors(p=2)}, "M.W has shape (2, 1), expected (..., p, c) = (1, 1)"),
        ({"M": factors(batch=(3,))}, "M.U has shape (3, 1, 2)"),
    ],
)
def test_wrong_shapes_name_the_array_and_both_shapes(arguments, message):
    with pytest.raises(DimensionError, match=re.escape(message)) as caught:
        DiagonalLQOSystem(**{"poles": POLES, "B": B, "C": C, "dt": 1.0, **arguments})
    assert isinstance(caught.value, LQOError)


def test_batch_axes_must_agree():
    with pytest.raises(DimensionError, match=re.escape("B has shape (2, 2, 1), expected (..., s, m) = (3, 2, 1)")):
        DiagonalLQOSystem(np.ones((3, 2)) / 2, np.ones((2, 2, 1)), np.ones((3, 1, 2)), dt=1.0)
    with pytest.raises(DimensionError, match="batch"):
        DiagonalLQOSystem(np.ones((0, 2)), np.ones((0, 2, 1)), np.ones((0, 1, 2)), dt=1.0)


@pytest.mark.parametrize("name", ["poles", "B", "C", "D"])
def test_entries_that_are_not_finite(name):
    arrays = {"poles": POLES, "B": B, "C": C, "D": np.zeros((1, 1))}
    spoilt = arrays[name].copy()
    spoilt[(0,) * spoilt.ndim] = np.nan
    with pytest.raises(InvalidInputError, match=f"{name} has 1 entries that are not finite"):
        DiagonalLQOSystem(**{**arrays, name: spoilt}, dt=1.0)


@pytest.mark.parametrize("name", ["B", "C", "M.U", "M.V"])
def test_a_real_pole_needs_real_rows(name):
    arrays = {"poles": POLES, "B": B + 0j, "C": C + 0j, "M": factors()}
    if name == "B":
        arrays["B"][1, 0] = 1j
        where = (1, 0)
    else:
        spoilt, where = C + 0j, (0, 1)
        spoilt[where] = 1 + 1j
        arrays = {**arrays, "C": spoilt} if name == "C" else arrays
        if name != "C":
            U, V = (spoilt, C) if name.endswith("U") else (C, spoilt)
            arrays["M"] = QuadraticOutput(U, V, [[1.0]])
    with pytest.raises(InvalidInputError, match=re.escape(f"{name} is complex at {where}, where the pole is real")):
        DiagonalLQOSystem(**arrays, dt=1.0)


@pytest.mark.parametrize("name", ["D", "W"])
def test_feedthrough_and_mixing_are_real(name):
    if name == "D":
        with pytest.raises(InvalidInputError, match="D must be real"):
            DiagonalLQOSystem(POLES, B, C, [[1j]], dt=1.0)
    else:
        with pytest.raises(InvalidInputError, match="W must be real"):
            DiagonalLQOSystem(POLES, B, C, M=QuadraticOutput(C, C, [[1j]]), dt=1.0)


@pytest.mark.parametrize("dt", [-1.0, np.nan, None, "1", False])
def test_wrong_time_steps(dt):
    with pytest.raises(InvalidInputError, match="dt must be 0"):
        DiagonalLQOSystem(POLES, B, C, dt=dt)


@parametrize(select(diagonal=True))
def test_arrays_are_read_only(sys):
    q = sys.M
    for array in (sys.poles, sys.B, sys.C, sys.D, *(() if q is None else (q.U, q.V, q.W))):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        sys.poles = POLES


def test_arrays_are_copies():
    lam = POLES.copy()
    sys = DiagonalLQOSystem(lam, B, C, dt=1.0)
    lam[:] = 0
    np.testing.assert_array_equal(sys.poles, POLES)


@parametrize(select(diagonal=True))
def test_replace_changes_one_field_only(sys):
    other = dataclasses.replace(sys, C=3 * sys.C)
    np.testing.assert_array_equal(other.C, 3 * sys.C)
    np.testing.assert_array_equal(other.poles, sys.poles)
    np.testing.assert_array_equal(other.B, sys.B)
    assert (other.M is None) == (sys.M is None)


def test_sizes():
    sys = diagonal(0, pairs=3, reals=2, m=2, p=4)
    assert (sys.order, sys.n_slots, sys.n_inputs, sys.n_outputs, sys.batch) == (8, 5, 2, 4, ())
    assert isinstance(sys.order, int)
    np.testing.assert_array_equal(sys.is_real_pole, [False] * 3 + [True] * 2)
    mixed = DiagonalLQOSystem([[0.5, 0.1j], [0.2j, 0.3j]], np.ones((2, 2, 1)), np.ones((2, 1, 2)), dt=1.0)
    np.testing.assert_array_equal(mixed.order, [3, 4])


@parametrize(select(batch=True))
def test_indexing_a_batch(sys):
    for index in np.ndindex(sys.batch):
        one = sys[index]
        assert one.batch == ()
        assert one.dt == sys.dt
        np.testing.assert_array_equal(one.poles, sys.poles[index])
        np.testing.assert_array_equal(one.B, sys.B[index])
        np.testing.assert_array_equal(one.C, sys.C[index])
        np.testing.assert_array_equal(one.D, sys.D[index])
        if sys.M is not None:
            np.testing.assert_array_equal(one.M.U, sys.M.U[index])
            np.testing.assert_array_equal(one.M.W, sys.M.W[index])
    assert sys[:1].batch == (1, *sys.batch[1:])
    assert sys[np.zeros(5, int)].batch == (5, *sys.batch[1:])
    assert sys[()].batch == sys.batch
    np.testing.assert_array_equal(sys[-1].poles, sys.poles[-1])


@pytest.mark.parametrize("index", [3, (0, 0), (slice(None), 0), "a"])
def test_an_index_beyond_the_batch_is_refused(index):
    with pytest.raises(IndexError):
        get("diagonal discrete batch siso linear")[index]


def test_an_ellipsis_means_the_batch_axes():
    sys = get("diagonal discrete batch siso factored")
    np.testing.assert_array_equal(sys[..., 1].poles, sys.poles[:, 1])
    np.testing.assert_array_equal(sys[..., 1].C, sys.C[:, 1])
    np.testing.assert_array_equal(sys[...].poles, sys.poles)


def test_a_single_system_has_no_members():
    with pytest.raises(IndexError):
        get("diagonal discrete siso linear")[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("diagonal discrete siso linear", "DiagonalLQOSystem(order=7, slots=4, inputs=1, outputs=1, quadratic=none, dt=1.0)"),
        (
            "diagonal continuous batch siso factored",
            "DiagonalLQOSystem(batch=(2, 2), order=7, slots=4, inputs=1, outputs=2, quadratic=rank 2, dt=0.0)",
        ),
    ],
)
def test_repr(name, text):
    assert repr(get(name)) == text


def test_repr_of_a_mixed_batch():
    mixed = DiagonalLQOSystem([[0.5, 0.1j], [0.2j, 0.3j]], np.ones((2, 2, 1)), np.ones((2, 1, 2)), dt=1.0)
    assert "batch=(2,), order=3..4" in repr(mixed)


@pytest.mark.parametrize("quadratic", [np.ones((1, 2, 2)), [[1.0]], "text", 3])
def test_a_quadratic_output_must_be_factors(quadratic):
    with pytest.raises(InvalidInputError, match=r"M is of type \w+, expected a QuadraticOutput\(U, V, W\)"):
        DiagonalLQOSystem(POLES, B, C, M=quadratic, dt=1.0)


@parametrize([c for c in select(diagonal=True) if c.sys.M is not None])
def test_half_storage_has_no_plain_matrices(sys):
    assert isinstance(sys.M, QuadraticOutput)
    with pytest.raises(InvalidInputError, match=r"to_dense\(sys\)\.M\.to_dense\(\)"):
        sys.M.to_dense()
    if not sys.batch:
        assert to_dense(sys).M.to_dense().shape == (sys.n_outputs, sys.order, sys.order)
