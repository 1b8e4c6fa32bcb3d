"""Compress the trained IMDb model by every method to every size, and evaluate each on the test reviews.

    python -u -m benchmarks.imdb.compress DATA OUT.json [--methods ...] [--sizes ...] [--test N] [--seeds ...]

DATA is the folder of the two files of `benchmarks.imdb.data`. OUT.json and OUT.csv get a row after every model, and OUT-models/
the compressed checkpoints (float32), which are read back before they are evaluated. The same command goes on with what is
missing; other settings need another file. ``OMP_NUM_THREADS=1`` is fastest on a busy machine.

No test review chooses anything. Calibration reviews are drawn, by a seed, from the training reviews that are not held out; the
bounds are calibrated, and compared with the error, on a few of those held out.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np

import lqo_mor as lqo
from benchmarks.imdb.data import SHA256, Reviews, load_reviews, split_held_out
from benchmarks.imdb.measure import Evaluation, cached_logits, evenly
from benchmarks.imdb.methods import HORIZON, ITERATIONS, METHODS, RANDOM, reduce_model, warm_up
from benchmarks.imdb.results import Results, sha256
from lqo_mor.errors import LQOError

SIZES = (192, 96, 48, 24, 32, 16)  # n/2, n/4, n/8, n/16 of 384 states, and the published 32 and 16
HELD_OUT = 2500  # of the training file, which chose the step of the training
BOUND_REVIEWS = 12
KEY = ("method", "size", "seed", "calibration_count")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_common(parser)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="states of every layer, even")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the draw of the calibration reviews")
    parser.add_argument("--calibration-count", type=int, default=512, help="calibration reviews (default: 512)")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="most steps of the projected gradient")
    return parser.parse_args(arguments)


def add_common(parser: argparse.ArgumentParser) -> None:
    """The arguments that `benchmarks.imdb.studies` has, too."""
    parser.add_argument("data", type=Path, help="folder of imdb_train.tsv.gz and imdb_test.tsv.gz")
    parser.add_argument("out", type=Path, help="JSON file of the results, new or to be continued")
    shipped = Path(str(files("lqo_mor") / "data" / "imdb.safetensors"))
    parser.add_argument("--checkpoint", type=Path, default=shipped, help="the trained model (default: the shipped one)")
    parser.add_argument("--test", default="all", help="so many test reviews, evenly spread, or all (default)")


def test_count(args: argparse.Namespace) -> int | None:
    """The number of test reviews, None for all."""
    if args.test == "all":
        return None
    try:
        count = int(args.test)
    except ValueError:
        count = 0
    if count < 2:
        raise SystemExit(f"--test takes a number of at least 2 or all, got {args.test!r}")
    return count


def common_settings(args: argparse.Namespace) -> dict:
    """What determines the figures of any reduced model."""
    return {
        "checkpoint_sha256": sha256(args.checkpoint),
        "data_sha256": SHA256,
        "horizon": HORIZON,
        "test_reviews": test_count(args) or "all",
        "held_out": HELD_OUT,
        "bound_reviews": BOUND_REVIEWS,
    }


def prepare(args: argparse.Namespace) -> tuple[Evaluation, Reviews, Reviews]:
    """The evaluation, and the training reviews without and with those held out."""
    test = evenly(load_reviews(args.data, "test"), test_count(args))
    training, held_out = split_held_out(load_reviews(args.data, "train"), HELD_OUT)
    windows = test.windows(HORIZON)
    say(f"the full model on {len(test)} reviews, which takes minutes for all of them and is kept for the next time")
    full = cached_logits(args.checkpoint, windows, args.out.resolve().parent)
    model, bound_windows = lqo.load_checkpoint(args.checkpoint), evenly(held_out, BOUND_REVIEWS).windows(HORIZON)
    return Evaluation(args.checkpoint, model, windows, test.labels, bound_windows, full), training, held_out


def calibration_windows(training: Reviews, count: int, seed: int) -> np.ndarray:
    """The windows of evaluation of some training reviews."""
    rows = np.random.default_rng(seed).choice(len(training), count, replace=False)
    return training.take(np.sort(rows)).windows(HORIZON)


def models_folder(out: Path) -> Path:
    """The folder of the compressed checkpoints of a results file."""
    folder = out.with_name(f"{out.stem}-models")
    folder.mkdir(exist_ok=True)
    return folder


def jobs(args: argparse.Namespace) -> list[dict]:
    """The keys of all rows that are wanted."""
    wanted = []
    for size in args.sizes:
        for method in args.methods:
            for seed in args.seeds if method in RANDOM else [None]:
                count = None if seed is None else args.calibration_count
                wanted.append({"method": method, "size": size, "seed": seed, "calibration_count": count})
    return wanted


def main(arguments: list[str] | None = None) -> int:
    """Compute the rows that are missing; 1 if a method failed."""
    args = parse(arguments)
    try:
        results = Results(args.out, common_settings(args) | {"gradient_iterations": args.iterations}, KEY)
        missing = [job for job in jobs(args) if results.find(**job) is None]
        say(f"{len(results.rows)} rows are there, {len(missing)} to come")
        if not missing:
            return 0
        evaluation, training, _ = prepare(args)
    except (LQOError, OSError, ValueError) as err:
        raise SystemExit(f"compress: {err}") from None
    results.extra["full"] = evaluation.facts()
    say(f"full model: {results.extra['full']}")
    warm_up(evaluation.model, dict.fromkeys(job["method"] for job in missing), say)
    folder, failures, begin = models_folder(args.out), 0, time.perf_counter()
    for number, job in enumerate(missing, 1):
        name = "-".join(str(part) for part in job.values() if part is not None)
        calibration = None if job["seed"] is None else calibration_windows(training, job["calibration_count"], job["seed"])
        try:
            reduced = reduce_model(evaluation.model, job["method"], job["size"], calibration, args.iterations)
        except LQOError as err:
            failures += 1
            say(f"[{number}/{len(missing)}] {name} failed: {err}")
            continue
        path = folder / f"{name}.safetensors"
        reduced.model.save(path, overwrite=True)
        row = {**job, **evaluation.measure(path), "repaired": reduced.repaired, "file": path.name}
        results.add(row | {"seconds": reduced.seconds, "cpu_seconds": reduced.cpu_seconds})
        say(
            f"[{number}/{len(missing)}] {name}: {row['accuracy']:.2%} with {row['parameters_left']:.1%} of the parameters; "
            f"reduced in {reduced.seconds:.1f} s, evaluated in {row['evaluation_seconds']:.0f} s, "
            f"{time.perf_counter() - begin:.0f} s so far"
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
