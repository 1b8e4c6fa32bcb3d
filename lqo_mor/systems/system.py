"""Any system of the package: dense, diagonal, or a batch of diagonal ones."""

from __future__ import annotations

from typing import TypeAlias

from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem

System: TypeAlias = LQOSystem | DiagonalLQOSystem
"""A dense system, a diagonal one, or a batch of diagonal ones."""
