"""The one table of systems that every method is run on. A new method joins by a test, a new system by a row.

Every system is small and seeded. `select` picks rows, `parametrize` turns them into test parameters::

    @parametrize(select(diagonal=True, batch=False))
    def test_something(sys): ...
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lqo_mor import DiagonalLQOSystem, LQOSystem, QuadraticOutput


@dataclass(frozen=True)
class Case:
    """A system and what a test may want to know of it before running."""

    name: str
    sys: LQOSystem | DiagonalLQOSystem
    diagonal: bool
    real: bool
    continuous: bool
    siso: bool
    linear: bool
    batch: bool
    hard: bool


def _case(name: str, sys, hard: bool = False) -> Case:
    diagonal = isinstance(sys, DiagonalLQOSystem)
    return Case(
        name=name,
        sys=sys,
        diagonal=diagonal,
        real=diagonal or sys.is_real,
        continuous=sys.is_continuous,
        siso=sys.n_inputs == 1 and sys.n_outputs == 1,
        linear=sys.M is None,
        batch=diagonal and bool(sys.batch),
        hard=hard,
    )


def normal(rng, shape, is_complex: bool = False) -> np.ndarray:
    """Standard normal entries, real or complex."""
    real = rng.standard_normal(shape)
    return real + 1j * rng.standard_normal(shape) if is_complex else real


def dense(seed, n=6, m=1, p=1, M=None, is_complex=False, continuous=False, feedthrough=False, linear=True, dt=1.0):
    """A stable dense system with spectral radius 0.85 (continuous: abscissa −0.2); `M` is None, "dense" or a rank."""
    rng = np.random.default_rng(seed)
    A = normal(rng, (n, n), is_complex)
    eigenvalues = np.linalg.eigvals(A)
    if continuous:
        A = A - (eigenvalues.real.max() + 0.2) * np.eye(n)
    else:
        A = 0.85 * A / np.abs(eigenvalues).max()
    if M == "dense":
        M = normal(rng, (p, n, n), is_complex)
        M = (M + M.transpose(0, 2, 1)) / n
    elif M is not None:
        c = int(M)
        M = QuadraticOutput(normal(rng, (c, n), is_complex), normal(rng, (c, n), is_complex), normal(rng, (p, c)) / n)
    B, C = normal(rng, (n, m), is_complex), normal(rng, (p, n), is_complex) if linear else None
    return LQOSystem(A, B, C, normal(rng, (p, m), is_complex) if feedthrough else None, M, 0 if continuous else dt)


def poles(rng, batch, pairs, reals, continuous, radius=0.9):
    """Stable poles in half storage, pairs first."""
    count = pairs + reals
    decay = rng.uniform(0.2, 1.0, (*batch, count))
    angle = np.where(np.arange(count) < pairs, rng.uniform(0.3, 2.8, (*batch, count)), 0.0)
    if continuous:
        return np.where(angle > 0, -decay + 1j * angle, -decay)
    sign = np.where(rng.random((*batch, count)) < 0.5, 1.0, -1.0)
    return np.where(angle > 0, radius * decay * np.exp(1j * angle), sign * radius * decay)


def diagonal(seed, pairs=3, reals=0, m=1, p=1, c=0, batch=(), continuous=False, feedthrough=False, linear=True, dt=1.0):
    """A stable diagonal system; its poles are pairs first, then real ones."""
    rng = np.random.default_rng(seed)
    lam = poles(rng, batch, pairs, reals, continuous)
    s, real = lam.shape[-1], lam.imag == 0

    def rows(count):
        z = normal(rng, (*batch, count, s), True)
        return np.where(real[..., np.newaxis, :], z.real, z)

    quadratic = QuadraticOutput(rows(c), rows(c), normal(rng, (*batch, p, c)) / s) if c else None
    C = rows(p) if linear else np.zeros((*batch, p, s))
    D = normal(rng, (*batch, p, m)) if feedthrough else None
    return DiagonalLQOSystem(lam, np.swapaxes(rows(m), -1, -2), C, D, quadratic, dt=0 if continuous else dt)


def _regular() -> list[Case]:
    table = []
    for continuous in (False, True):
        time, extra = ("continuous", 100) if continuous else ("discrete", 0)
        kinds = {
            "siso linear": {},
            "siso quadratic": {"M": "dense"},
            "siso factored": {"M": 2},
            "siso purely quadratic": {"M": "dense", "linear": False},
            "mimo linear": {"m": 2, "p": 3},
            "mimo quadratic": {"m": 2, "p": 3, "M": "dense"},
            "mimo factored": {"m": 3, "p": 2, "M": 4},
            "mimo purely factored": {"m": 2, "p": 1, "M": 2, "linear": False},
        }
        for k, (kind, options) in enumerate(kinds.items()):
            table.append(_case(f"dense {time} {kind}", dense(extra + k, continuous=continuous, **options)))
            if options.get("linear", True):
                sys = dense(extra + 20 + k, is_complex=True, continuous=continuous, **options)
                table.append(_case(f"dense complex {time} {kind}", sys))
        kinds = {
            "siso linear": {"reals": 1},
            "siso factored": {"reals": 1, "c": 2},
            "siso purely factored": {"c": 2, "linear": False},
            "siso real poles": {"pairs": 0, "reals": 5},
            "mimo linear": {"reals": 2, "m": 2, "p": 3},
            "mimo factored": {"reals": 1, "m": 3, "p": 2, "c": 3},
            "batch siso linear": {"batch": (3,)},
            "batch siso factored": {"batch": (2, 2), "reals": 1, "c": 2, "p": 2},
            "batch mimo factored": {"batch": (3,), "reals": 2, "m": 2, "p": 2, "c": 2},
        }
        for k, (kind, options) in enumerate(kinds.items()):
            table.append(_case(f"diagonal {time} {kind}", diagonal(extra + 40 + k, continuous=continuous, **options)))
    table.append(_case("dense discrete feedthrough", dense(60, m=2, p=2, M="dense", feedthrough=True, dt=True)))
    table.append(_case("diagonal discrete feedthrough", diagonal(61, m=2, p=2, c=2, feedthrough=True, dt=0.01)))
    return table


def _hard() -> list[Case]:
    rng = np.random.default_rng(70)
    ones = np.ones((4, 1))
    near = np.array([1 - 1e-9, (1 - 1e-6) * np.exp(0.4j), 0.5 * np.exp(1j), -0.7])
    nonnormal = np.diag([0.9, 0.8, 0.7, 0.5, 0.3]) + np.diag([5.0, 4.0, 6.0, 3.0], 1)
    cluster = [0.7, 0.7 + 1e-3j, 0.7 * np.exp(0.01j), 0.69]
    orthogonal = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    close = orthogonal @ np.diag([1 - 1e-7, 0.9, -0.5, 0.1]) @ orthogonal.T
    return [
        _case("diagonal pole close to 1", DiagonalLQOSystem(near, ones, [[1e-4, 1j, 1.0, 0.5]], dt=1.0), True),
        _case("diagonal pole at zero", DiagonalLQOSystem([0.0, 0.6, 0.5j], ones[:3], [[1.0, 0.5, 1 + 1j]], dt=1.0), True),
        _case("diagonal cluster", DiagonalLQOSystem(cluster, ones, [[1.0, 2.0, 1j, -2.0]], dt=1.0), True),
        _case("diagonal slow continuous", DiagonalLQOSystem([-1e-7, -1e-6 + 2j, -3.0], ones[:3], [[1e-3, 1.0, 1.0]], dt=0), True),
        _case("dense pole close to 1", LQOSystem(close, ones, ones.T, M=np.eye(4), dt=1.0), True),
        _case("dense pole at zero", LQOSystem([[0.0, 1.0], [0.0, 0.5]], ones[:2], [[1.0, 2.0]], dt=1.0), True),
        _case("dense nilpotent", LQOSystem(np.diag([1.0, 1.0], 1), ones[:3], [[1.0, 0.0, 0.0]], dt=1.0), True),
        _case("dense non-normal", LQOSystem(nonnormal, rng.standard_normal((5, 1)), rng.standard_normal((1, 5)), dt=1.0), True),
        _case("dense non-normal continuous", LQOSystem(nonnormal - np.eye(5), np.ones((5, 1)), np.ones((1, 5)), dt=0), True),
    ]


CASES = _regular() + _hard()


def select(**wanted) -> list[Case]:
    """The rows whose fields have the wanted values, for instance ``select(diagonal=True, batch=False)``."""
    return [case for case in CASES if all(getattr(case, key) == value for key, value in wanted.items())]


def parametrize(rows: list[Case]):
    """A decorator that runs a test with the argument `sys` for every row."""
    return pytest.mark.parametrize("sys", [case.sys for case in rows], ids=[case.name.replace(" ", "-") for case in rows])


def get(name: str):
    """The system of one row."""
    return next(case.sys for case in CASES if case.name == name)


def singles(sys) -> list:
    """The members of a batch; a list of one for a single system."""
    batch = getattr(sys, "batch", ())
    return [sys[index] for index in np.ndindex(batch)] if batch else [sys]
