"""Train the small S4D model that ships with the package for ``lqo-mor demo``.

Run ``python -m benchmarks.train_demo`` in the root of the repository. It needs torch, scikit-learn and safetensors, no
network, and takes a few minutes on one core. The 8 x 8 digits of scikit-learn are read as sequences of 64 pixels, row by row.
The test part is set aside with a fixed seed and looked at once, after the training; the epoch that is kept is chosen on a
validation part of the training data.

The loss has a small penalty on the nuclear norms of the kernels' Hankel matrices. Without it (``--hankel 0``) the model is
about as accurate, but the random initial kernels stay in it and every method needs about 16 states per channel instead of 8.
"""

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from tests.s4d_example import S4DModel

DATA = Path(__file__).resolve().parents[1] / "lqo_mor" / "data"
TEST_SIZE = 500
VALIDATION_SIZE = 150
SPLIT_SEED = 0
MODEL = {"d_input": 1, "d_output": 10, "d_model": 48, "n_layers": 3, "d_state": 64}
STEPS = {"dt_min": 0.01, "dt_max": 0.1}
SSM_NAMES = ("log_dt", "log_A_real", "A_imag")


def load_split() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the parts ``train``, ``validation`` and ``test``, each a pair of sequences ``(count, 64, 1)`` and labels."""
    digits = load_digits()
    inputs = (digits.data / 16).astype(np.float32)[..., None]
    labels = digits.target.astype(np.int64)
    index = np.arange(len(labels))
    train, test = train_test_split(index, test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=labels)
    train, validation = train_test_split(train, test_size=VALIDATION_SIZE, random_state=SPLIT_SEED, stratify=labels[train])
    parts = {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}
    return {name: (torch.from_numpy(inputs[rows]), torch.from_numpy(labels[rows])) for name, rows in parts.items()}


def make_optimizer(model: S4DModel, lr: float, ssm_lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW with a smaller rate and no weight decay for steps and state matrices."""
    ssm = [p for name, p in model.named_parameters() if name.rpartition(".")[2] in SSM_NAMES]
    rest = [p for name, p in model.named_parameters() if name.rpartition(".")[2] not in SSM_NAMES]
    return torch.optim.AdamW(
        [{"params": rest}, {"params": ssm, "lr": ssm_lr, "weight_decay": 0.0}], lr, weight_decay=weight_decay
    )


def hankel_penalty(model: S4DModel, length: int) -> torch.Tensor:
    """Return the nuclear norm of the kernels' Hankel matrices: averaged over the channels, added over the layers."""
    half = length // 2
    index = torch.arange(half)[:, None] + torch.arange(length - half + 1)
    norms = [torch.linalg.svdvals(layer.kernel(length)[:, index]).sum(dim=1).mean() for layer in model.s4_layers]
    return torch.stack(norms).sum()


@torch.no_grad()
def evaluate(model: S4DModel, part: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """Return the mean cross entropy and the accuracy on one part."""
    model.eval()
    logits = model(part[0])
    return F.cross_entropy(logits, part[1]).item(), (logits.argmax(dim=1) == part[1]).float().mean().item()


def train(parts: dict[str, tuple[torch.Tensor, torch.Tensor]], args: argparse.Namespace) -> tuple[S4DModel, int]:
    """Train one model; return it as it was at the epoch of the smallest validation loss, and that epoch."""
    torch.manual_seed(args.seed)
    model = S4DModel(**MODEL, dropout=args.dropout, **STEPS)
    optimizer = make_optimizer(model, args.lr, args.ssm_lr, args.weight_decay)
    inputs, labels = parts["train"]
    batches = math.ceil(len(labels) / args.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * batches)
    best = (math.inf, 0, copy.deepcopy(model.state_dict()))
    start = time.perf_counter()
    step = 0
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(labels)).split(args.batch):
            loss = F.cross_entropy(model(inputs[rows]), labels[rows])
            total += loss.item() * len(rows)
            if args.hankel and step % args.hankel_every == 0:
                loss = loss + args.hankel * args.hankel_every * hankel_penalty(model, inputs.shape[1])
            step += 1
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        loss, accuracy = evaluate(model, parts["validation"])
        if loss < best[0]:
            best = (loss, epoch, copy.deepcopy(model.state_dict()))
        print(
            f"epoch {epoch:3d}  train loss {total / len(labels):.4f}  validation loss {loss:.4f}  "
            f"accuracy {100 * accuracy:.1f} %  {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        if epoch - best[1] >= args.patience:
            print(f"no better validation loss for {args.patience} epochs")
            break
    model.load_state_dict(best[2])
    return model, best[1]


def save(model: S4DModel, epoch: int, accuracy: float, test: tuple[torch.Tensor, torch.Tensor], folder: Path) -> None:
    """Write the model and the test sequences."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "s4d", "task": "digits", "norm": "post", "pooling": "mean", "discretization": "zoh"}
    metadata |= {name: str(value) for name, value in MODEL.items()}
    metadata |= {"epoch": str(epoch), "test_accuracy": f"{accuracy:.4f}", "license_of_data": "CC-BY-4.0"}
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    (folder / "demo_digits.safetensors").write_bytes(to_safetensors(state, metadata=metadata))
    np.savez_compressed(folder / "demo_digits.npz", inputs=test[0].numpy(), labels=test[1].numpy().astype(np.uint8))


def main() -> None:
    """Train, report the test accuracy and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--patience", type=int, default=20, help="epochs without a better validation loss before stopping")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--ssm-lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--hankel", type=float, default=0.01, help="weight of the Hankel penalty, 0 for none")
    parser.add_argument("--hankel-every", type=int, default=4, help="steps between two uses of the penalty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DATA, help="folder of the two files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = load_split()
    model, epoch = train(parts, args)
    _, accuracy = evaluate(model, parts["test"])
    print(f"kept epoch {epoch}: test accuracy {100 * accuracy:.1f} % of {TEST_SIZE}")
    save(model, epoch, accuracy, parts["test"], args.out)


if __name__ == "__main__":
    main()
