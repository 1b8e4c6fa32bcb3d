"""What the commands of the command line do; `lqo_mor.cli.main` reads their arguments."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lqo_mor.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from lqo_mor.files import FilePath
    from lqo_mor.network.model import DeepSSM

_BOUND_INPUTS = 16  # calibration inputs that the bound in a report is measured on


def _load(arguments: Namespace, file: str) -> DeepSSM:
    from lqo_mor.checkpoints.load import load_checkpoint

    return load_checkpoint(file, arguments.format, settings=_settings(arguments))


def _load_beside(arguments: Namespace, model: DeepSSM) -> DeepSSM:
    """The second model of a comparison; what its file does not tell is taken from the command line, or as for the first."""
    from lqo_mor.checkpoints.load import load_checkpoint

    other = load_checkpoint(arguments.other, arguments.format)
    first: Any = model.source
    second: Any = other.source
    known = first.settings | _settings(arguments)
    missing = {name: known[name] for name in second.assumed if name in known}
    return load_checkpoint(arguments.other, arguments.format, settings=missing) if missing else other


def _settings(arguments: Namespace) -> dict[str, object]:
    settings = dict(_setting(text) for text in arguments.set or [])
    return settings if arguments.prenorm is None else settings | {"prenorm": arguments.prenorm}


def _note_assumptions(console: Console, model: DeepSSM) -> None:
    from lqo_mor.checkpoints.settings import assumption_text

    source: Any = model.source
    if source.assumed:
        text = assumption_text(source.path.name, source.assumed)
        console.print(f"\nnote: {text}; --set NAME=VALUE if that is wrong", markup=False)


def _setting(text: str) -> tuple[str, object]:
    """``NAME=VALUE`` as a pair; the value is JSON (true, 1024, null) where it is that, otherwise text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInputError(f"--set takes NAME=VALUE, got {text!r}")
    with suppress(ValueError):
        return name, json.loads(value)
    return name, value


def inspect(arguments: Namespace) -> None:
    """Print what a checkpoint holds."""
    from lqo_mor.cli.tables import model_table
    from lqo_mor.network.inputs import input_kind

    model = _load(arguments, arguments.file)
    console = _console()
    source: Any = model.source
    console.print(f"[bold]{_name(arguments.file)}[/bold]: format {source.format}, {len(model.blocks)} layers")
    given = {name: value for name, value in source.settings.items() if name not in source.assumed}
    if given:
        console.print("settings " + ", ".join(f"{name}={json.dumps(value)}" for name, value in given.items()), markup=False)
    if model.decoder is not None:
        norms = {None if b.norm is None else "pre-norm" if b.prenorm else "post-norm" for b in model.blocks}
        console.print(
            f"{input_kind(model)}, {', '.join(n or 'no norm' for n in norms)} blocks, pooling {model.pooling or 'none'}, "
            f"{model.decoder.n_outputs} outputs\n"
        )
    else:
        console.print("only the systems of the layers are known, not what is between them: they can be reduced, but not run\n")
    console.print(model_table(model))
    _note_assumptions(console, model)


def compress(arguments: Namespace) -> None:
    """Reduce every layer and write a smaller checkpoint."""
    from lqo_mor.analysis.differences import h2_error
    from lqo_mor.bounds.output_error import output_error_bound
    from lqo_mor.checkpoints.containers.files import check_output
    from lqo_mor.checkpoints.load import load_checkpoint
    from lqo_mor.cli.progress import progress_bar
    from lqo_mor.cli.tables import compression_table
    from lqo_mor.compression.calibration.options import CalibrationOptions
    from lqo_mor.compression.compress import compress as compress_model
    from lqo_mor.network.inputs import read_inputs

    if arguments.layer_by_layer:
        _compress_layer_by_layer(arguments)
        return
    if arguments.split and not arguments.calibration:
        raise InvalidInputError("--split needs --calibration")
    check_output(Path(arguments.output), overwrite=False)
    if arguments.report:
        from lqo_mor.figures import figure_of
        from lqo_mor.files import check_new

        check_new(Path(arguments.report), overwrite=False)
        figure_of((1, 1))  # says at once if Matplotlib is missing
    model = _load(arguments, arguments.file)
    calibration = read_inputs(arguments.calibration)[0] if arguments.calibration else None
    with progress_bar("reducing") as progress:
        result = compress_model(
            model,
            state_size=arguments.state_size,
            keep=arguments.keep,
            max_error=arguments.max_error,
            method=arguments.method,
            horizon=arguments.horizon,
            calibration=calibration,
            options=CalibrationOptions(split=arguments.split)
            if calibration is not None and arguments.method != "bound"
            else None,
            progress=progress,
        )
    ragged = "ragged" if arguments.split and model.blocks[0].ssm.batch else None  # single systems differ by layer only
    target = arguments.to or ragged
    result.model.save(arguments.output, format=target)
    source: Any = model.source
    if target is None or target == source.format:
        stored = load_checkpoint(arguments.output, source.format, settings=source.settings)
    else:
        stored = load_checkpoint(arguments.output, target)
    errors = [
        h2_error(a.ssm, b.ssm, arguments.horizon, relative=True, delay=0)
        for a, b in zip(model.blocks, stored.blocks, strict=True)
    ]
    console = _console()
    console.print(compression_table(result.report, errors))
    horizon = "infinite horizon" if arguments.horizon is None else f"the first {arguments.horizon} steps"
    report = result.report
    if report.predicted_error is not None:
        measured = f", {report.calibration_error:.3%} on the calibration inputs" if report.calibration_error is not None else ""
        console.print(f"\nrelative rms error of the output: {report.predicted_error:.3%} predicted{measured}", markup=False)
    if arguments.report:
        bound = None
        if calibration is not None:
            bound = output_error_bound(model, result.model, calibration.shape[1], calibration=calibration[:_BOUND_INPUTS])
        report.save_html(arguments.report, bound=bound)
        console.print(f"report: {arguments.report}", markup=False)
    _note_assumptions(console, model)
    inputs = " --inputs YOUR_DATA.npz" if model.runs else ""
    console.print(
        f"\nmethod {arguments.method}; relative h2 errors over {horizon}, of the systems as stored\n"
        f"written to {arguments.output}: {_size(arguments.file)} → {_size(arguments.output)}\n"
        f"next: lqo-mor compare {shlex.join([arguments.file, arguments.output])}{inputs}",
        markup=False,
    )


def _compress_layer_by_layer(arguments: Namespace) -> None:
    from lqo_mor.checkpoints.streaming import compress_file
    from lqo_mor.cli.progress import progress_bar
    from lqo_mor.cli.tables import compression_table

    for name in ("calibration", "report", "max_error", "to"):
        if getattr(arguments, name):
            raise InvalidInputError(f"--{name.replace('_', '-')} needs the whole model in memory, so not with --layer-by-layer")
    with progress_bar("reducing") as progress:
        report = compress_file(
            arguments.file,
            arguments.output,
            state_size=arguments.state_size,
            keep=arguments.keep,
            method=arguments.method,
            horizon=arguments.horizon,
            format=arguments.format,
            settings=_settings(arguments),
            progress=progress,
        )
    console = _console()
    console.print(compression_table(report, [layer.relative_error for layer in report.layers]))
    console.print(f"\nwritten to {arguments.output}: {_size(arguments.file)} → {_size(arguments.output)}", markup=False)


def compare(arguments: Namespace) -> None:
    """Compare two checkpoints."""
    from lqo_mor.cli.progress import progress_bar
    from lqo_mor.cli.tables import comparison_table, systems_table
    from lqo_mor.network.inputs import input_kind, random_inputs, read_inputs
    from lqo_mor.network.model import ends

    model = _load(arguments, arguments.file)
    other = _load_beside(arguments, model)
    console = _console()
    if not (model.runs and other.runs):
        if arguments.inputs:
            raise InvalidInputError(
                "only the systems of these models are known, so they cannot be run on inputs; leave out --inputs"
            )
        console.print(f"the systems of {Path(arguments.file).name} and {Path(arguments.other).name}\n", markup=False)
        console.print(systems_table(model, other))
        _note_assumptions(console, model)
        return
    kinds = [
        f"{input_kind(m)} and {ends(m)[1].n_outputs} outputs {'per sequence' if m.pooling else 'per time step'}"
        for m in (model, other)
    ]
    if kinds[0] != kinds[1]:
        raise InvalidInputError(f"the models cannot be compared: the first has {kinds[0]}, the second {kinds[1]}")
    if arguments.inputs:
        inputs, labels = read_inputs(arguments.inputs)
        origin = f"{len(inputs)} inputs of {Path(arguments.inputs).name}"
    else:
        inputs, labels = random_inputs(model, 16, arguments.steps, arguments.seed), None
        origin = f"16 random inputs of {arguments.steps} steps, seed {arguments.seed}"
    outputs = []
    for m, name in ((model, arguments.file), (other, arguments.other)):
        with progress_bar(f"running {_name(name)}") as progress:
            outputs.append(m(inputs, progress=progress))
    console.print(f"{Path(arguments.file).name} and {Path(arguments.other).name} on {origin}\n", markup=False)
    console.print(comparison_table(outputs[0], outputs[1], labels))
    _note_assumptions(console, model)


def demo(arguments: Namespace) -> None:
    """Run a demonstration."""
    from lqo_mor.cli.demo import run
    from lqo_mor.cli.progress import progress_bar

    run(_console(), progress_bar, arguments.model, arguments.text)


def bench(arguments: Namespace) -> None:
    """Time our solvers beside others."""
    from lqo_mor.bench import output
    from lqo_mor.bench.claims import CLAIMS, run_claims

    names = list(dict.fromkeys(arguments.only or CLAIMS))
    for name in names:
        if name not in CLAIMS:
            raise InvalidInputError(f"there is no comparison {name!r}; there are {', '.join(CLAIMS)}")
    output.check_outputs(arguments.json, arguments.plot, names)
    report = run_claims(names, arguments.quick, lambda text: print(text, file=sys.stderr, flush=True))
    console = _console()
    try:
        for name, rows in report.rows.items():
            console.print(output.claim_table(name, rows))
            console.print()
        console.print(output.summary(report), markup=False)
    finally:  # also when nobody reads what we print
        if arguments.json:
            output.write_json(report, arguments.json)
        if arguments.plot:
            output.write_plot(report, arguments.plot)


def _console() -> Console:
    from rich.console import Console

    class OurConsole(Console):
        def on_broken_pipe(self) -> None:  # Rich would end the process with exit code 1
            raise BrokenPipeError

    with suppress(AttributeError, ValueError):
        cast(Any, sys.stdout).reconfigure(errors="replace")  # rather an odd sign than no result on a terminal that lacks it
    console = OurConsole(highlight=False, soft_wrap=True, emoji=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe: no need to squeeze the tables
    return console


def _name(file: str) -> str:
    """The name of a file without its folder, with square brackets safe from Rich."""
    from rich.markup import escape

    return escape(Path(file).name)


def _size(path: FilePath) -> str:
    return f"{Path(path).stat().st_size / 1000:,.1f} kB"
