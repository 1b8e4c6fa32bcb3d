"""The command line: ``lqo-mor inspect | compress | compare | demo | bench``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from contextlib import suppress

from lqo_mor import __version__
from lqo_mor.cli import bench, compare, compress, demo, inspect
from lqo_mor.errors import AssumptionWarning, LQOError, LQOWarning, shown
from lqo_mor.interrupts import Ended, in_order

_COMMANDS = (inspect, compress, compare, demo, bench)  # each adds its arguments by `add` and does its work in `run`
_LONGEST = 4000  # characters of a message


def main(argv: list[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process's arguments); the exit code.

    A bad input or file ends with one line on standard error and exit code 1, a signal with one line and 128 + its number.
    """
    _fill_closed_streams()
    try:
        with in_order():
            return _run(argv)
    except BrokenPipeError:  # the reader of our output has seen enough; results are printed after all files are written
        # What is left of standard output goes nowhere, so that the interpreter does not complain when it ends.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as err:
        _tell(f"error: out of memory; {err}" if str(err) else "error: out of memory")
        return 1
    except (LQOError, OSError) as err:
        _tell(f"error: {err}" if str(err) else f"error: {type(err).__name__}")
        return 1
    except Ended as err:
        _tell(f"ended by {err}; an output is complete or not there")
        return err.exit_code
    except KeyboardInterrupt:
        _tell("interrupted; an output is complete or not there")
        return 130


def _run(argv: list[str] | None) -> int:
    """Read the arguments and do what they say."""
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
    with warnings.catch_warnings():
        warnings.simplefilter("always", LQOWarning)
        warnings.simplefilter("ignore", AssumptionWarning)  # the commands print it as a note
        warnings.showwarning = _show_warning
        arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    return 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _tell(f"warning: {message}")


def _tell(message: str) -> None:
    """One line on standard error, or nowhere if it is closed, which must not stop the work."""
    if sys.stderr is not None:  # `print` would take standard output for None
        with suppress(OSError, ValueError):
            print(f"lqo-mor: {shown(' '.join(message.split()), _LONGEST)}", file=sys.stderr)


def _fill_closed_streams() -> None:
    """Open what is closed of the standard streams to nowhere: a file of ours would get its number, and what libraries print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
