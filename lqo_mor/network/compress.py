"""Compression of a whole model: every layer is reduced to fewer states."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np

import lqo_mor.reduction as reduction
from lqo_mor.analysis.differences import relative_to
from lqo_mor.errors import InvalidInputError, OrderError, StabilityWarning
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction._slots import pad
from lqo_mor.reduction.stabilise import warn_of_repair
from lqo_mor.systems.diagonal import DiagonalLQOSystem

# Checkpoints are single precision: outputs fitted in closed form must not grow and cancel where poles meet (ridge). A
# balanced start keeps the slow modes that the inputs of a trained model excite most; the full search finds h2 errors 2 to 5 %
# smaller and costs up to 23 points of accuracy (sequential MNIST, benchmarks/s4d_checkpoints.py).
_OPTIONS = {"optimal": {"ridge": 1e-6, "start": "balanced"}, "modal": {"ridge": 1e-6}, "hippo": {"ridge": 1e-6}}
# Nor may optimised poles come closer to the unit circle than those that were trained (half their distance): beyond the
# horizon they would integrate, and the model's own code computes λ − 1 in single precision.
_MARGIN = {"optimal": 0.5, "projected_gradient": 0.5}


@dataclass(frozen=True, eq=False)
class LayerReport:
    """What happened to one layer.

    Attributes
    ----------
    name : str
        Name of the block.
    states_before, states_after : int
        Real states of each system of the layer, two per stored slot.
    parameters_before, parameters_after : int
        Numbers stored for the systems of the layer (not for the maps around them).
    relative_error : ndarray
        h2 errors relative to the norm of the systems with their feedthrough (delay 0), one per channel, or a
        single one of shape ``()``.
    repaired : int
        How many of the reduced systems were unstable and had to be repaired.
    seconds : float
        Time of the reduction.
    """

    name: str
    states_before: int
    states_after: int
    parameters_before: int
    parameters_after: int
    relative_error: np.ndarray
    repaired: int
    seconds: float


@dataclass(frozen=True, eq=False)
class CompressionReport:
    """What happened to a model; printing it gives a table.

    Attributes
    ----------
    layers : tuple of LayerReport
        One per block.
    parameters_before, parameters_after : int
        Numbers stored for the whole model.
    method : str
        Name of the reduction method.
    horizon : int or None
        Number of samples that the errors are measured over; None is infinite.
    """

    layers: tuple[LayerReport, ...]
    parameters_before: int
    parameters_after: int
    method: str
    horizon: int | None

    def __str__(self) -> str:
        rows = [("layer", "states", "parameters", "h2 error: median", "worst")]
        for layer in self.layers:
            rows.append(
                (
                    layer.name,
                    f"{layer.states_before} -> {layer.states_after}",
                    f"{layer.parameters_before} -> {layer.parameters_after}",
                    f"{np.median(layer.relative_error):.2e}",
                    f"{np.max(layer.relative_error):.2e}",
                )
            )
        rows.append(("whole model", "", f"{self.parameters_before} -> {self.parameters_after}", "", ""))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        horizon = "infinite horizon" if self.horizon is None else f"horizon {self.horizon}"
        seconds = sum(layer.seconds for layer in self.layers)
        lines.append(f"method {self.method}, {horizon}, relative errors, {seconds:.1f} s")
        repaired = sum(layer.repaired for layer in self.layers)
        if repaired:
            lines.append(f"{repaired} reduced systems were unstable and have been repaired")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """The compressed `model` and the `report` on it."""

    model: DeepSSM
    report: CompressionReport


def compress(model, *, state_size=None, keep=None, method="optimal", horizon=None, progress=None) -> CompressionResult:
    """Reduce every layer of a model to fewer states.

    For each block the system ``x[k] = λ ∘ x[k-1] + B u[k]`` is replaced by a smaller one whose h2
    distance to it is as small as `method` makes it; everything else stays.

    Parameters
    ----------
    model : DeepSSM
        The model; it is not changed.
    state_size : int or sequence of int, optional
        Real states per system to keep, for all blocks or one number per block. Even, since the
        formats store slots of two states. A layer that has no more states than that stays as it is.
    keep : float, optional
        Instead of `state_size`: the fraction of the states to keep, between 0 and 1. Each layer gets
        the nearest even number of states, at least 2.
    method : str
        Reduction method, as for `reduce`.
    horizon : int, optional
        Sequence length over which the error counts; infinite by default.
    progress : callable, optional
        Called as ``progress(done, total)``; every layer counts 100.

    Returns
    -------
    CompressionResult
        With the fields `model` and `report`. The model is in double precision; `model.save` rounds it
        to the precision of the checkpoint.

    Warns
    -----
    StabilityWarning
        If reduced systems were unstable and had to be repaired.

    Raises
    ------
    OrderError
        If a wanted state size is odd or not positive, or none is below that of its layer.
    InvalidInputError
        If neither or both of `state_size` and `keep` are given, or `model` is no `DeepSSM`.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from lqo_mor.network import Block, Linear
    >>> poles = [0.9 * np.exp(1j * np.array([0.3, 1.0, 2.0]))]  # a batch of one channel with three pairs
    >>> ssm = lqo.DiagonalLQOSystem(poles, B=np.ones((1, 3, 1)), C=[[[1.0, 0.1, 0.001]]])
    >>> model = lqo.DeepSSM(Linear([[1.0]]), (Block("layer", ssm),), Linear([[1.0]]))
    >>> small = lqo.compress(model, state_size=4)
    >>> small.report.layers[0].states_before, small.report.layers[0].states_after
    (6, 4)
    """
    if not isinstance(model, DeepSSM):
        raise InvalidInputError(f"compress takes a DeepSSM, got {type(model).__name__}; for a single system there is reduce")
    sizes = _state_sizes(model, state_size, keep)
    reduced, seconds = [], []
    for index, (block, size) in enumerate(zip(model.blocks, sizes, strict=True)):
        start = time.perf_counter()
        reduced.append(_reduce_layer(block, size, method, horizon, _layer_progress(progress, index, len(sizes))))
        seconds.append(time.perf_counter() - start)
    repaired = np.concatenate([np.ravel(result.repaired) for result in reduced])
    if np.any(repaired):
        warn_of_repair(repaired)
    blocks = tuple(replace(block, ssm=result.system) for block, result in zip(model.blocks, reduced, strict=True))
    small = replace(model, blocks=blocks)
    layers = tuple(
        LayerReport(
            name=block.name,
            states_before=block.state_size,
            states_after=small.blocks[i].state_size,
            parameters_before=model.layer_parameters[i],
            parameters_after=small.layer_parameters[i],
            relative_error=np.asarray(relative_to(block.ssm, reduced[i].error, horizon, delay=0)),
            repaired=int(np.sum(reduced[i].repaired)),
            seconds=seconds[i],
        )
        for i, block in enumerate(model.blocks)
    )
    return CompressionResult(small, CompressionReport(layers, model.n_parameters, small.n_parameters, method, horizon))


@dataclass(frozen=True, eq=False)
class _Kept:
    """Stands for the `Reduction` of a layer that stays as it is."""

    system: DiagonalLQOSystem
    error: np.ndarray
    repaired: np.ndarray


def _reduce_layer(block, size: int, method: str, horizon, progress):
    """The reduction of one layer, its systems in exactly ``size // 2`` slots; a layer that is no larger stays."""
    ssm = block.ssm
    if size >= block.state_size:
        if progress is not None:
            progress(1, 1)
        return _Kept(ssm, np.zeros(ssm.batch), np.zeros(ssm.batch, bool))
    options = dict(_OPTIONS.get(method, {}))
    distance = 1 - np.max(np.abs(ssm.poles))
    if method in _MARGIN and distance > 0:
        options["margin"] = _MARGIN[method] * distance
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # one warning for all layers, by the caller
        result = reduction.reduce(ssm, slots=size // 2, method=method, horizon=horizon, progress=progress, **options)
    return replace(result, system=pad(result.system, size // 2))


def _state_sizes(model, state_size, keep) -> list[int]:
    """The wanted real states of every layer, checked."""
    if not model.blocks:
        raise InvalidInputError("the model has no blocks, there is nothing to compress")
    if (state_size is None) == (keep is None):
        raise InvalidInputError("give either state_size or keep, and not both")
    if keep is not None:
        if not isinstance(keep, Real) or not 0 < keep < 1:
            raise InvalidInputError(f"keep must be a fraction between 0 and 1, got {keep!r}")
        sizes = [max(2, 2 * round(float(keep) * block.state_size / 2)) for block in model.blocks]
    elif np.ndim(state_size) == 0:
        sizes = [state_size] * len(model.blocks)
    else:
        sizes = list(state_size)
        if len(sizes) != len(model.blocks):
            raise InvalidInputError(f"state_size has {len(sizes)} entries, but the model has {len(model.blocks)} blocks")
    for size in sizes:
        if isinstance(size, (bool, np.bool_)) or not isinstance(size, (int, np.integer)) or size < 2 or size % 2:
            raise OrderError(f"state size {size!r} is not a positive even integer; a checkpoint stores pairs of states")
    if all(size >= block.state_size for block, size in zip(model.blocks, sizes, strict=True)):
        own = ", ".join(str(size) for size in sorted({block.state_size for block in model.blocks}))
        raise OrderError(f"nothing to reduce: the state sizes asked for are not below the {own} states of the layers")
    return [int(size) for size in sizes]


def _layer_progress(progress, index: int, n_layers: int):
    """The callback of one layer, which reports to that of the whole model."""
    if progress is None:
        return None
    return lambda done, total: progress(100 * index + (100 * done) // max(total, 1), 100 * n_layers)
