"""Calibrated compression of layers that are one system with many inputs and outputs and, mostly, a quadratic output.

Each layer is reduced for the spectrum of what it reads, times that of the sensitivities, with its outputs in the metric of the
sensitivities. Then the outputs of its states and products are fitted to those of the full layer, while it reads what the layers
in front of it, reduced already, give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import scipy.fft

from lqo_mor import parallel
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.compression.calibration.calibration import Calibrated, Calibration, CalibrationOptions, Phases, margin
from lqo_mor.compression.calibration.channel_curves import WeightedCurves
from lqo_mor.compression.calibration.output_weights import coefficients, features, with_coefficients
from lqo_mor.compression.calibration.ridge import normal_equations, penalties, ridge_towards
from lqo_mor.compression.calibration.spectra import Grid
from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.network.blocks import Block, block_input, block_output
from lqo_mor.network.inputs import CalibrationInputs
from lqo_mor.network.model import DeepSSM
from lqo_mor.network.signals import system_map
from lqo_mor.reduction.reduce import reduce
from lqo_mor.systems.batches import pad
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.types import FloatOrBatch, Progress

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # slots at which the curves are known
_LAGS = 128  # of the autocovariances that are significant (Bartlett's window)
_RIDGE = 1e-3  # of the fitted outputs, relative to the power of each feature: they stay near the optimal ones
_REDUCTION_RIDGE = 1e-6  # single precision, see `compress`


@dataclass(frozen=True, eq=False)
class Weight:
    """How a small error at the output of a system changes the output of the model.

    Its squared error is the mean over the frequencies of ``shape`` times the power spectrum of ``root @ error``.
    """

    root: np.ndarray
    shape: np.ndarray


class SystemCalibration(Calibration):
    """A calibration of layers that are single systems, and what was measured with its inputs on the full model."""

    def __init__(self, model: DeepSSM, calibration: CalibrationInputs, options: CalibrationOptions, progress: Phases) -> None:
        super().__init__(model, calibration, options, progress, keep_gradients=options.sensitivity)
        grid = self.statistics.grid
        self._weights = [
            _weight(grid, spectra) if options.sensitivity else Weight(np.eye(block.ssm.n_outputs), np.ones(grid.size // 2 + 1))
            for spectra, block in zip(self.statistics.sensitivity, model.blocks, strict=True)
        ]

    def curves(self, largest: int | None, exact: set[int]) -> list[WeightedCurves]:
        """Error curves of all layers, by balanced truncation, in units of the squared error of the model's output."""
        tasks = []
        for block, spectra, weight in zip(self.model.blocks, self.statistics.inputs, self._weights, strict=True):
            full = block.ssm.n_slots
            most = full if largest is None else min(largest, full)
            sizes = sorted({size for size in {*_SIZES, *exact, most} if size <= most})
            tasks.append((_scaled(block.ssm, weight), sizes, self._spectrum(spectra, weight)))
        done = parallel.run(_balanced_errors, tasks, partial(self._progress, "curves"))
        return [
            WeightedCurves(tuple(sizes), np.minimum.accumulate(squared, axis=1))
            for (_, sizes, _), squared in zip(tasks, done, strict=True)
        ]

    def assemble(self, curves: list[WeightedCurves], chosen: list[np.ndarray]) -> Calibrated:
        """The model with the chosen size of every layer."""
        slots = [curve.slots[which[0]] for curve, which in zip(curves, chosen, strict=True)]
        blocks, squared, effects, model = [], [], [], self.model
        with self._streams(1) as (full, reduced):
            for number, (block, size) in enumerate(zip(model.blocks, slots, strict=True)):
                follow = reduced if self.options.sequential else full
                system = self._reduced(number, size, follow)
                if system is not block.ssm:
                    system = self._fit_outputs(block, system, full, follow)
                blocks.append(replace(block, ssm=system))
                error, effect = self._advance(number, blocks[-1], full, reduced)
                squared.append(error)
                effects.append(effect)
                self._progress("layers", number + 1, len(model.blocks))
            plain = replace(model, blocks=tuple(blocks))
            small, measured = self._with_decoder(plain, full, reduced)
        predicted = None
        if self.options.sensitivity:  # without pooling the error is a mean over the steps
            share = 1 if model.pooling is not None else 1 / self.statistics.grid.steps
            predicted = float(np.sqrt(share * np.mean(np.sum(effects, axis=0) ** 2) / self.statistics.output_power))
        found = Calibrated(small, [np.sqrt(error) for error in squared], predicted, measured, self.budget_curve(curves))
        return self._finished(found, plain)

    def _spectrum(self, spectra: np.ndarray, weight: Weight) -> InputSpectrum:
        """The spectrum of an input, (frequencies, m, m), times the shape of a weight."""
        grid = self.statistics.grid
        lags = min(_LAGS, grid.lags)
        covariances = scipy.fft.irfft(spectra * weight.shape[:, np.newaxis, np.newaxis], grid.size, axis=0)[:lags]
        return InputSpectrum(covariances * (1 - np.arange(lags) / lags)[:, np.newaxis, np.newaxis])

    def _reduced(self, number: int, size: int, follow: Spool) -> DiagonalLQOSystem:
        """The best system with so many slots for what it reads now; its feedthrough stays."""
        block, weight = self.model.blocks[number], self._weights[number]
        if size >= block.ssm.n_slots:
            return block.ssm
        s = self.statistics
        total = sum(s.grid.matrices(block_input(block, y)) for y in follow)
        spectrum = self._spectrum(np.asarray(total) / (s.count * s.grid.steps), weight)
        scaled = _scaled(block.ssm, weight)
        reduced = reduce(scaled, slots=size, spectrum=spectrum, ridge=_REDUCTION_RIDGE, margin=margin(block)).system
        found = _scaled(pad(cast(DiagonalLQOSystem, reduced), size), replace(weight, root=np.linalg.inv(weight.root)))
        return DiagonalLQOSystem(found.poles, found.B, found.C, block.ssm.D, found.M, dt=found.dt)

    def _fit_outputs(self, block: Block, system: DiagonalLQOSystem, full: Spool, follow: Spool) -> DiagonalLQOSystem:
        """The system with the linear rows, the mixing matrix and the diagonal of the feedthrough that answer best."""
        ssm, free = block.ssm, self.options.feedthrough and block.ssm.n_inputs == block.ssm.n_outputs
        whole, own = system_map(ssm, self.statistics.grid.steps), features(system)
        old, fixed = coefficients(system), system.D
        common = old.shape[1]
        if free:
            through = np.diag(np.diag(system.D))
            old, fixed = np.concatenate([old, through], axis=1), fixed - through

        def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for x, y in zip(full, follow, strict=True):
                v, u = block_input(block, x), block_input(block, y)
                answer, signals = whole(v), own(u)
                answer -= np.tensordot(fixed, u, axes=1)
                if free:
                    signals = np.concatenate([signals, u])
                yield signals.reshape(len(signals), -1), answer.reshape(len(answer), -1)

        (gram, target), new = normal_equations(pieces()), old.copy()
        penalty = penalties(gram, _RIDGE, 1e-9)
        for row in range(ssm.n_outputs):
            used = np.append(np.arange(common), common + row) if free else np.arange(common)
            new[row, used] = ridge_towards(old[row, used], gram[np.ix_(used, used)], target[row, used], penalty[used])
        return with_coefficients(system, new[:, :common], fixed + new[:, common:] if free else fixed)

    def _advance(self, number: int, small: Block, full: Spool, reduced: Spool) -> tuple[np.ndarray, np.ndarray]:
        """Both streams of signals go on to the output of the block.

        Returns the squared errors of its outputs, weighted, and for every sequence how far its own error changes the output of
        the model in the direction of the gradients: errors of all layers add up there with their signs.
        """
        block, s, weight = self.model.blocks[number], self.statistics, self._weights[number]
        whole, own, effects = system_map(block.ssm, s.grid.steps), system_map(small.ssm, s.grid.steps), []
        total: FloatOrBatch = 0.0
        for k, (x, y) in enumerate(zip(full, reduced, strict=True)):
            v, u = block_input(block, x), block_input(block, y)
            answer, new = whole(v), own(u)
            error = answer - (new if self.options.sequential else own(v))
            total = total + s.grid.power(np.tensordot(weight.root, error, axes=1))
            if self.options.sensitivity:
                effects.append(np.einsum("fbt,fbt->b", self._gradients[number][k], whole(u) - new))
            full[k], reduced[k] = block_output(block, x, answer), block_output(small, y, new)
        total = total * weight.shape / (s.count * s.grid.steps)
        squared = np.maximum(scipy.fft.irfft(total, s.grid.size)[:, 0], 0.0)  # lag 0 is the mean over all frequencies
        return squared, np.concatenate(effects) if effects else np.zeros(0)


def _balanced_errors(sys: DiagonalLQOSystem, sizes: list[int], spectrum: InputSpectrum, progress: Progress | None) -> np.ndarray:
    """Squared errors (1, sizes) of the balanced truncations to so many pairs; none from the whole system on."""
    orders = [2 * size for size in sizes if 2 * size < sys.order]
    curve = reduce(sys, orders=orders, method="balanced", spectrum=spectrum, progress=progress)
    known = dict(zip(orders, (float(one.error) for one in curve.reductions["balanced"]), strict=True))
    return np.array([[known.get(2 * size, 0.0) ** 2 for size in sizes]])


def _weight(grid: Grid, spectra: np.ndarray) -> Weight:
    """Sensitivities (frequencies, p, p) as the product of one matrix and one shape over the frequencies."""
    matrix = scipy.fft.irfft(spectra, grid.size, axis=0)[0]
    trace = max(float(np.trace(matrix)), np.finfo(float).tiny)
    shape = grid.smooth(np.trace(spectra, axis1=1, axis2=2).real) / trace
    matrix = matrix + 1e-6 * trace / len(matrix) * np.eye(len(matrix))  # directions that no input shows count a little
    return Weight(np.linalg.cholesky(matrix).T, shape)


def _scaled(sys: DiagonalLQOSystem, weight: Weight) -> DiagonalLQOSystem:
    """The system with its outputs, without the feedthrough, times the root of a weight."""
    q, root = sys.M, weight.root
    quadratic = None if q is None else QuadraticOutput(q.U, q.V, root @ q.W)
    return DiagonalLQOSystem(sys.poles, sys.B, root @ sys.C, None, quadratic, dt=sys.dt)
