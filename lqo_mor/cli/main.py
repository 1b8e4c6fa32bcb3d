"""The command line: ``lqo-mor inspect | compress | compare | demo | bench``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from contextlib import suppress

from lqo_mor import __version__
from lqo_mor.cli import bench, compare, compress, demo, inspect
from lqo_mor.errors import AssumptionWarning, LQOError, LQOWarning

_COMMANDS = (inspect, compress, compare, demo, bench)  # each adds its arguments by `add` and does its work in `run`


def main(argv: list[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process's arguments); the exit code.

    A bad input or file ends with one line on standard error and exit code 1.
    """
    parser = argparse.ArgumentParser(
        prog="lqo-mor",
        description="Reduce the state-space layers of a trained deep model without retraining it.",
        epilog="Start with: lqo-mor demo",
    )
    parser.add_argument("--version", action="version", version=f"lqo-mor {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in _COMMANDS:
        command.add(subparsers)
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
        # What is left of standard output goes nowhere, so that the interpreter does not complain when it ends.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (LQOError, OSError, MemoryError) as err:
        message = " ".join(str(err).split()) or type(err).__name__
        print(f"lqo-mor: error: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lqo-mor: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    with suppress(OSError):  # a closed standard error must not stop the work
        print(f"lqo-mor: warning: {message}", file=sys.stderr)
