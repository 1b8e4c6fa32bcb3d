"""Pictures of a reduction, with Matplotlib (extra ``plot``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lqo_mor.analysis.gramians import hankel_singular_values
from lqo_mor.analysis.simulate import impulse_response
from lqo_mor.errors import InvalidInputError
from lqo_mor.figures import figure_of
from lqo_mor.reduction.result import Reduction
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.system import System, check_kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_reduction(sys: System, reduction: Reduction, steps: int = 400) -> Figure:
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
        If `sys` is a batch or sparse.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.examples.advection_diffusion(30)
    >>> lqo.plot_reduction(sys, lqo.reduce(sys, order=4)).savefig("reduction.png")  # doctest: +SKIP
    """
    check_kind(sys)
    figure = figure_of((13, 4))
    if getattr(sys, "batch", ()) or getattr(reduction.system, "batch", ()):
        raise InvalidInputError("plot_reduction shows one system; index the batch and reduce that channel")
    left, middle, right = figure.subplots(1, 3)
    _poles(left, sys, reduction.system)
    values = reduction.hsv if reduction.hsv is not None else hankel_singular_values(sys, reduction.horizon)
    _singular_values(middle, values, int(reduction.system.order))
    _responses(right, sys, reduction, steps)
    relative = f"relative h2 error {reduction.relative_error:.2e}"
    figure.suptitle(f"{reduction.method}: order {sys.order} to {reduction.system.order}, {relative}")
    return figure


def _all_poles(sys: System) -> np.ndarray:
    if isinstance(sys, LQOSystem):
        return np.linalg.eigvals(sys.A)
    return np.concatenate([sys.poles, sys.poles[~sys.is_real_pole].conj()])


def _poles(axes: Axes, sys: System, rom: System) -> None:
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


def _singular_values(axes: Axes, values: np.ndarray, order: int) -> None:
    positive = values[values > values[0] * np.finfo(float).eps]
    index = np.arange(1, positive.size + 1)
    axes.semilogy(index, positive, ".-", color="C0")
    axes.axvline(order + 0.5, color="C1", ls="--", label=f"order {order}")
    axes.set(title="Hankel singular values", xlabel="index", ylabel="value")
    axes.legend(loc="best")


def _responses(axes: Axes, sys: System, reduction: Reduction, steps: int) -> None:
    if sys.is_continuous:
        slowest = -1 / np.max(_all_poles(reduction.system).real)
        time, unit = np.linspace(0, reduction.horizon or 3 * slowest, steps), "time (s)"
    else:
        time, unit = np.arange(steps), "sample"
    for system, style, label in ((sys, "-", "full"), (reduction.system, "--", "reduced")):
        axes.plot(time, impulse_response(system, time)[0, 0].real, style, label=label)
    axes.set(title="impulse response, input 1 to output 1", xlabel=unit)
    axes.legend(loc="best")
