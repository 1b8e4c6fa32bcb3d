"""The published methods that need no training beside ours, on trained S4D checkpoints: accuracy, agreement, error of the logits.

    python -m benchmarks.published DATA [--models a b smnist] [--kept 0.25 0.125] [--methods ...] [--count 256] [--json OUT]

DATA is the folder of `benchmarks.s4d_checkpoints`, the calibration inputs are those of `benchmarks.calibration`. LAST and
AIRE-Prune remove states; "bound" is arXiv:2510.14542, states split over the layers by a bound on the model's error for 16 of the
calibration inputs (for all inputs the weight of the first layer is infinite: what these models read is not bounded) and layers
reduced by its projected gradient; "uniform" and "split" are calibrated. Every model is stored in single precision, in the ragged
format where channels differ, and read back.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console

import lqo_mor as lqo
from benchmarks._pruning import pruned
from benchmarks.calibration import FULL, UNIFORM, calibration_inputs
from benchmarks.s4d_checkpoints import MODELS, compared, load, table_of, title_of
from lqo_mor.bench.machine import describe
from lqo_mor.errors import StabilityWarning

METHODS = ("last", "aire", "bound", "uniform", "split")


def reduced(model, kept: float, method: str, horizon: int, calibration: np.ndarray):
    """The model with the fraction `kept` of its states, and the format that it is stored in."""
    if method in ("last", "aire"):
        return pruned(model, kept, method), "ragged"
    if method == "bound":
        return lqo.compress(model, keep=kept, allocation="bound", horizon=horizon, calibration=calibration[:16]).model, "ragged"
    split = method == "split"
    result = lqo.compress(model, keep=kept, calibration=calibration, options=FULL if split else UNIFORM)
    return result.model, "ragged" if split else "s4d"


def measure(model, full: np.ndarray, inputs, labels, kept: float, method: str, horizon: int, calibration) -> dict:
    """One row of the table: `model` with the fraction `kept` of its states, as stored in single precision."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        small, form = reduced(model, kept, method, horizon, calibration)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        small.save(Path(folder) / "small.safetensors", format=form)
        small = lqo.load_checkpoint(Path(folder) / "small.safetensors")
    counts = [np.count_nonzero(block.ssm.B[..., 0], axis=-1) for block in small.blocks]
    logits = small(inputs)
    return {
        "kept": kept,
        "method": method,
        **compared(logits, full, labels),
        "slots": int(np.sum(counts)),
        "mean per layer": " ".join(f"{np.mean(count):.1f}" for count in counts),
        "parameters": small.n_parameters,
        "seconds": seconds,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--kept", nargs="+", type=float, default=[0.25, 0.125], help="fractions of the states")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--count", type=int, default=256, help="calibration sequences (default: 256)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=150)
    machine = describe("lqo-mor", "numpy", "scipy", "numba")
    console.print(machine)
    rows = []
    for name in arguments.models:
        file, horizon = MODELS[name]
        model, inputs, labels, full = load(arguments.data, name)
        calibration, found = calibration_inputs(arguments.data, name, arguments.count), []
        for kept in arguments.kept:
            for method in arguments.methods:
                found.append(measure(model, full, inputs, labels, kept, method, horizon, calibration))
                console.print(found[-1])
        rows += [{"checkpoint": file, **row} for row in found]
        console.print(table_of(title_of(name, full, labels), found))
        if arguments.json:
            arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
