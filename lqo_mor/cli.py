"""The command line: ``lqo-mor inspect | compress | compare | demo | bench``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from lqo_mor import __version__
from lqo_mor.errors import InvalidInputError, LQOError, LQOWarning

_BOUND_INPUTS = 16  # calibration inputs that the bound in a report is measured on


def main(argv: list[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process's arguments); the exit code.

    A bad input or file ends with one line on standard error and exit code 1.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", LQOWarning)
            warnings.showwarning = _show_warning
            arguments.run(arguments)
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough; results are printed after all files are written
        _discard_output()
        return 0
    except (LQOError, OSError, MemoryError) as err:
        message = " ".join(str(err).split()) or type(err).__name__
        print(f"lqo-mor: error: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lqo-mor: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def _show_warning(message, category, filename, lineno, file=None, line=None):
    with suppress(OSError):  # a closed standard error must not stop the work
        print(f"lqo-mor: warning: {message}", file=sys.stderr)


def _discard_output() -> None:
    """Send what is left of standard output nowhere, so that the interpreter does not complain when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    from lqo_mor.reduction import METHODS

    parser = argparse.ArgumentParser(
        prog="lqo-mor",
        description="Reduce the state-space layers of a trained deep model without retraining it.",
        epilog="Start with: lqo-mor demo",
    )
    parser.add_argument("--version", action="version", version=f"lqo-mor {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="print what a checkpoint holds", description="Print what a checkpoint holds.")
    _add_reading(inspect, "FILE")
    inspect.set_defaults(run=_inspect)

    compress = commands.add_parser(
        "compress",
        help="reduce every layer and write a smaller checkpoint",
        description="Reduce every layer and write a smaller checkpoint.",
    )
    _add_reading(compress, "FILE")
    compress.add_argument("-o", "--output", metavar="OUT", required=True, help="new file; an existing one is never overwritten")
    budget = compress.add_mutually_exclusive_group(required=True)
    budget.add_argument("--state-size", type=int, metavar="N", help="real states to keep in every system (even)")
    budget.add_argument("--keep", type=float, metavar="F", help="fraction of the states to keep, between 0 and 1")
    budget.add_argument("--max-error", type=float, metavar="E", help="relative rms error of the output on the calibration inputs")
    compress.add_argument("--method", choices=[*METHODS, "bound"], default="optimal", help="reduction method (default: optimal)")
    compress.add_argument("--horizon", type=int, metavar="L", help="sequence length over which errors count (default: infinite)")
    compress.add_argument("--calibration", metavar="X.npz", help="file with the array inputs: compress for such inputs")
    compress.add_argument(
        "--split", action="store_true", help="with --calibration: split the states over channels, ragged format"
    )
    compress.add_argument("--report", metavar="OUT.html", help="write a page with figures and plots (needs Matplotlib)")
    compress.set_defaults(run=_compress)

    compare = commands.add_parser(
        "compare",
        help="compare the outputs of two checkpoints",
        description="Compare the outputs of two checkpoints on the same inputs.",
    )
    _add_reading(compare, "FILE", "OTHER")
    compare.add_argument(
        "--inputs", metavar="X.npz", help="file with the array inputs (batch, steps, features), optionally labels"
    )
    compare.add_argument("--steps", type=int, default=1024, metavar="L", help="length of the random inputs (default: 1024)")
    compare.add_argument("--seed", type=int, default=0, help="seed of the random inputs (default: 0)")
    compare.set_defaults(run=_compare)

    demo = commands.add_parser(
        "demo",
        help="compress a small model that ships with lqo-mor",
        description="Compress a small model that ships with lqo-mor, and show what it does on real data before and after.",
    )
    demo.add_argument("model", nargs="?", choices=("digits", "imdb"), default="digits", help="default: digits; imdb: reviews")
    demo.add_argument("--text", action="append", metavar="TEXT", help="imdb: classify this (default: examples, then your lines)")
    demo.set_defaults(run=_demo)

    bench = commands.add_parser(
        "bench",
        help="time our solvers beside those of other packages",
        description="Time our solvers beside those of SciPy, Slycot, python-control and pyMOR, as far as they are installed.",
    )
    bench.add_argument("--quick", action="store_true", help="small sizes only: half a minute instead of several")
    bench.add_argument("--only", nargs="+", metavar="CLAIM", help="some of the comparisons, by name (default: all)")
    bench.add_argument("--json", metavar="OUT", help="write all figures to this new file")
    bench.add_argument("--plot", metavar="OUT.png", help="draw time against size into this new file (needs Matplotlib)")
    bench.set_defaults(run=_bench)
    return parser


def _add_reading(parser: argparse.ArgumentParser, *files: str) -> None:
    for name in files:
        parser.add_argument(name.lower(), metavar=name, help="checkpoint: .pth, .pt, .ckpt (need torch), .safetensors or .npz")
    parser.add_argument("--format", help="name of the checkpoint format (default: recognised from the keys)")
    parser.add_argument(
        "--prenorm", action=argparse.BooleanOptionalAction, help="norms before the layers, where the file does not tell (S4D)"
    )


def _load(arguments, file: str):
    from lqo_mor.checkpoints import load_checkpoint

    return load_checkpoint(file, arguments.format, prenorm=arguments.prenorm)


def _inspect(arguments) -> None:
    from lqo_mor.network.inputs import input_kind
    from lqo_mor.report import model_table

    model = _load(arguments, arguments.file)
    console = _console()
    console.print(f"[bold]{_name(arguments.file)}[/bold]: format {model.source.format}, {len(model.blocks)} layers")
    norms = {None if b.norm is None else "pre-norm" if b.prenorm else "post-norm" for b in model.blocks}
    console.print(
        f"{input_kind(model)}, {', '.join(n or 'no norm' for n in norms)} blocks, pooling {model.pooling or 'none'}, "
        f"{model.decoder.n_outputs} outputs\n"
    )
    console.print(model_table(model))


def _compress(arguments) -> None:
    from lqo_mor.analysis.differences import h2_error
    from lqo_mor.checkpoints import load_checkpoint
    from lqo_mor.checkpoints.files import check_output
    from lqo_mor.network import CalibrationOptions, compress, output_error_bound
    from lqo_mor.network.inputs import read_inputs
    from lqo_mor.report import compression_table, progress_bar

    if arguments.split and not arguments.calibration:
        raise InvalidInputError("--split needs --calibration")
    check_output(Path(arguments.output), overwrite=False)
    if arguments.report:
        from lqo_mor.output_files import check_new
        from lqo_mor.reduction.curve_plot import figure_of

        check_new(Path(arguments.report), overwrite=False)
        figure_of((1, 1))  # says at once if Matplotlib is missing
    model = _load(arguments, arguments.file)
    calibration = read_inputs(arguments.calibration)[0] if arguments.calibration else None
    with progress_bar("reducing") as progress:
        result = compress(
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
    result.model.save(arguments.output, format=ragged)
    stored = load_checkpoint(arguments.output, prenorm=None if ragged else arguments.prenorm)
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
    console.print(
        f"\nmethod {arguments.method}; relative h2 errors over {horizon}, of the systems as stored\n"
        f"written to {arguments.output}: {_size(arguments.file)} → {_size(arguments.output)}\n"
        f"next: lqo-mor compare {shlex.join([arguments.file, arguments.output])} --inputs YOUR_DATA.npz",
        markup=False,
    )


def _compare(arguments) -> None:
    from lqo_mor.network.inputs import input_kind, random_inputs, read_inputs
    from lqo_mor.report import comparison_table, progress_bar

    model, other = _load(arguments, arguments.file), _load(arguments, arguments.other)
    kinds = [
        f"{input_kind(m)} and {m.decoder.n_outputs} outputs {'per sequence' if m.pooling else 'per time step'}"
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
    console = _console()
    console.print(f"{Path(arguments.file).name} and {Path(arguments.other).name} on {origin}\n", markup=False)
    console.print(comparison_table(*outputs, labels))


def _demo(arguments) -> None:
    from lqo_mor.demo import run
    from lqo_mor.report import progress_bar

    run(_console(), progress_bar, arguments.model, arguments.text)


def _bench(arguments) -> None:
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


def _console():
    from rich.console import Console

    class OurConsole(Console):
        def on_broken_pipe(self):  # Rich would end the process with exit code 1
            raise BrokenPipeError

    with suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="replace")  # rather an odd sign than no result on a terminal that lacks it
    console = OurConsole(highlight=False, soft_wrap=True, emoji=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe: no need to squeeze the tables
    return console


def _name(file: str) -> str:
    """The name of a file without its folder, with square brackets safe from Rich."""
    from rich.markup import escape

    return escape(Path(file).name)


def _size(path) -> str:
    return f"{Path(path).stat().st_size / 1000:,.1f} kB"
