"""Error curves of channels with one input whose autocovariance is known: the best systems of several sizes for each.

One search runs through all sizes of a channel, the residues and, if it is free, the feedthrough eliminated: the best system of
one size is a start of the next. With a discount γ kernels ``h_k`` are compared as ``γ^k h_k``; theory, eq. (2.9) to (2.11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numba import get_num_threads

from lqo_mor.analysis.rows import pair_weights
from lqo_mor.matrix_equations import pairing_jets
from lqo_mor.matrix_equations.pairing_jets import TWO_INPUTS, TWO_INPUTS_FREE, WEIGHTED
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.sections import candidates
from lqo_mor.reduction.sections.data import _LEAST_RIDGE, _weighted_data
from lqo_mor.reduction.sections.kernel_data import CODE, FEATURES, OUTPUTS, PARAMETERS, SQUARED_NORM, Data, kernel_data
from lqo_mor.reduction.sections.layout import Layout, layout_of, poles_of
from lqo_mor.reduction.sections.search import Candidates, Effort, Run, search
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import closed
from lqo_mor.types import Progress

_TRIAL = 8  # steps that every start gets before the best goes on
_STEPS = 200  # of a search for the best system of one size, at most
_REFIT_STEPS = 100  # from a system that is best for a similar input
_TOLERANCE = 1e-4

Channel = tuple[np.ndarray, np.ndarray, float]  # poles and residues in half storage, feedthrough


@dataclass(frozen=True, eq=False)
class WeightedCurves:
    """Errors of several sizes for every channel of a batch, or for one system."""

    slots: tuple[int, ...]  # the sizes; 0 keeps the feedthrough alone
    squared: np.ndarray  # (channels, sizes), never growing with the size
    # per channel and size; of one system none, which is reduced when its size is known
    systems: list[list[Channel]] = field(default_factory=list)

    def pick(self, which: Sequence[int]) -> list[Channel]:
        """The systems with the size of index ``which[h]`` for channel `h`."""
        return [self.systems[h][k] for h, k in enumerate(which)]


@dataclass(frozen=True)
class ChannelSearch:
    """What reduced channels may be."""

    free: bool  # whether their feedthrough may change
    margin: float = 1e-12  # how far their poles stay from the unit circle
    discount: float = 1.0  # factor per step, at most 1, by which late answers count less
    ridge: float = 1e-6  # of the residues, relative
    exchanges: int = 0  # how many sections are exchanged on the way at most

    def layout(self, slots: int) -> Layout:
        """The layout of a channel, whose poles are multiplied by the discount."""
        return layout_of(Budget(slots=slots), False, 1 - self.discount * (1 - self.margin))


@dataclass(frozen=True, eq=False)
class InputCovariances:
    """Covariances of what full channels read, `v`, and the reduced ones in their place, `u`."""

    full: np.ndarray  # (channels, lags): autocovariances of `v`, as for `weighted_curves`
    reduced: np.ndarray  # likewise of `u`
    crossed: np.ndarray  # (channels, 2, lags): ``E[v_{t+j} u_t]`` and ``E[v_{t-j} u_t]``

    def __getitem__(self, cut: slice) -> InputCovariances:
        return InputCovariances(self.full[cut], self.reduced[cut], self.crossed[cut])


def weighted_curves(
    sys: DiagonalLQOSystem,
    covariances: np.ndarray,
    slots: Sequence[int],
    options: ChannelSearch,
    progress: Progress | None = None,
) -> WeightedCurves:
    """The error curves of a discrete batch (channels,) of linear systems with delay 0, for inputs with given autocovariances.

    Each system has one input and one output, and the full system keeps its feedthrough; `covariances` (channels, lags) are
    ``R_j = E[u_{t+j} u_t]`` of the input of every channel; the sizes in `slots` grow.
    """
    slots, discount, rows = tuple(slots), options.discount, _rows(sys)
    squared = np.zeros((sys.batch[0], len(slots)))
    systems: list[list[Channel]] = [[] for _ in range(sys.batch[0])]

    def channel(h: int) -> None:
        poles, feedthrough = np.array(sys.poles[h]), float(sys.D[h, 0, 0])
        nothing = np.zeros(0, complex)
        if not covariances[h, 0] > 0:  # no input: nothing is needed
            systems[h] = [(nothing, nothing, feedthrough)] * len(slots)
            return
        data = _weighted_data(discount * poles, rows[h], covariances[h], options.ridge, options.free)
        best, candidates = (nothing, nothing, _alone(data, feedthrough)), None
        for k, size in enumerate(slots):
            if size >= poles.size:
                best, squared[h, k] = (poles, np.array(sys.C[h, 0] * sys.B[h, :, 0]), feedthrough), 0.0
            elif size == 0 or not data[SQUARED_NORM] > 0:
                squared[h, k] = data[SQUARED_NORM]
            else:
                layout = options.layout(size)
                candidates = Candidates.of(data, layout) if candidates is None else candidates
                effort = Effort(_STEPS, _TOLERANCE, _TRIAL, exchanges=options.exchanges, swaps=True)
                mu = _poles(layout, search(data, layout, [closed(discount * best[0])], effort, candidates))
                residues, change, squared[h, k] = _fitted(data, mu)
                best = (mu / discount, residues, feedthrough + change)
            systems[h].append(best)

    _in_threads(channel, sys.batch[0], progress)
    return WeightedCurves(slots, np.minimum.accumulate(squared, axis=1), systems)


def refit_channels(
    sys: DiagonalLQOSystem,
    systems: list[Channel],
    inputs: InputCovariances,
    options: ChannelSearch,
    progress: Progress | None = None,
) -> tuple[list[Channel], np.ndarray]:
    """Reduced channels that imitate the full ones best while they read another input, and their squared errors.

    The full batch is as for `weighted_curves`; the steps start from the reduced systems given.
    """
    refitted, squared, rows = list(systems), np.zeros(len(systems)), _rows(sys)

    def channel(h: int) -> None:
        lam, outputs, D = options.discount * sys.poles[h], rows[h], float(sys.D[h, 0, 0])
        crossed, own = inputs.crossed[h], inputs.reduced[h]
        energy, start, power = _output_energy(lam, outputs, D, inputs.full[h]), float(crossed[0, 0]), float(own[0])
        if not (energy > 0 and power > 0):
            return
        features = np.zeros((pairing_jets.N_FEATURES, lam.size), complex)
        pairing_jets._correlation_series(np.ascontiguousarray(crossed[1]), lam, features[:3])
        shared = 2 * float(np.sum(outputs[0] * features[0]).real) + D * start  # covariance of the full output and the new input
        code, last, left = TWO_INPUTS_FREE, shared, energy - shared**2 / power
        if not options.free:
            code, last, left = TWO_INPUTS, D * power, energy - 2 * D * shared + D * D * power
        parameters = np.concatenate([own, crossed[0], [D, last]])
        ridge, (mu, _, feedthrough) = max(options.ridge, _LEAST_RIDGE), systems[h]
        data = kernel_data((code, parameters), lam, features, outputs, max(left, 0.0), ridge)
        mu = options.discount * mu
        if mu.size:
            layout = options.layout(mu.size)
            mu = _poles(layout, search(data, layout, [closed(mu)], Effort(_REFIT_STEPS, _TOLERANCE)))
        residues, change, squared[h] = _fitted(data, mu)
        refitted[h] = (mu / options.discount, residues, change if options.free else feedthrough)

    _in_threads(channel, len(systems), progress)
    return refitted, squared


def _in_threads(task: Callable[[int], None], count: int, progress: Progress | None) -> None:
    with ThreadPoolExecutor(get_num_threads()) as pool:
        for done, _ in enumerate(pool.map(task, range(count))):
            if progress is not None:
                progress(done + 1, count)


def _rows(sys: DiagonalLQOSystem) -> np.ndarray:
    """Output rows (channels, 1, slots) for inputs of one, each pair as a whole."""
    return (sys.C[:, 0] * pair_weights(sys) * sys.B[:, :, 0])[:, np.newaxis]


def assembled(systems: list[Channel], dt: float | bool) -> DiagonalLQOSystem:
    """Channels of different sizes as one batch, padded to the largest."""
    width = max(1, max(poles.size for poles, _, _ in systems))
    poles, B = np.full((len(systems), width), 0.5 + 0j), np.zeros((len(systems), width, 1))
    C = np.zeros((len(systems), 1, width), complex)
    for h, (mu, residues, _) in enumerate(systems):
        poles[h, : mu.size], B[h, : mu.size], C[h, 0, : mu.size] = mu, 1.0, residues
    D = np.array([feedthrough for _, _, feedthrough in systems])[:, np.newaxis, np.newaxis]
    return DiagonalLQOSystem(poles, B, C, D, None, dt=dt)


def _poles(layout: Layout, run: Run) -> np.ndarray:
    mu, used = poles_of(layout, run.kinds[np.newaxis], run.x[np.newaxis])
    return mu[0, used[0]]


def _alone(data: Data, feedthrough: float) -> float:
    """The best feedthrough of a system without states."""
    if data[CODE] == WEIGHTED or not data[PARAMETERS][0] > 0:
        return feedthrough
    return feedthrough + 2 * float(np.sum(data[OUTPUTS][0] * data[FEATURES][0]).real) / data[PARAMETERS][0]


def _fitted(data: Data, mu: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Optimal residues of given poles, the change of the feedthrough (two inputs: itself), and the squared error."""
    residues, total = np.zeros(mu.size, complex), np.empty(2)
    candidates._optimal_residues(data, mu, residues, total)
    return residues, total[1], max(total[0], 0.0)


def _output_energy(poles: np.ndarray, outputs: np.ndarray, feedthrough: float, R: np.ndarray) -> float:
    """Expected energy of the output of a system with its feedthrough."""
    data = _weighted_data(poles, outputs, R, 0.0, False)
    return data[SQUARED_NORM] + 4 * feedthrough * float(np.sum(outputs[0] * data[FEATURES][0]).real) + feedthrough**2 * R[0]
