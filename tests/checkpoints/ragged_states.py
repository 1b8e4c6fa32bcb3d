"""Models whose channels have different numbers of slots."""

import numpy as np

from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from tests.checkpoints.s4d_states import s4d_state, with_systems

WIDTH, SLOTS = 5, 6


def ragged_channels(seed, counts, n_slots=SLOTS):
    """Channels with so many used slots, in any place; pairs and real poles of both signs."""
    rng = np.random.default_rng(seed)
    shape = (len(counts), n_slots)
    poles = rng.uniform(0.3, 0.999, shape) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    C = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    real = rng.random(shape) < 0.4
    poles = np.where(real, np.abs(poles) * rng.choice([-1, 1], shape), poles)
    used = rng.permuted(np.arange(n_slots) < np.array(counts)[:, np.newaxis], axis=1)
    poles, C = np.where(used, poles, 0.5), np.where(used, np.where(real, C.real, C), 0)
    D = rng.normal(size=(len(counts), 1, 1))
    return DiagonalLQOSystem(poles, 0.7 * used[..., np.newaxis], C[:, np.newaxis], D, dt=1.0)


def s4d_model(folder, dtype=np.float32, prenorm=False, **sizes):
    write_file(folder / "s4d.npz", s4d_state(width=WIDTH, slots=SLOTS, dtype=dtype, **sizes), None, {"acc": 86.18, "epoch": 43})
    return load_checkpoint(folder / "s4d.npz", settings={"prenorm": prenorm})


COUNTS = ((3, 0, 6, 1, 2), (2, 2, 0, 5, 0))


def ragged_model(folder, dtype=np.float32, prenorm=False, counts=COUNTS):
    model = s4d_model(folder, dtype, prenorm, layers=len(counts))
    return with_systems(model, *(ragged_channels(i, count) for i, count in enumerate(counts)))
