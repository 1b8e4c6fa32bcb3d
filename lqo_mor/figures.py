"""The picture of an `ErrorCurve`, with Matplotlib (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lqo_mor.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lqo_mor.reduction.sweep import ErrorCurve


def plot_error_curve(curve: ErrorCurve, tolerance: float | None = None) -> Figure:
    """Relative h² error against the order for every method, and the Hankel singular values underneath.

    Parameters
    ----------
    curve : ErrorCurve
        From ``reduce(sys, orders=...)``. Of a batch the median over the channels is drawn, and the worst as a dotted line.
    tolerance : float, optional
        Draws a line at this relative error.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; save it with ``figure.savefig(path)``.

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    figure = figure_of((7, 7))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, (name, errors) in enumerate(curve.errors.items()):
        _lines(upper, curve.orders, errors.reshape(len(errors), -1), f"C{number}", name)
    if tolerance is not None:
        upper.axhline(tolerance, color="0.4", ls="--", lw=1, label=f"tolerance {tolerance:g}")
    horizon = "infinite horizon" if curve.horizon is None else f"horizon {curve.horizon:g}"
    upper.set(title=f"error of the reduced systems, {horizon}", ylabel="relative h2 error", yscale="log")
    upper.legend(loc="best")
    values = curve.hsv.reshape(-1, curve.hsv.shape[-1]).T
    shown = min(values.shape[0], max(curve.orders) + 2)
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
