"""What calibration inputs measure: spectra of what the systems read, and sensitivities of the model's output to theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.fft

from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.network.backward import decode_backward, pass_model
from lqo_mor.network.model import DeepSSM, decode, ends
from lqo_mor.network.signals import system_map

_WINDOW = 256  # lags of the sensitivities' autocovariance that are significant


@dataclass(frozen=True)
class Grid:
    """Frequencies at which spectra are added up: enough for products of two of them without wrapping around."""

    steps: int  # of the sequences

    @property
    def window(self) -> int:
        """Lags of the autocovariance of sensitivities that count."""
        return min(_WINDOW, self.steps)

    @property
    def size(self) -> int:
        """Length of the transforms."""
        return scipy.fft.next_fast_len(2 * (self.steps + self.window), real=True)

    @property
    def lags(self) -> int:
        """Lags of a weighted autocovariance that can differ from zero."""
        return self.steps + self.window - 1

    def power(self, a: np.ndarray) -> np.ndarray:
        """Power spectra (features, frequencies) of signals (features, batch, steps), summed over the batch."""
        a = scipy.fft.rfft(a, self.size, workers=-1)
        return np.einsum("hbf,hbf->hf", a, a.conj()).real

    def cross_and_power(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cross spectra of each feature of two signals, and power spectra of the second, summed over the batch."""
        a, b = (scipy.fft.rfft(one, self.size, workers=-1) for one in (a, b))
        conjugate = b.conj()
        return np.einsum("hbf,hbf->hf", a, conjugate), np.einsum("hbf,hbf->hf", b, conjugate).real

    def matrices(self, a: np.ndarray) -> np.ndarray:
        """Spectra (frequencies, features, features) of all pairs of features, summed over the batch."""
        a = scipy.fft.rfft(a, self.size, workers=-1)
        return np.matmul(a.transpose(2, 0, 1), a.conj().transpose(2, 1, 0))

    def smooth(self, spectra: np.ndarray) -> np.ndarray:
        """Power spectra with the fine structure of chance removed (Bartlett's window)."""
        taper = np.zeros(self.size)
        taper[: self.window] = 1 - np.arange(self.window) / self.window
        taper[self.size - self.window + 1 :] = taper[1 : self.window][::-1]
        return np.maximum(scipy.fft.rfft(scipy.fft.irfft(spectra, self.size) * taper).real, 0.0)

    def covariances(self, spectra: np.ndarray) -> np.ndarray:
        """Covariances of non-negative lags, (features, lags)."""
        return scipy.fft.irfft(spectra, self.size)[:, : self.lags]

    def both_sides(self, spectra: np.ndarray) -> np.ndarray:
        """Covariances of lags 0, 1, ... and 0, -1, ..., (features, 2, lags)."""
        c = scipy.fft.irfft(spectra, self.size)
        return np.stack([c[:, : self.lags], np.roll(c[:, ::-1], 1, axis=1)[:, : self.lags]], axis=1)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Means over the calibration inputs."""

    grid: Grid  # frequencies of the spectra
    count: int  # of sequences
    # spectra of what the systems of each block read, per step: power spectra (width, frequencies) of channels, matrices
    # (frequencies, width, width) of a single system
    inputs: list[np.ndarray]
    # weights of the same shapes that turn the spectrum of a small error at a system's output into the mean squared error of the
    # model's output; smooth ones for channels; all one where they were not measured
    sensitivity: list[np.ndarray]
    output_power: float  # mean squared 2-norm of the model's output


def measure(
    model: DeepSSM,
    pieces: Iterable[np.ndarray],
    sensitivity: bool,
    outputs: Spool,
    gradients: Sequence[Spool] = (),
) -> Statistics:
    """Statistics of a model over pieces of calibration inputs, by a forward and a backward pass through each.

    Its outputs, if they are pooled, are appended to `outputs`, and what the backward passes give for every block to `gradients`.
    The sensitivities follow from gradients of the output in random directions; theory, eq. (9.7).
    """
    rng, count, power = np.random.default_rng(0) if sensitivity else None, 0, 0.0
    grid: Grid | None = None
    inputs: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for u in pieces:
        grid = Grid(u.shape[1]) if grid is None else grid
        spectra = [grid.power if block.ssm.batch else grid.matrices for block in model.blocks]
        read, own, x = layer_signals(model, u, rng)
        output = decode(model, x)
        if model.pooling is not None:
            outputs.append(output)
        power += np.sum(output**2) / output[0, ..., 0].size
        inputs = _sums(inputs, [spectrum(v) for spectrum, v in zip(spectra, read, strict=True)])
        weights = _sums(weights, [spectrum(g) for spectrum, g in zip(spectra, own, strict=sensitivity)])
        for spool, gradient in zip(gradients, own, strict=False):
            spool.append(gradient)
        count += len(u)
    grid = cast(Grid, grid)  # there are inputs, see `chunks`
    if model.pooling is None:  # the output is a sequence, its error a mean over the steps
        weights = [g / grid.steps for g in weights]
    weights = [grid.smooth(g / count) if block.ssm.batch else g / count for block, g in zip(model.blocks, weights, strict=False)]
    inputs = [s / (count * grid.steps) for s in inputs]
    return Statistics(grid, count, inputs, weights or [np.ones_like(s) for s in inputs], float(power / count))


def _sums(totals: list[np.ndarray], parts: list[np.ndarray]) -> list[np.ndarray]:
    return [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts


def layer_signals(
    model: DeepSSM, u: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """What the systems of all blocks read, the gradients of random combinations of outputs by theirs, and the last features.

    Lists and features are (width, batch, steps); `u` is as the model takes it. The systems are batches of linear channels, or
    single ones of any kind. `rng` draws the directions, standard normal for every sequence (and step, without pooling); without
    it there are no gradients.
    """
    decoder, maps = ends(model)[1], (system_map(block.ssm, u.shape[1]) for block in model.blocks)
    x, passed = pass_model(model, u, maps)
    read = [kept.read for kept in passed]
    if rng is None:
        return read, [], x
    shape = x.shape[1:] if model.pooling is None else x.shape[1:2]
    gradient, gradients = decode_backward(model, x, rng.normal(size=(*shape, decoder.n_outputs))), []
    for kept in reversed(passed):
        gradient, own, _ = kept.backward(gradient)
        gradients.append(own)
    return read, gradients[::-1], x
