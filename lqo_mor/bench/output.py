"""A report of measured claims as tables, as JSON, and as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.table import Table

from lqo_mor.bench.claims import CLAIMS, Report
from lqo_mor.bench.timing import Row
from lqo_mor.errors import OutputError
from lqo_mor.figures import figure_of
from lqo_mor.files import check_new, json_text, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PICTURES = (".png", ".pdf", ".svg")
_TIMED = ("stein_dense", "lyapunov_dense")  # claims with several sizes against several solvers


def claim_table(name: str, rows: list[Row]) -> Table:
    """The rows of one claim; columns without any entry are left out."""
    claim = CLAIMS[name]
    table = Table(title=claim.title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    cells = [_cells(row, claim.accuracy) for row in rows]
    for column in cells[0] if cells else ():
        if any(row[column] for row in cells):
            side: Literal["left", "right"] = "left" if column in ("case", "peer", "note") else "right"
            table.add_column(column, justify=side, no_wrap=column != "note", overflow="fold")
    for row in cells:
        table.add_row(*(row[str(column.header)] for column in table.columns))
    return table


def _cells(row: Row, accuracy: str) -> dict[str, str]:
    target = "" if row.target is None else f"≥ {row.target:g}"
    return {
        "n": str(row.n),
        "case": row.case,
        "ours, s": _number(row.seconds),
        "peer": row.peer,
        "peer, s": _number(row.peer_seconds),
        "ratio": "" if row.ratio is None else f"{row.ratio:.2f}",
        "target": target,
        "reached": "" if row.reached is None else "yes" if row.reached else "no",
        accuracy: _number(row.accuracy, 2),
        "peer's": _number(row.peer_accuracy, 2),
        "MiB": "" if row.memory is None else f"{row.memory:.0f}",
        "rank": "" if row.rank is None else str(row.rank),
        "note": row.note,
    }


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    return "NaN" if math.isnan(value) else f"{value:.{digits}g}"


def summary(report: Report) -> str:
    """What it was measured on, what is missing, and how to read the tables."""
    machine = report.machine
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["versions"].items())
    reached = [row.reached for rows in report.rows.values() for row in rows if row.reached is not None]
    missing = "; ".join(f"{peer}: {why}" for peer, why in report.missing.items())
    lines = [
        "ratio: how many times as fast as the peer we are, from the medians of interleaved runs; the target is that against the "
        "fastest peer",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}",
        f"BLAS: {'; '.join(machine['blas'])}",
        f"versions: {versions}",
        f"missing peers: {missing or 'none'}",
        f"{sum(reached)} of {len(reached)} targets reached; {'quick' if report.quick else 'full'} run, {report.seconds:.0f} s",
    ]
    return "\n".join(lines)


def to_json(report: Report) -> str:
    """The whole report; numbers that are not finite become null."""
    content = asdict(report)
    content["claims"] = [
        {"name": name, "title": CLAIMS[name].title, "accuracy": CLAIMS[name].accuracy, "rows": rows}
        for name, rows in content.pop("rows").items()
    ]
    return json_text(content, ensure_ascii=False)


def check_outputs(json_path: str | None, plot_path: str | None, names: Iterable[str]) -> None:
    """Raise before anything is measured where an output could not be written.

    Raises `OutputError` if a path exists, has no folder, or the picture has an unknown suffix or nothing to show of the claims
    `names`, and `MissingDependencyError` if a picture is wanted and Matplotlib is not installed.
    """
    if json_path:
        check_new(json_path, overwrite=False)
    if plot_path:
        check_new(plot_path, overwrite=False)
        if Path(plot_path).suffix.lower() not in _PICTURES:
            raise OutputError(f"the suffix of {plot_path} is unknown, expected one of {', '.join(_PICTURES)}")
        if not set(_TIMED) & set(names):
            raise OutputError(f"there is nothing to draw: the picture shows the claims {' and '.join(_TIMED)}")
        if json_path and Path(json_path).resolve() == Path(plot_path).resolve():
            raise OutputError(f"{plot_path} cannot be both outputs")
        figure_of((1, 1))  # says at once if Matplotlib is missing


def write_json(report: Report, path: str) -> None:
    """Write the report, atomically; an existing file is never overwritten."""
    write_atomically(path, to_json(report).encode(), overwrite=False)


def write_plot(report: Report, path: str) -> None:
    """Write the picture of time against size, atomically; an existing file is never overwritten."""
    buffer = io.BytesIO()
    plot_times(report).savefig(buffer, format=Path(path).suffix[1:].lower(), dpi=150)
    write_atomically(path, buffer.getvalue(), overwrite=False)


def plot_times(report: Report) -> Figure:
    """Time against size for every solver of the dense equations, with the fitted slopes.

    The report has at least one of the claims ``stein_dense`` and ``lyapunov_dense``. Raises `MissingDependencyError` without
    Matplotlib.
    """
    panels: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for name in _TIMED:
        for row in report.rows.get(name, ()):
            curves = panels.setdefault((name, row.case), {"lqo-mor": {}})
            if row.seconds is not None:
                curves["lqo-mor"][row.n] = row.seconds
            if row.peer_seconds is not None:
                curves.setdefault(row.peer, {})[row.n] = row.peer_seconds
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = figure_of((5.5 * columns, 4.2 * lines))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    solvers = list(dict.fromkeys(solver for curves in panels.values() for solver in curves))
    for axis, ((name, case), curves) in zip(axes, panels.items(), strict=False):
        for solver, points in curves.items():
            _curve(axis, solver, points, f"C{solvers.index(solver)}")
        sizes = sorted({n for points in curves.values() for n in points})
        axis.set(xscale="log", yscale="log", xlabel="n", ylabel="seconds", title=f"{CLAIMS[name].title}, {case}")
        axis.title.set_fontsize("medium")
        axis.set_xticks(sizes, labels=[str(n) for n in sizes])
        axis.set_xticks([], minor=True)
        axis.grid(color="0.9")
        axis.legend(fontsize="small")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return figure


def _curve(axis: Axes, solver: str, points: dict[int, float], color: str) -> None:
    if not points:
        return
    n, seconds = np.array(sorted(points.items())).T
    label = solver
    if n.size > 1:
        label += f", n^{np.polyfit(np.log(n), np.log(seconds), 1)[0]:.1f}"
    ours = solver == "lqo-mor"
    axis.plot(n, seconds, "o-" if ours else "s--", color=color, label=label, lw=2 if ours else 1, ms=5, zorder=3 if ours else 2)
