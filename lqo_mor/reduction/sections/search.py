"""h²-optimal poles of systems with one input: the search for sections, from Python's side.

`allpass_error` and `residue_error` hold the two forms of the error, `newton` the steps on all sections,
`candidates` what single ones are worth.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads

from lqo_mor.analysis.norm import Norm
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS
from lqo_mor.reduction.sections import allpass_error, newton, starting_poles
from lqo_mor.reduction.sections.candidates import _additions, _candidate_parts, _removals
from lqo_mor.reduction.sections.data import BOUNDLESS
from lqo_mor.reduction.sections.kernel_data import CODE, LAM, SQUARED_NORM, Data
from lqo_mor.reduction.sections.layout import Layout, poles_of
from lqo_mor.reduction.sections.sections import REAL
from lqo_mor.systems.system import System
from lqo_mor.types import FloatOrBatch, Progress

_ON_THE_WAY = 5  # steps while sections are still being added
TRIAL = 6  # steps that every trial gets before the best goes on
_SWAPS = 2  # sections replaced before the best goes on
_KICK = 0.4  # standard deviation of a disturbance of the parameters
_MOVED = 0.3  # difference of a parameter at which a candidate is another section, and no step of Newton's
_ELSEWHERE = 1.0  # difference of a parameter at which two candidates are worth a try each
_WORTH = 1e-4  # relative decrease of the squared error that makes an exchange worth it


@dataclass(frozen=True)
class Found:
    """Poles that a search ended with, in half storage (..., s), unused slots last; squared errors at the start and per step."""

    poles: np.ndarray
    used: np.ndarray
    squared: FloatOrBatch
    start: FloatOrBatch
    history: np.ndarray
    status: np.ndarray
    steps: np.ndarray


def searchable(sys: System, norm: Norm, ridge: float) -> bool:
    """Whether the search covers a system: one input, and outputs that are linear or seen over all time for white input."""
    return sys.n_inputs == 1 and norm.compiled and (sys.M is None or (norm.plain and ridge <= BOUNDLESS))


@dataclass(frozen=True)
class Effort:
    """How hard a search tries.

    Attributes
    ----------
    max_iterations, tolerance
        Most Newton steps of a run, and the gradient, relative to the squared error, at which it ends.
    trial_steps : int, optional
        Steps that every start gets before the best goes on; all of them by default.
    extra : int, optional
        Sections are grown one by one, too, so many too many, of which those that are missed least are taken away.
    exchanges : int
        How often at most a section is exchanged for a better one in the end, and how many are tried each time.
    swaps : bool, optional
        Whether quick exchanges come before the best goes on; by default where sections are grown.
    """

    max_iterations: int
    tolerance: float
    trial_steps: int | None = None
    extra: int | None = None
    exchanges: int = 0
    swaps: bool | None = None


def search_batch(
    count: int,
    data_of: Callable[[int], Data],
    start_of: Callable[[int, Data], np.ndarray],
    size: Layout,
    effort: Effort,
    progress: Progress,
) -> Found:
    """Channels with linear outputs on all threads, each from the poles ``start_of(h, data)``."""
    kinds, x = np.tile(size.kinds, (count, 1)), np.tile(np.linspace(0.1, 1.0, size.n_parameters), (count, 1))
    start, squared = np.zeros(count), np.zeros(count)
    status, steps, history = np.zeros(count, int), np.zeros(count, int), np.full((count, effort.max_iterations + 1), np.nan)

    def channel(h: int) -> None:
        data = data_of(h)
        if not data[SQUARED_NORM] > 0:  # no transfer: any poles will do
            history[h, 0] = 0.0
            return
        run = search(data, size, [start_of(h, data)], effort)
        kinds[h], x[h, : run.x.size], squared[h], start[h], status[h], steps[h] = run[:-1]
        history[h, : run.steps + 1] = run.history

    with ThreadPoolExecutor(get_num_threads()) as pool:
        for done, _ in enumerate(pool.map(channel, range(count))):
            progress(done + 1, count)
    poles, used = poles_of(size, kinds, x)
    return Found(poles, used, squared, start, history, status, steps)


def search_one(data: Data, size: Layout, starts: list[np.ndarray], effort: Effort) -> Found:
    """One system by its `search_data`, from each set of poles in `starts` (closed under conjugation, filled up if too few)."""
    run = search(data, size, starts, effort)
    poles, used = poles_of(size, run.kinds[np.newaxis], run.x[np.newaxis])
    return Found(
        poles[0, used[0]], used[0, used[0]], run.squared, run.start, run.history, np.asarray(run.status), np.asarray(run.steps)
    )


class Candidates(NamedTuple):
    """Single sections that could be added: parameters, and what their scores need, of free ones or pairs and of real poles."""

    sections: np.ndarray
    parts: tuple[Any, ...]
    reals: np.ndarray
    real_parts: tuple[Any, ...]

    @classmethod
    def of(cls, data: Data, size: Layout) -> Candidates:
        """The candidates for a channel, with what the scores of all of them share."""
        count = data[LAM].size + starting_poles.N_DECAYS * (starting_poles.N_ANGLES + 2)
        sections, reals, kind = np.empty((count, 2)), np.empty((starting_poles.N_DECAYS, 2)), size.kinds[0]
        starting_poles._candidates(data[CODE] >= CONTINUOUS, kind, data[LAM], size.least, size.limit, sections, reals)
        parts = _candidate_parts(data, kind, sections, size.least)
        return cls(sections, parts, reals, _candidate_parts(data, np.int64(REAL), reals, size.least))

    def scores(self, data: Data, kinds: np.ndarray, x: np.ndarray, kind: int, least: float) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of a kind, and the squared error (or its bound) with each beside the sections `x`, up to a constant."""
        if kind == REAL:
            return self.reals[:, :1], _additions(data, kinds, x, least, self.real_parts)
        return self.sections, _additions(data, kinds, x, least, self.parts)


class Run(NamedTuple):
    """Where a search ended, the squared error of its first start, and the history of its last steps."""

    kinds: np.ndarray
    x: np.ndarray
    squared: float
    start: float
    status: int
    steps: int
    history: np.ndarray


def search(data: Data, size: Layout, starts: list[np.ndarray], effort: Effort, candidates: Candidates | None = None) -> Run:
    """The best of several starts and, if asked for, of sections grown one by one, improved by replacing sections."""
    bounds, most = (size.least, size.limit), effort.max_iterations
    candidates = Candidates.of(data, size) if candidates is None else candidates
    trial_steps = most if effort.trial_steps is None else min(effort.trial_steps, most)
    trials = []
    for poles in starts:
        kinds, x = size.kinds.copy(), np.zeros(size.n_parameters)
        count = starting_poles._sections_of(data[CODE] >= CONTINUOUS, poles + 0j, kinds, *bounds, x)
        x = x[: allpass_error._parameter_count(kinds)]
        _grow(data, kinds, x, count, candidates, bounds)
        trials.append(_run(data, bounds, kinds, x, trial_steps, effort.tolerance))
    first = trials[0].history[0]
    if effort.extra is not None:
        room = effort.extra if size.kinds[0] != REAL and 2 * (size.kinds.size + effort.extra) < data[LAM].size else 0
        x = _grown(data, size.kinds, room, candidates, bounds)
        trials.append(_run(data, bounds, size.kinds.copy(), x, trial_steps, effort.tolerance))
    best = min(trials, key=lambda trial: trial.squared)
    swaps = effort.extra is not None if effort.swaps is None else effort.swaps
    for _ in range(_SWAPS if trial_steps and swaps else 0):
        swapped = _exchange(data, best, candidates, size, 1, min(TRIAL, trial_steps), effort.tolerance)
        if swapped is None:
            break
        best = swapped
    if best.status == 1 and best.steps < most:
        rest = _run(data, bounds, best.kinds, best.x, most - best.steps, effort.tolerance)
        history = np.concatenate([best.history, rest.history[1:]])
        best = rest._replace(steps=best.steps + rest.steps, history=history)
    rng = np.random.default_rng(0)
    for _ in range(effort.exchanges):
        trial = _exchange(data, best, candidates, size, effort.exchanges, most, effort.tolerance)
        if trial is None:  # no section alone is worth it: all of them, a little
            x = best.x + _KICK * rng.normal(size=best.x.size)
            trial = _run(data, bounds, best.kinds, x, most, effort.tolerance)
        if trial.squared < (1 - _WORTH) * best.squared:
            best = trial
    return best._replace(start=first)


def _run(data: Data, bounds: tuple[float, float], kinds: np.ndarray, x: np.ndarray, steps: int, tolerance: float) -> Run:
    """Newton steps from the sections `x`; where real poles of two sections meet, they may part as a pair of one."""
    past = np.empty(steps + 1)
    value, status, accepted = newton._newton(data, kinds, x, *bounds, steps, tolerance, past)
    best = Run(kinds, x, value, np.inf, status, accepted, past[: accepted + 1].copy())
    while best.steps < steps:
        x = np.empty_like(best.x)
        if not starting_poles._regrouped(data[CODE] >= CONTINUOUS, kinds, best.x, *bounds, x):
            break
        value, status, accepted = newton._newton(data, kinds, x, *bounds, steps - best.steps, tolerance, past)
        if not value < (1 - _WORTH) * best.squared:
            break
        history = np.minimum.accumulate(np.concatenate([best.history, past[1 : accepted + 1]]))
        best = Run(kinds, x, value, np.inf, status, best.steps + accepted, history)
    return best


def _grow(data: Data, kinds: np.ndarray, x: np.ndarray, count: int, candidates: Candidates, bounds: tuple[float, float]) -> None:
    """Fill `x` from `count` sections on, each time with the candidate that leaves least, and a few steps on all of them."""
    ends, history = np.cumsum([0, *np.where(kinds == REAL, 1, 2)]), np.empty(_ON_THE_WAY + 1)
    for p in range(count, kinds.size):
        choices, scores = candidates.scores(data, kinds[:p], x[: ends[p]], kinds[p], bounds[0])
        x[ends[p] : ends[p + 1]] = choices[np.argmin(scores)]
        if p + 1 < kinds.size:
            newton._newton(data, kinds[: p + 1], x[: ends[p + 1]], *bounds, _ON_THE_WAY, 1e-2, history)


def _grown(data: Data, kinds: np.ndarray, extra: int, candidates: Candidates, bounds: tuple[float, float]) -> np.ndarray:
    """Parameters after growing `extra` sections too many and taking those away that are missed least."""
    more = np.concatenate([np.repeat(kinds[:1], extra), kinds])
    x = np.zeros(allpass_error._parameter_count(more))
    _grow(data, more, x, 0, candidates, bounds)
    history = np.empty(_ON_THE_WAY + 1)
    for _ in range(extra):
        newton._newton(data, more, x, *bounds, _ON_THE_WAY, 1e-2, history)
        missed = np.where(more == REAL, np.inf, _removals(data, more, x, bounds[0]))
        p = int(np.argmin(missed))
        more, x = np.delete(more, p), np.delete(x, [2 * p, 2 * p + 1])
    return x


def _exchange(
    data: Data, best: Run, candidates: Candidates, size: Layout, tries: int, steps: int, tolerance: float
) -> Run | None:
    """A better run with one of the `tries` sections that are missed least replaced, or None.

    It is replaced by the two best candidates that are elsewhere.
    """
    starts = np.cumsum([0, *np.where(best.kinds == REAL, 1, 2)])
    missed = _removals(data, best.kinds, best.x, size.least)
    for p in np.argsort(missed)[:tries]:
        own = slice(starts[p], starts[p + 1])
        others, rest = np.delete(best.kinds, p), np.delete(best.x, own)
        choices, scores = candidates.scores(data, others, rest, best.kinds[p], size.least)
        free = np.max(np.abs(choices - best.x[own]), axis=1) > _MOVED
        for _ in range(2):
            if not np.any(free):
                break
            choice = np.argmin(np.where(free, scores, np.inf))
            x = best.x.copy()
            x[own] = choices[choice]
            trial = _run(data, (size.least, size.limit), best.kinds, x, steps, tolerance)
            if trial.squared < (1 - _WORTH) * best.squared:
                return trial
            free &= np.max(np.abs(choices - choices[choice]), axis=1) > _ELSEWHERE
    return None
