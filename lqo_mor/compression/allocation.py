"""How many states each layer of a model should keep, so that the bound on the output error is as small as possible."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.norm import is_stable
from lqo_mor.bounds.output_error import output_error_bound
from lqo_mor.errors import DimensionError, InvalidInputError, OrderError, StabilityWarning
from lqo_mor.network.inputs import CalibrationInputs
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction.balanced import balance, truncate
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.reduce import reduce
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.text_table import text_table
from lqo_mor.types import Progress

_EXACT = 50_000_000  # candidates times budget up to which dynamic programming is used: about a second
_CANDIDATES = 16  # sizes tried per layer by default


@dataclass(frozen=True, eq=False)
class Allocation:
    """A budget of states split over the layers of a model; printing it gives a table.

    Attributes
    ----------
    sizes : tuple of int
        States of each system of each layer, to be given to `compress` as `state_size`.
    errors : (layers,) ndarray
        h2 errors of the layers at these sizes, over the horizon.
    weights : (layers,) ndarray
        What the sum weighs them with.
    exact : bool
        Whether no other split of the candidate sizes has a smaller sum (dynamic programming), or a greedy one was taken.
    names : tuple of str
        Names of the blocks.
    """

    sizes: tuple[int, ...]
    errors: np.ndarray
    weights: np.ndarray
    exact: bool
    names: tuple[str, ...]

    @property
    def bound(self) -> float:
        """The weighted sum of the errors."""
        return float(self.weights @ self.errors)

    def __str__(self) -> str:
        share = self.weights / np.sum(self.weights)
        rows = [("layer", "states", "h2 error", "weight", "share of the weights")]
        rows += [
            (name, str(size), f"{error:.2e}", f"{weight:.2e}", f"{part:.1%}")
            for name, size, error, weight, part in zip(self.names, self.sizes, self.errors, self.weights, share, strict=True)
        ]
        how = "the least of all splits" if self.exact else "a greedy split"
        return "\n".join([*text_table(rows), f"{sum(self.sizes)} states, weighted sum of errors {self.bound:.3e}, {how}"])


def allocate(
    model: DeepSSM,
    budget: int,
    *,
    horizon: int,
    weights: ArrayLike | None = None,
    calibration: CalibrationInputs | None = None,
    sizes: Sequence[int] | None = None,
    method: str = "balanced",
    progress: Progress | None = None,
) -> Allocation:
    """Split a number of states over the layers of a model so that ``Σ_l w_l ‖Σ_l - Σ_{r,l}‖_h2`` is least.

    Parameters
    ----------
    model : DeepSSM
        The model.
    budget : int
        Sum over the layers of the states that each of their systems keeps, at most.
    horizon : int
        Length of the sequences.
    weights : (layers,) array_like, optional
        Positive. By default those of `output_error_bound` in the limit of small changes, for the calibration inputs or,
        without, for all inputs.
    calibration : array_like or iterator of array_like, optional
        Inputs as for the model.
    sizes : sequence of int, optional
        Candidate numbers of states, even; by default up to 16 for each layer, and its own.
    method : str, default "balanced"
        Reduction method of the error curves, as for `reduce`.
    progress : callable, optional
        Called as ``progress(done, total)`` with points of the curves.

    Returns
    -------
    Allocation

    Raises
    ------
    InvalidInputError
        If the budget is below the least sizes, or the weights are not finite: give calibration inputs then.
    DimensionError
        If there is not one weight for each layer.
    OrderError
        If a candidate size is odd or not positive.

    Notes
    -----
    The bound overrates how much errors grow from layer to layer, and with it the weights of shallow layers. A split by weights
    that were measured (`weights`) may give smaller errors in practice, without a proof.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from lqo_mor.network import Block, Linear
    >>> def ssm(c):
    ...     return lqo.DiagonalLQOSystem([[0.9, 0.5, 0.1]], np.ones((1, 3, 1)), [[[1.0, c, c]]], dt=1.0)
    >>> blocks = Block("rich", ssm(1.0)), Block("poor", ssm(0.001))
    >>> lqo.allocate(lqo.DeepSSM(Linear([[1.0]]), blocks, Linear([[1.0]])), 6, horizon=16, weights=[1.0, 1.0]).sizes
    (4, 2)
    """
    if not isinstance(model, DeepSSM) or not model.blocks:
        raise InvalidInputError("allocate takes a DeepSSM with at least one block")
    if weights is None:
        bound = output_error_bound(model, model, horizon=horizon, calibration=calibration)
        weights = bound.layer_weights if bound.calibrated_weights is None else bound.calibrated_weights
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(model.blocks),):
        raise DimensionError(f"weights has shape {weights.shape}, expected ({len(model.blocks)},), one for each layer")
    candidates = [_candidates(block.state_size, sizes) for block in model.blocks]
    total = sum(len(tried) for tried in candidates)
    curves: list[np.ndarray] = []
    for block, tried in zip(model.blocks, candidates, strict=True):
        done = sum(len(curve) for curve in curves)
        curves.append(_curve(block.ssm, tried, method, horizon, progress and (lambda n, done=done: progress(done + n, total))))
    chosen, exact = split_budget(curves, weights, candidates, budget)
    errors = np.array([curve[i] for curve, i in zip(curves, chosen, strict=True)])
    kept = tuple(tried[i] for tried, i in zip(candidates, chosen, strict=True))
    return Allocation(kept, errors, weights, exact, tuple(block.name for block in model.blocks))


def split_budget(
    errors: Sequence[ArrayLike], weights: ArrayLike, costs: Sequence[ArrayLike], budget: int
) -> tuple[tuple[int, ...], bool]:
    """Choose one candidate for each layer, of least ``Σ_l weights_l errors_l[i_l]`` with ``Σ_l costs_l[i_l] ≤ budget``.

    `errors` and `costs` are (candidates,) for each layer, the errors not negative, the costs growing positive integers; weights
    are finite and positive. Returns the index of a candidate for each layer, and True where they are by dynamic programming: for
    large problems they are by `along_hulls`. Raises `InvalidInputError` if a number is out of range or the budget is below the
    sum of the least costs.
    """
    weights, prices = np.asarray(weights, dtype=np.float64), [np.asarray(cost) for cost in costs]
    if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)):
        raise InvalidInputError(f"budget must be an integer, got {budget!r}")
    if not np.all(np.isfinite(weights)) or np.any(weights <= 0):
        raise InvalidInputError(f"the weights {weights} are not finite and positive; give calibration inputs, or weights")
    if budget < (least := sum(int(np.min(cost)) for cost in prices)):
        raise InvalidInputError(f"a budget of {budget} is below {least}, the sum of the least sizes")
    values = [w * np.asarray(error, dtype=np.float64) for w, error in zip(weights, errors, strict=True)]
    unit = int(np.gcd.reduce(np.concatenate(prices)))
    steps, scaled = int(budget) // unit, [cost // unit for cost in prices]
    steps = min(steps, sum(int(np.max(cost)) for cost in scaled))
    if steps * sum(cost.size for cost in prices) <= _EXACT:
        return _dynamic(values, scaled, steps), True
    return tuple(along_hulls(values, scaled, steps)), False


def _dynamic(values: list[np.ndarray], costs: list[np.ndarray], budget: int) -> tuple[int, ...]:
    best, choices = np.zeros(budget + 1), []  # best[b]: least sum of the layers so far at a cost of at most b
    for value, cost in zip(values, costs, strict=True):
        total, choice = np.full(budget + 1, np.inf), np.zeros(budget + 1, dtype=np.int64)
        for i in range(len(value)):
            if cost[i] <= budget:
                candidate = best[: budget + 1 - cost[i]] + value[i]
                better = candidate < total[cost[i] :]
                total[cost[i] :][better], choice[cost[i] :][better] = candidate[better], i
        best = total
        choices.append(choice)
    chosen = []
    for cost, choice in zip(reversed(costs), reversed(choices), strict=True):
        chosen.append(int(choice[budget]))
        budget -= int(cost[chosen[-1]])
    return tuple(reversed(chosen))


def along_hulls(errors: Sequence[np.ndarray], costs: Sequence[np.ndarray], budget: int) -> list[int]:
    """Index of a candidate for each curve, so that the summed errors are small within a budget; theory, eq. (9.8).

    The next candidate is the one that removes most error per cost, along the lower convex hull of every curve: the minimum for
    the budget that is used up, but for what the last step would not fit. All costs grow, and their first ones are spent.
    """
    chosen = [0] * len(errors)
    budget -= sum(int(cost[0]) for cost in costs)
    queue: list[tuple[float, int, int]] = []

    def offer(curve: int) -> None:  # its largest decrease per cost from the present candidate
        k, error, cost = chosen[curve], errors[curve], costs[curve]
        gains = (error[k] - error[k + 1 :]) / (cost[k + 1 :] - cost[k])
        if gains.size and (gain := np.max(gains)) > 0:
            heapq.heappush(queue, (-gain, curve, k + 1 + int(np.argmax(gains))))

    for curve in range(len(errors)):
        offer(curve)
    while queue:
        _, curve, k = heapq.heappop(queue)
        extra = int(costs[curve][k] - costs[curve][chosen[curve]])
        if extra <= budget:
            budget, chosen[curve] = budget - extra, k
            offer(curve)
    return chosen


def check_state_sizes(sizes: Sequence[Any]) -> None:
    """Raise `OrderError` unless all sizes are numbers of states that a checkpoint can hold."""
    for size in sizes:
        if isinstance(size, (bool, np.bool_)) or not isinstance(size, (int, np.integer)) or size < 2 or size % 2:
            raise OrderError(f"state size {size!r} is not a positive even integer; a checkpoint stores pairs of states")


def _candidates(own: int, sizes: Sequence[int] | None) -> list[int]:
    """Sizes below that of the layer, and its own."""
    halves = np.unique(np.round(np.geomspace(1, max(own // 2, 1), _CANDIDATES)).astype(int))
    sizes = list(2 * halves) if sizes is None else sizes
    check_state_sizes(sizes)
    return sorted({int(size) for size in sizes if size < own} | {own})


def _curve(
    ssm: DiagonalLQOSystem, sizes: Sequence[int], method: str, horizon: int, progress: Callable[[int], object] | None
) -> np.ndarray:
    """h2 errors of a layer at the sizes, all channels together; zero at its own."""
    norm = norm_of(ssm, horizon)
    cut = method == "balanced" and is_stable(ssm)  # otherwise the unstable states are kept
    balanced, errors = balance(ssm, norm) if cut else None, []
    for size in sizes:
        if size >= 2 * ssm.n_slots:
            errors.append(0.0)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", StabilityWarning)  # nothing is kept of these systems
                if balanced is not None:
                    small = truncate(ssm, balanced, Budget(slots=size // 2), norm).system
                else:
                    small = reduce(ssm, slots=size // 2, method=method, horizon=horizon).system
            errors.append(float(np.linalg.norm(h2_error(ssm, small, horizon, delay=0))))
        if progress is not None:
            progress(len(errors))
    return np.array(errors)
