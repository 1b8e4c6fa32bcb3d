"""Fewer products in the quadratic outputs of a model: which to keep, and what is lost.

The quadratic output of a layer is ``W z`` with the products ``z_j = (u_j x)(v_j x)``. For the second moments
``G = E[z zᵀ]`` of the products, the best `W` on some of them, `S`, has the error ``tr W (G − G_:S G_SS⁻¹ G_S:) Wᵀ``. With 8
products the best subset is found by trying all. For white inputs and deviations from the mean that is the h2 error of the
quadratic part.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

import lqo_mor as lqo
from benchmarks.imdb.methods import HORIZON
from lqo_mor.network.blocks import Block, block_input, block_output
from lqo_mor.network.signals import encode, system_map

_BATCH = 32


def white_moments(block: Block) -> np.ndarray:
    """Second moments (c, c) of the products for white inputs, up to a common factor; without those of their means."""
    dense = lqo.to_dense(block.ssm)
    P = lqo.controllability_gramian(dense, HORIZON)
    U, V = dense.M.U, dense.M.V
    uu, uv, vv = U @ P @ U.T, U @ P @ V.T, V @ P @ V.T
    return 0.5 * (uu * vv + uv * uv.T)


def measured_moments(model: lqo.DeepSSM, windows: np.ndarray) -> list[np.ndarray]:
    """Second moments (c, c) of the products of every block on some inputs."""
    totals = [np.zeros((block.ssm.M.rank,) * 2) for block in model.blocks]
    whole = [system_map(block.ssm, windows.shape[1]) for block in model.blocks]
    rows = [system_map(_rows(block.ssm), windows.shape[1]) for block in model.blocks]
    for start in range(0, len(windows), _BATCH):
        x = encode(model.encoder, windows[start : start + _BATCH])
        for block, layer, read, total in zip(model.blocks, whole, rows, totals, strict=True):
            v = block_input(block, x)
            u_rows, v_rows = np.split(read(v), 2)
            z = (u_rows * v_rows).reshape(len(total), -1)
            total += z @ z.T
            x = block_output(block, x, layer(v))
    return [total / windows.size for total in totals]


def _rows(ssm: lqo.DiagonalLQOSystem) -> lqo.DiagonalLQOSystem:
    """The linear system whose outputs are the factors of the products."""
    return lqo.DiagonalLQOSystem(ssm.poles, ssm.B, np.concatenate([ssm.M.U, ssm.M.V]), dt=1.0)


def best_subset(W: np.ndarray, G: np.ndarray, count: int) -> tuple[tuple[int, ...], np.ndarray, float]:
    """The `count` products to keep, the new (p, count) matrix of their weights, and the share of ``tr W G Wᵀ`` that is lost."""
    total, best = np.trace(W @ G @ W.T), ((), np.zeros((len(W), 0)), 1.0)
    for subset in combinations(range(len(G)), count):
        own = list(subset)
        new = np.linalg.lstsq(G[np.ix_(own, own)], G[own] @ W.T, rcond=1e-12)[0].T
        change = W.copy()
        change[:, own] -= new
        lost = float(np.trace(change @ G @ change.T) / total)
        if not best[0] or lost < best[2]:
            best = (subset, new, lost)
    return best


def with_rank(block: Block, G: np.ndarray, count: int) -> tuple[Block, tuple[int, ...], float]:
    """A block with `count` of its products, which they are, and the share of their power that is lost."""
    q = block.ssm.M
    subset, W, lost = best_subset(q.W, G, count)
    kept = list(subset)
    small = lqo.QuadraticOutput(q.U[kept], q.V[kept], W) if count else None
    return replace(block, ssm=replace(block.ssm, M=small)), subset, lost
