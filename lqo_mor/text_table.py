"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def text_table(rows: Sequence[Sequence[str]], justify: Callable[[str, int], str] = str.ljust) -> list[str]:
    """One line for each row, its cells in columns that are two spaces apart.

    Parameters
    ----------
    rows : sequence of sequences of str
        Rows of as many cells each, the headings first.
    justify : {str.ljust, str.rjust}
        Side of a column that its cells keep to.

    Returns
    -------
    list of str
        Without spaces at the ends.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(justify, row, widths)).rstrip() for row in rows]
