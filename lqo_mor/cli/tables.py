"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from lqo_mor.analysis.differences import h2_error
from lqo_mor.compression.report.records import CompressionReport
from lqo_mor.errors import DimensionError, LQOWarning, shown, warn
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import FloatOrBatch

_WIDTH = 50  # of the names of layers, which leaves room for the numbers


def model_table(model: DeepSSM) -> Table:
    """One row per layer: systems, states of each, rank of the quadratic output, parameters, stability margin ``1 − max|λ|``."""
    table = plain_table("layer", "systems", "states", "rank", "parameters", "1 − max|λ|")
    for block, parameters in zip(model.blocks, model.layer_parameters, strict=True):
        ssm = block.ssm
        table.add_row(
            escape(shown(block.name, _WIDTH)),
            f"{ssm.batch[0]} channels" if ssm.batch else f"{ssm.n_inputs} in, {ssm.n_outputs} out",
            str(block.state_size),
            "-" if ssm.M is None else str(ssm.M.rank),
            f"{parameters:,}",
            f"{1 - np.max(np.abs(ssm.poles)):.3g}",
        )
    table.add_section()
    table.add_row("all layers", "", "", "", f"{sum(model.layer_parameters):,}", "")
    table.add_row("whole model", "", "", "", f"{model.n_parameters:,}", "")
    return table


def compression_table(report: CompressionReport, stored_errors: Sequence[FloatOrBatch]) -> Table:
    """One row per layer, with the relative h2 errors of the systems as they were written to the file."""
    table = plain_table("layer", "states", "parameters", "h2 median", "h2 worst", "seconds")
    for layer, errors in zip(report.layers, stored_errors, strict=True):
        even = layer.mean_states == layer.states_after
        table.add_row(
            escape(shown(layer.name, _WIDTH)),
            f"{layer.states_before} → {layer.states_after if even else f'{layer.mean_states:.1f}'}",
            f"{layer.parameters_before:,} → {layer.parameters_after:,}",
            f"{np.median(errors):.3%}",
            f"{np.max(errors):.3%}",
            f"{layer.seconds:.1f}",
        )
    table.add_section()
    before, after = (sum(getattr(layer, f"parameters_{when}") for layer in report.layers) for when in ("before", "after"))
    table.add_row("all layers", "", f"{before:,} → {after:,} ({_change(before, after)})", "", "", "")
    before, after = report.parameters_before, report.parameters_after
    table.add_row("whole model", "", f"{before:,} → {after:,} ({_change(before, after)})", "", "", "")
    return table


def systems_table(model: DeepSSM, other: DeepSSM) -> Table:
    """Relative h2 distances of the systems of two models, a row per layer; `DimensionError` if their layers differ."""
    if [_shape(block.ssm) for block in model.blocks] != [_shape(block.ssm) for block in other.blocks]:
        raise DimensionError("the models cannot be compared: their layers differ in number, channels, inputs or outputs")
    table = plain_table("layer", "states", "h2 median", "h2 worst")
    for a, b in zip(model.blocks, other.blocks, strict=True):
        errors = h2_error(a.ssm, b.ssm, relative=True, delay=0)
        states = f"{a.state_size}, {b.state_size}"
        table.add_row(escape(shown(a.name, _WIDTH)), states, f"{np.median(errors):.3%}", f"{np.max(errors):.3%}")
    return table


def _shape(ssm: DiagonalLQOSystem) -> tuple[tuple[int, ...], int, int]:
    return ssm.batch, ssm.n_inputs, ssm.n_outputs


def comparison_table(a: np.ndarray, b: np.ndarray, labels: np.ndarray | None) -> Table:
    """Differences of two models' outputs on the same inputs, (batch, ..., outputs).

    One label per input gives accuracies, where there is one output vector per input; otherwise a warning says that the labels
    are not used. Raises `DimensionError` if the outputs have different shapes.
    """
    if a.shape != b.shape:
        raise DimensionError(f"the outputs of the two models have different shapes, {a.shape} and {b.shape}")
    if labels is not None and (a.ndim != 2 or a.shape[1] < 2 or labels.shape != a.shape[:1]):
        warn(
            f"the labels, of shape {labels.shape}, are not used: they need one vector of outputs per input, "
            f"(batch, classes), but the models give {a.shape}",
            LQOWarning,
        )
        labels = None
    table = plain_table("quantity", "value")
    scale = np.sqrt(np.mean(np.abs(a) ** 2))
    rms = np.sqrt(np.mean(np.abs(b - a) ** 2))
    table.add_row("relative rms difference of the outputs", f"{rms / scale:.3e}" if scale > 0 else f"{rms:.3e} (absolute)")
    table.add_row("largest difference of an output", f"{np.max(np.abs(b - a)):.3e}")
    if a.shape[-1] > 1:
        table.add_row("agreement of the largest output", f"{np.mean(a.argmax(-1) == b.argmax(-1)):.2%}")
        if labels is not None:
            table.add_row("accuracy of the first", f"{np.mean(a.argmax(-1) == labels):.2%}")
            table.add_row("accuracy of the second", f"{np.mean(b.argmax(-1) == labels):.2%}")
    return table


def _change(before: int, after: int) -> str:
    return f"{after / before - 1:+.0%}" if before else "0"


def plain_table(*columns: str, left: Collection[str] = ()) -> Table:
    """An empty table without lines; the columns `left`, by default the first, are justified to the left."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in (left or columns[:1]) else "right", no_wrap=True)
    return table
