"""Outputs of head-wise layers, straight from kernels."""

import numpy as np

from lqo_mor.network.blocks import Block


def convolved(kernels, backward, u):
    """Outputs (c, H, L) of kernels (p, H, L) for inputs (H, L); with a delay `backward` the second half of them runs backward."""
    p, H, L = kernels.shape
    c = p if backward is None else p // 2
    y = np.zeros((c, H, L))
    for k in range(c):
        for h in range(H):
            y[k, h] = np.convolve(kernels[k, h], u[h])[:L]
            if backward is not None:
                reversed_input = np.concatenate([u[h, backward:], np.zeros(backward)])[::-1]
                y[k, h] += np.convolve(kernels[c + k, h], reversed_input)[:L][::-1]
    return y


def padded_fft(kernels, bidirectional, u):
    """The same as state-spaces/s4 computes it (`FFTConv`), with its circular padding and its off-by-one."""
    L = u.shape[-1]
    k = np.concatenate([kernels, np.zeros_like(kernels)], axis=-1)
    if bidirectional:
        k0, k1 = np.split(kernels, 2)
        k = np.concatenate([k0, np.zeros_like(k0)], axis=-1) + np.concatenate([np.zeros_like(k1), k1[..., ::-1]], axis=-1)
    return np.fft.irfft(np.fft.rfft(k, n=2 * L) * np.fft.rfft(u, n=2 * L), n=2 * L)[..., :L]


def outputs(block: Block, u):
    """Outputs (c, H, L) of a block's systems for inputs (H, L)."""
    ssm, L = block.ssm, u.shape[-1]
    powers = ssm.poles[..., np.newaxis] ** np.arange(L)
    factor = np.where(ssm.is_real_pole, 1, 2)
    kernels = np.einsum("hps,hs,hsk->phk", ssm.C, factor * ssm.B[..., 0], powers).real
    kernels[..., 0] += ssm.D[..., 0].T
    return convolved(kernels, block.backward, u)
