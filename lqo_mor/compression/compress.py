"""Compression of a whole model: every layer is reduced to fewer states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, cast

import numpy as np

from lqo_mor.analysis.differences import h2_error, relative_to
from lqo_mor.analysis.norm import HorizonNorm
from lqo_mor.bounds.output_error import OutputErrorBound
from lqo_mor.compression.allocation import allocate, check_state_sizes
from lqo_mor.compression.calibration.calibration import (
    Calibrated,
    CalibrationOptions,
    Phases,
    smallest_within,
    split,
    uniform,
)
from lqo_mor.compression.calibration.channels import ChannelCalibration
from lqo_mor.compression.calibration.systems import SystemCalibration
from lqo_mor.compression.layers import reduce_layers
from lqo_mor.compression.report.html import html_page
from lqo_mor.compression.report.records import CompressionReport, LayerReport
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.files import FilePath, check_new, write_atomically
from lqo_mor.network.inputs import CalibrationInputs
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction.refit import warn_of_repair
from lqo_mor.types import FloatOrBatch, Progress


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """What a compression gives.

    Attributes
    ----------
    model : DeepSSM
        The compressed model, to be run, saved or compared.
    report : CompressionReport
        What happened to the layers.
    original : DeepSSM
        The model that was compressed.
    """

    model: DeepSSM
    report: CompressionReport
    original: DeepSSM

    def save_html(self, path: FilePath, *, bound: OutputErrorBound | None = None, overwrite: bool = False) -> None:
        """Write the report as a page with figures and pictures, a single file without scripts.

        Parameters
        ----------
        path : path-like
            New file.
        bound : OutputErrorBound, optional
            Of the two models (`output_error_bound`), to be shown as well.
        overwrite : bool, default False
            Whether an existing file may be replaced.

        Raises
        ------
        MissingDependencyError
            If Matplotlib is not installed (extra ``plot``).
        OutputError
            If `path` exists or cannot be written.
        InvalidInputError
            If `bound` is that of other models.
        """
        check_new(path, overwrite)
        write_atomically(path, html_page(self.report, self.original, self.model, bound).encode(errors="replace"), overwrite)


def compress(  # the door to all ways of compressing: its keywords are what a user chooses
    model: DeepSSM,
    *,
    state_size: int | Sequence[int] | None = None,
    keep: float | None = None,
    max_error: float | None = None,
    method: str | None = None,
    allocation: str = "uniform",
    in_class: bool = False,
    horizon: int | None = None,
    calibration: CalibrationInputs | None = None,
    options: CalibrationOptions | None = None,
    progress: Progress | None = None,
) -> CompressionResult:
    """Reduce every layer of a model to fewer states, without training it again.

    For each block the system ``x[k] = λ ∘ x[k-1] + B u[k]`` is replaced by a smaller one. Without calibration its h2
    distance is as small as `method` makes it, the error for white inputs, and everything else stays. With calibration inputs
    it is the best for the inputs that really occur, weighted by what they change in the model's output; `options` says what
    else may be used. Inside ``joblib.parallel_config`` layers and channels are spread over its workers, with the same result
    (see `lqo_mor.parallel`).

    Parameters
    ----------
    model : DeepSSM
        The model; it is not changed.
    state_size : int or sequence of int, optional
        Real states per system to keep, for all blocks or one number per block. Even, since the
        formats store slots of two states. A layer that has no more states than that keeps its system, but for what `options`
        let a calibration change.
    keep : float, optional
        Instead of `state_size`: the fraction of the states to keep, between 0 and 1. Each layer gets
        the nearest even number of states, at least 2. With ``options.split`` a mean over all channels, as `state_size` is.
    max_error : float, optional
        Instead of both, with a calibration: the largest relative rms error of the model's output on the calibration inputs, and
        by cross-validation of the last fit to them. The budget is picked by predicted errors and corrected by that one.
    method : str, optional
        Reduction method, as for `reduce`; by default "optimal", and with ``allocation="bound"`` "projected_gradient".
    allocation : {"uniform", "bound"}, default "uniform"
        How many states each layer keeps: what `state_size` or `keep` says, or as many in all, split over the layers so that a
        bound on the model's error over `horizon` is least, for the calibration inputs where there are any (see `allocate`).
        With its default method the latter is what arXiv:2510.14542 does.
    in_class : bool, default False
        Reduce to what the class of the checkpoint can hold where that is not any system: whole oscillators of LinOSS and common
        poles of all heads of DSS, with output weights fitted in closed form. This takes no method and one size for all layers.
    horizon : int, optional
        Sequence length over which the error counts; infinite by default, and with a calibration.
    calibration : ndarray, or iterable of ndarray, optional
        Inputs as the model takes them, a few hundred sequences of one length without labels. Of an iterable one piece at a time
        is in memory. For models whose layers all hold linear channels (S4D), or all are single systems, and method "optimal".
        With ``allocation="bound"`` only the split is for these inputs.
    options : CalibrationOptions, optional
        What the calibration may use.
    progress : callable, optional
        Called as ``progress(done, total)``; every layer counts 100.

    Returns
    -------
    CompressionResult
        With the fields `model`, `report` and `original`. The model is in double precision; `model.save` rounds it
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
        If not exactly one of `state_size`, `keep` and `max_error` is given, `model` is no `DeepSSM`, an argument of the
        calibration is given without inputs, choices do not go together, or the layers cannot be calibrated.
    WorkerError
        If the workers of joblib are gone for good.

    Notes
    -----
    With a calibration the error of a system is weighted by the spectrum of its inputs, ``P_ik = b_i b_k (Φ(λ_i) + Φ(λ_k) − R_0)
    / (1 − λ_i λ_k)``, times that of the gradients of the output; poles by Newton's method, residues and feedthroughs in
    closed form. A layer that is one system is reduced by `variable_projection` with such a spectrum, and its linear outputs,
    feedthrough and mixing matrix are fitted to the answers of the full layer by least squares.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from lqo_mor.network import Block, Linear
    >>> poles = [0.9 * np.exp(1j * np.array([0.3, 1.0, 2.0]))]  # a batch of one channel with three pairs
    >>> ssm = lqo.DiagonalLQOSystem(poles, B=np.ones((1, 3, 1)), C=[[[1.0, 0.1, 0.001]]], dt=1.0)
    >>> model = lqo.DeepSSM(Linear([[1.0]]), (Block("layer", ssm),), Linear([[1.0]]))
    >>> small = lqo.compress(model, state_size=4)
    >>> small.report.layers[0].states_before, small.report.layers[0].states_after
    (6, 4)
    """
    if not isinstance(model, DeepSSM):
        raise InvalidInputError(f"compress takes a DeepSSM, got {type(model).__name__}; for a single system there is reduce")
    _check_choices(method, allocation, in_class, horizon, calibration is not None)
    if calibration is not None and allocation == "uniform":
        return _calibrated(model, state_size, keep, max_error, calibration, options or CalibrationOptions(), progress)
    if options is not None or max_error is not None:
        raise InvalidInputError(
            "options and max_error are for a calibration; give calibration inputs"
            if calibration is None
            else "options and max_error are for a calibrated reduction; a split by the bound takes neither"
        )
    sizes = _state_sizes(model, state_size, keep)
    if in_class:
        if model.source is None:
            raise InvalidInputError("a reduction in class is for models that were read from a checkpoint")
        if len(set(sizes)) > 1:
            raise InvalidInputError(f"a reduction in class takes one state size for all layers, got {sizes}")
        start = time.perf_counter()
        small = model.source.reduce_in_class(model, sizes[0], horizon)
        return _compared(model, small, "class", horizon, time.perf_counter() - start)
    if allocation == "bound":
        sizes = list(allocate(model, sum(sizes), horizon=cast(int, horizon), calibration=calibration).sizes)
        return _white(model, sizes, method or "projected_gradient", horizon, progress)
    return _white(model, sizes, method or "optimal", horizon, progress)


def _check_choices(method: str | None, allocation: str, in_class: bool, horizon: int | None, calibrated: bool) -> None:
    """Raise where these arguments of `compress` do not go together."""
    if allocation not in ("uniform", "bound"):
        raise InvalidInputError(f'allocation must be "uniform" or "bound", got {allocation!r}')
    if in_class and (method is not None or allocation == "bound"):
        raise InvalidInputError(
            "a reduction in class has its own method and takes one state size for all layers: no other choice"
        )
    if allocation == "bound" and horizon is None:
        raise InvalidInputError("a split by the bound needs the horizon, the length of the sequences")
    if calibrated and allocation == "uniform" and (in_class or method not in (None, "optimal") or horizon is not None):
        raise InvalidInputError('a calibration is for method="optimal" over the infinite horizon')


def _white(model: DeepSSM, sizes: list[int], method: str, horizon: int | None, progress: Progress | None) -> CompressionResult:
    """A compression layer by layer, for white inputs."""
    reduced = reduce_layers(model.blocks, sizes, method, horizon, progress)
    repaired = np.concatenate([np.ravel(layer.repaired) for layer in reduced])
    if np.any(repaired):
        warn_of_repair(repaired)
    blocks = tuple(replace(block, ssm=layer.system) for block, layer in zip(model.blocks, reduced, strict=True))
    norm = HorizonNorm(False, horizon)
    errors = [relative_to(block.ssm, layer.error, norm, delay=0) for block, layer in zip(model.blocks, reduced, strict=True)]
    counts, seconds = [int(np.sum(layer.repaired)) for layer in reduced], [layer.seconds for layer in reduced]
    return _result(model, replace(model, blocks=blocks), method, horizon, errors, counts, seconds)


def _result(
    model: DeepSSM,
    small: DeepSSM,
    method: str,
    horizon: int | None,
    errors: Sequence[FloatOrBatch],
    repaired: Sequence[int],
    seconds: Sequence[float],
) -> CompressionResult:
    """A compression without calibration, from the relative errors, repairs and seconds of its layers."""
    before, after = model.layer_parameters, small.layer_parameters
    layers = tuple(
        LayerReport(
            name=block.name,
            states_before=block.state_size,
            states_after=new.state_size,
            parameters_before=before[i],
            parameters_after=after[i],
            relative_error=np.asarray(errors[i]),
            repaired=repaired[i],
            seconds=seconds[i],
            mean_states=float(new.state_size),
        )
        for i, (block, new) in enumerate(zip(model.blocks, small.blocks, strict=True))
    )
    return CompressionResult(small, CompressionReport(layers, model.n_parameters, small.n_parameters, method, horizon), model)


def _compared(model: DeepSSM, small: DeepSSM, method: str, horizon: int | None, seconds: float) -> CompressionResult:
    """A compression of all layers at once, without repairs."""
    pairs, count = zip(model.blocks, small.blocks, strict=True), len(model.blocks)
    errors = [h2_error(block.ssm, new.ssm, horizon, relative=True, delay=0) for block, new in pairs]
    return _result(model, small, method, horizon, errors, [0] * count, [seconds / count] * count)


def _calibrated(
    model: DeepSSM,
    state_size: int | Sequence[int] | None,
    keep: float | None,
    max_error: float | None,
    calibration: CalibrationInputs,
    options: CalibrationOptions,
    progress: Progress | None,
) -> CompressionResult:
    """A compression with calibration inputs."""
    if sum(given is not None for given in (state_size, keep, max_error)) != 1:
        raise InvalidInputError("give exactly one of state_size, keep and max_error")
    if max_error is not None and not (isinstance(max_error, Real) and 0 < max_error < 1):
        raise InvalidInputError(f"max_error must be a relative error between 0 and 1, got {max_error!r}")
    if max_error is not None and not (options.sensitivity and options.sequential):
        raise InvalidInputError("max_error needs the options sensitivity and sequential, which predict and measure the error")
    sizes = [] if max_error is not None else [size // 2 for size in _state_sizes(model, state_size, keep)]
    start = time.perf_counter()
    phases = _phases(progress)
    with _calibration(model, calibration, options, phases) as work:
        if max_error is not None:
            found = smallest_within(work, float(max_error))
        else:
            curves = work.curves(None if options.split else max(sizes), set(sizes))
            budget = sum(size * len(curve.squared) for size, curve in zip(sizes, curves, strict=True))
            found = work.assemble(curves, split(curves, budget) if options.split else uniform(curves, sizes))
    phases("end", 1, 1)
    return _calibrated_result(model, found, options, time.perf_counter() - start)


def _calibration(
    model: DeepSSM, inputs: CalibrationInputs, options: CalibrationOptions, progress: Phases
) -> ChannelCalibration | SystemCalibration:
    """The calibration for the kind of layers that the model has."""
    if not any(block.ssm.batch for block in model.blocks):
        return SystemCalibration(model, inputs, options, progress)
    for block in model.blocks:
        if not block.ssm.batch or block.ssm.M is not None:
            raise InvalidInputError(
                f"{block.name} mixes its inputs, unlike other layers, or its channels have quadratic outputs; calibration is for "
                "layers of linear channels, or for layers that are all one system"
            )
    return ChannelCalibration(model, inputs, options, progress)


def _calibrated_result(model: DeepSSM, found: Calibrated, options: CalibrationOptions, seconds: float) -> CompressionResult:
    result = _compared(model, found.model, "optimal, calibrated", None, seconds)
    parameters = [layer.parameters_after for layer in result.report.layers]
    after = result.report.parameters_after - sum(parameters)
    if options.split and model.source is not None and model.blocks[0].ssm.batch:
        parameters = list(model.source.layer_parameters(found.model, "ragged"))
    layers = []
    for i, (layer, block) in enumerate(zip(result.report.layers, found.model.blocks, strict=True)):
        used = np.sum(np.any(block.ssm.B, axis=-1), axis=-1)  # slots, (channels,) or of one system
        layers.append(
            replace(
                layer,
                states_after=int(2 * np.max(used)),
                parameters_after=parameters[i],
                mean_states=float(2 * np.mean(used)),
                weighted_error=found.weighted_errors[i],
            )
        )
    report = replace(
        result.report,
        layers=tuple(layers),
        parameters_after=after + sum(parameters),
        predicted_error=found.predicted,
        calibration_error=found.measured,
        budget_curve=found.budget_curve,
    )
    return replace(result, report=report)


def _phases(progress: Progress | None) -> Phases:
    """Progress of the parts of a calibration, each a share of its usual time, as a single count that never goes back."""
    shares, reached = {"statistics": (0, 25), "curves": (25, 75), "layers": (75, 90), "end": (90, 100)}, [0]

    def tell(what: str, done: int, total: int) -> None:
        first, last = shares[what]
        reached[0] = max(reached[0], first + (last - first) * done // total)
        if progress is not None:
            progress(reached[0], 100)

    return tell


def _state_sizes(model: DeepSSM, state_size: Any, keep: float | None) -> list[int]:
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
    check_state_sizes(sizes)
    if all(size >= block.state_size for block, size in zip(model.blocks, sizes, strict=True)):
        own = ", ".join(str(size) for size in sorted({block.state_size for block in model.blocks}))
        raise OrderError(f"nothing to reduce: the state sizes asked for are not below the {own} states of the layers")
    return [int(size) for size in sizes]
