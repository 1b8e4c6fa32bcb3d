"""What calibration inputs tell of a model: spectra of what its systems read, and how much its outputs move with theirs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import scipy.fft

from lqo_mor.network.backward import decode_backward, pass_model
from lqo_mor.network.model import DeepSSM, decode, ends
from lqo_mor.network.signals import system_map

_WINDOW = 256  # lags of the sensitivities' autocovariance that are told from chance


class Spool:
    """Arrays that are kept in files, in single precision: calibration data may be larger than memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files: list[Path] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> np.ndarray:
        array = np.load(self._files[k])
        return array.astype(np.float64) if array.dtype == np.float32 else array

    def append(self, array: np.ndarray) -> None:
        """Keep one more array."""
        self._files.append(Path(self._folder.name) / f"{len(self)}.npy")
        self[len(self) - 1] = array

    def __setitem__(self, k: int, array: np.ndarray) -> None:
        np.save(self._files[k], array.astype(np.float32) if array.dtype.kind == "f" else array)


@dataclass(frozen=True)
class Grid:
    """Frequencies at which spectra are added up: enough for products of two of them without wrapping around."""

    steps: int
    window: int

    @classmethod
    def of(cls, steps: int) -> Grid:
        """The grid for sequences of a length."""
        return cls(steps, min(_WINDOW, steps))

    @property
    def size(self) -> int:
        """Length of the transforms."""
        return scipy.fft.next_fast_len(2 * (self.steps + self.window), real=True)

    @property
    def lags(self) -> int:
        """Lags of a weighted autocovariance that can differ from zero."""
        return self.steps + self.window - 1

    def cross(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cross spectra of signals (features, batch, steps), summed over the batch."""
        return self.cross_and_power(a, b)[0]

    def power(self, a: np.ndarray) -> np.ndarray:
        """Power spectra, summed over the batch."""
        a = scipy.fft.rfft(a, self.size, workers=-1)
        return np.einsum("hbf,hbf->hf", a, a.conj()).real

    def cross_and_power(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cross spectra of both, and power spectra of the second, summed over the batch."""
        a, b = (scipy.fft.rfft(one, self.size, workers=-1) for one in (a, b))
        conjugate = b.conj()
        return np.einsum("hbf,hbf->hf", a, conjugate), np.einsum("hbf,hbf->hf", b, conjugate).real

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
    """Means over the calibration inputs.

    Attributes
    ----------
    grid : Grid
        Frequencies of the spectra.
    count : int
        Number of sequences.
    inputs : list of (width, frequencies) ndarray
        Power spectra of what the systems of each block read, per step.
    sensitivity : list of (width, frequencies) ndarray
        Weights that turn the power spectrum of a small error at a system's output into the mean squared error of the model's
        output; all one where they were not measured.
    output_power : float
        Mean squared 2-norm of the model's output.
    """

    grid: Grid
    count: int
    inputs: list[np.ndarray]
    sensitivity: list[np.ndarray]
    output_power: float


def measure(model: DeepSSM, pieces: Iterable[np.ndarray], sensitivity: bool, outputs: Spool) -> Statistics:
    """Statistics of a model over pieces of calibration inputs, by a forward and a backward pass through each.

    Its outputs are appended to `outputs`.

    The sensitivities follow from gradients of the output in random directions. An error that is independent of them adds
    the sum over frequencies of its power times theirs to the squared error of the output (theory, eq. (9.7)).
    """
    rng, count, power = np.random.default_rng(0), 0, 0.0
    grid: Grid | None = None
    inputs: list[np.ndarray] = []
    gradients: list[np.ndarray] = []
    for u in pieces:
        grid = Grid.of(u.shape[1]) if grid is None else grid
        read, moved, x = layer_signals(model, u, rng if sensitivity else None)
        output = decode(model, x)
        outputs.append(output)
        power += np.sum(output**2) / output[0, ..., 0].size
        inputs = _sums(inputs, [grid.power(v) for v in read])
        gradients = _sums(gradients, [grid.power(g) for g in moved])
        count += len(u)
    grid = cast(Grid, grid)  # there are inputs, see `chunks`
    if model.pooling is None:  # the output is a sequence, its error a mean over the steps
        gradients = [g / grid.steps for g in gradients]
    ones = [np.ones_like(s) for s in inputs]
    return Statistics(
        grid,
        count,
        [s / (count * grid.steps) for s in inputs],
        [grid.smooth(g / count) for g in gradients] if sensitivity else ones,
        float(power / count),
    )


def _sums(totals: list[np.ndarray], parts: list[np.ndarray]) -> list[np.ndarray]:
    return [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts


def layer_signals(
    model: DeepSSM, u: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """What the systems of all blocks read, the gradients of random combinations of outputs by theirs, and the last features.

    Parameters
    ----------
    model : DeepSSM
        Its systems are batches of linear channels, or single ones of any kind.
    u : (batch, steps, ...) ndarray
        Inputs, as the model takes them.
    rng : numpy.random.Generator, optional
        Draws the directions, standard normal for every sequence (and step, without pooling); no gradients without it.

    Returns
    -------
    read, gradients : list of (width, batch, steps) ndarray
    features : (width, batch, steps) ndarray
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
