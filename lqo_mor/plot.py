"""Pictures of a reduction, with Matplotlib (extra ``plot``)."""

from __future__ import annotations

import numpy as np

from lqo_mor.analysis.gramians import hankel_singular_values
from lqo_mor.errors import InvalidInputError, MissingDependencyError
from lqo_mor.reduction.curve import ErrorCurve
from lqo_mor.reduction.result import Reduction
from lqo_mor.systems.dense import LQOSystem


def plot_reduction(sys, reduction: Reduction, steps: int = 400):
    """Poles, Hankel singular values and impulse responses of a system and its reduction, side by side.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The full system; of a batch give one channel and the reduction of it.
    reduction : Reduction
        What came of it.
    steps : int, default 400
        Samples of the impulse response (first input to first output, linear part); in continuous time they
        span three times the slowest time constant of the reduced system, or the horizon.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; save it with ``figure.savefig(path)``.

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    InvalidInputError
        If `sys` is a batch.
    """
    figure = _figure((13, 4))
    if getattr(sys, "batch", ()) or getattr(reduction.system, "batch", ()):
        raise InvalidInputError("plot_reduction shows one system; index the batch and reduce that channel")
    left, middle, right = figure.subplots(1, 3)
    _poles(left, sys, reduction.system)
    values = reduction.hsv if reduction.hsv is not None else hankel_singular_values(sys, reduction.horizon)
    _singular_values(middle, values, reduction.system.order)
    _responses(right, sys, reduction, steps)
    relative = f"relative h2 error {reduction.relative_error:.2e}"
    figure.suptitle(f"{reduction.method}: order {sys.order} to {reduction.system.order}, {relative}")
    return figure


def plot_error_curve(curve: ErrorCurve, tolerance: float | None = None):
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
    figure = _figure((7, 7))
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


def _lines(axes, x, values: np.ndarray, color: str, label: str, largest: str = "worst") -> None:
    """One channel, or median and largest of several, against `x`; what is zero has no place on a logarithmic axis."""
    values = np.where(values > 0, values, np.nan)
    median = values[:, 0] if values.shape[1] == 1 else np.nanmedian(values, axis=1)
    axes.plot(x, median, "o-", ms=4, color=color, label=label if values.shape[1] == 1 else f"{label}, median")
    if values.shape[1] > 1:
        axes.plot(x, np.nanmax(values, axis=1), ":", color=color, label=f"{label}, {largest}")


def _figure(size: tuple[float, float]):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("Matplotlib", "plot", "plotting") from None
    return Figure(figsize=size, layout="constrained")


def _all_poles(sys) -> np.ndarray:
    if isinstance(sys, LQOSystem):
        return np.linalg.eigvals(sys.A)
    return np.concatenate([sys.poles, sys.poles[~sys.is_real_pole].conj()])


def _poles(axes, sys, rom) -> None:
    full, reduced = _all_poles(sys), _all_poles(rom)
    axes.plot(full.real, full.imag, "o", mfc="none", color="C0", label="full")
    axes.plot(reduced.real, reduced.imag, "x", color="C1", label="reduced")
    if sys.is_continuous:
        axes.axvline(0, color="0.7", lw=0.8)
    else:
        angle = np.linspace(0, 2 * np.pi, 400)
        axes.plot(np.cos(angle), np.sin(angle), color="0.7", lw=0.8)
        axes.set_aspect("equal")
    axes.set(title="poles", xlabel="real part", ylabel="imaginary part")
    axes.legend(loc="best")


def _singular_values(axes, values: np.ndarray, order: int) -> None:
    positive = values[values > values[0] * np.finfo(float).eps]
    index = np.arange(1, positive.size + 1)
    axes.semilogy(index, positive, ".-", color="C0")
    axes.axvline(order + 0.5, color="C1", ls="--", label=f"order {order}")
    axes.set(title="Hankel singular values", xlabel="index", ylabel="value")
    axes.legend(loc="best")


def _responses(axes, sys, reduction: Reduction, steps: int) -> None:
    if sys.is_continuous:
        slowest = -1 / np.max(_all_poles(reduction.system).real)
        time, unit = np.linspace(0, reduction.horizon or 3 * slowest, steps), "time (s)"
    else:
        time, unit = np.arange(steps), "sample"
    for system, style, label in ((sys, "-", "full"), (reduction.system, "--", "reduced")):
        axes.plot(time, _impulse_response(system, time), style, label=label)
    axes.set(title="impulse response, input 1 to output 1", xlabel=unit)
    axes.legend(loc="best")


def _impulse_response(sys, time: np.ndarray) -> np.ndarray:
    """Linear kernel from the first input to the first output at evenly spaced times."""
    if isinstance(sys, LQOSystem):
        from scipy.linalg import expm

        step = expm(sys.A * (time[1] - time[0])) if sys.is_continuous else sys.A
        x, out = sys.B[:, 0], np.empty(time.size)
        for k in range(time.size):
            out[k] = (sys.C[0] @ x).real
            x = step @ x
        return out
    modes = np.exp(np.outer(time, sys.poles)) if sys.is_continuous else sys.poles ** time[:, np.newaxis]
    return (modes @ (np.where(sys.is_real_pole, 1, 2) * sys.C[0] * sys.B[:, 0])).real
