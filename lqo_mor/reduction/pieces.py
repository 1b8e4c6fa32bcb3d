"""Batches cut into pieces for the workers of joblib, and the reductions of the pieces put together again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np

from lqo_mor import parallel
from lqo_mor.analysis.norm import Norm
from lqo_mor.errors import StabilityWarning
from lqo_mor.reduction.best_of import filled, part_of
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.refit import warn_of_repair
from lqo_mor.reduction.result import Method, Reduction, Status
from lqo_mor.systems.batches import concatenate, stack
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_NUMBERS = (bool, int, float, np.generic, Status)
_TAILS = {"history": np.nan, "hsv": 0.0}  # what fills the last axis of the shorter ones


def in_pieces(method: Method) -> Method:
    """A method of reduction that spreads batches over the workers of joblib, where there are any."""

    def spread(sys: System, budget: Budget, norm: Norm, *, progress: Progress | None = None, **options: Any) -> Reduction:
        batch = getattr(sys, "batch", ())
        count = int(np.prod(batch))
        cuts = parallel.pieces(count)
        if not batch or (len(cuts) == 1 and not parallel.keeps()):
            return method.solve(sys, budget, norm, progress=progress, **options)
        tasks = []
        for cut in cuts:
            index = np.unravel_index(np.arange(count)[cut], batch)
            own = {name: piece_of(value, index, batch) for name, value in options.items()}
            tasks.append((method.solve, cast(DiagonalLQOSystem, sys)[index], budget, norm.channel(index), own))
        whole = replace(joined(parallel.run(reduce_piece, tasks, part_of(sys, progress)), batch), norm=norm)
        if np.any(whole.repaired):
            warn_of_repair(whole.repaired)
        return whole

    return replace(method, solve=spread)


def reduce_piece(
    solve: Callable[..., Reduction],
    sys: DiagonalLQOSystem,
    budget: Budget,
    norm: Norm,
    options: dict[str, Any],
    progress: Progress | None,
) -> Reduction:
    """The reduction of a piece, silent about repairs, which are told once for all pieces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        return solve(sys, budget, norm, progress=progress, **options)


def joined(parts: list[Reduction], batch: tuple[int, ...]) -> Reduction:
    """The reduction of a whole batch from those of its pieces, each of a batch (channels,)."""
    values: dict[str, Any] = {}
    for field in fields(Reduction):
        own = [getattr(part, field.name) for part in parts]
        if field.name == "system":
            values["system"] = concatenate(own, batch)
        elif not all(isinstance(value, np.ndarray) for value in own):  # the same for all, or not there for one and so for none
            values[field.name] = None if any(value is None for value in own) else own[0]
        else:
            if field.name in _TAILS:
                own = filled(own, _TAILS[field.name])
            whole = np.concatenate(own)
            values[field.name] = whole.reshape(*batch, *whole.shape[1:])
    return Reduction(**values)


def single_as_batch(red: Reduction) -> Reduction:
    """The reduction of a single diagonal system as that of a batch of one channel."""
    own = {field.name: getattr(red, field.name) for field in fields(Reduction)}
    arrays = {name: np.asarray(value)[np.newaxis] for name, value in own.items() if isinstance(value, (np.ndarray, *_NUMBERS))}
    return Reduction(**{**own, **arrays, "system": stack([cast(DiagonalLQOSystem, red.system)], (1,))})


def reordered(red: Reduction, order: np.ndarray, batch: tuple[int, ...]) -> Reduction:
    """A reduction of a batch (channels,) with its channels in another order, and a shape."""
    own = {field.name: getattr(red, field.name) for field in fields(Reduction)}
    arrays = {n: v[order].reshape(*batch, *v.shape[1:]) for n, v in own.items() if isinstance(v, np.ndarray)}
    return replace(red, system=cast(DiagonalLQOSystem, red.system)[order.reshape(batch)], **arrays)


def piece_of(option: Any, index: Any, batch: tuple[int, ...]) -> Any:
    """The part of an option that belongs to the channels at `index`; what does not fit is refused by the method itself."""
    if isinstance(option, (list, tuple)):
        return [piece_of(one, index, batch) for one in option]
    system = option.system if isinstance(option, Reduction) else option
    return system[index] if isinstance(system, DiagonalLQOSystem) and system.batch == batch else option
