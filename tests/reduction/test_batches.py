import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.reduction.reduce import METHODS
from lqo_mor.systems.batches import choose, pad, stack
from tests.brute import kernels
from tests.cases import diagonal, get, parametrize, select

QUICK = {"projected_gradient": {"max_iterations": 25}, "optimal": {"max_iterations": 60, "start": "balanced"}}
BATCHES = select(batch=True)


@parametrize(BATCHES)
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("budget", [{"order": 4}, {"slots": 2}])
def test_a_batch_is_reduced_like_its_members(sys, method, budget):
    options = QUICK.get(method, {})
    red = lqo.reduce(sys, **budget, method=method, **options)
    for index in np.ndindex(sys.batch):
        single = lqo.reduce(sys[index], **budget, method=method, **options)
        assert red.error[index] == pytest.approx(single.error, rel=1e-5, abs=1e-12)
        assert red.start_error[index] == pytest.approx(single.start_error, rel=1e-6, abs=1e-12)
        assert lqo.h2_error(sys[index], red.system[index]) == pytest.approx(red.error[index], rel=1e-9)
        if red.history is not None:
            history = red.history[index][: red.iterations[index] + 1]
            assert np.all(np.isnan(red.history[index][red.iterations[index] + 1 :]))
            assert np.all(np.diff(history) <= 0)


@parametrize([case for case in BATCHES if case.sys.n_inputs == 1])
@pytest.mark.parametrize("budget", [{"order": 4}, {"order": 3}, {"slots": 2}])
@pytest.mark.parametrize("horizon", [None, 8])
def test_the_compiled_search_of_a_batch_is_about_as_good_as_that_of_one(sys, budget, horizon):
    red = lqo.reduce(sys, **budget, horizon=horizon)
    norms = lqo.h2_norm(sys, horizon)
    assert np.all(red.error <= red.start_error * (1 + 1e-6) + 1e-7 * norms)
    for index in np.ndindex(sys.batch):
        assert red.error[index] <= 1.2 * lqo.reduce(sys[index], **budget, horizon=horizon).error + 1e-7 * norms[index]


@parametrize(BATCHES)
@pytest.mark.parametrize("method", ["optimal", "projected_gradient"])
def test_a_reduction_of_a_batch_can_be_a_start(sys, method):
    start = lqo.balanced_truncation(sys, 4)
    red = lqo.reduce(sys, 4, method=method, start=start, max_iterations=20)
    assert np.all(red.error <= start.error)
    np.testing.assert_array_equal(red.start_error, start.error)


def mixed(m):
    """A batch whose balanced truncations to order 2 differ in their slots: two real poles, and a pair."""
    poles = [[0.9, -0.8, 0.1j], [0.1, -0.1, 0.9j]]
    return lqo.DiagonalLQOSystem(poles, np.ones((2, 3, m)), [[[1.0, 1.0, 1e-3]], [[1e-3, 1e-3, 1.0]]], dt=1.0)


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("method", list(METHODS))
def test_channels_that_need_different_numbers_of_slots(method, m):
    sys = mixed(m)
    red = lqo.reduce(sys, 2, method=method, **QUICK.get(method, {}))
    for k in (0, 1):
        single = lqo.reduce(sys[k], 2, method=method, **QUICK.get(method, {}))
        assert red.error[k] == pytest.approx(single.error, rel=1e-5)


def test_progress_counts_channels_up_to_the_total():
    sys = diagonal(1, pairs=3, batch=(40,))
    for method, options in (("balanced", {}), ("optimal", {"max_iterations": 5}), ("projected_gradient", {"max_iterations": 3})):
        calls = []
        lqo.reduce(sys, 2, method=method, progress=lambda done, total, calls=calls: calls.append((done, total)), **options)
        done, totals = np.array(calls).T
        assert np.all(np.diff(done) > 0)
        assert len(set(totals)) == 1
        assert done[-1] == totals[-1]
        assert totals[0] % 40 == 0


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", ["dense discrete siso linear", "diagonal discrete mimo factored"])
def test_progress_of_single_systems_is_harmless(method, name):
    calls = []
    lqo.reduce(get(name), 2, method=method, progress=lambda *call: calls.append(call), **QUICK.get(method, {}))
    assert not calls or calls[-1][0] == calls[-1][1]


def test_an_error_in_the_callback_stops_the_work():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lqo.reduce(diagonal(1, batch=(3,)), 2, progress=stop)


@parametrize(BATCHES)
def test_padding_does_not_change_a_system(sys):
    wide = pad(sys, sys.n_slots + 2)
    assert wide.n_slots == sys.n_slots + 2
    np.testing.assert_allclose(lqo.h2_norm(wide), lqo.h2_norm(sys), rtol=1e-14)
    assert pad(sys, sys.n_slots) is sys
    index = (0,) * len(sys.batch)
    for a, b in zip(kernels(wide[index], 4), kernels(sys[index], 4), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_stack_and_choose():
    a, b = (diagonal(seed, pairs=pairs, batch=(3,), m=2, c=1) for seed, pairs in ((1, 1), (2, 2)))
    chosen = choose(np.array([True, False, True]), a, b)
    for k, source in enumerate((a, b, a)):
        assert lqo.h2_error(chosen[k], source[k]) < 1e-13
    stacked = stack([a[0], b[1]], (2,))
    assert lqo.h2_error(stacked[0], a[0]) < 1e-13
    assert lqo.h2_error(stacked[1], b[1]) < 1e-13
    assert stacked.n_slots == 2


def test_text_of_a_batch():
    red = lqo.reduce(get("diagonal discrete batch siso linear"), 2)
    text = str(red)
    assert f"median {np.median(red.relative_error):.4g}, worst {np.max(red.relative_error):.4g}" in text
    assert "of 3 " in text
