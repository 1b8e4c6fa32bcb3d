"""The example systems: what they promise, and equality with the shipped reference files."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor import examples
from lqo_mor.errors import InvalidInputError
from tests.brute import kernels
from tests.test_docstrings import names, sections, signature

EXAMPLES = {
    "advection_diffusion": (examples.advection_diffusion(30), 30, 1, 1),
    "mass_spring_damper": (examples.mass_spring_damper(7), 14, 1, 2),
    "energies alone": (examples.mass_spring_damper(7, linear=False), 14, 1, 2),
    "triple_chain": (examples.triple_chain(4), 26, 1, 2),
    "lightly_damped": (examples.lightly_damped(6), 12, 1, 2),
    "random_lqo": (examples.random_lqo(9, 2, 3), 9, 2, 3),
    "random_lqo continuous": (examples.random_lqo(9, 2, 3, continuous=True), 9, 2, 3),
    "random_lqo factored": (examples.random_lqo(9, quadratic=2), 9, 1, 1),
    "random_lqo linear": (examples.random_lqo(9, quadratic=None), 9, 1, 1),
    "s4d lin": (examples.s4d(4, 3)[0], 7, 1, 1),
    "s4d inv": (examples.s4d(4, 3, kind="inv")[1], 8, 1, 1),
    "s4d legs": (examples.s4d(4, 3, kind="legs", rank=2)[2], 8, 1, 1),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_stable_and_of_the_size_it_says(name):
    sys, order, m, p = EXAMPLES[name]
    assert (sys.order, sys.n_inputs, sys.n_outputs) == (order, m, p)
    assert 0 < lqo.h2_norm(sys) < np.inf  # refused for an unstable system
    M = sys.M if isinstance(sys, lqo.LQOSystem) else lqo.to_dense(sys).M
    if M is not None:
        M = M.to_dense() if isinstance(M, lqo.QuadraticOutput) else M
        np.testing.assert_array_equal(M, M.transpose(0, 2, 1))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_can_be_reduced(name):
    sys, order, _, _ = EXAMPLES[name]
    red = lqo.reduce(sys, order - 2, method="balanced")
    assert red.system.order <= order - 2
    assert np.isfinite(red.relative_error)


@pytest.mark.parametrize(
    ("name", "make"), [("advdiff200", examples.advection_diffusion), ("msd120p2", examples.mass_spring_damper)]
)
def test_the_defaults_are_the_reference_systems(name, make, lqo_data):
    sys = make()
    with np.load(lqo_data / f"{name}.npz") as data:
        for ours, theirs in ((sys.A, data["A"]), (sys.B, data["B"]), (sys.C, data["C"]), (sys.M, np.moveaxis(data["M"], 2, 0))):
            np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-14 * np.abs(theirs).max())


def test_advection_carries_the_inflow_to_the_whole_rod():
    sys = examples.advection_diffusion(50, reference=0.0)
    steady = -np.linalg.solve(sys.A, sys.B).ravel()
    np.testing.assert_allclose(steady, 1.0, rtol=1e-10)
    assert not np.any(sys.C)
    assert steady @ sys.M[0] @ steady == pytest.approx(0.5)  # ½ ∫ 1² dξ


def test_the_energies_of_the_chain_are_dissipated():
    sys = examples.mass_spring_damper(5, linear=False)
    assert not np.any(sys.C)
    energy = sys.M.sum(axis=0)
    change = sys.A.T @ energy + energy @ sys.A
    assert np.linalg.eigvalsh(change).max() < 1e-12
    undamped = examples.mass_spring_damper(5, alpha=1e-14, beta=0.0)
    energy = undamped.M.sum(axis=0)
    np.testing.assert_allclose(undamped.A.T @ energy + energy @ undamped.A, 0, atol=1e-12)


def test_the_triple_chain_is_in_static_equilibrium_with_its_springs():
    sys, length = examples.triple_chain(3), 3
    n = 3 * length + 1
    mass = np.array([1.0] * 3 + [2.0] * 3 + [3.0] * 3 + [10.0])
    K = -sys.A[n:, :n] * mass[:, np.newaxis]
    np.testing.assert_allclose(K, K.T, atol=1e-12)
    wall = K.sum(axis=1)  # forces of a displacement of all masses by 1: only the springs to the walls act
    np.testing.assert_allclose(wall, [10, 0, 0, 20, 0, 0, 1, 0, 0, 50], atol=1e-12)


def test_the_beam_has_the_frequencies_and_the_damping_it_says():
    sys = examples.lightly_damped(5, damping=0.02)
    np.testing.assert_allclose(np.abs(sys.poles), np.arange(1, 6) ** 2)
    np.testing.assert_allclose(-sys.poles.real / np.abs(sys.poles), 0.02)
    dense = lqo.to_dense(sys)
    s = 0.7j
    transfer = (dense.C @ np.linalg.solve(s * np.eye(10) - dense.A, dense.B))[0, 0]
    k = np.arange(1, 6)
    force, shape = (np.sqrt(2) * np.sin(k * np.pi * place) for place in (0.13, 0.71))
    assert transfer == pytest.approx(np.sum(shape * force * s / (s**2 + 2 * 0.02 * k**2 * s + k**4)), rel=1e-12)
    x = np.linspace(-1, 1, 10)
    np.testing.assert_allclose(x @ dense.M.to_dense() @ x, [0, (dense.C[0] @ x) ** 2], rtol=1e-12)


@pytest.mark.parametrize("continuous", [False, True])
def test_the_random_system_has_its_margin_and_an_indefinite_output(continuous):
    sys = examples.random_lqo(20, p=2, seed=3, continuous=continuous, margin=0.1)
    poles = np.linalg.eigvals(sys.A)
    assert (-poles.real.max() if continuous else 1 - np.abs(poles).max()) == pytest.approx(0.1)
    for M in sys.M:
        eigenvalues = np.linalg.eigvalsh(M)
        assert eigenvalues[0] < 0 < eigenvalues[-1]
    np.testing.assert_array_equal(sys.A, examples.random_lqo(20, p=2, seed=3, continuous=continuous, margin=0.1).A)


def test_the_channels_of_s4d_are_sampled_and_held():
    layer = examples.s4d(3, 5, dt_min=0.02, dt_max=0.02, seed=1)
    assert layer.batch == (5,)
    pole = np.exp(0.02 * (-0.5 + 1j * np.pi * np.arange(3)))
    np.testing.assert_allclose(layer.poles, np.broadcast_to(pole, (5, 3)), rtol=1e-14)
    continuous = -0.5 + 1j * np.pi * np.arange(3)
    np.testing.assert_allclose(layer.B[2, :, 0], (pole - 1) / continuous, rtol=1e-12)
    spread = examples.s4d(3, 400, seed=1)
    step = -2 * np.log(np.abs(spread.poles[:, 0]))
    assert 1e-3 <= step.min() < 2e-3
    assert 5e-2 < step.max() <= 1e-1
    assert np.median(step) == pytest.approx(1e-2, rel=0.3)


def test_the_poles_of_legs_are_those_of_the_matrix():
    layer, N = examples.s4d(4, 1, kind="legs", dt_min=0.01, dt_max=0.01), 8
    i = np.arange(N)
    scale = np.sqrt(2 * i + 1)
    A = -np.tril(np.outer(scale, scale), -1) - np.diag(i + 1)  # HiPPO-LegS
    normal = A + 0.5 * np.outer(scale, scale)
    wanted = np.linalg.eigvals(normal)
    wanted = wanted[wanted.imag > 0]
    found = np.log(layer.poles[0]) / 0.01
    np.testing.assert_allclose(np.sort(found.imag), np.sort(wanted.imag), rtol=1e-10)
    np.testing.assert_allclose(found.real, -0.5, rtol=1e-10)


@pytest.mark.parametrize("of", ["output", "state"])
def test_the_energy_output_of_a_diagonal_system_is_that_of_the_dense_one(of):
    diagonal = lqo.DiagonalLQOSystem([0.9, 0.5 + 0.3j], np.ones((2, 1)), [[1.0, 2 - 1j], [0.5, 1j]], [[0.0], [1.0]], dt=1.0)
    added = examples.with_energy_output(diagonal, of, weight=2.0)
    dense = examples.with_energy_output(lqo.to_dense(diagonal), of, weight=2.0)
    assert added.n_outputs == dense.n_outputs == 3
    for a, b in zip(kernels(added, 5), kernels(dense, 5), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    x = np.array([0.3, -0.7, 0.2])
    M = dense.M if of == "state" else dense.M.to_dense()
    wanted = 2 * np.sum((dense.C[:2] @ x) ** 2) if of == "output" else 2 * x @ x
    np.testing.assert_allclose(x @ M @ x, [0, 0, wanted], atol=1e-12)


@pytest.mark.parametrize("of", ["output", "state"])
def test_every_channel_of_a_batch_gets_its_own_energy(of):
    layer = examples.s4d(3, 4)
    added = examples.with_energy_output(layer, of)
    for channel in range(4):
        single = examples.with_energy_output(layer[channel], of)
        assert lqo.h2_norm(added)[channel] == pytest.approx(lqo.h2_norm(single), rel=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: examples.advection_diffusion(1),
        lambda: examples.advection_diffusion(10, diffusion=0.0),
        lambda: examples.advection_diffusion(10, velocity=-1.0),
        lambda: examples.mass_spring_damper(2.0),
        lambda: examples.mass_spring_damper(3, mass=[1.0, -1.0]),
        lambda: examples.mass_spring_damper(3, alpha=0.0, beta=0.0),
        lambda: examples.triple_chain(0),
        lambda: examples.triple_chain(2, viscosity=-1.0),
        lambda: examples.lightly_damped(3, damping=1.0),
        lambda: examples.random_lqo(0),
        lambda: examples.random_lqo(3, margin=1.0),
        lambda: examples.random_lqo(3, quadratic="sparse"),
        lambda: examples.s4d(0),
        lambda: examples.s4d(3, kind="hippo"),
        lambda: examples.s4d(3, dt_min=0.2, dt_max=0.1),
        lambda: examples.with_energy_output(np.eye(2)),
        lambda: examples.with_energy_output(examples.random_lqo(3)),
        lambda: examples.with_energy_output(examples.random_lqo(3, quadratic=None), "input"),
        lambda: examples.with_energy_output(examples.random_lqo(3, quadratic=None), weight=np.inf),
    ],
)
def test_wrong_arguments_say_what_is_wrong(call):
    with pytest.raises(InvalidInputError):
        call()


@pytest.mark.parametrize("name", examples.__all__)
def test_every_example_is_documented(name):
    function = getattr(examples, name)
    found = sections(function.__doc__)
    assert names(found["Parameters"]) == signature(function)
    assert {"Returns", "Raises", "Examples"} <= set(found)
    assert inspect.getmodule(function).__name__.startswith("lqo_mor.systems.")


def test_the_examples_cost_nothing_at_import():
    code = "import sys, lqo_mor; print(sorted(m for m in sys.modules if m in ('torch', 'matplotlib', 'scipy.io')))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
