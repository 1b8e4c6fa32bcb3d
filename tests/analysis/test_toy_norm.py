"""Another norm is one file and one line: here the norm ``Σ_k ρ^k ‖h(k)‖²`` of kernels that fade."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis import door
from lqo_mor.analysis.norm import Norm
from lqo_mor.errors import UnstableSystemError
from lqo_mor.matrix_equations.pairing import Pairing
from lqo_mor.matrix_equations.stein import solve_stein, stein_factor
from tests.cases import dense, diagonal


@dataclass(frozen=True)
class Fading:
    """What a user gives as the horizon: by which factor the square of a kernel counts less at every sample."""

    rate: float


@dataclass(frozen=True, eq=False)
class FadingNorm(Norm):
    """The norm for a `Fading` horizon."""

    rate: float = 1.0

    @classmethod
    def asked(cls, continuous: bool, horizon: Any, spectrum: Any) -> Norm | None:
        return cls(continuous, rate=horizon.rate) if isinstance(horizon, Fading) and not continuous else None

    def check(self, sys) -> None:
        poles = sys.poles if isinstance(sys, lqo.DiagonalLQOSystem) else np.linalg.eigvals(sys.A)
        if np.max(np.abs(poles)) >= self.rate**-0.5:
            raise UnstableSystemError("grows faster than it fades")

    @property
    def pairing(self) -> Pairing:
        return Pairing(
            None, function=lambda lam, mu: (1 / (1 - self.rate * lam * mu), self.rate * lam / (1 - self.rate * lam * mu) ** 2)
        )

    def solve(self, A, A_r, Q):
        return solve_stein(self.rate * A, A_r, Q)

    def factor(self, A, B):
        return stein_factor(np.sqrt(self.rate) * A, B)

    def __str__(self) -> str:
        return f"fading by {self.rate:g}"


RATE = 0.8


@pytest.fixture(autouse=True)
def one_line(monkeypatch):
    monkeypatch.setattr(door, "NORMS", (FadingNorm, *door.NORMS))


def faded(sys):
    """The system whose usual norm is the fading one of `sys`, linear outputs only."""
    if isinstance(sys, lqo.DiagonalLQOSystem):
        return lqo.DiagonalLQOSystem(np.sqrt(RATE) * sys.poles, sys.B, sys.C, sys.D, dt=sys.dt)
    return lqo.LQOSystem(np.sqrt(RATE) * sys.A, sys.B, sys.C, sys.D, dt=sys.dt)


SYSTEMS = {
    "dense siso": dense(1),
    "dense mimo": dense(2, m=2, p=2),
    "diagonal siso": diagonal(3, reals=1),
    "diagonal mimo": diagonal(4, reals=1, m=2, p=2),
    "batch": diagonal(5, batch=(3,)),
    "defective": lqo.LQOSystem(0.5 * np.eye(5) + np.diag([0.4] * 4, 1), np.ones((5, 1)), np.ones((1, 5)), dt=1.0),
}


@pytest.mark.parametrize("sys", SYSTEMS.values(), ids=SYSTEMS)
def test_norms_gramians_and_hankel_values(sys):
    horizon = Fading(RATE)
    np.testing.assert_allclose(lqo.h2_norm(sys, horizon), lqo.h2_norm(faded(sys)), rtol=1e-10)
    np.testing.assert_allclose(
        lqo.controllability_gramian(sys, horizon), lqo.controllability_gramian(faded(sys)), rtol=1e-8, atol=1e-12
    )
    np.testing.assert_allclose(
        lqo.observability_gramian(sys, horizon), lqo.observability_gramian(faded(sys)), rtol=1e-8, atol=1e-12
    )
    values = lqo.hankel_singular_values(faded(sys))
    np.testing.assert_allclose(lqo.hankel_singular_values(sys, horizon), values, rtol=1e-6, atol=1e-10 * np.max(values))


@pytest.mark.parametrize("method", ["balanced", "modal", "tsia", "projected_gradient", "optimal"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_method_reduces_in_it(name, method):
    sys = SYSTEMS[name]
    if name == "defective" and method in ("modal", "projected_gradient"):
        pytest.skip("for systems with modes")
    options = {"max_iterations": 30} if method == "projected_gradient" else {}
    red = lqo.reduce(sys, order=4, method=method, horizon=Fading(RATE), **options)
    assert "fading by 0.8" in str(red)
    # without compiled kernels a Gramian has a factor of working precision, which costs an error of 3e-5 some digits
    np.testing.assert_allclose(red.error, lqo.h2_error(faded(sys), faded(red.system)), rtol=1e-4, atol=1e-12)
    assert np.all(red.error <= np.asarray(red.start_error) * (1 + 1e-9))
    best = lqo.reduce(faded(sys), order=4).error
    assert np.all(best <= red.error * (1 + 1e-4) + 1e-10)


def test_what_is_optimal_in_it_is_optimal_for_the_faded_system():
    sys = SYSTEMS["diagonal siso"]
    red = lqo.reduce(sys, order=4, horizon=Fading(RATE))
    assert red.error == pytest.approx(lqo.reduce(faded(sys), order=4).error, rel=1e-4)


def test_it_says_where_it_does_not_exist():
    with pytest.raises(UnstableSystemError, match="grows faster"):
        lqo.h2_norm(lqo.DiagonalLQOSystem([1.2], [[1.0]], [[1.0]], dt=1.0), Fading(0.9))
    assert lqo.h2_norm(lqo.DiagonalLQOSystem([1.05], [[1.0]], [[1.0]], dt=1.0), Fading(0.9)) > 0
