"""How often the default of the optimal method finds what many random restarts find; see `benchmarks.reduction`."""

from __future__ import annotations

import warnings

import numpy as np

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.reduction.refit import densified, fit_outputs
from lqo_mor.systems.batches import used_order

CLOSE = 1.01  # at most 1 % above the best


def compare(sys, order: int, restarts: int, horizon: float | None, tell) -> dict:
    """The default result against the best of random restarts, channel by channel of a batch.

    Every second restart draws its poles log-uniformly in decay and angle between those of the full system; the others
    disturb the poles of the default result.

    Returns
    -------
    dict
        ``default``, ``single`` and ``best`` relative errors (channels,), where single is the default of every channel by
        itself; the share within 1 % and the worst ratio of both; and how many restarts failed.
    """
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lqo.LQOWarning)
        default = lqo.reduce(sys, order, horizon=horizon)
        errors = np.atleast_1d(default.relative_error)
        single, best, failed = errors, errors.copy(), 0
        if getattr(sys, "batch", ()):  # channels by themselves get a longer search than a batch
            single = np.array([lqo.reduce(sys[i], order, horizon=horizon).relative_error for i in np.ndindex(sys.batch)])
            best = np.minimum(best, single)
        for number in range(restarts):
            start = _start(sys, default.system, order, horizon, rng, drawn=number % 2 == 0)
            tell(f"restart {number + 1} of {restarts}")
            try:
                other = lqo.reduce(sys, order, horizon=horizon, start=start)
            except ValueError as err:  # the table counts them
                tell(f"failed: {err}")
                failed += 1
                continue
            best = np.minimum(best, np.atleast_1d(other.relative_error))
    ratios = [np.divide(e, best, out=np.ones_like(e), where=best > 0) for e in (errors, single)]
    return {
        "default": errors.tolist(),
        "single": single.tolist(),
        "best": best.tolist(),
        "share within 1 %": float(np.mean(ratios[0] <= CLOSE)),
        "worst ratio": float(np.max(ratios[0])),
        "share, one by one": float(np.mean(ratios[1] <= CLOSE)),
        "worst, one by one": float(np.max(ratios[1])),
        "failed": failed,
    }


def _start(sys, result, order: int, horizon, rng, drawn: bool):
    """A random reduced system with optimal outputs, of the kind of `sys`."""
    if isinstance(sys, lqo.LQOSystem):
        full, diagonal = lqo.to_diagonal(sys), lqo.to_diagonal(result)
        poles, B = _poles(full, order, rng) if drawn else _disturbed(diagonal, rng)
        return densified(fit_outputs(sys, poles, B, norm_of(sys, horizon), 1e-12), sys)
    parts = []
    for index in np.ndindex(sys.batch):
        whole = int(used_order(result[index])) == order
        parts.append(_poles(sys[index], order, rng) if drawn or not whole else _disturbed(result[index], rng))
    size = max(poles.size for poles, _ in parts)
    poles = np.full((len(parts), size), -1.0 if sys.is_continuous else 0.5, complex)
    B = np.zeros((len(parts), size, sys.n_inputs), complex)
    for row, (mu, b) in enumerate(parts):
        poles[row, : mu.size], B[row, : mu.size] = mu, b
    return fit_outputs(sys, poles.reshape(*sys.batch, size), B.reshape(*sys.batch, size, -1), norm_of(sys, horizon), 1e-12)


def _split(poles: np.ndarray, continuous: bool) -> tuple[np.ndarray, np.ndarray]:
    """Decay and angle of poles."""
    if continuous:
        return -poles.real, np.abs(poles.imag)
    return -np.log(np.maximum(np.abs(poles), 1e-12)), np.abs(np.angle(poles))


def _join(decay: np.ndarray, angle: np.ndarray, continuous: bool) -> np.ndarray:
    poles = -decay + 1j * angle
    poles = poles if continuous else np.exp(-decay + 1j * np.minimum(angle, np.pi))
    return np.where(angle == 0, poles.real, poles)


def _poles(full, order: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Random poles within the ranges of the full system's, real ones as often as there, and random inputs."""
    decay, angle = _split(full.poles, full.is_continuous)
    real_share = np.mean(full.is_real_pole)
    n_real = order if real_share == 1 else int(rng.binomial(order // 2, real_share)) * 2 + order % 2
    count = n_real + (order - n_real) // 2
    new_decay = np.exp(rng.uniform(np.log(decay.min()), np.log(decay.max()), count))
    positive = angle[angle > 0]
    new_angle = np.zeros(count)
    if count > n_real:
        new_angle[n_real:] = np.exp(rng.uniform(np.log(positive.min()), np.log(positive.max()), count - n_real))
    return _join(new_decay, new_angle, full.is_continuous), _inputs(new_angle, full.n_inputs, rng)


def _disturbed(reduced, rng) -> tuple[np.ndarray, np.ndarray]:
    """The poles of a reduced system, decays and angles changed by random factors, and its inputs."""
    used = np.any(reduced.B, axis=-1)
    decay, angle = _split(reduced.poles[used], reduced.is_continuous)
    angle = np.where(reduced.is_real_pole[used], 0.0, angle)
    factors = np.exp(0.3 * rng.standard_normal((2, decay.size)))
    return _join(decay * factors[0], angle * factors[1], reduced.is_continuous), reduced.B[used]


def _inputs(angle: np.ndarray, m: int, rng) -> np.ndarray:
    real, imaginary = rng.standard_normal((2, angle.size, m))
    return np.where((angle == 0)[:, np.newaxis], real, real + 1j * imaginary) if m > 1 else np.ones((angle.size, 1), complex)
