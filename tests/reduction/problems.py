"""Full systems with a reduced model at a random place, for tests of errors and gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.reduction.objective.error import Problem, problem_of
from tests.cases import diagonal, get


@dataclass(frozen=True)
class Point:
    """A full system and one reduced model: poles, inputs, rows in real coordinates, and mixing."""

    sys: lqo.LQOSystem | lqo.DiagonalLQOSystem
    horizon: float | None
    problem: Problem
    real: np.ndarray
    mu: np.ndarray
    B: np.ndarray
    rows: np.ndarray
    W: np.ndarray


NAMES = [
    "dense {} siso linear",
    "dense {} siso quadratic",
    "dense {} mimo quadratic",
    "dense {} mimo factored",
    "diagonal {} siso linear",
    "diagonal {} siso factored",
    "diagonal {} siso real poles",
    "diagonal {} mimo factored",
]
WHERE = [
    (name.format(time), horizon) for time, h in (("discrete", 7), ("continuous", 1.7)) for name in NAMES for horizon in (None, h)
]
POINTS = pytest.mark.parametrize(("name", "horizon"), WHERE)


def point(name: str, horizon, pairs: int = 2, reals: int = 1) -> Point:
    """A random reduced model with pairs and real poles for the named system of the table."""
    sys = get(name)
    rng = np.random.default_rng(99)
    problem = problem_of(sys, norm_of(sys, horizon))
    start = diagonal(98, pairs=pairs, reals=reals, m=sys.n_inputs, continuous=sys.is_continuous)
    r, q = start.order, problem.p + 2 * problem.c
    rows, W = rng.standard_normal((q, r)), rng.standard_normal(problem.W.shape) / 3
    return Point(sys, horizon, problem, start.is_real_pole, start.poles, start.B, rows, W)


def free(x: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Complex rows with the imaginary parts of real poles removed, as only the others are free."""
    mask = real if x.ndim == 1 else real[:, np.newaxis]
    return np.where(mask, x.real, x)
