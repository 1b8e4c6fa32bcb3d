"""The autocovariances of an input: what an input-weighted h² norm needs to know of the signals that really occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError, UnstableSystemError
from lqo_mor.matrix_equations.stein import solve_stein
from lqo_mor.systems.checks import as_array

_ROUNDING = 1e-10  # relative to the power of the input
_EPS = np.finfo(float).eps
_MOST_LAGS = 100_000  # of an autoregression whose memory is to be found out
_BLOCK = 2**21  # numbers transformed at once


@dataclass(frozen=True, eq=False)
class InputSpectrum:
    """The spectrum of a stationary input in discrete time, as autocovariances ``R_j = E[u_{t+j} u_tᵀ]``.

    Those of negative lags are ``R_{-j} = R_jᵀ``; those beyond the last one given are zero. They are taken about zero: a
    mean that is not zero belongs to the input and to its spectrum.

    Parameters
    ----------
    covariances : (..., lags, m, m) array_like
        ``R_0, R_1, …`` of `m` inputs; leading axes are a batch, one spectrum for every channel of a `DiagonalLQOSystem`.
        For one input the plain sequence (lags,) will do, too.

    Raises
    ------
    DimensionError
        If the shape is another one.
    InvalidInputError
        If an entry is not finite or complex, ``R_0`` is not symmetric and positive semidefinite, or an ``R_j`` is larger
        than ``R_0`` allows.

    Notes
    -----
    A norm needs a density that is nowhere negative. The constructors `from_data`, `white` and `mixed` see to that; a
    sequence of covariances that is simply cut off may violate it.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=1.0)
    >>> slow = lqo.InputSpectrum.from_autoregression([0.9], 0.19)
    >>> slow
    InputSpectrum(inputs=1, lags=344, power=1)
    >>> round(lqo.h2_norm(sys), 6), round(lqo.h2_norm(sys, spectrum=slow), 6)
    (1.154701, 1.874874)
    """

    covariances: np.ndarray

    def __init__(self, covariances: ArrayLike) -> None:
        R = as_array("covariances", covariances, np.float64)
        if R.ndim == 1:
            R = as_array("covariances", R[:, np.newaxis, np.newaxis])
        if R.ndim < 3 or R.shape[-1] != R.shape[-2] or R.size == 0:
            raise DimensionError(f"covariances has shape {R.shape}, expected (..., lags, m, m) with at least one lag and input")
        start, transposed = R[..., 0, :, :], np.swapaxes(R[..., 0, :, :], -1, -2)
        if np.any(np.abs(start - transposed) > _ROUNDING * np.max(np.abs(start), axis=(-1, -2), keepdims=True)):
            raise InvalidInputError("the covariance R_0 of the input with itself is not symmetric")
        values = np.linalg.eigvalsh(0.5 * (start + transposed))
        if np.any(values[..., 0] < -_ROUNDING * np.abs(values[..., -1])):
            raise InvalidInputError(
                f"the covariance R_0 of the input is not positive semidefinite: its smallest eigenvalue is {values.min():.3g}"
            )
        scale = np.sqrt(np.maximum(np.diagonal(start, axis1=-2, axis2=-1), 0.0))
        largest = scale[..., :, np.newaxis] * scale[..., np.newaxis, :] + _ROUNDING * np.max(scale, initial=0.0) ** 2
        excess = np.abs(R) > largest[..., np.newaxis, :, :] * (1 + _ROUNDING)
        if np.any(excess):
            lag = int(np.argwhere(excess)[0][-3])
            raise InvalidInputError(f"R_{lag} is larger than R_0 allows, so that these are no autocovariances of any input")
        vars(self).update(covariances=R)

    @classmethod
    def from_data(cls, u: ArrayLike, lags: int | None = None) -> InputSpectrum:
        """The biased estimate ``R_j = Σ_t u_{t+j} u_tᵀ / steps`` from input sequences, averaged over them.

        The mean is not subtracted. A sequence counts as zero outside of its steps, so that with all lags the expected power
        of an output is exactly its energy, the decay after the last step included, divided by the number of steps.

        Parameters
        ----------
        u : (steps, m) or (..., sequences, steps, m) array_like
            One sequence, or several of equal length. Axes in front of them are a batch; the features of an array
            (sequences, steps, channels) become one by ``numpy.moveaxis(u, -1, 0)[..., numpy.newaxis]``.
        lags : int, optional
            How many to keep; all of them, one per step, by default. Fewer are multiplied by ``1 − j/lags`` (Bartlett's
            window), which smooths the density and keeps it from becoming negative.

        Returns
        -------
        InputSpectrum
        """
        u = np.asarray(u)
        u = u[np.newaxis] if u.ndim == 2 else u
        if u.ndim < 3 or u.size == 0:
            raise DimensionError(f"u has shape {u.shape}, expected (steps, m) or (..., sequences, steps, m), not empty")
        *batch, sequences, steps, m = u.shape
        kept = steps if lags is None else min(_positive("lags", lags), steps)
        size = scipy.fft.next_fast_len(steps + kept, real=True)  # no lag that is kept meets itself round the circle
        power = np.zeros((*batch, size // 2 + 1, m, m), complex)
        step = max(1, _BLOCK * sequences // (u.size * 2))
        for first in range(0, sequences, step):
            transform = scipy.fft.rfft(as_array("u", u[..., first : first + step, :, :], np.float64), size, axis=-2)
            power += np.einsum("...skx,...sky->...kxy", transform, transform.conj(), optimize=True)
        R = scipy.fft.irfft(power, size, axis=-3)[..., :kept, :, :] / (sequences * steps)
        if kept < steps:
            R *= (1 - np.arange(kept) / kept)[:, np.newaxis, np.newaxis]
        return cls(R)

    @classmethod
    def from_autoregression(cls, coefficients: ArrayLike, noise: ArrayLike = 1.0, lags: int | None = None) -> InputSpectrum:
        """The spectrum of the stationary process ``u_t = Σ_{i=1}^{q} Φ_i u_{t-i} + w_t`` with white noise `w`.

        Parameters
        ----------
        coefficients : (q, m, m) array_like
            ``Φ_1, …, Φ_q``; for one input also (q,).
        noise : (m, m) array_like, default 1
            Covariance of `w`; a number stands for a multiple of the identity.
        lags : int, optional
            How many to keep; by default until they fall below rounding.

        Returns
        -------
        InputSpectrum

        Raises
        ------
        UnstableSystemError
            If the recursion is not asymptotically stable, so that no stationary process obeys it.
        """
        Phi = as_array("coefficients", coefficients, np.float64)
        Phi = Phi[:, np.newaxis, np.newaxis] if Phi.ndim == 1 else Phi
        if Phi.ndim != 3 or Phi.shape[1] != Phi.shape[2] or Phi.size == 0:
            raise DimensionError(f"coefficients has shape {Phi.shape}, expected (q, m, m), or (q,) for one input")
        q, m, _ = Phi.shape
        W = as_array("noise", noise, np.float64)
        W = W * np.eye(m) if W.ndim == 0 else W
        if W.shape != (m, m):
            raise DimensionError(f"noise has shape {W.shape}, expected (m, m) = ({m}, {m})")
        cls(W[np.newaxis])  # a covariance, or it raises
        lags = None if lags is None else _positive("lags", lags)
        A = np.eye(q * m, k=-m)  # of (u_t, …, u_{t-q+1})
        A[:m] = Phi.transpose(1, 0, 2).reshape(m, q * m)
        radius = np.abs(np.linalg.eigvals(A)).max()
        if not radius < 1:
            raise UnstableSystemError(f"the autoregression is not stable: its largest pole has the modulus {radius:.10g}")
        source = np.zeros_like(A)
        source[:m, :m] = W
        joint = solve_stein(A, A, source)
        found = [joint[:m, k * m : (k + 1) * m] for k in range(q)]
        found[0] = 0.5 * (found[0] + found[0].T)
        negligible = _EPS * np.linalg.norm(found[0])
        while len(found) < lags if lags is not None else max(np.linalg.norm(R) for R in found[-q:]) > negligible:
            if lags is None and len(found) == _MOST_LAGS:
                raise InvalidInputError(f"the autoregression remembers more than {_MOST_LAGS} samples; say how many lags to keep")
            found.append(A[:m] @ np.concatenate(found[: -q - 1 : -1]))
        return cls(np.stack(found[:lags]))

    @classmethod
    def white(cls, n_inputs: int = 1, power: float = 1.0) -> InputSpectrum:
        """White input: every component has the variance `power` and is uncorrelated with the others and over time."""
        _check_not_negative("power", power)
        return cls(power * np.eye(_positive("n_inputs", n_inputs))[np.newaxis])

    def mixed(self, fraction: float) -> InputSpectrum:
        """The spectrum with white noise added, of `fraction` times the covariance ``R_0``, as a guard for unseen inputs."""
        _check_not_negative("fraction", fraction)
        R = self.covariances.copy()
        R[..., 0, :, :] *= 1 + fraction
        return InputSpectrum(R)

    def density(self, frequencies: ArrayLike) -> np.ndarray:
        """The spectral density ``Σ_{j∈Z} R_j e^{-iωj}``, whose mean over ``[-π, π]`` is ``R_0``.

        Parameters
        ----------
        frequencies : (...) array_like
            ω in radians per sample.

        Returns
        -------
        (batch..., frequencies..., m, m) ndarray
            Complex Hermitian.
        """
        omega = as_array("frequencies", frequencies, np.float64)
        lags, R = np.arange(self.lags), self.covariances.copy()
        R[..., 0, :, :] *= 0.5
        R = R.reshape(*self.batch, self.lags, -1)
        half = np.empty((*self.batch, omega.size, self.n_inputs**2), complex)
        step = max(1, _BLOCK // self.lags)
        for k in range(0, omega.size, step):
            half[..., k : k + step, :] = np.exp(-1j * np.outer(omega.ravel()[k : k + step], lags)) @ R
        half = half.reshape(*self.batch, *omega.shape, self.n_inputs, self.n_inputs)
        return half + np.swapaxes(half, -1, -2).conj()

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the batch, ``()`` for a single spectrum."""
        return self.covariances.shape[:-3]

    @property
    def lags(self) -> int:
        """Number of lags, zero included."""
        return self.covariances.shape[-3]

    @property
    def n_inputs(self) -> int:
        """Number of inputs `m`."""
        return self.covariances.shape[-1]

    def __getitem__(self, index: Any) -> InputSpectrum:
        """The spectra of the batch at `index`, as for the leading axes of an array."""
        count = int(np.prod(self.batch))
        chosen = np.arange(count).reshape(self.batch)[index]  # refuses an index that reaches beyond the batch
        return InputSpectrum(self.covariances.reshape(count, *self.covariances.shape[-3:])[chosen])

    def __repr__(self) -> str:
        power = np.trace(self.covariances[..., 0, :, :], axis1=-2, axis2=-1)
        batch = f"batch={self.batch}, " if self.batch else ""
        values = f"{power.min():.4g}..{power.max():.4g}" if self.batch else f"{power:.4g}"
        return f"InputSpectrum({batch}inputs={self.n_inputs}, lags={self.lags}, power={values})"


def _positive(name: str, value: object) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidInputError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def _check_not_negative(name: str, value: object) -> None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
        raise InvalidInputError(f"{name} must be a finite number, zero or positive; got {value!r}")
