"""What several commands share: how checkpoints are read, what was assumed of them, the console, and a progress bar on it."""

from __future__ import annotations

import argparse
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, cast

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.checkpoints.settings import assumption_text
from lqo_mor.errors import InvalidInputError, shown
from lqo_mor.network.model import DeepSSM
from lqo_mor.types import Progress

Subparsers: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"

_LONGEST_LINE = 10_000
_FILES = "checkpoint: .pth, .pt, .ckpt (need torch), .msgpack, .flax (need msgpack), .safetensors or .npz"


def add_reading(parser: ArgumentParser, *files: str) -> None:
    """Add the checkpoints `files` as arguments, and the options that say how to read them."""
    for name in files:
        parser.add_argument(name.lower(), metavar=name, help=_FILES)
    parser.add_argument("--format", help="name of the checkpoint format (default: recognised from the keys)")
    parser.add_argument(
        "--prenorm", action=argparse.BooleanOptionalAction, help="norms before the layers, where the file does not tell (S4D)"
    )
    parser.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="what the tensors do not tell, e.g. discretization=bilinear"
    )


def load(arguments: Namespace) -> DeepSSM:
    """The model of the argument FILE."""
    return load_checkpoint(arguments.file, arguments.format, settings=given_settings(arguments))


def given_settings(arguments: Namespace) -> dict[str, object]:
    """The settings of --set and --prenorm."""
    settings = dict(_setting(text) for text in arguments.set or [])
    return settings if arguments.prenorm is None else settings | {"prenorm": arguments.prenorm}


def _setting(text: str) -> tuple[str, object]:
    """``NAME=VALUE`` as a pair; the value is JSON (true, 1024, null) where it is that, otherwise text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInputError(f"--set takes NAME=VALUE, got {text!r}")
    with suppress(ValueError):
        return name, json.loads(value)
    return name, value


def note_assumptions(console: Console, model: DeepSSM) -> None:
    """Print what was assumed of a file that does not tell it."""
    source: Any = model.source
    if source.assumed:
        text = assumption_text(source.path.name, source.assumed)
        console.print(f"\nnote: {text}; --set NAME=VALUE if that is wrong", markup=False)


class _OurConsole(Console):
    def render_str(self, text: str, **options: Any) -> Text:  # of tables, too: names come from files
        return super().render_str("\n".join(shown(line, _LONGEST_LINE) for line in text.split("\n")), **options)

    def on_broken_pipe(self) -> None:  # Rich would end the process with exit code 1
        raise BrokenPipeError


def open_console() -> Console:
    """A console on standard output."""
    with suppress(AttributeError, ValueError):
        cast(Any, sys.stdout).reconfigure(errors="replace")  # rather an odd sign than no result on a terminal that lacks it
    console = _OurConsole(highlight=False, soft_wrap=True, emoji=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe: no need to squeeze the tables
    return console


@contextmanager
def progress_bar(description: str) -> Iterator[Progress]:
    """A progress bar on standard error, as a context that gives a ``progress(done, total)`` callback."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with ProgressBar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
