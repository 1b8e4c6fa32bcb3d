import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("dt", [0, 1.0])
def test_the_picture_shows_poles_singular_values_and_both_responses(dt, tmp_path):
    rng = np.random.default_rng(0)
    poles = rng.uniform(0.3, 0.9, 4) * np.exp(1j * rng.uniform(0.2, 2, 4))
    sys = lqo.to_dense(lqo.DiagonalLQOSystem(np.log(poles) if dt == 0 else poles, np.ones((4, 1)), np.ones((1, 4)), dt=dt))
    red = lqo.reduce(sys, order=4)
    figure = lqo.plot_reduction(sys, red)
    left, middle, right = figure.axes
    full, reduced = left.lines[:2]
    assert len(full.get_xdata()) == 8
    assert len(reduced.get_xdata()) == 4
    np.testing.assert_allclose(middle.lines[0].get_ydata(), lqo.hankel_singular_values(sys), rtol=1e-6)
    assert right.lines[0].get_ydata()[0] == pytest.approx((sys.C @ sys.B).item())
    figure.savefig(tmp_path / "figure.png")


def test_a_batch_is_refused():
    sys = lqo.DiagonalLQOSystem([[0.5, 0.3]], [[[1.0], [1.0]]], [[[1.0, 1.0]]], dt=1.0)
    with pytest.raises(InvalidInputError, match="one system"):
        lqo.plot_reduction(sys, lqo.reduce(sys, order=1))


def test_the_curve_shows_every_method_and_the_singular_values(tmp_path):
    sys = lqo.examples.advection_diffusion(30)
    curve = lqo.reduce(sys, orders=[2, 4, 8], method=["balanced", "projected_gradient"], max_iterations=5)
    figure = curve.plot(tmp_path / "curve.png", max_error=0.1)
    assert (tmp_path / "curve.png").stat().st_size > 0
    upper, lower = figure.axes
    assert [line.get_label() for line in upper.lines] == ["balanced", "projected_gradient", "largest error 0.1"]
    for line, name in zip(upper.lines, curve.errors, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), [2, 4, 8])
        np.testing.assert_array_equal(line.get_ydata(), curve.errors[name])
    assert upper.get_yscale() == lower.get_yscale() == "log"
    np.testing.assert_allclose(lower.lines[0].get_ydata(), (curve.hsv / curve.hsv[0])[:10])


def test_the_curve_of_a_batch_shows_median_and_worst():
    C = np.random.default_rng(0).standard_normal((5, 1, 6))
    C[4] = 0  # a channel without transfer has no place on a logarithmic axis
    sys = lqo.DiagonalLQOSystem(np.broadcast_to(np.linspace(-0.9, 0.9, 6), (5, 6)), np.ones((5, 6, 1)), C, dt=1.0)
    curve = lqo.reduce(sys, orders=[1, 3], method="balanced")
    upper, lower = curve.plot().axes
    assert [line.get_label() for line in upper.lines] == ["balanced, median", "balanced, worst"]
    np.testing.assert_array_equal(upper.lines[1].get_ydata(), curve.errors["balanced"].max(axis=1))
    assert np.all(np.isfinite(lower.lines[0].get_ydata()))
