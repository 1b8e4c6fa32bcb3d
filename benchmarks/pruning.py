"""Trained S4D checkpoints, pruned by LAST and AIRE-Prune without retraining: accuracy, agreement, error of the logits.

    python -m benchmarks.pruning DATA [--models a b smnist] [--kept 0.5 0.25] [--scores last aire] [--json OUT]

DATA is the folder of `benchmarks.s4d_checkpoints`. Each model is pruned, stored in single precision in the ragged format, which
holds as many slots as each channel uses, and read back before it is evaluated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import lqo_mor as lqo
from benchmarks._pruning import SCORES, pruned
from benchmarks.s4d_checkpoints import MODELS, cifar10, mnist
from lqo_mor.bench.machine import describe


def measure(model, full: np.ndarray, inputs, labels, kept: float, score: str) -> dict:
    """One row of the table: `model` with the fraction `kept` of its slots, as stored in single precision."""
    with tempfile.TemporaryDirectory() as folder:
        pruned(model, kept, score).save(Path(folder) / "small.safetensors", format="ragged")
        small = lqo.load_checkpoint(Path(folder) / "small.safetensors")
    counts = [np.count_nonzero(block.ssm.B[..., 0], axis=-1) for block in small.blocks]
    logits = small(inputs)
    return {
        "kept": kept,
        "score": score,
        "accuracy": float(np.mean(logits.argmax(-1) == labels)),
        "agreement": float(np.mean(logits.argmax(-1) == full.argmax(-1))),
        "logits rms": float(np.sqrt(np.mean((logits - full) ** 2) / np.mean(full**2))),
        "slots": int(np.sum(counts)),
        "per channel": f"{np.min(counts)}..{np.max(counts)}",
        "mean per layer": " ".join(f"{np.mean(count):.1f}" for count in counts),
        "parameters": small.n_parameters,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--kept", nargs="+", type=float, default=[0.67, 0.5, 0.25, 0.125], help="fractions of the slots")
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=["last", "aire"])
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=150)
    machine = describe("lqo-mor", "numpy", "scipy", "numba")
    console.print(machine)
    rows = []
    for name in arguments.models:
        file, _ = MODELS[name]
        model = lqo.load_checkpoint(arguments.data / "checkpoints" / file)
        inputs, labels = mnist(arguments.data) if name == "smnist" else cifar10(arguments.data)
        full = model(inputs)
        table = Table(title=f"{file}: full model {np.mean(full.argmax(-1) == labels):.1%} of {len(labels)}")
        for kept in arguments.kept:
            for score in arguments.scores:
                row = measure(model, full, inputs, labels, kept, score)
                rows.append({"checkpoint": file, **row})
                if not table.columns:
                    for column in row:
                        table.add_column(column, justify="right")
                table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
        console.print(table)
        if arguments.json:
            arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
