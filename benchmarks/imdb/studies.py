"""The open questions of arXiv:2510.14542, answered by measurements on the trained IMDb model.

    python -u -m benchmarks.imdb.studies DATA OUT.json [--only layers rank eps stability] [--test N]

- layers: one layer at a time reduced, the others full. Which layers matter most?
- rank: fewer products in the quadratic outputs. How is the rank parameter c to be chosen?
- eps: another ε in the normalisations. What does it do to the bound and to the model?
- stability: which orders make TLBT and TLH2 unstable, and what does the repair cost?

OUT.json and OUT.csv get a row after every case, and the same command goes on with what is missing. Tables and plots are those of
`benchmarks.imdb.tables`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import lqo_mor as lqo
from benchmarks.imdb.compress import add_common, calibration_windows, common_settings, models_folder, prepare, say
from benchmarks.imdb.data import Reviews
from benchmarks.imdb.measure import Evaluation, bounds, evenly
from benchmarks.imdb.methods import HORIZON, reduce_model
from benchmarks.imdb.rank import measured_moments, white_moments, with_rank
from benchmarks.imdb.results import Results
from benchmarks.imdb.stability import orders_study
from lqo_mor.errors import LQOError

STUDIES = ("layers", "rank", "eps", "stability")
LAYER_SIZES = (48, 24)
EPS_FACTORS = (0.0, 1e-2, 1.0, 1e2, 1e3, 1e4, 1e5)
EPS_REVIEWS = 500  # held-out training reviews
EPS_SIZE = 192
STABILITY_ORDERS = (8, 16, 24, 32, 48, 64, 96)
MOMENT_REVIEWS = 256  # training reviews that measure the products
KEY = ("study", "case")


def layers(evaluation: Evaluation, folder: Path, known: Results) -> Iterator[dict]:
    """One layer at a time: what is lost, also per unit of h2 error."""
    model = evaluation.model
    for size in LAYER_SIZES:
        small = None
        for i, block in enumerate(model.blocks):
            case = f"{block.name} to {size}"
            if known.find(study="layers", case=case):
                continue
            small = reduce_model(model, "optimal", size) if small is None else small
            blocks = tuple(small.model.blocks[j] if j == i else other for j, other in enumerate(model.blocks))
            path = folder / f"layer-{i}-{size}.safetensors"
            replace(model, blocks=blocks).save(path, overwrite=True)
            row = evaluation.measure(path)
            absolute = float(lqo.h2_error(block.ssm, blocks[i].ssm, HORIZON, delay=0))
            moved = {"h2_absolute": absolute, "rms_per_h2": row["logits_rms"] / absolute}
            yield {"case": case, "layer": block.name, "size": size, **moved, **row}


def rank(evaluation: Evaluation, folder: Path, known: Results, training: Reviews) -> Iterator[dict]:
    """Fewer products in every layer, chosen by their power for white and for measured signals."""
    model = evaluation.model
    most = model.blocks[0].ssm.M.rank
    for kind in ("measured", "white"):
        moments = None
        for count in range(most):
            case = f"{kind}, rank {count}"
            if known.find(study="rank", case=case) or (kind == "white" and count == 0):  # no product is no product
                continue
            if moments is None and kind == "white":
                moments = [white_moments(block) for block in model.blocks]
            elif moments is None:
                moments = measured_moments(model, calibration_windows(training, MOMENT_REVIEWS, 0))
            blocks, kept, lost = zip(*(with_rank(b, G, count) for b, G in zip(model.blocks, moments, strict=True)), strict=True)
            path = folder / f"rank-{kind}-{count}.safetensors"
            replace(model, blocks=blocks).save(path, overwrite=True)
            yield {"case": case, "kind": kind, "rank": count, "kept": kept, "lost": lost, **evaluation.measure(path)}


def eps(evaluation: Evaluation, known: Results, held_out: Reviews) -> Iterator[dict]:
    """The ε of all normalisations multiplied by some factors, in the full and in a reduced model."""
    model, reviews = evaluation.model, evenly(held_out, EPS_REVIEWS)
    windows, small, plain = reviews.windows(HORIZON), None, None
    for factor in EPS_FACTORS:
        case = f"eps times {factor:g}"
        if known.find(study="eps", case=case):
            continue
        if small is None:
            small, plain = reduce_model(model, "optimal", EPS_SIZE).model, model(windows)
        changed, reduced = with_eps(model, factor), with_eps(small, factor)
        logits, after = changed(windows), reduced(windows)
        yield {
            "case": case,
            "eps": changed.norm.eps,
            "size": EPS_SIZE,
            "accuracy": float(np.mean(logits.argmax(1) == reviews.labels)),
            "changed_rms": float(np.linalg.norm(logits - plain) / np.linalg.norm(plain)),
            "logits_rms": float(np.linalg.norm(after - logits) / np.linalg.norm(logits)),
            **bounds(changed, reduced, evaluation.bound_windows),
        }


def with_eps(model: lqo.DeepSSM, factor: float) -> lqo.DeepSSM:
    """The model with the ε of every normalisation multiplied by a factor."""

    def scaled(norm):
        return None if norm is None else replace(norm, eps=factor * norm.eps)

    blocks = tuple(replace(block, norm=scaled(block.norm)) for block in model.blocks)
    return replace(model, blocks=blocks, norm=scaled(model.norm))


def stability(evaluation: Evaluation, known: Results) -> Iterator[dict]:
    """TLBT and TLH2 without repair."""
    for block in evaluation.model.blocks:
        cases = [f"{block.name} {method} {order}" for order in STABILITY_ORDERS for method in ("balanced", "tsia")]
        if all(known.find(study="stability", case=case) for case in cases):
            continue
        for row in orders_study(block, STABILITY_ORDERS):
            case = f"{block.name} {row['method']} {row['order']}"
            if not known.find(study="stability", case=case):
                yield {"case": case, **row}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common(parser)
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Compute the rows that are missing."""
    args = parse(arguments)
    try:
        results = Results(args.out, common_settings(args), KEY)
        evaluation, training, held_out = prepare(args)
    except (LQOError, OSError, ValueError) as err:
        raise SystemExit(f"studies: {err}") from None
    results.extra["full"] = evaluation.facts()
    folder = models_folder(args.out)
    runs = {
        "layers": lambda: layers(evaluation, folder, results),
        "rank": lambda: rank(evaluation, folder, results, training),
        "eps": lambda: eps(evaluation, results, held_out),
        "stability": lambda: stability(evaluation, results),
    }
    for name in args.only:
        for row in runs[name]():
            results.add({"study": name, **row})
            shown = ("accuracy", "agreement", "logits_rms", "observed_error", "unstable", "unstable_poles", "error")
            values = ", ".join(f"{key} {row[key]:.4g}" for key in shown if row.get(key) is not None)
            say(f"{name}: {row['case']}: {values}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
