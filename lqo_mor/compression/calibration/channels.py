"""Calibrated compression of layers of linear channels, each with one input and one output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice

import numpy as np

from lqo_mor import parallel
from lqo_mor.compression.calibration.calibration import Calibrated, Calibration, margin, squared_errors
from lqo_mor.compression.calibration.channel_curves import (
    Channel,
    ChannelSearch,
    InputCovariances,
    WeightedCurves,
    assembled,
    refit_channels,
    weighted_curves,
)
from lqo_mor.compression.calibration.ridge import normal_equations, penalties, ridge_towards
from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.network.blocks import Block, block_input, block_output
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.network.signals import activate, linear, system_map
from lqo_mor.types import FloatOrBatch

_SIZES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)  # slots at which curves are known
_DISCOUNT = 2.0  # kernels count exp(-_DISCOUNT k / steps) times: only inputs k steps before the end see what is that late
_WINDOW = 4  # steps over which features are averaged before the refit of a mixing map
_RIDGE = 1e-4  # of the refit of a mixing map, relative to the power of every feature: it stays near the trained one


@dataclass(frozen=True, eq=False)
class _Variant:
    """A reduced model in the making: with refitted mixing maps or the old ones, and what its next block reads."""

    refits: bool
    stream: Spool
    blocks: list[Block] = field(default_factory=list)
    squared: list[np.ndarray] = field(default_factory=list)


class ChannelCalibration(Calibration):
    """A calibration of layers of channels, and what was measured with its inputs on the full model."""

    def _search(self, block: Block) -> ChannelSearch:
        """What the channels of a block may be; sensitivities make slow answers count, and so what comes too late."""
        discount = float(np.exp(-_DISCOUNT / self.statistics.grid.steps)) if self.options.sensitivity else 1.0
        return ChannelSearch(self.options.feedthrough, margin(block), discount)

    def curves(self, largest: int | None, exact: set[int]) -> list[WeightedCurves]:
        """Error curves of all channels, in units of the squared error of the model's output where that was measured.

        They go up to `largest` slots (None: to all), through those of `exact`.
        """
        blocks, s, groups = self.model.blocks, self.statistics, []
        exact = exact | {block.ssm.n_slots for block in blocks}  # equal beginnings for all blocks
        for block, power, weight in zip(blocks, s.inputs, s.sensitivity, strict=True):
            most = block.ssm.n_slots if largest is None else min(largest, block.ssm.n_slots)
            sizes = sorted(size for size in {*_SIZES, *exact} if size <= most)
            covariances = s.grid.covariances(power * weight)
            cuts, options = parallel.pieces(block.width), self._search(block)
            groups.append([(block.ssm[cut], covariances[cut], sizes, options) for cut in cuts])
        done, joined = iter(parallel.run(weighted_curves, list(chain(*groups)), partial(self._progress, "curves"))), []
        for group in groups:
            own = list(islice(done, len(group)))
            systems = [channel for curves in own for channel in curves.systems]
            joined.append(WeightedCurves(own[0].slots, np.concatenate([c.squared for c in own]), systems))
        return joined

    def assemble(self, curves: list[WeightedCurves], chosen: list[np.ndarray]) -> Calibrated:
        """The model with the chosen size of every channel; maps refitted only if that brings the output closer."""
        squared = squared_errors(curves, chosen)
        systems = [curve.pick([int(k) for k in which]) for curve, which in zip(curves, chosen, strict=True)]
        if self.options.sequential or self.options.mixing:
            models = self._layer_by_layer(systems, squared)
        else:
            blocks = [replace(b, ssm=assembled(s, b.ssm.dt)) for b, s in zip(self.model.blocks, systems, strict=True)]
            models = [self._calibrated(replace(self.model, blocks=tuple(blocks)), squared)]
        best, plain = min(models, key=lambda one: 0.0 if one[0].measured is None else one[0].measured)
        return replace(self._finished(best, plain), budget_curve=self.budget_curve(curves))

    def _calibrated(
        self, plain: DeepSSM, squared: list[np.ndarray], streams: tuple[Spool, Spool] | None = None
    ) -> tuple[Calibrated, DeepSSM]:
        """A model with a refitted decoder where that may change, if there are `streams` to fit it to, and with the old one."""
        small, measured = (plain, None) if streams is None else self._with_decoder(plain, *streams)
        return Calibrated(small, [np.sqrt(s) for s in squared], self.predicted(squared), measured), plain

    def _layer_by_layer(self, systems: list[list[Channel]], squared: list[np.ndarray]) -> list[tuple[Calibrated, DeepSSM]]:
        """Models as they are, and with refitted maps; see `_calibrated`."""
        refits = self.options.mixing and any(b.mixing is not None for b in self.model.blocks)
        with self._streams(2 if refits else 1) as (full, *streams):
            variants = [_Variant(k > 0, stream) for k, stream in enumerate(streams)]
            for number, block in enumerate(self.model.blocks):
                channels, left = systems[number], squared[number]
                for variant in variants:
                    if self.options.sequential and (number > 0 or variant is variants[0]):  # the first blocks read the same
                        channels, left = self._refit_channels(number, systems[number], full, variant.stream)
                    small = replace(block, ssm=assembled(channels, block.ssm.dt))
                    if variant.refits and block.mixing is not None:
                        small = replace(small, mixing=self._refit_mixing(block, block.mixing, small, full, variant.stream))
                    variant.blocks.append(small)
                    variant.squared.append(left)
                for one, stream in [(block, full), *((variant.blocks[-1], variant.stream) for variant in variants)]:
                    apply = system_map(one.ssm, self.statistics.grid.steps)
                    for k, x in enumerate(stream):
                        stream[k] = block_output(one, x, apply(block_input(one, x)))
                self._progress("layers", number + 1, len(self.model.blocks))
            return [self._calibrated(replace(self.model, blocks=tuple(v.blocks)), v.squared, (full, v.stream)) for v in variants]

    def _refit_channels(
        self, number: int, systems: list[Channel], full: Spool, reduced: Spool
    ) -> tuple[list[Channel], np.ndarray]:
        """The channels of a block that answer their new inputs best as the full ones answer theirs, and their squared errors."""
        block, s = self.model.blocks[number], self.statistics
        new: FloatOrBatch = 0.0
        crossed: FloatOrBatch = 0.0
        for x, y in zip(full, reduced, strict=True):
            cross, power = s.grid.cross_and_power(block_input(block, x), block_input(block, y))
            new, crossed = new + power, crossed + cross
        weight = s.sensitivity[number] / (s.count * s.grid.steps)
        inputs = InputCovariances(
            s.grid.covariances(s.inputs[number] * s.sensitivity[number]),
            s.grid.covariances(new * weight),
            s.grid.both_sides(crossed * weight),
        )
        cuts = parallel.pieces(block.width)
        done = parallel.run(refit_channels, [(block.ssm[c], systems[c], inputs[c], self._search(block)) for c in cuts])
        return [channel for channels, _ in done for channel in channels], np.concatenate([squared for _, squared in done])

    def _refit_mixing(self, block: Block, mixing: Linear, small: Block, full: Spool, reduced: Spool) -> Linear:
        """The map behind reduced channels that comes closest to the outputs it had behind the full ones."""
        full_map, reduced_map = (system_map(one.ssm, self.statistics.grid.steps) for one in (block, small))

        def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for x, y in zip(full, reduced, strict=True):
                own, new = full_map(block_input(block, x)), reduced_map(block_input(block, y))
                features = _window_means(activate(block.activation, new))
                if mixing.bias is not None:
                    features = np.concatenate([features, np.ones((1, features.shape[1]))])
                yield features, _window_means(linear(mixing, activate(block.activation, own)))

        gram, target = normal_equations(pieces())
        old = mixing.weight if mixing.bias is None else np.column_stack([mixing.weight, mixing.bias])
        new = ridge_towards(old, gram, target, penalties(gram, _RIDGE, 1e-12))
        new[: mixing.fixed] = old[: mixing.fixed]
        return replace(mixing, weight=new) if mixing.bias is None else replace(mixing, weight=new[:, :-1], bias=new[:, -1])


def _window_means(x: np.ndarray) -> np.ndarray:
    """Signals (features, batch, steps) averaged over windows of time, (features, all windows): slow errors count most."""
    starts = np.arange(0, x.shape[-1], _WINDOW)
    means = np.add.reduceat(x, starts, axis=-1) / np.diff(np.append(starts, x.shape[-1]))
    return means.reshape(x.shape[0], -1)
