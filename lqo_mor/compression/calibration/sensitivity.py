"""How much the model's output moves with the output of every system, by one backward pass."""

from __future__ import annotations

import numpy as np

from lqo_mor.network.backward import decode_backward, pass_model
from lqo_mor.network.model import DeepSSM
from lqo_mor.network.signals import ends, system_map


def layer_signals(
    model: DeepSSM, u: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """What the systems of all blocks read, the gradients of random combinations of outputs by theirs, and the last features.

    Parameters
    ----------
    model : DeepSSM
        Its systems are batches of linear channels, or single ones of any kind.
    u : (batch, steps, ...) ndarray
        Inputs, as the model takes them.
    rng : numpy.random.Generator, optional
        Draws the directions, standard normal for every sequence (and step, without pooling); no gradients without it.

    Returns
    -------
    read, gradients : list of (width, batch, steps) ndarray
    features : (width, batch, steps) ndarray
    """
    decoder, maps = ends(model)[1], (system_map(block.ssm, u.shape[1]) for block in model.blocks)
    x, passed = pass_model(model, u, maps)
    read = [kept.read for kept in passed]
    if rng is None:
        return read, [], x
    shape = x.shape[1:] if model.pooling is None else x.shape[1:2]
    gradient, gradients = decode_backward(model, x, rng.normal(size=(*shape, decoder.n_outputs))), []
    for kept in reversed(passed):
        gradient, own, _ = kept.backward(gradient)
        gradients.append(own)
    return read, gradients[::-1], x
