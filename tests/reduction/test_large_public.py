"""A sparse system goes through the same public functions as its dense twin, and what it cannot do is refused with a way out."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import DimensionError, InvalidInputError, LQOError, OrderError
from lqo_mor.reduction import large as large_module
from lqo_mor.reduction.plot import plot_reduction
from tests.reduction.test_large import SYSTEMS, dense, diagonal

pytest.importorskip("pymor")

WAY_OUT = r"; use lqo\.balance\(sys\)\.system, a dense system that stands for it$"


@pytest.fixture(scope="module", params=SYSTEMS)
def twins(request):
    """A sparse system, the same as a dense one, and the balancing of the sparse one."""
    sys = SYSTEMS[request.param]()
    return sys, dense(sys), lqo.balance(sys)


@pytest.fixture(scope="module")
def heat():
    return lqo.examples.heat_equation_2d(12, inputs=2)


def test_gramians_norms_and_hankel_values_are_those_of_the_dense_twin(twins):
    sys, full, _ = twins
    P, Q = lqo.controllability_gramian(sys), lqo.observability_gramian(sys)
    assert isinstance(P, lqo.LowRankGramian) and isinstance(Q, lqo.LowRankGramian)
    E = np.eye(sys.order) if sys.E is None else sys.E.toarray()
    for ours, wanted in ((P.factor, lqo.controllability_gramian(full)), (E.T @ Q.factor, lqo.observability_gramian(full))):
        np.testing.assert_allclose(ours @ ours.T, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())
    assert lqo.h2_norm(sys) == pytest.approx(lqo.h2_norm(full), rel=1e-9)
    hsv = lqo.hankel_singular_values(sys)
    wanted = lqo.hankel_singular_values(full)
    np.testing.assert_allclose(hsv, wanted[: hsv.size], rtol=0, atol=1e-7 * wanted[0])
    rom = lqo.balanced_truncation(full, 4).system
    for relative in (False, True):
        error = lqo.h2_error(sys, rom, relative=relative)
        assert error == pytest.approx(lqo.h2_error(full, rom, relative=relative), rel=1e-6)
        assert lqo.h2_error(sys, lqo.to_diagonal(rom), relative=relative) == pytest.approx(error, rel=1e-6)


def test_work_is_shared_by_giving_the_gramian_or_the_balancing(twins):
    sys, _, balancing = twins
    P = lqo.controllability_gramian(sys)
    rom = balancing.system
    assert lqo.h2_norm(sys, controllability=P) == lqo.h2_norm(sys)
    assert lqo.h2_error(sys, rom, controllability=P) == lqo.h2_error(sys, rom) == balancing.error
    np.testing.assert_array_equal(lqo.hankel_singular_values(sys, controllability=P), lqo.hankel_singular_values(sys))
    given, found = lqo.observability_gramian(sys, controllability=P), lqo.observability_gramian(sys)
    np.testing.assert_array_equal(given.factor, found.factor)
    alone, shared = lqo.balanced_truncation(sys, 4), lqo.balanced_truncation(sys, 4, balancing=balancing)
    np.testing.assert_array_equal(alone.system.A, shared.system.A)


def test_a_tolerance_of_gramians_holds_for_both(heat):
    P = lqo.controllability_gramian(heat, tol=1e-4)
    Q = lqo.observability_gramian(heat, tol=1e-4)
    np.testing.assert_array_equal(Q.factor, lqo.observability_gramian(heat, controllability=P, tol=1e-4).factor)
    assert P.columns < lqo.controllability_gramian(heat).columns
    assert 1e-12 < P.residual < 1e-4 and 1e-12 < Q.residual < 1e-4


def test_balanced_truncation_is_that_of_reduce_and_of_the_dense_twin(twins):
    sys, full, balancing = twins
    ours, same = lqo.balanced_truncation(sys, 4, balancing=balancing), lqo.reduce(sys, 4, method="balanced", balancing=balancing)
    np.testing.assert_array_equal(ours.system.A, same.system.A)
    assert (ours.error, ours.relative_error, ours.digits) == (same.error, same.relative_error, same.digits)
    assert ours.relative_error == pytest.approx(lqo.balanced_truncation(full, 4).relative_error, rel=1e-5)


def test_orders_give_a_curve_with_errors_to_the_sparse_system(twins):
    sys, full, balancing = twins
    methods = ["balanced", "tsia"]
    curve = lqo.reduce(sys, orders=[5, 2], method=methods, balancing=balancing)
    assert isinstance(curve, lqo.ErrorCurve) and curve.orders == (2, 5)
    np.testing.assert_array_equal(curve.hsv, balancing.hsv)
    wanted = lqo.reduce(full, orders=[2, 5], method=methods)
    for name in methods:
        np.testing.assert_allclose(curve.errors[name], wanted.errors[name], rtol=1e-5)
        for red in curve.reductions[name]:
            assert red.error == lqo.h2_error(sys, red.system, controllability=balancing.controllability)
            single = lqo.reduce(sys, int(red.system.order), method=name, balancing=balancing)
            np.testing.assert_array_equal(red.system.A, single.system.A)


def test_an_optimal_curve_never_gets_worse_with_the_order(heat):
    curve = lqo.reduce(heat, orders=[1, 2, 3])
    errors = curve.errors["optimal"]
    assert np.all(np.diff(errors) < 0)
    assert lqo.reduce(heat, 3).relative_error == pytest.approx(errors[-1], rel=1e-6)


@pytest.mark.parametrize("method", ["balanced", "optimal"])
def test_max_error_gives_the_smallest_order(heat, method):
    balancing = lqo.balance(heat)
    red = lqo.reduce(heat, max_error=0.01, method=method, balancing=balancing)
    assert red.relative_error <= 0.01
    assert red.relative_error == lqo.h2_error(heat, red.system, relative=True, controllability=balancing.controllability)
    assert lqo.reduce(heat, red.system.order - 1, method=method, balancing=balancing).relative_error > 0.01
    assert red.system.order == lqo.reduce(dense(heat), max_error=0.01, method=method).system.order
    np.testing.assert_array_equal(red.hsv, balancing.hsv)


def test_max_error_is_one_to_the_sparse_system_however_coarse_the_intermediate_one_is(heat, monkeypatch):
    monkeypatch.setattr(large_module, "_NEGLIGIBLE", 1e-3)
    balancing = lqo.balance(heat)
    order = balancing.system.order
    within = lqo.reduce(balancing.system, order - 1, method="balanced").relative_error
    of_sparse = lqo.reduce(heat, order - 1, method="balanced", balancing=balancing).relative_error
    assert within < of_sparse
    wanted = np.sqrt(within * of_sparse)
    assert lqo.reduce(balancing.system, max_error=wanted, method="balanced").relative_error <= wanted
    for method in ("balanced", "projected_gradient"):
        with pytest.raises(OrderError, match=r"meets max_error.*the order of the intermediate system, lqo.balance\(sys\).system"):
            lqo.reduce(heat, max_error=0.1 * within, method=method, balancing=balancing)
    with pytest.raises(OrderError, match="meets max_error"):
        lqo.reduce(heat, max_error=wanted, method="balanced", balancing=balancing)


def test_orders_that_the_intermediate_system_does_not_have_are_refused(heat):
    balancing = lqo.balance(heat)
    size = balancing.system.order
    for keywords in ({"order": size}, {"order": 0}, {"orders": [1, size]}):
        with pytest.raises(OrderError, match="the order of the intermediate system"):
            lqo.reduce(heat, **keywords, balancing=balancing)
    with pytest.raises(OrderError, match="the order of the intermediate system"):
        lqo.balanced_truncation(heat, size, balancing=balancing)
    with pytest.raises(InvalidInputError, match="give exactly one of order"):
        lqo.reduce(heat, 2, max_error=0.1)
    with pytest.raises(InvalidInputError, match="give exactly one of order"):
        lqo.balanced_truncation(heat, balancing=balancing)


def test_progress_tells_the_stages_and_the_steps_of_a_curve(heat):
    balancing, seen = lqo.balance(heat), []

    def tell(done, total):
        seen.append((done, total))

    for keywords, steps in (({"order": 2}, 1), ({"orders": [1, 2]}, 4), ({"max_error": 0.1}, 1)):
        methods = {"method": ["balanced", "tsia"] if "orders" in keywords else "tsia"}
        for given, stages in ((None, 3), (balancing, 0)):
            seen.clear()
            lqo.reduce(heat, **keywords, **methods, balancing=given, progress=tell)
            assert list(dict.fromkeys(seen)) == [(k + 1, stages + steps) for k in range(stages + steps)]
    seen.clear()
    lqo.balanced_truncation(heat, 2, progress=tell)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


SPECTRUM = lqo.InputSpectrum(np.eye(2)[np.newaxis])
KEYWORDS = {  # of dense systems, by function
    "controllability_gramian": ("horizon", "spectrum"),
    "observability_gramian": ("horizon", "spectrum"),
    "hankel_singular_values": ("horizon", "spectrum"),
    "h2_norm": ("horizon", "spectrum", "delay"),
    "h2_error": ("horizon", "spectrum", "delay"),
    "balanced_truncation": ("horizon", "spectrum", "slots"),
    "reduce": ("horizon", "spectrum", "slots"),
}
OTHERS = {"h2_error": [lqo.LQOSystem([[-1.0]], [[1.0, 1.0]], np.ones((2, 1)), dt=0)], "balanced_truncation": [1], "reduce": [1]}


@pytest.mark.parametrize("function", KEYWORDS)
def test_what_a_sparse_system_cannot_do_is_refused_before_any_work(heat, function, monkeypatch):
    monkeypatch.setattr(large_module, "solve_controllability", lambda *_: pytest.fail("work before the check"))
    values = {"horizon": 2.0, "spectrum": SPECTRUM, "delay": 0, "slots": 1}
    for name in KEYWORDS[function]:
        arguments = [] if name == "slots" else OTHERS.get(function, [])
        with pytest.raises(InvalidInputError, match=f"^{name}: not for a SparseLQOSystem{WAY_OUT}"):
            getattr(lqo, function)(heat, *arguments, **{name: values[name]})


def test_an_infinite_horizon_may_be_said(heat):
    assert lqo.h2_norm(heat, np.inf) == lqo.h2_norm(heat)


@pytest.mark.parametrize("function", KEYWORDS)
def test_what_only_a_sparse_system_has_is_refused_for_others(heat, function):
    balancing = lqo.balance(heat)
    values = {"controllability": balancing.controllability, "tol": 1e-6, "balancing": balancing}
    names = {"controllability_gramian": ["tol"], "observability_gramian": ["controllability", "tol"]}
    default = ["balancing"] if function in ("reduce", "balanced_truncation") else ["controllability"]
    for name in names.get(function, default):
        with pytest.raises(InvalidInputError, match=f"^{name}: only for a SparseLQOSystem, got LQOSystem$"):
            getattr(lqo, function)(dense(heat), *OTHERS.get(function, []), **{name: values[name]})


DENSE_ONLY = {
    "tsia": lambda sys: lqo.tsia(sys, 2),
    "irka": lambda sys: lqo.irka(sys, 2),
    "variable_projection": lambda sys: lqo.variable_projection(sys, 2),
    "projected_gradient": lambda sys: lqo.projected_gradient(sys, 2),
    "modal_truncation": lambda sys: lqo.modal_truncation(sys, 2),
    "hippo": lambda sys: lqo.hippo(sys, 2),
    "h2_inner": lambda sys: lqo.h2_inner(sys, sys),
    "h2_inner, second": lambda sys: lqo.h2_inner(dense(sys), sys),
    "h2_error, second": lambda sys: lqo.h2_error(dense(sys), sys),
    "h2_error, both": lambda sys: lqo.h2_error(sys, sys),
    "simulate": lambda sys: lqo.simulate(sys, np.ones((3, 2))),
    "to_diagonal": lqo.to_diagonal,
    "with_energy_output": lqo.examples.with_energy_output,
    "plot_reduction": lambda sys: plot_reduction(sys, lqo.reduce(sys, 2, method="balanced")),
}


@pytest.mark.parametrize("function", DENSE_ONLY)
def test_functions_of_dense_systems_say_what_to_use_instead(heat, function):
    with pytest.raises(InvalidInputError, match=f"got SparseLQOSystem{WAY_OUT}"):
        DENSE_ONLY[function](heat)


def test_other_systems_must_fit(heat):
    batch = lqo.DiagonalLQOSystem(-np.ones((2, 1)), np.ones((2, 1, 2)), np.ones((2, 2, 1)), dt=0)
    with pytest.raises(DimensionError, match="differ in their batch"):
        lqo.h2_error(heat, batch)
    with pytest.raises(InvalidInputError, match="the other system has complex matrices"):
        lqo.h2_error(heat, lqo.LQOSystem([[-1.0 + 1j]], [[1.0, 1.0]], np.ones((2, 1)), dt=0))
    with pytest.raises(LQOError, match="not asymptotically stable"):
        lqo.h2_error(heat, lqo.LQOSystem([[1.0]], [[1.0, 1.0]], np.ones((2, 1)), dt=0))
    with pytest.raises(InvalidInputError, match="one system is continuous"):
        lqo.h2_error(heat, lqo.LQOSystem([[0.5]], [[1.0, 1.0]], np.ones((2, 1)), dt=1.0))


def test_a_linear_sparse_system_has_the_bound_of_all_values_dropped():
    A, B = diagonal(-np.geomspace(1.0, 100.0, 40)), np.ones((40, 1))
    sys = lqo.SparseLQOSystem(A, B, B.T)
    red = lqo.balanced_truncation(sys, 3)
    assert red.bound == 2 * np.sum(red.hsv[3:])
    full = lqo.LQOSystem(A.toarray(), B, B.T, dt=0)
    assert red.bound == pytest.approx(lqo.balanced_truncation(full, 3).bound, rel=1e-6)
