"""Pictures of plain arrays, with Matplotlib (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lqo_mor.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def error_curve_figure(
    orders: Sequence[int],
    errors: Mapping[str, np.ndarray],
    hsv: np.ndarray,
    over: str,
    max_error: float | None = None,
) -> Figure:
    """Relative h² error against the order for every method, and the Hankel singular values underneath.

    The errors (orders, ...) come by method: of a batch the median over the channels is drawn, and the worst as a dotted line.
    `hsv` (..., n) are those of the full systems, `over` says for the title in which norm the errors are, and a line is drawn at
    `max_error`. The figure is not shown. Raises `MissingDependencyError` without Matplotlib.
    """
    figure = figure_of((7, 7))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, (name, own) in enumerate(errors.items()):
        _lines(upper, orders, own.reshape(len(own), -1), f"C{number}", name)
    if max_error is not None:
        upper.axhline(max_error, color="0.4", ls="--", lw=1, label=f"largest error {max_error:g}")
    upper.set(title=f"error of the reduced systems, {over}", ylabel="relative h2 error", yscale="log")
    upper.legend(loc="best")
    values = hsv.reshape(-1, hsv.shape[-1]).T
    shown = min(values.shape[0], max(orders) + 2)
    scaled = np.divide(values, values[0], out=np.zeros_like(values), where=values[0] > 0)
    _lines(lower, np.arange(1, shown + 1), scaled[:shown], "C7", "full system", largest="largest")
    lower.set(title="Hankel singular values, relative to the largest", xlabel="order, index", ylabel="value", yscale="log")
    if values.shape[1] > 1:
        lower.legend(loc="best")
    lower.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _lines(axes: Axes, x: Sequence[int] | np.ndarray, values: np.ndarray, color: str, label: str, largest: str = "worst") -> None:
    """One channel, or median and largest of several, against `x`; what is zero has no place on a logarithmic axis."""
    values = np.where(values > 0, values, np.nan)
    median = values[:, 0] if values.shape[1] == 1 else np.nanmedian(values, axis=1)
    axes.plot(x, median, "o-", ms=4, color=color, label=label if values.shape[1] == 1 else f"{label}, median")
    if values.shape[1] > 1:
        axes.plot(x, np.nanmax(values, axis=1), ":", color=color, label=f"{label}, {largest}")


def figure_of(size: tuple[float, float]) -> Figure:
    """An empty figure of a size in inches; Matplotlib is imported here."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("Matplotlib", "plot", "plotting") from None
    return Figure(figsize=size, layout="constrained")
