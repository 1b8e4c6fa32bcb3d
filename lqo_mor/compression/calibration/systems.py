"""Calibrated compression of layers that are one system with many inputs and outputs and, mostly, a quadratic output.

Each layer is reduced for the spectrum of what it reads, times that of the sensitivities, with its outputs in the metric of the
sensitivities. Then the outputs of its states and products are fitted to those of the full layer, while it reads what the layers
in front of it, reduced already, give.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import scipy.fft

from lqo_mor import parallel
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.compression.calibration.calibration import Calibrated, Calibration, Phases, margin
from lqo_mor.compression.calibration.options import CalibrationOptions
from lqo_mor.compression.calibration.output_weights import coefficients, features, with_coefficients
from lqo_mor.compression.calibration.spectra import Grid, Spool, layer_signals
from lqo_mor.network.blocks import Block, block_input, block_output
from lqo_mor.network.inputs import CalibrationInputs
from lqo_mor.network.model import DeepSSM, decode
from lqo_mor.network.signals import system_map
from lqo_mor.reduction.reduce import reduce
from lqo_mor.systems.batches import pad
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.types import FloatOrBatch, Progress

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # slots at which the curves are known
_LAGS = 128  # of the autocovariances that are told from chance (Bartlett's window)
_RIDGE = 1e-3  # of the fitted outputs, relative to the power of each feature: they stay near the optimal ones
_REDUCTION_RIDGE = 1e-6  # single precision, see `compress`


@dataclass(frozen=True, eq=False)
class SystemCurve:
    """Squared errors (1, sizes) of one system against its slots."""

    slots: tuple[int, ...]
    squared: np.ndarray


@dataclass(frozen=True, eq=False)
class Weight:
    """How a small error at the output of a system moves the output of the model.

    Its squared error is the mean over the frequencies of ``shape`` times the power spectrum of ``root @ error``.
    """

    root: np.ndarray
    shape: np.ndarray


class SystemCalibration(Calibration):
    """A calibration of layers that are single systems, and what was measured with its inputs on the full model."""

    def __init__(self, model: DeepSSM, calibration: CalibrationInputs, options: CalibrationOptions, progress: Phases) -> None:
        super().__init__(model, calibration, options, progress)
        self._gradients = [Spool() for _ in model.blocks]
        self._measure()

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        for spool in self._gradients:
            spool.__exit__(*details)

    def _measure(self) -> None:
        """Spectra of what the systems read, sensitivities and the power of the output, by a pass forward and one back."""
        rng, power, count = np.random.default_rng(0), 0.0, 0
        read: list[FloatOrBatch] = [0.0] * len(self.model.blocks)
        moved: list[FloatOrBatch] = [0.0] * len(self.model.blocks)
        for u in self._reported(self._inputs, "statistics"):
            self._grid = grid = Grid.of(u.shape[1])
            signals, gradients, x = layer_signals(self.model, u, rng if self.options.sensitivity else None)
            output = decode(self.model, x)
            if self.model.pooling is not None:
                self._outputs.append(output)
            power, count = power + np.sum(output**2) / output[0, ..., 0].size, count + len(u)
            read = [total + _cross_spectra(grid, v) for total, v in zip(read, signals, strict=True)]
            if self.options.sensitivity:
                moved = [total + _cross_spectra(grid, g) for total, g in zip(moved, gradients, strict=True)]
                for spool, gradient in zip(self._gradients, gradients, strict=True):
                    spool.append(gradient)
        self._count, self.output_power = count, power / count
        self._read = [np.asarray(spectra) / (count * grid.steps) for spectra in read]
        self._share = share = 1 if self.model.pooling is not None else 1 / grid.steps
        self._weights = [
            _weight(grid, np.asarray(spectra) * share / count)
            if self.options.sensitivity
            else _no_weight(grid, block.ssm.n_outputs)
            for spectra, block in zip(moved, self.model.blocks, strict=True)
        ]

    def curves(self, largest: int | None, exact: set[int]) -> list[SystemCurve]:
        """Error curves of all layers, by balanced truncation, in units of the squared error of the model's output."""
        tasks, found = [], []
        for block, spectra, weight in zip(self.model.blocks, self._read, self._weights, strict=True):
            full = block.ssm.n_slots
            most = full if largest is None else min(largest, full)
            sizes = sorted({size for size in {*_SIZES, *exact, most} if size <= most})
            tasks.append((_scaled(block.ssm, weight), sizes, self._spectrum(spectra, weight)))
        done = parallel.run(_balanced_errors, tasks, partial(self._progress, "curves"))
        for (_, sizes, _), squared in zip(tasks, done, strict=True):
            found.append(SystemCurve(tuple(sizes), np.minimum.accumulate(squared, axis=1)))
        return found

    def assemble(self, curves: list[SystemCurve], chosen: list[np.ndarray]) -> Calibrated:
        """The model with the chosen size of every layer."""
        slots = [curve.slots[which[0]] for curve, which in zip(curves, chosen, strict=True)]
        blocks, squared, moves, model = [], [], [], self.model
        with self._streams(1) as (full, reduced):
            for number, (block, size) in enumerate(zip(model.blocks, slots, strict=True)):
                follow = reduced if self.options.sequential else full
                system = self._reduced(number, size, follow)
                if system is not block.ssm:
                    system = self._fitted(block, system, full, follow)
                blocks.append(replace(block, ssm=system))
                total, moved = self._advance(number, blocks[-1], full, reduced, follow)
                squared.append(total)
                moves.append(moved)
                self._progress("layers", number + 1, len(model.blocks))
            plain = replace(model, blocks=tuple(blocks))
            small, measured = self._with_decoder(plain, full, reduced)
        predicted = None
        if self.options.sensitivity:
            predicted = float(np.sqrt(self._share * np.mean(np.sum(moves, axis=0) ** 2) / self.output_power))
        found = Calibrated(small, [np.sqrt(total) for total in squared], predicted, measured, self.budget_curve(curves))
        return self._finished(found, plain)

    def _spectrum(self, spectra: np.ndarray, weight: Weight) -> InputSpectrum:
        """The spectrum of an input, (frequencies, m, m), times the shape of a weight."""
        lags = min(_LAGS, self._grid.lags)
        covariances = scipy.fft.irfft(spectra * weight.shape[:, np.newaxis, np.newaxis], self._grid.size, axis=0)[:lags]
        return InputSpectrum(covariances * (1 - np.arange(lags) / lags)[:, np.newaxis, np.newaxis])

    def _reduced(self, number: int, size: int, follow: Spool) -> DiagonalLQOSystem:
        """The best system with so many slots for what it reads now; its feedthrough stays."""
        block, weight = self.model.blocks[number], self._weights[number]
        if size >= block.ssm.n_slots:
            return block.ssm
        total = sum(_cross_spectra(self._grid, block_input(block, y)) for y in follow)
        spectrum = self._spectrum(np.asarray(total) / (self._count * self._grid.steps), weight)
        options: dict[str, Any] = {"ridge": _REDUCTION_RIDGE, "margin": margin(block)}
        reduced = reduce(_scaled(block.ssm, weight), slots=size, spectrum=spectrum, **options).system
        small = pad(cast(DiagonalLQOSystem, reduced), size)
        found = _scaled(small, replace(weight, root=np.linalg.inv(weight.root)))
        return DiagonalLQOSystem(found.poles, found.B, found.C, block.ssm.D, found.quadratic, found.dt)

    def _fitted(self, block: Block, system: DiagonalLQOSystem, full: Spool, follow: Spool) -> DiagonalLQOSystem:
        """The system with the linear rows, the mixing matrix and the diagonal of the feedthrough that answer best."""
        ssm, free = block.ssm, self.options.feedthrough and block.ssm.n_inputs == block.ssm.n_outputs
        whole, own = system_map(ssm, self._grid.steps), features(system)
        old, fixed = coefficients(system), system.D
        common = old.shape[1]
        if free:
            through = np.diag(np.diag(system.D))
            old, fixed = np.concatenate([old, through], axis=1), fixed - through
        gram_sum: FloatOrBatch = 0.0
        target_sum: FloatOrBatch = 0.0
        for x, y in zip(full, follow, strict=True):
            v, u = block_input(block, x), block_input(block, y)
            answer, signals = whole(v), own(u)
            answer -= np.tensordot(fixed, u, axes=1)
            if free:
                signals = np.concatenate([signals, u])
            signals = signals.reshape(len(signals), -1)
            gram_sum = gram_sum + signals @ signals.T
            target_sum = target_sum + answer.reshape(len(answer), -1) @ signals.T
        gram, target = np.asarray(gram_sum), np.asarray(target_sum)
        new, power = old.copy(), np.diag(gram)
        ridge = _RIDGE * np.maximum(power, 1e-9 * np.max(power))
        for row in range(ssm.n_outputs):
            used = np.append(np.arange(common), common + row) if free else np.arange(common)
            matrix = gram[np.ix_(used, used)] + np.diag(ridge[used])
            new[row, used] = np.linalg.solve(matrix, target[row, used] + ridge[used] * old[row, used])
        return with_coefficients(system, new[:, :common], fixed + new[:, common:] if free else fixed)

    def _advance(self, number: int, small: Block, full: Spool, reduced: Spool, follow: Spool) -> tuple[np.ndarray, np.ndarray]:
        """Both streams of signals move on to the output of the block.

        Returns the squared errors of its outputs, weighted, and for every sequence how far its own error moves the output of
        the model in the direction of the gradients: errors of all layers add up there with their signs.
        """
        block, grid, weight = self.model.blocks[number], self._grid, self._weights[number]
        whole, own, moved = system_map(block.ssm, grid.steps), system_map(small.ssm, grid.steps), []
        total: FloatOrBatch = 0.0
        for k, (x, y) in enumerate(zip(full, reduced, strict=True)):
            u = block_input(block, y)
            answer, new = whole(block_input(block, x)), own(u)
            error = answer - (new if follow is reduced else own(block_input(block, x)))
            total = total + grid.power(np.tensordot(weight.root, error, axes=1))
            if self.options.sensitivity:
                moved.append(np.einsum("fbt,fbt->b", self._gradients[number][k], whole(u) - new))
            full[k], reduced[k] = block_output(block, x, answer), block_output(small, y, new)
        total = total * weight.shape / (self._count * grid.steps)
        squared = np.maximum(scipy.fft.irfft(total, grid.size)[:, 0], 0.0)  # lag 0 is the mean over all frequencies
        return squared, np.concatenate(moved) if moved else np.zeros(0)


def _balanced_errors(sys: DiagonalLQOSystem, sizes: list[int], spectrum: InputSpectrum, progress: Progress | None) -> np.ndarray:
    """Squared errors (1, sizes) of the balanced truncations to so many pairs; none from the whole system on."""
    orders = [2 * size for size in sizes if 2 * size < sys.order]
    curve = reduce(sys, orders=orders, method="balanced", spectrum=spectrum, progress=progress)
    known = dict(zip(orders, (float(one.error) for one in curve.reductions["balanced"]), strict=True))
    return np.array([[known.get(2 * size, 0.0) ** 2 for size in sizes]])


def _cross_spectra(grid: Grid, signals: np.ndarray) -> np.ndarray:
    """Spectra (frequencies, features, features) of signals (features, batch, steps), summed over the batch."""
    transform = scipy.fft.rfft(signals, grid.size, workers=-1)
    return np.matmul(transform.transpose(2, 0, 1), transform.conj().transpose(2, 1, 0))


def _weight(grid: Grid, spectra: np.ndarray) -> Weight:
    """Sensitivities (frequencies, p, p) as the product of one matrix and one shape over the frequencies."""
    matrix = scipy.fft.irfft(spectra, grid.size, axis=0)[0]
    trace = max(float(np.trace(matrix)), np.finfo(float).tiny)
    shape = grid.smooth(np.trace(spectra, axis1=1, axis2=2).real) / trace
    matrix = matrix + 1e-6 * trace / len(matrix) * np.eye(len(matrix))  # directions that no input shows count a little
    return Weight(np.linalg.cholesky(matrix).T, shape)


def _no_weight(grid: Grid, n_outputs: int) -> Weight:
    return Weight(np.eye(n_outputs), np.ones(grid.size // 2 + 1))


def _scaled(sys: DiagonalLQOSystem, weight: Weight) -> DiagonalLQOSystem:
    """The system with its outputs, without the feedthrough, times the root of a weight."""
    q, root = sys.quadratic, weight.root
    quadratic = None if q is None else QuadraticOutput(q.U, q.V, root @ q.W)
    return DiagonalLQOSystem(sys.poles, sys.B, root @ sys.C, None, quadratic, sys.dt)
