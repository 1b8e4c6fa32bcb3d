"""The pictures of a compression as inline SVG, drawn with Matplotlib (extra ``plot``).

Text and axes take the colour of the page around them, so that they can be read on a light and on a dark background.
Blocks are called by their number: their names come from files and might be read as formulas.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lqo_mor.bounds.gains import kernels
from lqo_mor.figures import figure_of
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL, REDUCED = "#3d85c6", "#e07b28"  # can be seen on white and on black
_LAYERS = (FULL, REDUCED, "#3fa35a", "#c2528b", "#8f6fd1", "#a5854a", "#2aa6a6", "#d1544f")
_INK, _LINE = "#0a0b0c", "#0a0b0d"  # stand for the colours of the page
_VECTOR = 800  # more points than that become an image
_POINTS = 200  # of a curve over channels
_STEPS, _STEPS_MIMO = 1000, 256  # of an impulse response, and where there are many at once
_FADED = 1e-4  # of the energy of an impulse response that is not shown
_SHORTEST = 0.05  # time constant at which poles near the origin are drawn
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.edgecolor": _LINE,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def drawn(name: str, size: tuple[float, float], draw: Callable[..., None], *args: Any) -> str:
    """The SVG that `draw`, called with a figure of `size` inches and `args`, leaves; `name` keeps its ids apart."""
    figure_of(size)  # raises without Matplotlib
    import matplotlib

    with matplotlib.rc_context(cast(Any, {**_STYLE, "svg.hashsalt": name})):  # typed by a list of all names
        figure = figure_of(size)
        draw(figure, *args)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", dpi=150, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    viewbox = cast("re.Match[str]", re.search(r'viewBox="[^"]*"', head)).group()
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=").replace(_INK, "currentColor").replace(_LINE, "var(--line)")
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', body).replace("url(#", f"url(#{name}-")
    body = body.replace('href="#', f'href="#{name}-')
    body = re.sub(r'(\.\d\d)\d+(?=[ "\n,)])', r"\1", body)
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    return f'<svg {viewbox} role="img">{body}'


def used_slots(ssm: DiagonalLQOSystem) -> np.ndarray:
    """Mask of the slots with an input; the others only fill up a batch."""
    return np.any(ssm.B, axis=-1)


def _legend(axes: Axes, columns: int, **style: Any) -> None:
    """A legend above the right end of the axes, where it covers nothing."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 0.99), ncols=columns, borderaxespad=0, columnspacing=1, handlelength=1.5, **style
    )


def pole_map(figure: Figure, full: DiagonalLQOSystem, reduced: DiagonalLQOSystem) -> None:
    """Poles of all channels before and after: in the unit circle, and their time constants over their angles."""
    left, right = figure.subplots(1, 2)
    angle = np.linspace(0, np.pi, 200)
    left.plot(np.cos(angle), np.sin(angle), color=_LINE, lw=1)
    for ssm, color, size, label in ((full, FULL, 3.0, "before"), (reduced, REDUCED, 2.2, "after")):
        poles = ssm.poles[used_slots(ssm)]
        poles = poles.real + 1j * np.abs(poles.imag)
        with np.errstate(divide="ignore"):
            times = np.maximum(-1 / np.log(np.abs(poles)), _SHORTEST)
        for axes, x, y in ((left, poles.real, poles.imag), (right, np.angle(poles), times)):
            ms = size if poles.size > 300 else 1.6 * size
            axes.plot(x, y, "o", ms=ms, mew=0, color=color, alpha=0.7, label=label, rasterized=poles.size > _VECTOR)
    left.set(
        title="poles (upper half plane)", xlabel="real part", ylabel="imaginary part", xlim=(-1.05, 1.05), ylim=(-0.04, 1.05)
    )
    left.set_aspect("equal")
    right.set(title="time constants", xlabel="angle (rad per sample)", ylabel="samples", yscale="log", xlim=(-0.05, np.pi + 0.05))
    _legend(right, 2, markerscale=1.5)
    right.grid(True, alpha=0.5)


def errors(figure: Figure, panels: Sequence[tuple[str, Sequence[np.ndarray]]]) -> None:
    """Sorted errors of the channels, one line per layer; of single systems one point per layer.

    `panels` holds pairs of a title and one array per layer.
    """
    for axes, (title, values) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        single = all(np.size(v) == 1 for v in values)
        for number, layer in enumerate(values):
            ordered = np.sort(np.ravel(layer))[::-1]
            ordered = np.where(ordered > 0, ordered, np.nan)
            shown = np.unique(np.linspace(0, ordered.size - 1, min(ordered.size, _POINTS)).astype(int))
            x = np.full(1, number + 1) if single else shown + 1
            style = ("-", "--", ":", "-.")[number // len(_LAYERS) % 4]
            mark = {"marker": "o", "ms": 2.5 if ordered.size <= 40 and not single else 6} if ordered.size <= 40 else {}
            axes.plot(x, ordered[shown], style, color=_LAYERS[number % len(_LAYERS)], lw=1.3, label=f"layer {number + 1}", **mark)
        axes.set(title=title, xlabel="layer" if single else "channel, worst first", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True, alpha=0.5)
        if not single:
            _legend(axes, min(len(values), 4 if len(panels) > 1 else 12))


def histograms(figure: Figure, systems: Sequence[DiagonalLQOSystem]) -> None:
    """How many channels kept how many states, one panel per layer."""
    columns = min(4, len(systems))
    grid = np.ravel(figure.subplots(-(-len(systems) // columns), columns, squeeze=False))
    for number, (axes, ssm) in enumerate(zip(grid, systems, strict=False)):
        sizes, counts = np.unique(2 * np.sum(used_slots(ssm), axis=-1), return_counts=True)
        axes.bar(range(len(sizes)), counts, color=REDUCED, width=0.8)
        places = range(0, len(sizes), 1 + (len(sizes) - 1) // 10)
        axes.set_xticks(places, [str(sizes[place]) for place in places])
        axes.set(title=f"layer {number + 1}", xlabel="states", ylabel="channels" if number % columns == 0 else "")
        axes.yaxis.get_major_locator().set_params(integer=True)
    for axes in grid[len(systems) :]:
        axes.set_visible(False)


def budget(figure: Figure, curve: Sequence[tuple[float, float]], mean_states: float) -> None:
    """Predicted error over the mean number of states, and the budget that was taken."""
    axes = figure.subplots()
    x, y = np.array(curve, dtype=float).T
    axes.plot(x, np.where(y > 0, y, np.nan), ".-", color=FULL)
    axes.axvline(mean_states, color=REDUCED, ls="--", lw=1, label="taken")
    axes.set(xlabel="mean states per system", ylabel="predicted relative error", yscale="log")
    axes.grid(True, alpha=0.5)
    _legend(axes, 1)


def worst(full: DeepSSM, reduced: DeepSSM, criteria: Sequence[np.ndarray], count: int = 3) -> list[tuple[int, int | None]]:
    """The `count` layers and channels of the largest criterion (one array per layer); None for a single system."""
    places = []
    for layer, (a, b, values) in enumerate(zip(full.blocks, reduced.blocks, criteria, strict=True)):
        if a.ssm is not b.ssm:
            values = np.nan_to_num(np.ravel(values), nan=-1.0)
            places += [(float(value), layer, channel if a.ssm.batch else None) for channel, value in enumerate(values)]
    return [place[1:] for place in sorted(places, key=lambda place: -place[0])[:count]]


def responses(
    ssm: DiagonalLQOSystem, other: DiagonalLQOSystem, channel: int | None, horizon: int | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Responses of two systems to a unit impulse, and which: of a channel, or of the pair that differs most."""
    if channel is not None:
        ssm, other, where = ssm[channel], other[channel], f"channel {channel + 1}"
    most = min(horizon or _STEPS, _STEPS if channel is not None else _STEPS_MIMO)
    steps = min(most, max(_steps(s.poles[used_slots(s)]) for s in (ssm, other)))
    a, b = (_impulse(s, steps) for s in (ssm, other))
    output, source = np.unravel_index(np.argmax(np.sum((a - b) ** 2, axis=-1)), a.shape[:2])
    if channel is None:
        where = f"input {source + 1} to output {output + 1}"
    a, b = a[output, source], b[output, source]
    left = np.cumsum((a**2 + b**2)[::-1])[::-1]
    last = max(8, np.count_nonzero(left > _FADED * left[0]) + 1)
    return a[:last], b[:last], where


def _impulse(ssm: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """Responses (outputs, inputs, steps) of one system with delay 0 to a unit impulse at each input."""
    K, U, V = kernels(ssm, steps)
    return K if ssm.M is None else K + np.einsum("pc,cmk->pmk", ssm.M.W, U * V)


def _steps(poles: np.ndarray) -> int:
    """Samples until the slowest pole has decayed to 1 %, within limits."""
    slowest = float(np.max(np.abs(poles), initial=0.0))
    return int(np.clip(np.ceil(np.log(0.01) / np.log(slowest)), 16, _STEPS)) if 0 < slowest < 1 else _STEPS if slowest else 16


def impulse_responses(
    figure: Figure, model: DeepSSM, small: DeepSSM, places: Sequence[tuple[int, int | None]], horizon: int | None
) -> None:
    """Responses before and after at `places`, as `worst` gives them, side by side."""
    for number, (axes, (layer, channel)) in enumerate(zip(np.atleast_1d(figure.subplots(1, len(places))), places, strict=True)):
        a, b, where = responses(model.blocks[layer].ssm, small.blocks[layer].ssm, channel, horizon)
        axes.plot(a, color=FULL, lw=1.6, label="before")
        axes.plot(b, color=REDUCED, lw=1.1, ls=(0, (4, 1.5)), label="after")
        axes.set(title=f"layer {layer + 1}, {where}", xlabel="lag (samples)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True, alpha=0.5)
        if number == 0:
            axes.legend(loc="best")
