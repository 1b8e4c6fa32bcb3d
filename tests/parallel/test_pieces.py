"""How a batch is cut into pieces changes no bit of the results."""

from dataclasses import fields

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor import parallel
from lqo_mor.compression.calibration.calibration import CalibrationOptions
from lqo_mor.compression.compress import compress
from lqo_mor.errors import OrderError, StabilityWarning
from lqo_mor.reduction.reduce import METHODS
from tests.cases import diagonal, parametrize, select
from tests.network.random_models import random_model

QUICK = {"projected_gradient": {"max_iterations": 25}, "optimal": {"max_iterations": 60}, "tsia": {"max_iterations": 20}}


@pytest.fixture
def cut(monkeypatch, tmp_path):
    """Pieces of two systems, in this process: results are cut where they are kept, too."""
    monkeypatch.setattr(parallel, "_PIECE", 2)

    def call(function, *args, **options):
        with parallel.kept(tmp_path / "kept"):
            return function(*args, **options)

    return call


def assert_same_systems(a, b):
    for name in ("poles", "B", "C", "D"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert not getattr(a, name).flags.writeable
    assert (a.M is None) == (b.M is None)
    for name in "UVW" if a.M is not None else "":
        np.testing.assert_array_equal(getattr(a.M, name), getattr(b.M, name), err_msg=name)


def assert_same(a, b):
    """Two reductions that agree in every bit of every field."""
    assert_same_systems(a.system, b.system)
    for field in fields(a):
        if field.name not in ("system", "norm"):
            one, other = getattr(a, field.name), getattr(b, field.name)
            assert np.shape(one) == np.shape(other), field.name
            if field.name in ("status", "method"):
                assert np.all(one == other), field.name
            else:
                one, other = (np.asarray(np.nan if value is None else value, float) for value in (one, other))
                np.testing.assert_array_equal(one, other, err_msg=field.name)
    assert a.norm.horizon == b.norm.horizon
    assert a.norm.spectrum is b.norm.spectrum


@parametrize(select(batch=True))
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("budget", [{"order": 3, "horizon": None}, {"slots": 2, "horizon": 8}])
def test_reductions(sys, method, budget, cut):
    options = budget | {"method": method} | QUICK.get(method, {})
    try:
        whole = lqo.reduce(sys, **options)
    except lqo.LQOError as error:  # IRKA over a finite horizon, say
        with pytest.raises(type(error)):
            cut(lqo.reduce, sys, **options)
        return
    assert_same(cut(lqo.reduce, sys, **options), whole)


@pytest.mark.filterwarnings("ignore::lqo_mor.errors.StabilityWarning")
@pytest.mark.parametrize("method", list(METHODS))
def test_channels_of_a_layer(method, cut, monkeypatch):
    horizon = None if method == "irka" else 256
    monkeypatch.setattr(parallel, "_PIECE", 5)
    sys = lqo.examples.s4d(n_slots=12, channels=11)
    options = {"slots": 4, "method": method, "horizon": horizon} | QUICK.get(method, {})
    assert_same(cut(lqo.reduce, sys, **options), lqo.reduce(sys, **options))


@pytest.mark.parametrize("start", ["balanced", "reduction", "system", ["modal", "reduction"]])
def test_starts_are_cut_with_their_systems(start, cut):
    sys = lqo.examples.s4d(n_slots=8, channels=6)[np.arange(6).reshape(2, 3)]
    made = {"reduction": lqo.balanced_truncation(sys, slots=3)}
    made["system"] = made["reduction"].system
    start = [made.get(one, one) for one in start] if isinstance(start, list) else made.get(start, start)
    assert_same(cut(lqo.reduce, sys, slots=3, start=start), lqo.reduce(sys, slots=3, start=start))


@pytest.mark.parametrize("margin", [1e-12, 0.002, 0.005, 0.3])
def test_starts_that_reach_over_the_margin(margin, cut):
    sys = lqo.examples.s4d(n_slots=8, channels=7)
    options = {"slots": 3, "start": "balanced", "margin": margin, "ridge": 1e-6}
    assert_same(cut(lqo.reduce, sys, **options), lqo.reduce(sys, **options))


@pytest.mark.parametrize("batch", [(), (5,)])
@pytest.mark.parametrize("method", ["optimal", "balanced", "tsia"])
def test_spectra_are_cut_with_their_systems(method, batch, cut, rng):
    sys = diagonal(3, pairs=5, batch=(5,))
    spectrum = lqo.InputSpectrum.from_data(np.cumsum(rng.normal(size=(*batch, 3, 40, 1)), axis=-2) * 0.3, lags=20)
    options = {"order": 4, "method": method, "spectrum": spectrum}
    assert_same(cut(lqo.reduce, sys, **options), lqo.reduce(sys, **options))


def test_curves_and_tolerances(cut):
    sys, calls = lqo.examples.s4d(n_slots=6, channels=5), []
    whole = lqo.reduce(sys, orders=[2, 4, 6], method=["optimal", "balanced"], **QUICK["optimal"])
    curve = cut(lqo.reduce, sys, orders=[2, 4, 6], method=["optimal", "balanced"], **QUICK["optimal"])
    for method in whole.reductions:
        for a, b in zip(curve.reductions[method], whole.reductions[method], strict=True):
            assert_same(a, b)
    small = cut(lqo.reduce, sys, max_error=0.3, progress=lambda *call: calls.append(call), **QUICK["optimal"])
    assert_same(small, lqo.reduce(sys, max_error=0.3, **QUICK["optimal"]))
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1]


def test_a_batch_of_one_piece_is_kept_once(tmp_path):
    sys = lqo.examples.s4d(n_slots=6, channels=3)
    with parallel.kept(tmp_path):
        first = lqo.reduce(sys, slots=2, start="balanced")  # a reduction within the reduction
        (file,) = tmp_path.iterdir()
        made = file.stat().st_mtime_ns
        assert_same(lqo.reduce(sys, slots=2, start="balanced"), first)
        assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [made]
    assert_same(first, lqo.reduce(sys, slots=2, start="balanced"))


def test_the_smallest_channel_bounds_the_order_of_all(cut):
    large, small = diagonal(1, pairs=3, batch=(4,)), diagonal(2, pairs=2, reals=1, batch=(1,))
    mixed = lqo.DiagonalLQOSystem(*(np.concatenate([getattr(s, n) for s in (large, small)]) for n in ("poles", "B", "C")), dt=1.0)
    with pytest.raises(OrderError, match="from 1 to 4"):
        cut(lqo.reduce, mixed, 5, method="modal")


def test_repairs_are_told_once(cut):
    sys = lqo.examples.s4d(n_slots=16, channels=9)
    with pytest.warns(StabilityWarning) as whole:
        a = lqo.reduce(sys, slots=4, method="balanced", horizon=20)
    with pytest.warns(StabilityWarning) as told:
        b = cut(lqo.reduce, sys, slots=4, method="balanced", horizon=20)
    assert_same(a, b)
    assert [str(one.message) for one in told] == [str(one.message) for one in whole]


@pytest.mark.parametrize("method", ["optimal", "modal", "projected_gradient"])
@pytest.mark.parametrize("mimo", [False, True])
def test_models(method, mimo, cut):
    model = random_model(np.random.default_rng(0), width=5, slots=4, layers=3, mimo=mimo)
    whole, calls = compress(model, state_size=[4, 8, 2], method=method, horizon=50), []
    other = cut(compress, model, state_size=[4, 8, 2], method=method, horizon=50, progress=lambda *call: calls.append(call))
    assert_same_models(other, whole)
    assert calls == sorted(calls)
    assert calls[-1] == (300, 300)
    assert other.model.blocks[1].ssm is model.blocks[1].ssm


def assert_same_models(a, b):
    for one, other in zip(a.model.blocks, b.model.blocks, strict=True):
        assert_same_systems(one.ssm, other.ssm)
        if other.mixing is not None:
            np.testing.assert_array_equal(one.mixing.weight, other.mixing.weight)
    for one, other in zip(a.report.layers, b.report.layers, strict=True):
        np.testing.assert_array_equal(one.relative_error, other.relative_error)
        assert one.repaired == other.repaired
    assert (a.report.predicted_error, a.report.calibration_error) == (b.report.predicted_error, b.report.calibration_error)


@pytest.mark.parametrize("mimo", [False, True])
def test_calibrated_models(mimo, cut, rng):
    model = random_model(rng, width=5, slots=6, layers=2, mimo=mimo)
    inputs = np.cumsum(rng.normal(size=(12, 40, 2)), axis=1) * 0.3
    options, calls = CalibrationOptions(split=True), []
    whole = compress(model, state_size=4, calibration=inputs, options=options)
    other = cut(compress, model, state_size=4, calibration=inputs, options=options, progress=lambda *call: calls.append(call))
    assert_same_models(other, whole)
    assert calls == sorted(calls)
    assert calls[-1] == (100, 100)
