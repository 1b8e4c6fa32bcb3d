"""``lqo-mor compress``: every layer reduced, and a smaller checkpoint written."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.console import Console

from lqo_mor.analysis.differences import h2_error
from lqo_mor.bounds.output_error import output_error_bound
from lqo_mor.checkpoints.containers.files import check_output
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.checkpoints.settings import sidecar_path
from lqo_mor.checkpoints.streaming import compress_file
from lqo_mor.cli.loading import Subparsers, add_reading, given_settings, load, note_assumptions, open_console, progress_bar
from lqo_mor.cli.tables import compression_table
from lqo_mor.compression.calibration.calibration import CalibrationOptions
from lqo_mor.compression.compress import CompressionResult, compress
from lqo_mor.errors import InvalidInputError, OutputError
from lqo_mor.figures import figure_of
from lqo_mor.files import check_new
from lqo_mor.network.inputs import read_inputs
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction.reduce import METHODS

_BOUND_INPUTS = 16  # calibration inputs that the bound in a report is measured on
_FURTHER_METHODS: dict[str, dict[str, Any]] = {"bound": {"allocation": "bound"}, "class": {"in_class": True}}


def add(subparsers: Subparsers) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "compress",
        help="reduce every layer and write a smaller checkpoint",
        description="Reduce every layer and write a smaller checkpoint.",
    )
    add_reading(parser, "FILE")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="new file; an existing one is never overwritten")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--state-size", type=int, metavar="N", help="real states to keep in every system (even)")
    budget.add_argument("--keep", type=float, metavar="F", help="fraction of the states to keep, between 0 and 1")
    budget.add_argument("--max-error", type=float, metavar="E", help="relative rms error of the output on the calibration inputs")
    parser.add_argument("--method", choices=[*METHODS, *_FURTHER_METHODS], default="optimal", help="default: optimal")
    parser.add_argument("--horizon", type=int, metavar="L", help="sequence length over which errors count (default: infinite)")
    parser.add_argument("--calibration", metavar="X.npz", help="file with the array inputs: compress for such inputs")
    parser.add_argument("--split", action="store_true", help="with --calibration: split the states over channels, ragged format")
    parser.add_argument(
        "--layer-by-layer", action="store_true", help="for .safetensors files larger than memory: one layer at a time"
    )
    parser.add_argument("--to", metavar="FORMAT", help="write another format: native holds any reduced system")
    parser.add_argument("--report", metavar="OUT.html", help="write a page with figures and plots (needs Matplotlib)")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> None:
    """Reduce every layer and write a smaller checkpoint."""
    if arguments.layer_by_layer:
        _compress_layer_by_layer(arguments)
        return
    if arguments.split and not arguments.calibration:
        raise InvalidInputError("--split needs --calibration")
    _check_outputs(arguments)
    model = load(arguments)
    calibration = read_inputs(arguments.calibration)[0] if arguments.calibration else None
    calibrated = calibration is not None and arguments.method != "bound"
    with progress_bar("reducing") as progress:
        result = compress(
            model,
            state_size=arguments.state_size,
            keep=arguments.keep,
            max_error=arguments.max_error,
            horizon=arguments.horizon,
            calibration=calibration,
            options=CalibrationOptions(split=arguments.split) if calibrated else None,
            progress=progress,
            **_FURTHER_METHODS.get(arguments.method, {"method": arguments.method}),
        )
    stored = _store(arguments, model, result)
    errors = [
        h2_error(a.ssm, b.ssm, arguments.horizon, relative=True, delay=0)
        for a, b in zip(model.blocks, stored.blocks, strict=True)
    ]
    console = open_console()
    console.print(compression_table(result.report, errors))
    predicted, measured = result.report.predicted_error, result.report.calibration_error
    if predicted is not None:
        on_inputs = "" if measured is None else f", {measured:.3%} on the calibration inputs"
        console.print(f"\nrelative rms error of the output: {predicted:.3%} predicted{on_inputs}", markup=False)
    if arguments.report:
        bound = None
        if calibration is not None:
            seen = calibration[:_BOUND_INPUTS]
            bound = output_error_bound(model, result.model, horizon=seen.shape[1], calibration=seen)
        result.save_html(arguments.report, bound=bound)
        console.print(f"report: {arguments.report}", markup=False)
    note_assumptions(console, model)
    horizon = "infinite horizon" if arguments.horizon is None else f"the first {arguments.horizon} steps"
    console.print(f"\nmethod {arguments.method}; relative h2 errors over {horizon}, of the systems as stored", markup=False)
    _tell_sizes(console, arguments)
    inputs = " --inputs YOUR_DATA.npz" if model.runs else ""
    console.print(f"next: lqo-mor compare {shlex.join([arguments.file, arguments.output])}{inputs}", markup=False)


def _check_outputs(arguments: Namespace) -> None:
    """Raise before the work where an output could not be written; one that is an input exists already."""
    output = Path(arguments.output)
    check_output(output, overwrite=False)
    if arguments.report:
        check_new(Path(arguments.report), overwrite=False)
        if Path(arguments.report).resolve() in (output.resolve(), sidecar_path(output).resolve()):
            raise OutputError(f"{arguments.report} cannot be the report and a file of the checkpoint; choose another name")
        figure_of((1, 1))  # says at once if Matplotlib is missing


def _store(arguments: Namespace, model: DeepSSM, result: CompressionResult) -> DeepSSM:
    """Write the smaller model; what is read back from the file."""
    ragged = "ragged" if arguments.split and model.blocks[0].ssm.batch else None  # single systems differ by layer only
    target = arguments.to or ragged
    result.model.save(arguments.output, format=target)
    source: Any = model.source
    if target is None or target == source.format:
        return load_checkpoint(arguments.output, source.format, settings=source.settings)
    return load_checkpoint(arguments.output, target)


def _compress_layer_by_layer(arguments: Namespace) -> None:
    for name in ("calibration", "report", "max_error", "to"):
        if getattr(arguments, name):
            raise InvalidInputError(f"--{name.replace('_', '-')} needs the whole model in memory, so not with --layer-by-layer")
    if arguments.method in _FURTHER_METHODS:
        raise InvalidInputError(f"--method {arguments.method} needs the whole model in memory, so not with --layer-by-layer")
    with progress_bar("reducing") as progress:
        report = compress_file(
            arguments.file,
            arguments.output,
            state_size=arguments.state_size,
            keep=arguments.keep,
            method=arguments.method,
            horizon=arguments.horizon,
            format=arguments.format,
            settings=given_settings(arguments),
            progress=progress,
        )
    console = open_console()
    console.print(compression_table(report, [layer.relative_error for layer in report.layers]))
    console.print()
    _tell_sizes(console, arguments)


def _tell_sizes(console: Console, arguments: Namespace) -> None:
    before, after = (f"{Path(path).stat().st_size / 1000:,.1f} kB" for path in (arguments.file, arguments.output))
    console.print(f"written to {arguments.output}: {before} → {after}", markup=False)
