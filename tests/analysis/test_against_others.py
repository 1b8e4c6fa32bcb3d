"""Agreement with python-control, Slycot, and references computed in 256-bit arithmetic."""

import json

import numpy as np
import pytest

import lqo_mor as lqo
from tests.cases import dense, parametrize, select

LINEAR = select(diagonal=False, real=True, linear=True, hard=False)


@parametrize(LINEAR)
def test_gramians_and_norms_of_python_control(sys):
    control = pytest.importorskip("control")
    pytest.importorskip("slycot")
    other = control.ss(sys.A, sys.B, sys.C, 0, sys.dt)
    np.testing.assert_allclose(lqo.controllability_gramian(sys), control.gram(other, "c"), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(lqo.observability_gramian(sys), control.gram(other, "o"), rtol=1e-9, atol=1e-11)
    assert lqo.h2_norm(sys) == pytest.approx(control.system_norm(other, 2), rel=1e-10)
    if sys.is_continuous:  # python-control has none for discrete time
        np.testing.assert_allclose(lqo.hankel_singular_values(sys), control.hankel_singular_values(other), rtol=1e-6, atol=1e-9)


@parametrize(LINEAR)
def test_norm_and_hankel_singular_values_of_slycot(sys):
    slycot = pytest.importorskip("slycot")
    dico, sizes = "C" if sys.is_continuous else "D", (sys.order, sys.n_inputs, sys.n_outputs)
    matrices = [array.copy() for array in (sys.A, sys.B, sys.C)]
    assert lqo.h2_norm(sys) == pytest.approx(slycot.ab13bd(dico, "H", *sizes, *matrices, sys.D.copy()), rel=1e-10)
    *_, hsv = slycot.ab09ad(dico, "B", "N", *sizes, *(array.copy() for array in (sys.A, sys.B, sys.C)), nr=2)
    np.testing.assert_allclose(lqo.hankel_singular_values(sys), hsv, rtol=1e-9, atol=1e-12 * hsv[0])


def test_a_larger_system_against_slycot():
    slycot = pytest.importorskip("slycot")
    sys = dense(77, n=40, m=2, p=2)
    *_, hsv = slycot.ab09ad("D", "B", "N", 40, 2, 2, sys.A.copy(), sys.B.copy(), sys.C.copy(), nr=2)
    np.testing.assert_allclose(lqo.hankel_singular_values(sys), hsv, rtol=1e-8, atol=1e-13 * hsv[0])


@pytest.fixture(scope="module")
def references(lqo_data):
    return json.loads((lqo_data / "reference.json").read_text())


@pytest.mark.parametrize("name", ["advdiff200", "msd120p2"])
def test_reference_systems(name, references, lqo_data):
    with np.load(lqo_data / f"{name}.npz") as data:
        sys = lqo.LQOSystem(data["A"], data["B"], data["C"], M=np.moveaxis(data["M"], 2, 0), dt=0)
    reference = references[name]
    assert lqo.h2_norm(sys) == pytest.approx(reference["h2_norm"], rel=1e-9)
    np.testing.assert_allclose(lqo.hankel_singular_values(sys)[:20], reference["hsv_top20"], rtol=1e-9)
