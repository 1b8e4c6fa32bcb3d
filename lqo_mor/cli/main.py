"""The command line: ``lqo-mor inspect | compress | compare | demo | bench``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from contextlib import suppress
from typing import TextIO

from lqo_mor import __version__
from lqo_mor.cli import loading
from lqo_mor.errors import AssumptionWarning, LQOError, LQOWarning

_FILES = "checkpoint: .pth, .pt, .ckpt (need torch), .msgpack, .flax (need msgpack), .safetensors or .npz"


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
            warnings.simplefilter("ignore", AssumptionWarning)  # the commands print it as a note
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


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    with suppress(OSError):  # a closed standard error must not stop the work
        print(f"lqo-mor: warning: {message}", file=sys.stderr)


def _discard_output() -> None:
    """Send what is left of standard output nowhere, so that the interpreter does not complain when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    from lqo_mor.reduction.reduce import METHODS

    parser = argparse.ArgumentParser(
        prog="lqo-mor",
        description="Reduce the state-space layers of a trained deep model without retraining it.",
        epilog="Start with: lqo-mor demo",
    )
    parser.add_argument("--version", action="version", version=f"lqo-mor {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")

    inspect = subparsers.add_parser("inspect", help="print what a checkpoint holds", description="Print what a checkpoint holds.")
    _add_reading(inspect, "FILE")
    inspect.set_defaults(run=loading.inspect)

    compress = subparsers.add_parser(
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
    compress.add_argument("--method", choices=[*METHODS, "bound", "class"], default="optimal", help="default: optimal")
    compress.add_argument("--horizon", type=int, metavar="L", help="sequence length over which errors count (default: infinite)")
    compress.add_argument("--calibration", metavar="X.npz", help="file with the array inputs: compress for such inputs")
    compress.add_argument(
        "--split", action="store_true", help="with --calibration: split the states over channels, ragged format"
    )
    compress.add_argument(
        "--layer-by-layer", action="store_true", help="for .safetensors files larger than memory: one layer at a time"
    )
    compress.add_argument("--to", metavar="FORMAT", help="write another format: native holds any reduced system")
    compress.add_argument("--report", metavar="OUT.html", help="write a page with figures and plots (needs Matplotlib)")
    compress.set_defaults(run=loading.compress)

    compare = subparsers.add_parser(
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
    compare.set_defaults(run=loading.compare)

    demo = subparsers.add_parser(
        "demo",
        help="compress a small model that ships with lqo-mor",
        description="Compress a small model that ships with lqo-mor, and show what it does on real data before and after.",
    )
    demo.add_argument("model", nargs="?", choices=("digits", "imdb"), default="digits", help="default: digits; imdb: reviews")
    demo.add_argument("--text", action="append", metavar="TEXT", help="imdb: classify this (default: examples, then your lines)")
    demo.set_defaults(run=loading.demo)

    bench = subparsers.add_parser(
        "bench",
        help="time our solvers beside those of other packages",
        description="Time our solvers beside those of SciPy, Slycot, python-control and pyMOR, as far as they are installed.",
    )
    bench.add_argument("--quick", action="store_true", help="small sizes only: half a minute instead of several")
    bench.add_argument("--only", nargs="+", metavar="CLAIM", help="some of the comparisons, by name (default: all)")
    bench.add_argument("--json", metavar="OUT", help="write all figures to this new file")
    bench.add_argument("--plot", metavar="OUT.png", help="draw time against size into this new file (needs Matplotlib)")
    bench.set_defaults(run=loading.bench)
    return parser


def _add_reading(parser: argparse.ArgumentParser, *files: str) -> None:
    for name in files:
        parser.add_argument(name.lower(), metavar=name, help=_FILES)
    parser.add_argument("--format", help="name of the checkpoint format (default: recognised from the keys)")
    parser.add_argument(
        "--prenorm", action=argparse.BooleanOptionalAction, help="norms before the layers, where the file does not tell (S4D)"
    )
    parser.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="what the tensors do not tell, e.g. discretization=bilinear"
    )
