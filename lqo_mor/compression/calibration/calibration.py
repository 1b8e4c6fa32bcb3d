"""A calibration of layers of any kind: its options, what it measures and gives, the choice of sizes, and the search for one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, cast

import numpy as np

from lqo_mor.compression.allocation import along_hulls
from lqo_mor.compression.calibration.channel_curves import WeightedCurves
from lqo_mor.compression.calibration.joint_fit import FEWEST, jointly_fitted
from lqo_mor.compression.calibration.ridge import refitted_decoder
from lqo_mor.compression.calibration.spectra import Statistics, measure
from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.errors import OrderError
from lqo_mor.network.blocks import Block
from lqo_mor.network.inputs import CalibrationInputs, chunks
from lqo_mor.network.model import DeepSSM, check_supported, decode, ends, pooled
from lqo_mor.network.signals import encode, linear

Phases: TypeAlias = Callable[[str, int, int], object]  # progress of one part: its name, done and total

_TRIES = 6  # budgets that are tried for a wanted error
_NEAR = 0.85  # of the wanted error: an error above is no reason to try a smaller budget
_NEAR_ENOUGH = 0.95  # of the wanted error, at which the next budget aims
_AS_GOOD = 1.05  # of the error with a refitted decoder, by cross-validation, which tells no finer differences
_NEARER = 0.5  # how much closer to the unit circle than the trained ones poles may come


@dataclass(frozen=True)
class CalibrationOptions:
    """What a calibrated compression may do beyond fitting each system to the spectrum of its inputs.

    Attributes
    ----------
    split : bool, default False
        Give each channel as many states as it deserves, in all layers together, instead of the same number to all. The
        S4D file, which is rectangular, would hide the gain: save with ``format="ragged"``. Where layers are single systems:
        more states to the layers that deserve them.
    sensitivity : bool, default True
        Weigh errors by how much they change the model's output, frequency by frequency (a backward pass through the model);
        in layers of channels late answers then count less, since few inputs last to see them.
    sequential : bool, default True
        Fit each layer to the outputs of the layers in front that have been reduced already.
    feedthrough : bool, default True
        Let the feedthroughs change (their diagonals, in single systems).
    mixing : bool, default True
        Refit the linear maps behind layers of channels in closed form, to the outputs they had, if that brings the model's output
        closer on the calibration inputs; and let the decoder change. (A single system has outputs of its own that mix its
        states: the maps behind it change in a joint fit only.)
    joint : bool, default True
        In the end fit the output weights of all systems together, with the feedthroughs, maps and decoder that may change, by
        least squares on the model's output (Gauss-Newton), if that brings it closer by cross-validation. For outputs pooled over
        time and 50 sequences or more; otherwise, and without it, the decoder alone is refitted (`mixing`).
    """

    split: bool = False
    sensitivity: bool = True
    sequential: bool = True
    feedthrough: bool = True
    mixing: bool = True
    joint: bool = True


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A compressed model, and what is known of its errors."""

    model: DeepSSM
    # per block (width,): the root of the expected squared error at the system's output, weighed as it was when the systems were
    # searched, before a joint fit
    weighted_errors: list[np.ndarray]
    # relative rms error of the model's output that other inputs of the same kind should have: by cross-validation of the last
    # fit, if there are enough sequences, otherwise from the errors of the layers, and no less than `measured`; None if it is not
    # known
    predicted: float | None
    # that error on the calibration inputs, by cross-validation where the decoder alone was refitted; None if they did not go
    # through the compressed model
    measured: float | None
    # mean numbers of states and the errors predicted for them; empty without sensitivities
    budget_curve: tuple[tuple[float, float], ...] = ()
    validated: bool = False  # whether `predicted` is by cross-validation


class Calibration(ABC):
    """The inputs of a calibrated compression, in files, what is measured with them on the full model, and the choice of sizes.

    A context manager: the files live as long as it is open. The kinds of layers add error curves, with `slots` and `squared`
    errors for each channel or system, and models with chosen sizes.
    """

    def __init__(
        self,
        model: DeepSSM,
        calibration: CalibrationInputs,
        options: CalibrationOptions,
        progress: Phases,
        keep_gradients: bool = False,
    ) -> None:
        check_supported(model, "a calibration")
        self.model, self.options, self._progress, self._files = model, options, progress, ExitStack()
        self._inputs, self._outputs = self._spool(), self._spool()
        self._gradients = [self._spool() for _ in model.blocks] if keep_gradients else []
        for u in chunks(model, calibration):
            self._inputs.append(u)
        pieces = self._reported(self._inputs, "statistics")
        self.statistics: Statistics = measure(model, pieces, options.sensitivity, self._outputs, self._gradients)

    def __enter__(self) -> Calibration:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def _spool(self) -> Spool:
        return self._files.enter_context(Spool())

    @abstractmethod
    def curves(self, largest: int | None, exact: set[int]) -> list[WeightedCurves]:
        """Error curves of all channels or systems, up to `largest` slots (None: to all), through those of `exact`."""

    @abstractmethod
    def assemble(self, curves: list[WeightedCurves], chosen: list[np.ndarray]) -> Calibrated:
        """The model with chosen sizes."""

    def _reported(self, pieces: Iterable[np.ndarray], what: str) -> Iterator[np.ndarray]:
        for done, piece in enumerate(pieces):
            yield piece
            self._progress(what, done + 1, len(self._inputs))

    def predicted(self, squared: list[np.ndarray]) -> float | None:
        """The relative rms error of the output that belongs to squared errors of all channels or systems."""
        return float(np.sqrt(sum(map(np.sum, squared)) / self.statistics.output_power)) if self.options.sensitivity else None

    def chosen(self, curves: list[WeightedCurves], mean: float) -> list[np.ndarray]:
        """The indices of sizes that keep `mean` slots per channel or system."""
        if self.options.split:
            return split(curves, int(mean * sum(len(c.squared) for c in curves)))
        return uniform(curves, [mean] * len(curves))

    def budget_curve(self, curves: list[WeightedCurves]) -> tuple[tuple[float, float], ...]:
        """Mean numbers of states and predicted errors."""
        if not self.options.sensitivity:
            return ()
        sizes = [size for size in max((c.slots for c in curves), key=len) if size > 0]
        errors = (self.predicted(squared_errors(curves, self.chosen(curves, k))) for k in sizes)
        return tuple((2.0 * k, cast(float, error)) for k, error in zip(sizes, errors, strict=True))

    @contextmanager
    def _streams(self, count: int) -> Iterator[list[Spool]]:
        """What the first block reads, for the full and for so many reduced models."""
        with ExitStack() as stack:
            streams = [stack.enter_context(Spool()) for _ in range(1 + count)]
            for u in self._inputs:
                x = encode(ends(self.model)[0], u)
                for stream in streams:
                    stream.append(x)
            yield streams

    def _measured(self, small: DeepSSM, full: Spool, reduced: Spool) -> float:
        """The relative rms error of the output, from what the last blocks give."""
        error = power = 0.0
        for x, y in zip(full, reduced, strict=True):
            a, b = decode(self.model, x), decode(small, y)
            error, power = error + np.sum((a - b) ** 2), power + np.sum(a**2)
        return float(np.sqrt(error / power)) if power > 0 else 0.0

    def _finished(self, best: Calibrated, plain: DeepSSM) -> Calibrated:
        """The best of a model with a refitted decoder, where that may change, and a joint fit from `plain` with the old one."""
        if self.options.joint and self.model.pooling is not None:
            small, measured, expected = jointly_fitted(
                plain,
                self._inputs,
                self._outputs,
                mixing=self.options.mixing,
                feedthrough=self.options.feedthrough,
                progress=partial(self._progress, "end"),
            )
            if small is not plain and (best.measured is None or expected < _AS_GOOD * best.measured):
                return replace(best, model=small, measured=measured, predicted=expected, validated=True)
        if best.model is not plain and sum(map(len, self._inputs)) >= FEWEST:
            return replace(best, predicted=best.measured, validated=True)
        if best.predicted is not None and best.measured is not None:
            return replace(best, predicted=max(best.predicted, best.measured))
        return best

    def _with_decoder(self, small: DeepSSM, full: Spool, reduced: Spool) -> tuple[DeepSSM, float]:
        """A model with its decoder refitted where it may change, and the relative rms error of its output (cross-validated)."""
        if not self.options.mixing:
            return small, self._measured(small, full, reduced)
        power = 0.0

        def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            nonlocal power
            for x, y in zip(full, reduced, strict=True):
                wanted = linear(ends(self.model)[1], pooled(self.model, x))
                power += np.sum(wanted**2)
                yield pooled(small, y), wanted

        decoder, squared = refitted_decoder(ends(small)[1], pieces())
        changed = small if decoder is ends(small)[1] else replace(small, decoder=decoder)
        return changed, float(np.sqrt(squared / power)) if power > 0 else 0.0


def margin(block: Block) -> float:
    """How far optimised poles stay from the unit circle."""
    return max(_NEARER * (1 - float(np.max(np.abs(block.ssm.poles)))), 1e-12)


def smallest_within(work: Calibration, max_error: float) -> Calibrated:
    """The smallest model, as far as the prediction finds it, with errors within `max_error`: measured, and cross-validated.

    Raises `OrderError` if no smaller model is.
    """
    curves = work.curves(None, set())
    largest = float(max(c.slots[-1] for c in curves))
    if work.options.split:  # a mean of all slots is all of them
        largest = sum(c.slots[-1] * len(c.squared) for c in curves) / sum(len(c.squared) for c in curves)

    def predicted(share: float) -> float:
        return cast(float, work.predicted(squared_errors(curves, work.chosen(curves, share * largest))))

    def smallest(target: float) -> float:
        low, high = 0.0, 1.0
        while high - low > 0.002:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if predicted(middle) <= target else (middle, high)
        return high

    target, best, least = max_error, None, 1.0
    for _ in range(_TRIES):
        share = smallest(target)
        chosen = work.chosen(curves, share * largest)
        if share >= least or all(np.all(which == len(c.slots) - 1) for c, which in zip(curves, chosen, strict=True)):
            break
        found = work.assemble(curves, chosen)
        measured = cast(float, found.measured)  # by the option sequential
        if found.validated:
            measured = max(measured, cast(float, found.predicted))
        if measured <= max_error:
            best, least = found, share
            if measured > _NEAR * max_error:
                break
        target *= float(np.clip(_NEAR_ENOUGH * max_error / max(measured, 1e-300), 0.3, 3.0))
    if best is None:
        raise OrderError(f"no smaller model keeps the error on the calibration inputs within {max_error:g}; allow a larger one")
    return best


def squared_errors(curves: list[WeightedCurves], chosen: list[np.ndarray]) -> list[np.ndarray]:
    """Per block the squared errors of all channels at the chosen sizes."""
    return [curve.squared[np.arange(len(which)), which] for curve, which in zip(curves, chosen, strict=True)]


def uniform(curves: list[WeightedCurves], sizes: Sequence[float]) -> list[np.ndarray]:
    """The indices of the largest size within one per block, in slots, for all of its channels."""
    return [
        np.full(len(c.squared), max(k for k, size in enumerate(c.slots) if size <= max(1, most)))
        for c, most in zip(curves, sizes, strict=True)
    ]


def split(curves: list[WeightedCurves], budget: int) -> list[np.ndarray]:
    """For every channel the index of its size, by `along_hulls` for a budget of slots in all; sizes grow alike in all blocks."""
    slots = np.asarray(max((c.slots for c in curves), key=len))
    errors = [channel for c in curves for channel in c.squared]
    chosen = along_hulls(errors, [slots[: len(error)] for error in errors], budget)
    return np.split(np.array(chosen), np.cumsum([len(c.squared) for c in curves])[:-1])
