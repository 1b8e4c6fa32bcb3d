"""``lqo-mor compare``: how much the outputs of two checkpoints differ."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.markup import escape

from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.cli.loading import Subparsers, add_reading, given_settings, load, note_assumptions, open_console, progress_bar
from lqo_mor.cli.tables import comparison_table, systems_table
from lqo_mor.errors import InvalidInputError, shown
from lqo_mor.network.inputs import input_kind, random_inputs, read_inputs
from lqo_mor.network.model import DeepSSM, ends

_RANDOM_INPUTS = 16


def add(subparsers: Subparsers) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "compare",
        help="compare the outputs of two checkpoints",
        description="Compare the outputs of two checkpoints on the same inputs.",
    )
    add_reading(parser, "FILE", "OTHER")
    parser.add_argument(
        "--inputs", metavar="X.npz", help="file with the array inputs (batch, steps, features), optionally labels"
    )
    parser.add_argument("--steps", type=int, default=1024, metavar="L", help="length of the random inputs (default: 1024)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random inputs (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> None:
    """Compare two checkpoints: their outputs, or their systems where the models cannot be run."""
    model = load(arguments)
    other = _load_other(arguments, model)
    names = [Path(file).name for file in (arguments.file, arguments.other)]
    console = open_console()
    if not (model.runs and other.runs):
        if arguments.inputs:
            raise InvalidInputError(
                "only the systems of these models are known, so they cannot be run on inputs; leave out --inputs"
            )
        console.print(f"the systems of {names[0]} and {names[1]}\n", markup=False)
        console.print(systems_table(model, other))
    else:
        kinds = [_kind(m) for m in (model, other)]
        if kinds[0] != kinds[1]:
            raise InvalidInputError(f"the models cannot be compared: the first has {kinds[0]}, the second {kinds[1]}")
        if arguments.inputs:
            inputs, labels = read_inputs(arguments.inputs)
            origin = f"{len(inputs)} inputs of {Path(arguments.inputs).name}"
        else:
            inputs, labels = random_inputs(model, _RANDOM_INPUTS, arguments.steps, arguments.seed), None
            origin = f"{_RANDOM_INPUTS} random inputs of {arguments.steps} steps, seed {arguments.seed}"
        outputs = []
        for m, name in zip((model, other), names, strict=True):
            with progress_bar(f"running {escape(shown(name))}") as progress:
                outputs.append(m(inputs, progress=progress))
        console.print(f"{names[0]} and {names[1]} on {origin}\n", markup=False)
        console.print(comparison_table(outputs[0], outputs[1], labels))
    note_assumptions(console, model)


def _load_other(arguments: Namespace, model: DeepSSM) -> DeepSSM:
    """The second model; what its file does not tell is taken from the command line, or as for the first."""
    other = load_checkpoint(arguments.other, arguments.format)
    first: Any = model.source
    second: Any = other.source
    known = first.settings | given_settings(arguments)
    missing = {name: known[name] for name in second.assumed if name in known}
    return load_checkpoint(arguments.other, arguments.format, settings=missing) if missing else other


def _kind(model: DeepSSM) -> str:
    """What a model takes and gives."""
    per = "sequence" if model.pooling else "time step"
    return f"{input_kind(model)} and {ends(model)[1].n_outputs} outputs per {per}"
