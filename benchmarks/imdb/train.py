"""Train an LQO Deep SSM on the bytes of the IMDb reviews, for the compression experiment.

Run ``python -m benchmarks.imdb.train DATA OUT`` in the root of the repository; DATA is the folder of the two files of
`benchmarks.imdb.data`, OUT gets the checkpoint, the trained model and its record. It needs torch and safetensors, no GPU
and no network. An interrupted run goes on from its checkpoint when the same command is given again, exactly as it would
have without the interruption if its length is given by ``--steps``; with ``--minutes`` the schedule follows the clock.

The state is large and the width small, so that nearly all parameters belong to the state-space part. The training takes
short random windows of the reviews first, then longer ones. Two terms are added to the cross entropy of the classes:

- The prediction of the next byte from the features before the mean over time, with a weight that falls to 0 (``--next-byte``).
  Its linear map is not part of the model. It shortens the time at chance, which is long from labels alone.
- The sum over all modes of the H2 norms of their contributions to the rows C, U and V, with a weight that grows from 0
  (``--modes``). Like a lasso on the modes it drives those to zero that the classes do not need.

The means over time differ little between reviews, so that the decoder alone would learn slowly: in training they are
normalised over the batch (without trainable parameters). For evaluation mean and variance of the features are those of a
part of the training data, without dropout (running averages over training steps would be off), and the decoder absorbs them.

The step that is kept has the smallest loss on a held-out part of the training file. The test file is read once, at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.imdb.data import SEPARATOR, SHA256, VOCABULARY, Reviews, load_reviews, split_held_out
from benchmarks.imdb.model import (
    absorb_normalisation,
    build_model,
    evaluate,
    make_optimizer,
    mode_norms,
    normalised,
    parameter_counts,
    without_quadratic_part,
)
from lqo_mor.checkpoints.structures.lqo_model import check_config
from lqo_mor.torch import LQODeepSSM

PLACES = 255  # at so many places of a window the next byte is predicted
CALIBRATION_STRIDE = 10  # every tenth review of the training part gives the statistics that the decoder absorbs
MODEL_FILE, CHECKPOINT_FILE, RECORD_FILE = "imdb.safetensors", "checkpoint.pt", "imdb.json"


class Training:
    """A run that can be stopped after any step and continued from its checkpoint.

    Parameters
    ----------
    args : argparse.Namespace
        The options of the command line.
    reviews : Reviews
        The part for training.
    """

    def __init__(self, args: argparse.Namespace, reviews: Reviews):
        torch.manual_seed(args.seed)
        self.args, self.reviews = args, reviews
        self.calibration = reviews.take(np.arange(0, len(reviews), CALIBRATION_STRIDE))
        self.model = build_model(args.width, args.layers, args.slots, args.rank, args.dropout, args.compile)
        self.next_byte = nn.Linear(args.width, VOCABULARY)
        self.modules = nn.ModuleList([self.model, self.next_byte])
        self.optimizer = make_optimizer(self.modules, args.lr, args.slow_lr, args.weight_decay)
        self.rng = np.random.default_rng(args.seed)
        self.order, self.position = self.rng.permutation(len(reviews)), 0
        self.step, self.seen, self.seconds = 0, 0, 0.0
        self.history: list[dict] = []
        self.best: dict = {"loss": math.inf, "step": 0, "state": None}

    @property
    def progress(self) -> float:
        """Part of the run that is done, between 0 and 1."""
        done = self.step / self.args.steps if self.args.steps else self.seconds / (60 * self.args.minutes)
        return min(done, 1.0)

    @property
    def window(self) -> int:
        """Present length of the windows."""
        ends = np.cumsum(self.args.shares) / np.sum(self.args.shares)
        return self.args.lengths[min(int(np.searchsorted(ends, self.progress, side="right")), len(ends) - 1)]

    def _batch(self) -> tuple[Tensor, Tensor]:
        if self.position + self.args.batch > len(self.order):
            self.order, self.position = self.rng.permutation(len(self.reviews)), 0
        part = self.reviews.take(self.order[self.position : self.position + self.args.batch])
        self.position += self.args.batch
        return torch.from_numpy(part.windows(self.window, self.rng)).long(), torch.from_numpy(part.labels)

    def _loss(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, and its terms."""
        args, model = self.args, self.model
        x = model.encoder(tokens.masked_fill(torch.rand(tokens.shape) < args.byte_dropout, SEPARATOR))
        for block in model.blocks:
            x = block(x)
        x = model.norm(x)
        classes = model.decoder(normalised(x.mean(dim=1)))
        loss = F.cross_entropy(classes, labels, label_smoothing=args.label_smoothing)
        terms = {"classes": loss.item()}
        if args.next_byte:
            places = torch.randperm(tokens.shape[1] - 1)[:PLACES]
            following = F.cross_entropy(self.next_byte(x[:, places]).flatten(0, 1), tokens[:, places + 1].flatten())
            loss = loss + args.next_byte * (1 - self.progress) ** 2 * following
            terms["next_byte"] = following.item()
        if args.modes:
            modes = torch.stack([mode_norms(block.ssm).sum() for block in model.blocks]).sum()
            loss = loss + args.modes * min(max((self.progress - 0.3) / 0.4, 0.0), 1.0) * modes
            terms["modes"] = modes.item()
        return loss, terms

    def advance(self) -> dict[str, float]:
        """One step of the optimiser; the terms of its loss."""
        start = time.monotonic()
        factor = min((self.step + 1) / self.args.warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * self.progress))
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["base"]
        loss, terms = self._loss(*self._batch())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.seen += self.args.batch
        self.seconds += time.monotonic() - start
        return terms

    def plain_model(self) -> LQODeepSSM:
        """A copy of the model with the normalisation as a part of its decoder."""
        model = LQODeepSSM(**check_config({"config": self.model.config}))
        model.load_state_dict(self.model.state_dict())
        absorb_normalisation(model, self.calibration, self.args.lengths[-1])
        return model

    def validate(self, held_out: Reviews, terms: dict[str, float]) -> dict:
        """Evaluate on the held-out part, note the result and keep the parameters if they are the best yet."""
        start = time.monotonic()
        model = self.plain_model()
        loss, accuracy = evaluate(model, held_out, self.args.lengths[-1])
        if loss < self.best["loss"]:
            self.best = {"loss": loss, "step": self.step, "state": model.state_dict()}
        entry = {"step": self.step, "window": self.window, "passes": self.seen / len(self.reviews)}
        entry |= {f"train_{name}": value for name, value in terms.items()}
        self.seconds += time.monotonic() - start
        self.history.append(entry | {"held_out_loss": loss, "held_out_accuracy": accuracy, "minutes": self.seconds / 60})
        return self.history[-1]

    @property
    def exhausted(self) -> bool:
        """Whether the held-out loss has not fallen for as many evaluations as allowed, at the full length."""
        late = [entry for entry in self.history if entry["window"] == self.args.lengths[-1] and entry["step"] > self.best["step"]]
        return len(late) >= self.args.patience

    def save(self, path: Path) -> None:
        """Write the checkpoint; the file changes completely or not at all."""
        kept = {name: getattr(self, name) for name in ("position", "step", "seen", "seconds", "history", "best")}
        state = {
            "settings": settings(self.args),
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": torch.from_numpy(self.order),
            "rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state | kept, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of a run with the same settings."""
        state = torch.load(path, weights_only=True)
        if state["settings"] != settings(self.args):
            raise SystemExit(f"{path.name} belongs to a run with other settings; choose another folder")
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order = state["order"].numpy()
        self.rng.bit_generator.state = json.loads(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        for name in ("position", "step", "seen", "seconds", "history", "best"):
            setattr(self, name, state[name])


def settings(args: argparse.Namespace) -> dict:
    """The options that determine the result."""
    return {name: value for name, value in vars(args).items() if name not in ("data", "out", "compile", "threads", "no_test")}


def fit(training: Training, held_out: Reviews, folder: Path) -> None:
    """Train until the end of the schedule or an early stop, with a checkpoint after every evaluation."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("", total=1.0)
        while training.progress < 1 and not training.exhausted:
            terms = training.advance()
            text = f"step {training.step}, {training.window} long, loss {terms['classes']:.3f}"
            progress.update(task, completed=training.progress, description=text)
            if training.step % training.args.evaluate_every == 0 or training.progress == 1:
                entry = training.validate(held_out, terms)
                training.save(folder / CHECKPOINT_FILE)
                values = "  ".join(f"{name} {value:.4g}" for name, value in entry.items())
                progress.console.print(values, soft_wrap=True)


def report(training: Training, model: LQODeepSSM, held_out: Reviews) -> dict:
    """The record of a run, with the results of the model that is kept."""
    args = training.args
    packages = {name: version(name) for name in ("torch", "numpy", "safetensors", "lqo_mor")}
    results = {"held_out": evaluate(model, held_out, args.lengths[-1])}
    if not args.no_test:
        test, linear = load_reviews(args.data, "test"), without_quadratic_part(model)
        results["test"] = evaluate(model, test, args.lengths[-1])
        results["test_without_quadratic_part"] = evaluate(linear, test, args.lengths[-1])
    return {
        "settings": settings(args),
        "parameters": parameter_counts(model),
        "results": {name: {"loss": loss, "accuracy": accuracy} for name, (loss, accuracy) in results.items()},
        "kept_step": training.best["step"],
        "steps": training.step,
        "minutes": training.seconds / 60,
        "versions": packages | {"python": platform.python_version()},
        "data_sha256": SHA256,
        "history": training.history,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of imdb_train.tsv.gz and imdb_test.tsv.gz")
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=75, help="time of the training, which the schedule follows")
    parser.add_argument("--steps", type=int, help="optimiser steps instead, for a run that does not depend on the clock")
    parser.add_argument("--width", type=int, default=24, help="features")
    parser.add_argument("--layers", type=int, default=4, help="blocks")
    parser.add_argument("--slots", type=int, default=192, help="conjugate pairs of states of each block")
    parser.add_argument("--rank", type=int, default=8, help="rank of each quadratic output")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024], help="windows, the last one for evaluation")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.15, 0.25, 0.6], help="parts of the run for the windows")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--slow-lr", type=float, default=1e-3, help="for poles and input matrices")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=int, default=100, help="steps until the full rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--byte-dropout", type=float, default=0.03, help="part of the bytes that is hidden in training")
    parser.add_argument("--label-smoothing", type=float, default=0.05)
    parser.add_argument("--next-byte", type=float, default=1.0, help="weight of the prediction of the next byte at the start")
    parser.add_argument("--modes", type=float, default=5e-4, help="weight of the sum of the modes' H2 norms at the end")
    parser.add_argument("--held-out", type=int, default=2500, help="reviews of the training file that choose the step kept")
    parser.add_argument("--evaluate-every", type=int, default=300, help="steps between two evaluations")
    parser.add_argument("--patience", type=int, default=8, help="evaluations without a better held-out loss before stopping")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile the blocks; needs a C++ compiler")
    parser.add_argument("--no-test", action="store_true", help="leave the test file alone, to compare settings")
    return parser.parse_args(arguments)


def main() -> None:
    """Train, evaluate once on the test file and write the model and the record."""
    args = parse()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    train_part, held_out = split_held_out(load_reviews(args.data, "train"), args.held_out)
    training = Training(args, train_part)
    if (args.out / CHECKPOINT_FILE).exists():
        training.restore(args.out / CHECKPOINT_FILE)
    fit(training, held_out, args.out)
    model = LQODeepSSM(**check_config({"config": training.model.config}))
    model.load_state_dict(training.best["state"])
    model.save(args.out / MODEL_FILE, overwrite=True)
    record = report(training, model, held_out)
    (args.out / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, result in record["results"].items():
        print(f"{name}: {100 * result['accuracy']:.2f} %")


if __name__ == "__main__":
    main()
