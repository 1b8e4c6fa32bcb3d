"""Sections at random places and small systems with one input, for tests of the search for poles."""

from __future__ import annotations

import numpy as np

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.reduction.objective.error import problem_of, projected_error
from lqo_mor.reduction.sections.data import search_data
from lqo_mor.reduction.sections.kernel_data import RIDGE
from lqo_mor.reduction.sections.newton import _objective
from lqo_mor.reduction.sections.sections import FREE, N_CONSTANTS, PAIR, REAL, _constants, _poles, _size

LEAST = 1e-9  # decay that a pair keeps
LAYOUTS = [(FREE, FREE, REAL), (REAL, PAIR, REAL), (PAIR, FREE), (REAL, REAL)]


def system(continuous, c=0, seed=0, pairs=5, reals=2, p=2):
    """A diagonal system with one input, slow and fast poles, `p` outputs and a quadratic output of rank `c`."""
    rng, n = np.random.default_rng(seed), pairs + reals
    pair = np.arange(n) < pairs
    decay, angle = rng.uniform(0.03, 1.0, n), np.where(pair, rng.uniform(0.2, 3.0, n), 0.0)
    lam = -decay + 1j * angle

    def rows(k):
        return rng.standard_normal((k, n)) + 1j * pair * rng.standard_normal((k, n))

    quadratic = lqo.QuadraticOutput(rows(c), rows(c), rng.standard_normal((p, c))) if c else None
    lam = lam if continuous else np.where(pair, np.exp(lam), np.exp(-decay))
    return lqo.DiagonalLQOSystem(lam, rows(1).T, rows(p), None, quadratic, dt=0 if continuous else 1.0)


def constants(continuous, kind, x):
    """The constants of one section."""
    out = np.zeros(N_CONSTANTS)
    _constants(continuous, kind, x[0], x[-1], LEAST, out)
    return out


def poles(continuous, kinds, x):
    """Poles of sections in half storage."""
    out, k = [], 0
    for kind in kinds:
        both = _poles(continuous, kind, constants(continuous, kind, x[k : k + _size(kind)]))
        out += both if kind == FREE and not both[0].imag else both[:1]
        k += _size(kind)
    return np.array(out)


def parameters(rng, continuous, kinds):
    """Parameters of random sections with moderate decays; of the free ones some hold a pair and some two real poles."""
    parts = []
    for kind in kinds:
        if kind == PAIR:
            parts.append([rng.uniform(-2, 0.5), rng.uniform(0.3, 2.5)])
        else:
            parts.append(rng.normal(0 if continuous else 0.5, 0.8, _size(kind)))
    return np.concatenate(parts)


def form(sys, horizon=None, ridge=0.0, inner=True):
    """What the kernels need of `sys`, in the inner or in the projection form of the error."""
    data = search_data(sys, norm_of(sys, horizon), ridge)
    return (*data[:RIDGE], ridge, inner)


def jet(data, kinds, x):
    """The squared error at the sections `x`, its gradient and its Hessian."""
    gradient, hessian = np.empty(x.size), np.empty((x.size, x.size))
    return _objective(data, np.array(kinds), x, LEAST, gradient, hessian), gradient, hessian


def best_error(sys, mu, horizon=None, ridge=0.0):
    """Squared error of the best outputs at the poles `mu`, in another way: normal equations of the reduced Gramian."""
    return projected_error(problem_of(sys, norm_of(sys, horizon)), mu, np.ones((mu.size, 1), complex), mu.imag == 0, ridge)[0]


def closed(mu):
    """Poles in half storage closed under conjugation, sorted."""
    return np.sort_complex(np.concatenate([mu, mu[mu.imag != 0].conj()]))
