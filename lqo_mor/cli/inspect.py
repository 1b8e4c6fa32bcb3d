"""``lqo-mor inspect``: what a checkpoint holds."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.markup import escape

from lqo_mor.cli.loading import Subparsers, add_reading, load, note_assumptions, open_console
from lqo_mor.cli.tables import model_table
from lqo_mor.errors import shown
from lqo_mor.network.inputs import input_kind


def add(subparsers: Subparsers) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser("inspect", help="print what a checkpoint holds", description="Print what a checkpoint holds.")
    add_reading(parser, "FILE")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> None:
    """Print what a checkpoint holds."""
    model = load(arguments)
    console = open_console()
    source: Any = model.source
    name = escape(Path(arguments.file).name)
    console.print(f"[bold]{name}[/bold]: format {source.format}, {len(model.blocks)} layers")
    given = {name: value for name, value in source.settings.items() if name not in source.assumed}
    if given:
        text = ", ".join(f"{shown(name)}={shown(json.dumps(value))}" for name, value in given.items())
        console.print(f"settings {text}", markup=False)
    if model.decoder is not None:
        norms = {None if b.norm is None else "pre-norm" if b.prenorm else "post-norm" for b in model.blocks}
        console.print(
            f"{input_kind(model)}, {', '.join(n or 'no norm' for n in norms)} blocks, pooling {model.pooling or 'none'}, "
            f"{model.decoder.n_outputs} outputs\n"
        )
    else:
        console.print("only the systems of the layers are known, not what is between them: they can be reduced, but not run\n")
    console.print(model_table(model))
    note_assumptions(console, model)
