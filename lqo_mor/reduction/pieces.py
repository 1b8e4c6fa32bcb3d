"""Batches cut into pieces for the workers of joblib, and the reductions of the pieces put together again."""

from __future__ import annotations

import functools
import warnings
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np

from lqo_mor import parallel
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.weighted import check_spectrum
from lqo_mor.errors import StabilityWarning
from lqo_mor.reduction.budget import check_budget
from lqo_mor.reduction.refit import warn_of_repair
from lqo_mor.reduction.result import Method, Reduction
from lqo_mor.systems.batches import pad
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_TAILS = {"history": np.nan, "hsv": 0.0}  # what fills the last axis of the shorter ones


def in_pieces(method: Method) -> Method:
    """A method of reduction that spreads batches over the workers of joblib, where there are any."""

    @functools.wraps(method)
    def spread(
        sys: System,
        order: int | None = None,
        *,
        slots: int | None = None,
        horizon: float | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Reduction:
        batch = getattr(sys, "batch", ())
        count = int(np.prod(batch))
        cuts = parallel.pieces(count)
        if not batch or (len(cuts) == 1 and not parallel.keeps()):
            return method(sys, order, slots=slots, horizon=horizon, progress=progress, **options)
        check_budget(sys, order, slots, horizon)  # of the whole batch: the smallest channel bounds the order
        if options.get("spectrum") is not None:
            check_spectrum(sys, options["spectrum"], horizon)
        tasks = []
        for cut in cuts:
            index = np.unravel_index(np.arange(count)[cut], batch)
            own = {name: _piece_of(value, index, batch) for name, value in options.items()}
            tasks.append(
                (method, cast(DiagonalLQOSystem, sys)[index], {"order": order, "slots": slots, "horizon": horizon, **own})
            )

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(count * done // total, count)

        whole = joined(parallel.run(reduce_piece, tasks, tell), batch)
        whole = replace(whole, spectrum=options.get("spectrum"))
        if np.any(whole.repaired):
            warn_of_repair(whole.repaired)
        return whole

    return spread


def reduce_piece(method: Method, sys: DiagonalLQOSystem, options: dict[str, Any], progress: Progress | None) -> Reduction:
    """The reduction of a piece, silent about repairs, which are told once for all pieces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        return method(sys, progress=progress, **options)


def joined(parts: list[Reduction], batch: tuple[int, ...]) -> Reduction:
    """The reduction of a whole batch from those of its pieces, each of a batch (channels,)."""
    values: dict[str, Any] = {}
    for field in fields(Reduction):
        own = [getattr(part, field.name) for part in parts]
        if field.name == "system":
            values["system"] = _joined_systems(own, batch)
        elif not all(isinstance(value, np.ndarray) for value in own):  # the same for all, or not there for one and so for none
            values[field.name] = None if any(value is None for value in own) else own[0]
        else:
            if field.name in _TAILS:
                own = _filled(own, _TAILS[field.name])
            whole = np.concatenate(own)
            values[field.name] = whole.reshape(*batch, *whole.shape[1:])
    return Reduction(**values)


def _filled(arrays: list[np.ndarray], value: float) -> list[np.ndarray]:
    length = max(array.shape[-1] for array in arrays)
    return [np.pad(array, ((0, 0), (0, length - array.shape[-1])), constant_values=value) for array in arrays]


def _joined_systems(parts: list[DiagonalLQOSystem], batch: tuple[int, ...]) -> DiagonalLQOSystem:
    width = max(part.n_slots for part in parts)
    parts = [pad(part, width) for part in parts]

    def join(arrays: list[np.ndarray]) -> np.ndarray:
        whole = np.concatenate(arrays)
        return whole.reshape(*batch, *whole.shape[1:])

    quadratic = None
    if parts[0].quadratic is not None:
        quadratic = QuadraticOutput(*(join([getattr(part.quadratic, name) for part in parts]) for name in "UVW"))
    poles, B, C, D = (join([getattr(part, name) for part in parts]) for name in ("poles", "B", "C", "D"))
    return DiagonalLQOSystem(poles, B, C, D, quadratic, parts[0].dt)


def _piece_of(option: Any, index: Any, batch: tuple[int, ...]) -> Any:
    """The part of an option that belongs to the channels at `index`; what does not fit is refused by the method itself."""
    if isinstance(option, (list, tuple)):
        return [_piece_of(one, index, batch) for one in option]
    if isinstance(option, InputSpectrum):
        return option[index] if option.batch else option
    system = option.system if isinstance(option, Reduction) else option
    return system[index] if isinstance(system, DiagonalLQOSystem) and system.batch == batch else option
