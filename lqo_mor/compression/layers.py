"""The layers of a model reduced one for one, their channels spread over the workers of joblib where there are any."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, cast

import numpy as np

from lqo_mor import parallel
from lqo_mor.errors import StabilityWarning
from lqo_mor.network.blocks import Block
from lqo_mor.reduction.pieces import joined
from lqo_mor.reduction.reduce import reduce
from lqo_mor.reduction.result import Reduction
from lqo_mor.systems.batches import pad
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import FloatOrBatch, Progress

# Checkpoints are single precision: outputs fitted in closed form must not grow and cancel where poles meet (ridge). A
# balanced start keeps the slow modes that the inputs of a trained model excite most; the full search finds h2 errors 2 to 5 %
# smaller and costs up to 23 points of accuracy (sequential MNIST, benchmarks/s4d_checkpoints.py). A layer that is one system
# with many inputs gets all starts: they differ by 12 % in error there.
_RIDGE = {"optimal": 1e-6, "modal": 1e-6, "hippo": 1e-6}
# Nor may optimised poles come closer to the unit circle than those that were trained (half their distance): beyond the
# horizon they would integrate, and the model's own code computes λ − 1 in single precision.
_MARGIN = {"optimal": 0.5, "projected_gradient": 0.5}


@dataclass(frozen=True, eq=False)
class ReducedLayer:
    """What became of the system of a layer, and the seconds that it took; errors and repairs as of a `Reduction`."""

    system: DiagonalLQOSystem
    error: FloatOrBatch
    repaired: bool | np.ndarray
    seconds: float


def reduce_layers(
    blocks: Sequence[Block], sizes: Sequence[int], method: str, horizon: float | None, progress: Progress | None
) -> list[ReducedLayer]:
    """The reductions of all layers, their systems in exactly ``size // 2`` slots.

    A layer that is no larger stays. `progress` counts 100 for every layer. Repairs are told by the `repaired` of the results.
    """
    groups = []  # of tasks, one for each layer
    for block, size in zip(blocks, sizes, strict=True):
        options, ssm = _options(block, method), block.ssm
        cuts = parallel.pieces(ssm.batch[0]) if ssm.batch else [()]
        groups.append([(ssm[cut], size // 2, method, horizon, options) for cut in cuts if size < block.state_size])

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(100 * len(blocks) * done // total, 100 * len(blocks))

    done = iter(parallel.run(_reduce_timed, list(chain(*groups)), tell))
    found = []
    for block, size, group in zip(blocks, sizes, groups, strict=True):
        ssm, own = block.ssm, list(islice(done, len(group)))
        if own:
            whole = joined([reduction for reduction, _ in own], ssm.batch) if ssm.batch else own[0][0]
            made = replace(cast(DiagonalLQOSystem, whole.system))  # anew: arrays may come from a worker writeable
            small = pad(made, size // 2)
            found.append(ReducedLayer(small, whole.error, whole.repaired, sum(seconds for _, seconds in own)))
        else:
            found.append(ReducedLayer(ssm, np.zeros(ssm.batch), np.zeros(ssm.batch, bool), 0))
    return found


def _options(block: Block, method: str) -> dict[str, Any]:
    """What a method is told beyond the size."""
    options: dict[str, Any] = {"ridge": _RIDGE[method]} if method in _RIDGE else {}
    if method == "optimal" and block.ssm.batch:
        options["start"] = "balanced"
    distance = 1 - np.max(np.abs(block.ssm.poles))
    if method in _MARGIN and distance > 0:
        options["margin"] = _MARGIN[method] * distance
    return options


def _reduce_timed(
    ssm: DiagonalLQOSystem, slots: int, method: str, horizon: float | None, options: dict[str, Any], progress: Progress | None
) -> tuple[Reduction, float]:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # one warning for all layers, by the caller
        found = reduce(ssm, slots=slots, method=method, horizon=horizon, progress=progress, **options)
    return found, time.perf_counter() - start
