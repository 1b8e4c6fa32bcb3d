"""Calibrated compression of layers of linear channels, each with one input and one output."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from lqo_mor import parallel
from lqo_mor.compression.allocation import squared_errors
from lqo_mor.compression.calibration.calibration import Calibrated, Calibration, Phases, margin
from lqo_mor.compression.calibration.channel_curves import Channel, WeightedCurves, adapted, assembled, weighted_curves
from lqo_mor.compression.calibration.options import CalibrationOptions
from lqo_mor.compression.calibration.spectra import Spool, Statistics, measure
from lqo_mor.network.blocks import Block, block_input, block_output
from lqo_mor.network.inputs import CalibrationInputs
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.network.signals import activate, linear, system_map
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import Progress

_SIZES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)  # slots at which curves are known
_DISCOUNT = 2.0  # kernels count exp(-_DISCOUNT k / steps) times: only inputs k steps before the end see what is that late
_WINDOW = 4  # steps over which features are averaged before the refit of a mixing map
_RIDGE = 1e-4  # of the refit of a mixing map, relative to the power of every feature: it stays near the trained one


class ChannelCalibration(Calibration):
    """A calibration of layers of channels, and what was measured with its inputs on the full model."""

    def __init__(self, model: DeepSSM, calibration: CalibrationInputs, options: CalibrationOptions, progress: Phases) -> None:
        super().__init__(model, calibration, options, progress)
        pieces = self._reported(self._inputs, "statistics")
        self.statistics: Statistics = measure(model, pieces, options.sensitivity, self._outputs)
        self.output_power = self.statistics.output_power

    @property
    def _discount(self) -> float:
        """By what kernels count less from step to step; sensitivities make slow answers count, and so what comes too late."""
        return float(np.exp(-_DISCOUNT / self.statistics.grid.steps)) if self.options.sensitivity else 1.0

    def curves(self, largest: int | None, exact: set[int]) -> list[WeightedCurves]:
        """Error curves of all channels, in units of the squared error of the model's output where that was measured.

        They go up to `largest` slots (None: to all), through those of `exact`.
        """
        grid, tasks, owners = self.statistics.grid, [], []
        exact = exact | {block.ssm.n_slots for block in self.model.blocks}  # equal beginnings for all blocks
        for number, (block, power, weight) in enumerate(
            zip(self.model.blocks, self.statistics.inputs, self.statistics.sensitivity, strict=True)
        ):
            most = block.ssm.n_slots if largest is None else min(largest, block.ssm.n_slots)
            sizes = sorted(size for size in {*_SIZES, *exact} if size <= most)
            covariances = grid.covariances(power * weight)
            for cut in parallel.pieces(block.width):
                tasks.append((block.ssm[cut], covariances[cut], sizes, self.options.feedthrough, margin(block), self._discount))
                owners.append(number)
        done, found = parallel.run(_curves, tasks, partial(self._progress, "curves")), []
        for number, block in enumerate(self.model.blocks):
            own = [curves for owner, curves in zip(owners, done, strict=True) if owner == number]
            systems = [channel for curves in own for channel in curves.systems]
            found.append(WeightedCurves(block.ssm, own[0].slots, np.concatenate([c.squared for c in own]), systems))
        return found

    def assemble(self, curves: list[WeightedCurves], chosen: list[np.ndarray]) -> Calibrated:
        """The model with the chosen size of every channel; maps refitted only if that brings the output closer."""
        found = self._assembled(curves, chosen)
        best, plain = min(found, key=lambda one: 0.0 if one[0].measured is None else one[0].measured)
        return replace(self._finished(best, plain), budget_curve=self.budget_curve(curves))

    def _assembled(self, curves: list[WeightedCurves], chosen: list[np.ndarray]) -> list[tuple[Calibrated, DeepSSM]]:
        """Models with a refitted decoder where that may change, and with the old one: as they are, and with refitted maps."""
        squared = squared_errors(curves, chosen)
        systems = [curve.pick([int(k) for k in which]) for curve, which in zip(curves, chosen, strict=True)]
        if not (self.options.sequential or self.options.mixing):
            blocks = [replace(b, ssm=assembled(s, b.ssm.dt)) for b, s in zip(self.model.blocks, systems, strict=True)]
            small = replace(self.model, blocks=tuple(blocks))
            return [(Calibrated(small, [np.sqrt(s) for s in squared], self.predicted(squared), None), small)]
        refits = (False, True) if self.options.mixing and any(b.mixing is not None for b in self.model.blocks) else (False,)
        models: list[list[Block]] = [[] for _ in refits]
        errors: list[list[np.ndarray]] = [[] for _ in refits]
        with self._streams(len(refits)) as (full, *streams):
            for number, block in enumerate(self.model.blocks):
                for refit, reduced, blocks, own in zip(refits, streams, models, errors, strict=True):
                    channels, left = systems[number], squared[number]
                    if self.options.sequential:
                        channels, left = self._adapted(number, channels, full, reduced)
                    system = assembled(channels, block.ssm.dt)
                    blocks.append(self._refitted(block, system, full, reduced) if refit else replace(block, ssm=system))
                    own.append(left)
                self._advance(block, [blocks[-1] for blocks in models], full, streams)
                self._progress("layers", number + 1, len(self.model.blocks))
            found = []
            for reduced, blocks, own in zip(streams, models, errors, strict=True):
                plain = replace(self.model, blocks=tuple(blocks))
                small, measured = self._with_decoder(plain, full, reduced)
                found.append((Calibrated(small, [np.sqrt(s) for s in own], self.predicted(own), measured), plain))
        return found

    def _adapted(self, number: int, systems: list[Channel], full: Spool, reduced: Spool) -> tuple[list[Channel], np.ndarray]:
        """The channels of a block, moved to where they answer their new inputs as the full ones answer theirs."""
        block, grid, s = self.model.blocks[number], self.statistics.grid, self.statistics
        new: np.ndarray | float = 0.0
        crossed: np.ndarray | float = 0.0
        for x, y in zip(full, reduced, strict=True):
            cross, power = grid.cross_and_power(block_input(block, x), block_input(block, y))
            new, crossed = new + power, crossed + cross
        weight = s.sensitivity[number] / (s.count * grid.steps)
        per_channel = (
            block.ssm,
            systems,
            grid.covariances(s.inputs[number] * s.sensitivity[number]),
            grid.covariances(new * weight),
            grid.both_sides(crossed * weight),
        )
        common = (self.options.feedthrough, margin(block), self._discount)
        tasks = [(*(part[cut] for part in per_channel), *common) for cut in parallel.pieces(block.width)]
        done = parallel.run(_adapted, tasks)
        return [channel for moved, _ in done for channel in moved], np.concatenate([squared for _, squared in done])

    def _refitted(self, block: Block, system: DiagonalLQOSystem, full: Spool, reduced: Spool) -> Block:
        """The reduced block with its mixing map refitted, if there is one."""
        if block.mixing is None:
            return replace(block, ssm=system)
        gram: np.ndarray | float = 0.0
        target: np.ndarray | float = 0.0
        full_map, reduced_map = (system_map(ssm, self.statistics.grid.steps) for ssm in (block.ssm, system))
        for x, y in zip(full, reduced, strict=True):
            own, new = full_map(block_input(block, x)), reduced_map(block_input(block, y))
            features = _window_means(activate(block.activation, new))
            features = np.concatenate([features, np.ones((1, features.shape[1]))])
            wanted = _window_means(linear(block.mixing, activate(block.activation, own)))
            gram, target = gram + features @ features.T, target + wanted @ features.T
        return replace(block, ssm=system, mixing=_refitted(block.mixing, np.asarray(gram), np.asarray(target)))

    def _advance(self, block: Block, smaller: list[Block], full: Spool, reduced: list[Spool]) -> None:
        """All streams of signals move on to the outputs of the full block and of the smaller ones."""
        for one, stream in zip([block, *smaller], [full, *reduced], strict=True):
            apply = system_map(one.ssm, self.statistics.grid.steps)
            for k, x in enumerate(stream):
                stream[k] = block_output(one, x, apply(block_input(one, x)))


def _curves(
    ssm: DiagonalLQOSystem,
    covariances: np.ndarray,
    sizes: list[int],
    free: bool,
    margin: float,
    discount: float,
    progress: Progress | None,
) -> WeightedCurves:
    return weighted_curves(ssm, covariances, sizes, free=free, margin=margin, discount=discount, progress=progress)


def _adapted(
    ssm: DiagonalLQOSystem,
    systems: list[Channel],
    covariances: np.ndarray,
    new: np.ndarray,
    crossed: np.ndarray,
    free: bool,
    margin: float,
    discount: float,
    progress: Progress | None,
) -> tuple[list[Channel], np.ndarray]:
    return adapted(ssm, systems, covariances, new, crossed, free=free, margin=margin, discount=discount)


def _window_means(x: np.ndarray) -> np.ndarray:
    """Signals (features, batch, steps) averaged over windows of time, (features, all windows): slow errors count most."""
    starts = np.arange(0, x.shape[-1], _WINDOW)
    means = np.add.reduceat(x, starts, axis=-1) / np.diff(np.append(starts, x.shape[-1]))
    return means.reshape(x.shape[0], -1)


def _refitted(mixing: Linear, gram: np.ndarray, target: np.ndarray) -> Linear:
    """The linear map of features that comes closest to the wanted outputs, with a ridge to the old one; theory, eq. (9.9)."""
    bias = mixing.bias
    if bias is None:
        gram, target = gram[:-1, :-1], target[:, :-1]
    old = mixing.weight if bias is None else np.column_stack([mixing.weight, bias])
    ridge = _RIDGE * np.diag(np.maximum(np.diag(gram), 1e-12 * np.max(np.diag(gram))))
    new = np.linalg.solve(gram + ridge, (target + old @ ridge).T).T
    new[: mixing.fixed] = old[: mixing.fixed]
    return replace(mixing, weight=new) if bias is None else replace(mixing, weight=new[:, :-1], bias=new[:, -1])
