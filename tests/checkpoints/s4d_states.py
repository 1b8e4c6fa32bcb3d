"""Small checkpoints in the S4D layout without torch, and stand-ins for reduced models."""

from dataclasses import replace

import numpy as np

from lqo_mor.systems.diagonal import DiagonalLQOSystem


def s4d_state(seed=0, width=3, slots=4, layers=2, features=2, outputs=5, dtype=np.float32):
    rng = np.random.default_rng(seed)
    state = {"encoder.weight": rng.normal(size=(width, features)), "encoder.bias": rng.normal(size=width)}
    for i in range(layers):
        state |= {
            f"s4_layers.{i}.D": rng.normal(size=width),
            f"s4_layers.{i}.kernel.C": rng.normal(size=(width, slots, 2)),
            f"s4_layers.{i}.kernel.log_dt": rng.uniform(-4, -2, width),
            f"s4_layers.{i}.kernel.log_A_real": rng.uniform(-1, 0, (width, slots)),
            f"s4_layers.{i}.kernel.A_imag": np.pi * np.arange(1, slots + 1) * np.ones((width, 1)),
            f"s4_layers.{i}.output_linear.0.weight": rng.normal(size=(2 * width, width, 1)),
            f"s4_layers.{i}.output_linear.0.bias": rng.normal(size=2 * width),
            f"norms.{i}.weight": rng.uniform(0.5, 1.5, width),
            f"norms.{i}.bias": rng.normal(size=width),
        }
    state |= {"decoder.weight": rng.normal(size=(outputs, width)), "decoder.bias": rng.normal(size=outputs)}
    return {key: value.astype(dtype) for key, value in state.items()}


def with_systems(model, *systems):
    """The model with other systems, and the sources kept."""
    blocks = tuple(replace(block, ssm=ssm) for block, ssm in zip(model.blocks, systems, strict=True))
    return replace(model, blocks=blocks)


def awkward_channels(seed, width, slots, D):
    """Channels with pairs, a positive and a negative real pole, a pole at zero, and an empty slot."""
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.5, 0.99, (width, slots)) * np.exp(1j * rng.uniform(-3.0, 3.0, (width, slots)))
    C = rng.normal(size=(width, 1, slots)) + 1j * rng.normal(size=(width, 1, slots))
    poles[0, 0], poles[1, 0], poles[2, 0] = 0.9, -0.7, 0.0
    C[2, 0, 1] = 0.0
    C = np.where((poles.imag == 0)[:, np.newaxis], C.real, C)
    return DiagonalLQOSystem(poles, np.full((width, slots, 1), 0.5), C, D, dt=1.0)
