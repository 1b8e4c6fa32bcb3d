"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lqo_mor.errors import shown


def text_table(rows: Sequence[Sequence[str]], justify: Callable[[str, int], str] = str.ljust) -> list[str]:
    """One line for each row, the headings first, its cells in columns that are two spaces apart; no spaces at the ends."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(justify, row, widths)).rstrip() for row in rows]
