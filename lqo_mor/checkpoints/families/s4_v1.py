"""Layers of S4 version 1, recognised to be refused."""

from __future__ import annotations

from typing import NoReturn

from lqo_mor.checkpoints.contracts import Family
from lqo_mor.errors import CheckpointError


def _refuse(layer: str, *_: object) -> NoReturn:
    raise CheckpointError(
        f"{layer} is of S4 version 1 (it has kernel.kernel.nodes), whose tensors mean something else than those of later "
        "versions: C is conjugated, and the low-rank factors are stacked below B and C. Train the model with version 2 or later "
        "of state-spaces/s4, or store its tensors in the layout of one of them, and load that checkpoint"
    )


S4_V1 = Family(
    name="s4-v1",
    looks_like="S4 layers, version 1, which are refused (kernel.kernel.{log_dt, w, B, C, nodes, z}, D)",
    markers=("kernel.kernel.nodes",),
    names=("D", *(f"kernel.kernel.{key}" for key in ("log_dt", "w", "B", "C", "nodes", "z"))),
    read=_refuse,
    write=_refuse,
)
