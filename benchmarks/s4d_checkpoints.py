"""Trained S4D checkpoints, every method and state size: h2 error, accuracy, agreement, error of the logits, seconds.

    python -m benchmarks.s4d_checkpoints DATA [--models a b smnist] [--sizes 32 16 8] [--methods ...] [--json OUT]

DATA is a folder with ``checkpoints/`` (s4d-scifar10-a.pth, s4d-scifar10-b.pth, s4d-smnist.pth), ``cifar10/`` and
``mnist/``. Each model is compressed, stored in single precision and read back before it is evaluated.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import lqo_mor as lqo
from lqo_mor.bench.machine import describe
from lqo_mor.errors import StabilityWarning

METHODS = ("hippo", "modal", "balanced", "projected_gradient", "optimal")
MODELS = {"a": ("s4d-scifar10-a.pth", 1024), "b": ("s4d-scifar10-b.pth", 1024), "smnist": ("s4d-smnist.pth", 784)}


def cifar10(folder: Path, part: str = "test", count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first images (all: 846 for testing, 4660 for training) as normalised sequences (count, 1024, 3), and their labels."""
    with np.load(folder / "cifar10" / "cifar10_subset.npz") as file:
        images, labels = file[f"{part}_images"][:count], file[f"{part}_labels"][:count]
    mean, deviation = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    pixels = images.reshape(len(images), 3, -1).transpose(0, 2, 1) / 255
    return (pixels - mean) / deviation, labels


def mnist(folder: Path, count: int | None = 2000) -> tuple[np.ndarray, np.ndarray]:
    """The first test digits as sequences (count, 784, 1), and their labels."""
    with gzip.open(folder / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784, 1)
    with gzip.open(folder / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images[:count] / 255, labels[:count]


def load(folder: Path, name: str):
    """A model of `MODELS`, its test inputs, their labels, and its outputs for them."""
    model = lqo.load_checkpoint(folder / "checkpoints" / MODELS[name][0])
    inputs, labels = mnist(folder) if name == "smnist" else cifar10(folder)
    return model, inputs, labels, model(inputs)


def compared(logits: np.ndarray, full: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, agreement with the full model and relative rms error of outputs."""
    return {
        "accuracy": float(np.mean(logits.argmax(-1) == labels)),
        "agreement": float(np.mean(logits.argmax(-1) == full.argmax(-1))),
        "logits rms": float(np.sqrt(np.mean((logits - full) ** 2) / np.mean(full**2))),
    }


def table_of(title: str, rows: list[dict]) -> Table:
    """Rows with the same keys as a table."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def title_of(name: str, full: np.ndarray, labels: np.ndarray) -> str:
    """The file of a model and its accuracy before it is reduced."""
    return f"{MODELS[name][0]}: full model {np.mean(full.argmax(-1) == labels):.1%} of {len(labels)}"


def measure(model, full: np.ndarray, inputs, labels, size: int, method: str, horizon: int) -> dict:
    """One row of the table: `model` compressed to `size` states by `method`, as stored in single precision."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # counted in the row
        result = lqo.compress(model, state_size=size, method=method, horizon=horizon)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        result.model.save(Path(folder) / "small.safetensors")
        small = lqo.load_checkpoint(Path(folder) / "small.safetensors")
    errors = np.concatenate(
        [lqo.h2_error(a.ssm, b.ssm, horizon, relative=True, delay=0) for a, b in zip(model.blocks, small.blocks, strict=True)]
    )
    logits = small(inputs)
    return {
        "states": size,
        "method": method,
        "h2 median": float(np.median(errors)),
        "h2 worst": float(np.max(errors)),
        **compared(logits, full, labels),
        "repaired": sum(layer.repaired for layer in result.report.layers),
        "seconds": seconds,
        "ms per channel": 1000 * seconds / sum(block.width for block in model.blocks),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 16, 8])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=150)
    machine = describe("lqo-mor", "numpy", "scipy", "numba")
    console.print(machine)
    rows = []
    for name in arguments.models:
        file, horizon = MODELS[name]
        model, inputs, labels, full = load(arguments.data, name)
        for method in arguments.methods:  # compile outside the clock
            lqo.reduce(model.blocks[0].ssm[:2], slots=4, method=method, horizon=horizon)
        found = [
            measure(model, full, inputs, labels, size, method, horizon)
            for size in arguments.sizes
            for method in arguments.methods
        ]
        rows += [{"checkpoint": file, **row} for row in found]
        console.print(table_of(title_of(name, full, labels), found))
        if arguments.json:
            arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
