"""Any system of the package: dense, diagonal, or a batch of diagonal ones; and sparse ones, where a function takes them."""

from __future__ import annotations

from typing import TypeAlias

from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.sparse import SparseLQOSystem

System: TypeAlias = LQOSystem | DiagonalLQOSystem
"""A dense system, a diagonal one, or a batch of diagonal ones."""

AnySystem: TypeAlias = System | SparseLQOSystem
"""Also a large sparse one, for the functions that take it."""


def check_kind(sys: object) -> None:
    """Raise `InvalidInputError` unless `sys` is a dense system, or a (batch of) diagonal ones."""
    if not isinstance(sys, (LQOSystem, DiagonalLQOSystem)):
        raise InvalidInputError(f"expected an LQOSystem or a DiagonalLQOSystem, got {type(sys).__name__}{instead_of(sys)}")


def instead_of(sys: object) -> str:
    """What the message of a function that takes no sparse system says of one."""
    return "; use lqo.balance(sys).system, a dense system that stands for it" if isinstance(sys, SparseLQOSystem) else ""
