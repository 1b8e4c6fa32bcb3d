import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError

pytest.importorskip("matplotlib")
from lqo_mor.plot import plot_reduction


@pytest.mark.parametrize("dt", [0, 1.0])
def test_the_picture_shows_poles_singular_values_and_both_responses(dt, tmp_path):
    rng = np.random.default_rng(0)
    poles = rng.uniform(0.3, 0.9, 4) * np.exp(1j * rng.uniform(0.2, 2, 4))
    sys = lqo.to_dense(lqo.DiagonalLQOSystem(np.log(poles) if dt == 0 else poles, np.ones((4, 1)), np.ones((1, 4)), dt=dt))
    red = lqo.reduce(sys, order=4)
    figure = plot_reduction(sys, red)
    left, middle, right = figure.axes
    full, reduced = left.lines[:2]
    assert len(full.get_xdata()) == 8
    assert len(reduced.get_xdata()) == 4
    np.testing.assert_allclose(middle.lines[0].get_ydata(), lqo.hankel_singular_values(sys), rtol=1e-6)
    assert right.lines[0].get_ydata()[0] == pytest.approx((sys.C @ sys.B).item())
    figure.savefig(tmp_path / "figure.png")


def test_a_batch_is_refused():
    sys = lqo.DiagonalLQOSystem([[0.5, 0.3]], [[[1.0], [1.0]]], [[[1.0, 1.0]]])
    with pytest.raises(InvalidInputError, match="one system"):
        plot_reduction(sys, lqo.reduce(sys, order=1))
