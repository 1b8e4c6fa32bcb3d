"""``lqo-mor demo``: compress a small model that ships in the package, on real data, without torch or network."""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.cli.demo_imdb import run as run_imdb
from lqo_mor.compression.compress import compress
from lqo_mor.errors import InvalidInputError, StabilityWarning
from lqo_mor.network.inputs import read_inputs
from lqo_mor.types import Bar

_RUNS = (("modal", 16), ("balanced", 16), ("optimal", 16), ("modal", 8), ("balanced", 8), ("optimal", 8))


def run(console: Console, progress: Bar, model: str = "digits", texts: Sequence[str] | None = None) -> None:
    """Compress one of the shipped models and show what becomes of it.

    Parameters
    ----------
    console : rich.console.Console
        Where the results go.
    progress : callable
        ``progress(description)`` gives a context whose value is a ``progress(done, total)`` callback.
    model : {"digits", "imdb"}
        The classifier of digits, by several methods, with its accuracy before and after; or that of film reviews.
    texts : sequence of str, optional
        Sentences for the latter; by default examples, and those of the standard input.

    Raises
    ------
    InvalidInputError
        If there are texts for the digits, or an empty one.
    """
    if model == "imdb":
        run_imdb(console, progress, texts, sys.stdin)
    elif texts:
        raise InvalidInputError("texts are for the model of film reviews: lqo-mor demo imdb --text ...")
    else:
        _digits(console, progress)


def _digits(console: Console, progress: Bar) -> None:
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
    with progress("running the full model") as report:
        full = model(inputs, progress=report)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("states", "method", "parameters", "file", "h2 error", "accuracy", "agreement", "seconds"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    accuracy = np.mean(full.argmax(-1) == labels)
    table.add_row(
        str(states), "full model", f"{model.n_parameters:,}", f"{file_size / 1000:.0f} kB", "", f"{accuracy:.1%}", "", ""
    )
    repaired: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method, size in _RUNS:
            with warnings.catch_warnings(), progress(f"{method}, {size} states (the first run also compiles)") as report:
                warnings.simplefilter("ignore", StabilityWarning)  # told in one line below
                begin = time.perf_counter()
                result = compress(model, state_size=size, method=method, horizon=steps, progress=report)
                seconds = time.perf_counter() - begin
                path = Path(folder) / f"{method}-{size}.safetensors"
                result.model.save(path)
                small = load_checkpoint(path)
                outputs = small(inputs)
            repaired[method] = repaired.get(method, 0) + sum(layer.repaired for layer in result.report.layers)
            errors = np.concatenate([layer.relative_error for layer in result.report.layers])
            table.add_row(
                str(size),
                method,
                f"{small.n_parameters:,}",
                f"{path.stat().st_size / 1000:.0f} kB",
                f"{np.median(errors):.1%}",
                f"{np.mean(outputs.argmax(-1) == labels):.1%}",
                f"{np.mean(outputs.argmax(-1) == full.argmax(-1)):.1%}",
                f"{seconds:.1f}",
            )
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
        "or reduce any system from Python: import lqo_mor as lqo; lqo.reduce(lqo.LQOSystem(A, B, C, M=M), order=8)"
    )
