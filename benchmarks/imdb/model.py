"""The LQO Deep SSM of the IMDb experiment, its regularisers and its evaluation."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.imdb.data import VOCABULARY, Reviews
from lqo_mor.torch import LQODeepSSM, SSMLayer

EVALUATION_BATCH = 125
NORMALISATION_EPS = 1e-5
SLOW_NAMES = ("B", "nu_log", "theta")


class SharedDropout(nn.Module):
    """Dropout on (batch, steps, d) with one mask for all steps."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the shape of `x`."""
        return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p) if self.training and self.p else x


def build_model(width: int, layers: int, slots: int, rank: int, dropout: float, compiled: bool = False) -> LQODeepSSM:
    """The untrained model, whose dropout masks are shared by all steps.

    Parameters
    ----------
    width, layers, slots, rank : int
        Features, blocks, conjugate pairs of states per block and rank of its quadratic output.
    dropout : float
        Dropout probability in training.
    compiled : bool
        Compile the blocks, which needs a C++ compiler.

    Returns
    -------
    LQODeepSSM
        With random parameters.
    """
    model = LQODeepSSM(
        vocabulary=VOCABULARY,
        n_outputs=2,
        width=width,
        n_layers=layers,
        n_slots=slots,
        quadratic_rank=rank,
        dropout=dropout,
    )
    if compiled:
        torch._dynamo.config.recompile_limit = 64  # blocks and window lengths share one code object
    for block in model.blocks:
        block.dropout = SharedDropout(dropout)
        if compiled:
            block.ssm.row_signals = torch.compiler.disable(block.ssm.row_signals)  # complex numbers gain nothing
            block.compile(dynamic=False)
    return model


def parameter_counts(model: LQODeepSSM) -> dict[str, int]:
    """Trainable parameters of the model, and of the systems inside it."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return {"all": sum(sizes.values()), "state_space": sum(size for name, size in sizes.items() if ".ssm." in name)}


def mode_norms(ssm: SSMLayer) -> Tensor:
    """H2 norm of each mode's contribution to the outputs, the quadratic rows weighted by the columns of W."""
    inputs = ssm.B.square().sum(dim=(1, 2))
    outputs = ssm.C.square().sum(dim=(0, 2))
    if ssm.has_quadratic:
        outputs = outputs + torch.linalg.vector_norm(ssm.W, dim=0) @ (ssm.U.square() + ssm.V.square()).sum(dim=2)
    return torch.sqrt(inputs * outputs / -torch.expm1(-2 * torch.exp(ssm.nu_log)) + 1e-12)


def make_optimizer(modules: nn.Module, lr: float, slow_lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with another rate for some parameters of the systems, and no weight decay for poles, vectors and embedding.

    Parameters
    ----------
    modules : nn.Module
        The model and what is trained with it.
    lr, slow_lr : float
        Learning rates; the second one is for poles and input matrices.
    weight_decay : float
        Of all other matrices.

    Returns
    -------
    torch.optim.AdamW
        Each group keeps its rate under ``"base"`` for a schedule.
    """
    groups: dict[tuple[float, float], list] = {}
    for name, p in modules.named_parameters():
        last = name.rpartition(".")[2]
        rate = slow_lr if last in SLOW_NAMES else lr
        decay = 0.0 if p.ndim == 1 or "encoder" in name else weight_decay
        groups.setdefault((rate, decay), []).append(p)
    return torch.optim.AdamW(
        [{"params": ps, "lr": rate, "base": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]
    )


def normalised(features: Tensor) -> Tensor:
    """Features (batch, d) with mean 0 and variance 1 over the batch."""
    return F.batch_norm(features, None, None, training=True, eps=NORMALISATION_EPS)


@torch.no_grad()
def outputs(model: LQODeepSSM, reviews: Reviews, steps: int) -> Tensor:
    """Outputs for the windows of evaluation, without dropout.

    Parameters
    ----------
    model : LQODeepSSM
        In any mode.
    reviews : Reviews
        Inputs.
    steps : int
        Length of the windows.

    Returns
    -------
    Tensor, shape (reviews, n_outputs)
        Logits of a classifier.
    """
    training = model.training
    model.eval()
    batches = np.array_split(np.arange(len(reviews)), -(-len(reviews) // EVALUATION_BATCH))
    values = torch.cat([model(torch.from_numpy(reviews.take(rows).windows(steps)).long()) for rows in batches])
    model.train(training)
    return values


def evaluate(model: LQODeepSSM, reviews: Reviews, steps: int) -> tuple[float, float]:
    """Mean cross entropy and accuracy on the windows of evaluation; the parameters are those of `outputs`."""
    logits, labels = outputs(model, reviews, steps), torch.from_numpy(reviews.labels)
    return F.cross_entropy(logits, labels).item(), (logits.argmax(dim=1) == labels).float().mean().item()


def absorb_normalisation(model: LQODeepSSM, reviews: Reviews, steps: int) -> None:
    """Turn a decoder of normalised means over time into one of the means themselves, in place.

    Parameters
    ----------
    model : LQODeepSSM
        Its decoder was trained on features normalised over the batch.
    reviews : Reviews
        Reviews whose features, without dropout, give mean and variance.
    steps : int
        Length of the windows.
    """
    decoder, model.decoder = model.decoder, nn.Identity()
    features = outputs(model, reviews, steps)
    model.decoder = decoder
    with torch.no_grad():
        decoder.weight /= torch.sqrt(features.var(dim=0) + NORMALISATION_EPS)
        decoder.bias -= decoder.weight @ features.mean(dim=0)


def without_quadratic_part(model: LQODeepSSM) -> LQODeepSSM:
    """A copy whose quadratic outputs are zero."""
    linear = copy.deepcopy(model)
    for block in linear.blocks:
        block.ssm.W.data.zero_()
    return linear
