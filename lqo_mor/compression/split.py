"""The choice of a size for every channel."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from lqo_mor.compression.calibration.channel_curves import WeightedCurves


def split_slots(sizes: Sequence[int], curves: list[np.ndarray], budget: int) -> list[np.ndarray]:
    """For every channel the index of its size, so that the summed squared errors are small within the budget.

    The next size goes where it removes most error per slot, along the lower convex hull of every curve: the minimum for the
    budget that is used up, but for what the last step would not fit.

    Parameters
    ----------
    sizes : sequence of int
        The sizes, growing from the least that all get, often 0.
    curves : list of (channels, sizes) ndarray
        Per block the squared errors, never growing with the size.
    budget : int
        Slots in all.

    Returns
    -------
    list of (channels,) ndarray of int
    """
    slots = np.asarray(sizes)
    chosen = [np.zeros(len(curve), int) for curve in curves]
    budget -= int(slots[0]) * sum(map(len, curves))

    def step(block: int, channel: int) -> tuple[float, int, int, int] | None:
        """The largest decrease per slot from the present size, as the heap orders it."""
        k, errors = chosen[block][channel], curves[block][channel]
        if k + 1 == slots.size:
            return None
        gains = (errors[k] - errors[k + 1 :]) / (slots[k + 1 :] - slots[k])
        j = int(np.argmax(gains))
        return (-gains[j], block, channel, k + 1 + j) if gains[j] > 0 else None

    heap = [move for b, curve in enumerate(curves) for h in range(len(curve)) if (move := step(b, h)) is not None]
    heapq.heapify(heap)
    while heap:
        _, block, channel, k = heapq.heappop(heap)
        cost = slots[k] - slots[chosen[block][channel]]
        if cost > budget:
            continue
        budget -= cost
        chosen[block][channel] = k
        if (move := step(block, channel)) is not None:
            heapq.heappush(heap, move)
    return chosen


def squared_errors(curves: list[WeightedCurves], chosen: list[np.ndarray]) -> list[np.ndarray]:
    """Per block the squared errors of all channels at the chosen sizes."""
    return [curve.squared[np.arange(len(which)), which] for curve, which in zip(curves, chosen, strict=True)]


def uniform(curves: list[WeightedCurves], sizes: list[int]) -> list[np.ndarray]:
    """The indices of one size per block, in slots, for all of its channels."""
    return [np.full(len(c.squared), c.slots.index(min(size, c.slots[-1]))) for c, size in zip(curves, sizes, strict=True)]


def split(curves: list[WeightedCurves], budget: int) -> list[np.ndarray]:
    """The indices of sizes that split `budget` slots over all channels."""
    slots = max((c.slots for c in curves), key=len)
    padded = [np.pad(c.squared, ((0, 0), (0, len(slots) - len(c.slots))), mode="edge") for c in curves]
    return split_slots(slots, padded, budget)
