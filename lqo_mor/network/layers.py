"""The maps of single tokens: linear, embedding and normalisation, as frozen records of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.systems import checks


def _freeze(record: object, **ndims: int) -> None:
    """Replace the named fields of a frozen dataclass by checked read-only arrays (None stays)."""
    for name, ndim in ndims.items():
        value = getattr(record, name)
        if value is None:
            continue
        array = checks.as_array(name, value, np.float64)
        if array.ndim != ndim or array.size == 0:
            raise DimensionError(f"{name} has shape {array.shape}, expected {ndim} axes, none of them empty")
        object.__setattr__(record, name, array)


@dataclass(frozen=True, eq=False)
class Linear:
    """Affine map of every token, ``x ↦ weight x + bias``, with `weight` (out, in) and `bias` (out,) or None.

    The first `fixed` outputs are no parameters, as where a gate multiplies its very input: compression leaves them alone.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    fixed: int = 0

    def __post_init__(self) -> None:
        _freeze(self, weight=2, bias=1)
        if self.bias is not None:
            checks.check_shape("bias", self.bias, self.weight.shape[:1], "(out,)")
        if not 0 <= self.fixed <= self.n_outputs:
            raise InvalidInputError(f"fixed is {self.fixed!r}, expected a number of outputs from 0 to {self.n_outputs}")

    @property
    def n_inputs(self) -> int:
        """Number of features that go in."""
        return self.weight.shape[1]

    @property
    def n_outputs(self) -> int:
        """Number of features that come out."""
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Embedding:
    """Table of token vectors, `weight` (vocabulary, width); the tokens are integers."""

    weight: np.ndarray

    def __post_init__(self) -> None:
        _freeze(self, weight=2)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self.weight.shape[0]

    @property
    def n_outputs(self) -> int:
        """Number of features that come out."""
        return self.weight.shape[1]


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """Normalisation of every token, ``weight ∘ (x - mean x) / sqrt(var x + eps) + bias``, with vectors (width,)."""

    weight: np.ndarray
    bias: np.ndarray
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _freeze(self, weight=1, bias=1)
        checks.check_shape("bias", self.bias, self.weight.shape, "(width,)")
        if not 0 <= self.eps < np.inf:
            raise InvalidInputError(f"eps must be a small number that is not negative, got {self.eps!r}")


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Normalisation by stored statistics, at inference a map of single features ``weight ∘ x + bias``, with vectors (width,)."""

    weight: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        _freeze(self, weight=1, bias=1)
        checks.check_shape("bias", self.bias, self.weight.shape, "(width,)")

    @classmethod
    def from_statistics(
        cls,
        mean: ArrayLike,
        variance: ArrayLike,
        weight: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        eps: float = 1e-5,
    ) -> BatchNorm:
        """From running mean and variance, and the affine part where there is one; vectors (width,)."""
        mean, variance = (np.asarray(value, np.float64) for value in (mean, variance))
        if np.any(variance < 0) or not 0 <= eps < np.inf or np.any(variance + eps == 0):
            raise InvalidInputError("the running variance and eps must not be negative, nor both be zero")
        scale = (1.0 if weight is None else np.asarray(weight, np.float64)) / np.sqrt(variance + eps)
        return cls(scale, (0.0 if bias is None else np.asarray(bias, np.float64)) - scale * mean)
