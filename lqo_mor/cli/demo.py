"""``lqo-mor demo``: compress a small model that ships in the package, on real data, without torch or network."""

from __future__ import annotations

import sys
import time
import warnings
from argparse import Namespace
from importlib.resources import as_file, files

import numpy as np
from rich.console import Console

from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.cli import demo_imdb
from lqo_mor.cli.loading import Subparsers, open_console, progress_bar
from lqo_mor.cli.tables import plain_table
from lqo_mor.compression.compress import compress
from lqo_mor.errors import InvalidInputError, StabilityWarning
from lqo_mor.network.inputs import read_inputs
from lqo_mor.temporaries import temporary_folder

_RUNS = (("modal", 16), ("balanced", 16), ("optimal", 16), ("modal", 8), ("balanced", 8), ("optimal", 8))


def add(subparsers: Subparsers) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "demo",
        help="compress a small model that ships with lqo-mor",
        description="Compress a small model that ships with lqo-mor, and show what it does on real data before and after.",
    )
    parser.add_argument("model", nargs="?", choices=("digits", "imdb"), default="digits", help="default: digits; imdb: reviews")
    parser.add_argument(
        "--text", action="append", metavar="TEXT", help="imdb: classify this (default: examples, then your lines)"
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> None:
    """Compress one of the shipped models and show what becomes of it."""
    if arguments.model == "imdb":
        demo_imdb.show(open_console(), arguments.text, sys.stdin)
    elif arguments.text:
        raise InvalidInputError("texts are for the model of film reviews: lqo-mor demo imdb --text ...")
    else:
        _show_digits(open_console())


def _show_digits(console: Console) -> None:
    """The classifier of digits, reduced by several methods, with its accuracy before and after."""
    data = files("lqo_mor") / "data"
    with as_file(data / "demo_digits.safetensors") as checkpoint, as_file(data / "demo_digits.npz") as sequences:
        model = load_checkpoint(checkpoint)
        inputs, labels = read_inputs(sequences)
        file_size = checkpoint.stat().st_size
    steps, states = inputs.shape[1], model.blocks[0].state_size
    console.print(
        f"A deep state-space model (S4D, {len(model.blocks)} layers, {model.blocks[0].width} channels of {states} states) that\n"
        f"reads an image of a handwritten digit as {steps} pixels. Every layer is reduced without retraining;\n"
        f"accuracy is on {len(inputs)} test images that it was not trained on.\n"
    )
    with progress_bar("running the full model") as progress:
        full = model(inputs, progress=progress).argmax(-1)
    table = plain_table("states", "method", "parameters", "file", "h2 error", "accuracy", "agreement", "seconds", left=["method"])

    def add_row(size: int, method: str, parameters: int, file_size: int, error: str, classes: np.ndarray, *rest: str) -> None:
        accuracy = np.mean(classes == labels)
        table.add_row(str(size), method, f"{parameters:,}", f"{file_size / 1000:.0f} kB", error, f"{accuracy:.1%}", *rest)

    add_row(states, "full model", model.n_parameters, file_size, "", full, "", "")
    repaired: dict[str, int] = {}
    for method, size in _RUNS:
        with warnings.catch_warnings(), progress_bar(f"{method}, {size} states (the first run also compiles)") as progress:
            warnings.simplefilter("ignore", StabilityWarning)  # told in one line below
            begin = time.perf_counter()
            result = compress(model, state_size=size, method=method, horizon=steps, progress=progress)
            seconds = time.perf_counter() - begin
            with temporary_folder() as folder:
                path = folder / "small.safetensors"
                result.model.save(path)
                small, file_size = load_checkpoint(path), path.stat().st_size
            classes = small(inputs).argmax(-1)
        repaired[method] = repaired.get(method, 0) + sum(layer.repaired for layer in result.report.layers)
        error = np.median(np.concatenate([layer.relative_error for layer in result.report.layers]))
        agreement = np.mean(classes == full)
        add_row(size, method, small.n_parameters, file_size, f"{error:.1%}", classes, f"{agreement:.1%}", f"{seconds:.1f}")
    console.print(table)
    for method, count in repaired.items():
        if count:
            console.print(
                f"\n{count} of the systems reduced by {method} were unstable: their poles were reflected, their outputs refitted."
            )
    console.print(
        "\nThis small model was trained with a penalty that makes it easy to compress; yours will differ. Try it:\n"
        "  lqo-mor inspect  MODEL.pth\n"
        "  lqo-mor compress MODEL.pth -o SMALL.pth --state-size 16 --horizon 1024\n"
        "  lqo-mor compare  MODEL.pth SMALL.pth --inputs DATA.npz\n"
        "or reduce any system from Python: import lqo_mor as lqo; lqo.reduce(lqo.LQOSystem(A, B, C, M=M, dt=1.0), order=8)"
    )
