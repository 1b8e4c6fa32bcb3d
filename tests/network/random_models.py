"""Small random models, and the forward pass as naive loops."""

import math

import numpy as np

from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import Embedding, LayerNorm, Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput


def complex_normal(rng, shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def random_poles(rng, shape):
    """Stable poles, the first slot of each system real and positive, the second real and negative."""
    poles = rng.uniform(0.2, 0.95, shape) * np.exp(1j * rng.uniform(0.05, 3.0, shape))
    poles[..., 0] = 0.8
    if shape[-1] > 1:
        poles[..., 1] = -0.6
    return poles


def random_system(rng, batch, slots, inputs, outputs, rank):
    poles = random_poles(rng, (*batch, slots))
    real = poles.imag == 0

    def columns(*shape):
        array = complex_normal(rng, shape)
        return np.where(real[..., None, :], array.real, array)

    B = columns(*batch, inputs, slots).swapaxes(-1, -2)
    quadratic = None
    if rank:
        W = rng.normal(size=(*batch, outputs, rank))
        quadratic = QuadraticOutput(columns(*batch, rank, slots), columns(*batch, rank, slots), W)
    D = rng.normal(size=(*batch, outputs, inputs))
    return DiagonalLQOSystem(poles, B, columns(*batch, outputs, slots), D, quadratic, dt=1.0)


def random_model(
    rng,
    *,
    mimo=False,
    rank=0,
    prenorm=False,
    activation="gelu",
    gate="glu",
    pooling="mean",
    tokens=None,
    width=3,
    slots=4,
    layers=2,
):
    def linear(outputs, inputs):
        return Linear(rng.normal(size=(outputs, inputs)) / np.sqrt(inputs), rng.normal(size=outputs))

    def norm():
        return LayerNorm(rng.uniform(0.5, 1.5, width), rng.normal(size=width))

    blocks = tuple(
        Block(
            name=f"layer {i}",
            ssm=random_system(rng, () if mimo else (width,), slots, width if mimo else 1, width if mimo else 1, rank),
            mixing=linear(2 * width if gate else width, width),
            norm=norm(),
            prenorm=prenorm,
            activation=activation,
            gate=gate,
        )
        for i in range(layers)
    )
    encoder = linear(width, 2) if tokens is None else Embedding(rng.normal(size=(tokens, width)))
    return DeepSSM(encoder, blocks, linear(5, width), norm() if prenorm else None, pooling)


def naive_system(ssm, v):
    """Response (steps, outputs) to `v` (steps, inputs), one complex state at a time; the output reads the new state."""
    if ssm.batch:
        return np.concatenate([naive_system(ssm[h], v[:, h : h + 1]) for h in range(ssm.batch[0])], axis=1)
    factor = np.where(ssm.poles.imag == 0, 1.0, 2.0)
    x, outputs = np.zeros(ssm.n_slots, complex), []
    for vk in v:
        x = ssm.poles * x + ssm.B @ vk
        y = (ssm.C @ (factor * x)).real + ssm.D @ vk
        if ssm.M is not None:
            q = ssm.M
            y = y + q.W @ ((q.U @ (factor * x)).real * (q.V @ (factor * x)).real)
        outputs.append(y)
    return np.array(outputs)


def naive_norm(norm, x):
    return norm.weight * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps) + norm.bias


def naive_forward(model, u):
    """The model on one sequence (steps, features)."""
    functions = {
        "gelu": np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "relu": lambda x: np.maximum(x, 0),
        "identity": lambda x: x,
    }
    encoder = model.encoder
    x = encoder.weight[u] if isinstance(encoder, Embedding) else u @ encoder.weight.T + encoder.bias
    for block in model.blocks:
        z = naive_norm(block.norm, x) if block.prenorm else x
        z = functions[block.activation](naive_system(block.ssm, z))
        z = z @ block.mixing.weight.T + block.mixing.bias
        if block.gate == "glu":
            a, b = np.split(z, 2, axis=-1)
            z = a / (1 + np.exp(-b))
        x = x + z
        if not block.prenorm:
            x = naive_norm(block.norm, x)
    if model.norm is not None:
        x = naive_norm(model.norm, x)
    if model.pooling == "mean":
        x = x.mean(0)
    elif model.pooling == "last":
        x = x[-1]
    return x @ model.decoder.weight.T + model.decoder.bias
