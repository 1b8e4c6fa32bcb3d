"""Trained S4D checkpoints compressed with calibration inputs: accuracy, agreement, predicted and true error, and an ablation.

    python -m benchmarks.calibration DATA [--models a b smnist] [--count 256] [--ablation] [--json OUT]

DATA is a folder as for `benchmarks.s4d_checkpoints`. CIFAR-10 is calibrated on its first training images, MNIST on digits evenly
spread over those of the test set behind the 2,000 that accuracies are measured with: its two halves were written by different
people, and a training set has both kinds. Every model is stored in single precision and read back before it is evaluated on the
test images, split ones in the ragged format.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

import lqo_mor as lqo
from benchmarks.s4d_checkpoints import MODELS, cifar10, compared, load, mnist, table_of, title_of
from lqo_mor.bench.machine import describe

FULL = lqo.CalibrationOptions(split=True)
UNIFORM = lqo.CalibrationOptions()
SIZES = ((16, UNIFORM), (16, FULL), (8, FULL), (4, FULL))  # mean states of every channel
LEVERS = ("sensitivity", "sequential", "feedthrough", "mixing", "joint", "split")
NONE = lqo.CalibrationOptions(sensitivity=False, sequential=False, feedthrough=False, mixing=False, joint=False)


def calibration_inputs(folder: Path, model: str, count: int) -> np.ndarray:
    """Sequences that are not among the test images."""
    if model == "smnist":
        images, _ = mnist(folder, None)
        return images[np.linspace(2000, len(images), count, endpoint=False, dtype=int)]
    return cifar10(folder, "train", count)[0]


def measure(model, full, inputs, labels, calibration, size: int, options) -> dict:
    """One row: `model` compressed to a mean of `size` states, as stored in single precision."""
    begin = time.perf_counter()
    result = lqo.compress(model, state_size=size, calibration=calibration, options=options)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        result.model.save(path, format="ragged" if options.split else None)
        logits = lqo.load_checkpoint(path)(inputs)
    right, report, found = np.mean(full.argmax(-1) == labels), result.report, compared(logits, full, labels)
    return {
        "states": size,
        "without": ", ".join(lever for lever in LEVERS if not getattr(options, lever)),
        **found,
        "drop": float(right - found["accuracy"]),
        "predicted": report.predicted_error,
        "predicted / true": None if report.predicted_error is None else report.predicted_error / found["logits rms"],
        "parameters left": report.parameters_after / report.parameters_before,
        "seconds": seconds,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--count", type=int, default=256, help="calibration sequences (default: 256)")
    parser.add_argument("--ablation", action="store_true", help="also without each of the levers, at a mean of 8 states")
    parser.add_argument("--json", type=Path, help="write all rows to this new file")
    arguments = parser.parse_args(argv)
    if arguments.json is not None and arguments.json.exists():
        parser.error(f"{arguments.json} exists already")
    cases = list(SIZES)
    if arguments.ablation:
        cases += [(8, replace(FULL, **{lever: False})) for lever in LEVERS] + [(8, NONE)]
    console, rows = Console(width=140), []
    for name in arguments.models:
        model, inputs, labels, full = load(arguments.data, name)
        calibration, found = calibration_inputs(arguments.data, name, arguments.count), []
        for size, options in cases:
            found.append({"model": name, **measure(model, full, inputs, labels, calibration, size, options)})
            console.print({key: round(value, 4) if isinstance(value, float) else value for key, value in found[-1].items()})
        rows += found
        console.print(table_of(title_of(name, full, labels), found))
    machine = describe("lqo-mor", "numpy", "scipy", "numba")
    console.print(machine, markup=False)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
