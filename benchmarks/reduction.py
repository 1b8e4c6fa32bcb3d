"""Every reduction method on systems of the literature: relative h2 errors and seconds, beside other people's code.

    python -m benchmarks.reduction [DATA] [--quick] [--quality] [--systems ...] [--methods ...] [--output FILE]

DATA is a folder with ``lqo/`` (advdiff200.npz, msd120p2.npz, reference.json) and ``slicot/`` (build, CDplayer, heat-cont,
iss1R); without it the two reference systems are built, the published figures and SLICOT's systems are left out. For linear
systems pyMOR and python-control take part where they are installed. The second part is the speed of batches; ``--quality``
adds the comparison of the default with many random restarts, which takes long.
"""

from __future__ import annotations

import argparse
import json
import sys as system
import time
import warnings
from pathlib import Path

import numba
import numpy as np
from rich.console import Console
from rich.table import Table

import lqo_mor as lqo
from benchmarks import _reduction_peers as peers
from benchmarks._reduction_restarts import compare
from lqo_mor.bench.machine import describe
from lqo_mor.reduction.reduce import METHODS

ORDERS = (2, 4, 8, 16, 30)
WANTED = ("balanced", "tsia", "irka", "optimal", "projected_gradient")
DESCENT_SIZE = 60  # states up to which the projected gradient is run on dense systems, where it takes minutes beyond
CHECKED = 1e-5  # relative error above which the plain formula has digits enough to check ours
HORIZON = 1024
PACKAGES = ("lqo-mor", "numpy", "scipy", "numba", "pymor", "control", "slycot")


def tell(text: str) -> None:
    """Progress, to standard error."""
    print(text, file=system.stderr, flush=True)


def attempt(sys, order: int, reduce) -> dict:
    """Error and seconds of one reduction; `reduce(order)` reduces and returns a function that gives the result."""
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = reduce(order)
            seconds = time.perf_counter() - begin
            rom = result()
            error = lqo.h2_error(sys, rom, relative=True)
    except Exception as err:  # another package may fail in any way; the table says how
        what = f"{type(err).__name__}: {err}".removesuffix(": ")
        note = "unstable" if isinstance(err, lqo.errors.UnstableSystemError) else what
        return {"error": None, "seconds": time.perf_counter() - begin, "note": note}
    row = {"error": float(error), "seconds": seconds, "note": ""}
    if error > CHECKED:
        row["check"] = abs(peers.plain_error(sys, rom) / error - 1)
    return row


def ours(sys, methods: list[str]) -> dict:
    """Our methods as functions from an order to a reduced system."""

    def make(method):
        def run(order):
            red = lqo.reduce(sys, order, method=method)
            return lambda: red.system

        return run

    slow = isinstance(sys, lqo.LQOSystem) and sys.order > DESCENT_SIZE
    return {method: make(method) for method in methods if not (slow and method == "projected_gradient")}


def measure_errors(found: dict, methods: list[str], orders, references: dict) -> list[dict]:
    """All systems, methods and orders, in one process."""
    rows = []
    for name, sys in found.items():
        others, absent = peers.reducers(sys)
        for method, run in {**ours(sys, methods), **others}.items():
            for order in orders:
                if order < sys.order:
                    tell(f"{name}: {method}, order {order}")
                    rows.append({"system": name, "method": method, "order": order, **attempt(sys, order, run)})
        if "optimal" in methods:
            rows += _curve(name, sys, [order for order in orders if order < sys.order])
        known = {"system": name, "seconds": None, "note": ""}
        for method, errors in references.get(name, {}).items():
            rows += [{**known, "method": method, "order": order, "error": errors[order]} for order in orders if order in errors]
        rows += [{**known, "method": peer, "order": None, "error": None, "note": why} for peer, why in absent.items()]
    return rows


def _curve(name: str, sys, orders: list[int]) -> list[dict]:
    """All orders at once by ``reduce(sys, orders=...)``; the seconds are those of the whole curve, with the last order."""
    tell(f"{name}: optimal, all orders at once")
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = lqo.reduce(sys, orders=orders).errors["optimal"]
    seconds = [None] * (len(orders) - 1) + [time.perf_counter() - begin]
    row = {"system": name, "method": "optimal, all orders at once", "note": ""}
    return [{**row, "order": r, "error": float(e), "seconds": s} for r, e, s in zip(orders, errors, seconds, strict=True)]


def show_errors(console: Console, name: str, rows: list[dict], orders, sys) -> None:
    """One row per method: the error at every order, and the seconds in brackets."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method")
    for order in orders:
        table.add_column(f"r = {order}", justify="right")
    for method in dict.fromkeys(row["method"] for row in rows if row["order"] is not None):
        cells = {row["order"]: row for row in rows if row["method"] == method}
        table.add_row(method, *(_cell(cells.get(order)) for order in orders))
    console.print(f"[bold]{name}[/bold]: {sys!r}", table, sep="\n")
    for note in dict.fromkeys(f"{row['method']}: {row['note']}" for row in rows if row["note"] not in ("", "unstable")):
        console.print(note)
    console.print()


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    if row["error"] is None:
        return "unstable" if row["note"] == "unstable" else "failed"
    return f"{row['error']:.4g}" + ("" if row["seconds"] is None else f" ({row['seconds']:.2g} s)")


def warm_up(methods: list[str]) -> None:
    """Compile what is compiled, outside of the clock."""
    small = lqo.examples.random_lqo(8, continuous=True), lqo.examples.random_lqo(8), lqo.examples.lightly_damped(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sys in (*small, lqo.examples.random_lqo(8, 2, 2, quadratic=None, continuous=True)):
            for method in methods:
                lqo.reduce(sys, 4, method=method)


def mimo_layer(pairs: int = 128, m: int = 64) -> lqo.DiagonalLQOSystem:
    """One layer with many inputs and outputs: S4D-LegS poles, random input and output rows."""
    rng = np.random.default_rng(0)
    poles = lqo.examples.s4d(pairs, 1, kind="legs", dt_min=0.01, dt_max=0.01).poles[0]
    B, C = rng.standard_normal((2, pairs, m)) + 1j * rng.standard_normal((2, pairs, m))
    return lqo.DiagonalLQOSystem(poles, B * np.sqrt(1 - np.abs(poles[:, np.newaxis]) ** 2), C.T, dt=1.0)


def measure_batches(quick: bool) -> list[dict]:
    """Channels per second of S4D layers, 64 to 16 states over 1024 samples, and the seconds of one layer with many inputs."""
    rows, available = [], numba.get_num_threads()
    for method in ("balanced", "optimal"):  # compile outside of the clock
        lqo.reduce(lqo.examples.s4d(channels=2), slots=8, method=method, horizon=HORIZON)
    for channels in (128,) if quick else (128, 512):
        layer = lqo.examples.s4d(channels=channels)
        for threads in (1, 2):
            if threads > available:
                tell(f"{threads} threads: only {available} available")
                continue
            numba.set_num_threads(threads)
            for method in ("balanced", "optimal"):
                tell(f"{channels} channels, {threads} threads, {method}")
                begin = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    red = lqo.reduce(layer, slots=8, method=method, horizon=HORIZON)
                seconds = time.perf_counter() - begin
                rows.append(_batch_row(f"S4D, {channels} channels, 64 to 16 states, {method}", threads, seconds, red, channels))
    numba.set_num_threads(available)
    layer = mimo_layer(32, 16) if quick else mimo_layer()
    order = layer.order // 4
    tell(f"{layer}")
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        red = lqo.reduce(layer, order, horizon=HORIZON)
    case = f"{layer.n_inputs} inputs and outputs, {layer.order} to {order} states, optimal"
    return [*rows, _batch_row(case, available, time.perf_counter() - begin, red, 1)]


def _batch_row(case: str, threads: int, seconds: float, red, channels: int) -> dict:
    errors = np.atleast_1d(red.relative_error)
    rates = {"seconds": seconds, "channels per second": channels / seconds}
    return {"case": case, "threads": threads, **rates, "median": float(np.median(errors)), "worst": float(errors.max())}


def measure_quality(data: Path | None, quick: bool) -> list[dict]:
    """The default result against the best of random restarts, on S4D channels and on SLICOT's systems."""
    channels, restarts = (6, 4) if quick else (50, 50)
    rows = []
    for kind, rank in (("lin", 0), ("legs", 0), ("lin", 1)):
        layer = lqo.examples.s4d(channels=channels, kind=kind, rank=rank, seed=2)
        case = f"{channels} S4D-{kind} channels{', quadratic' if rank else ''}"
        found = compare(layer, 16, restarts, HORIZON, lambda text, case=case: tell(f"{case}: {text}"))
        rows.append({"case": case, "order": 16, "restarts": restarts, **found})
    for name in peers.SLICOT if data is not None else ():
        for order in (4,) if quick else (2, 4, 8, 16):
            sys = peers.slicot(data, name)
            if quick and sys.order > 120:
                continue
            found = compare(sys, order, restarts, None, lambda text, case=f"{name}, {order}": tell(f"{case}: {text}"))
            rows.append({"case": name, "order": order, "restarts": restarts, **found})
    return rows


def plain_table(title: str, rows: list[dict]) -> Table:
    """Rows of equal keys as a table; lists are left to the file."""
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if not isinstance(rows[0].get(key), list)]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for key in keys:
        table.add_column(key, justify="left" if key in ("case", "note") else "right")
    for row in rows:
        values = (row.get(key, "") for key in keys)
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values))
    return table


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder with lqo/ and slicot/")
    parser.add_argument("--quick", action="store_true", help="two orders, small systems, small batches")
    parser.add_argument("--quality", action="store_true", help="compare the default with random restarts, too")
    parser.add_argument("--systems", nargs="+", help="only these systems, by name")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=[name for name in WANTED if name in METHODS])
    parser.add_argument("--output", type=Path, help="write all figures to this new file, as JSON")
    arguments = parser.parse_args(argv)
    if arguments.output is not None and arguments.output.exists():
        parser.error(f"{arguments.output} exists already")
    found = peers.systems(arguments.data, arguments.quick)
    if arguments.systems:
        unknown = [name for name in arguments.systems if name not in found]
        if unknown:
            parser.error(f"unknown systems {', '.join(unknown)}; known are {', '.join(found)}")
        found = {name: found[name] for name in arguments.systems}
    console = Console(highlight=False, width=150)
    machine = describe(*PACKAGES)
    console.print(machine)
    warm_up(arguments.methods)
    orders = (2, 8) if arguments.quick else ORDERS
    rows = measure_errors(found, arguments.methods, orders, peers.published(arguments.data))
    for name, sys in found.items():
        show_errors(console, name, [row for row in rows if row["system"] == name], orders, sys)
    console.print("relative h2 errors, all by h2_error; our seconds include the evaluation of the error, those of others do not")
    checks = [row["check"] for row in rows if "check" in row]
    if checks:
        console.print(f"largest relative difference to the plain formula, in errors above {CHECKED:g}: {max(checks):.1e}\n")
    report = {"machine": machine, "errors": rows, "batches": measure_batches(arguments.quick)}
    console.print(plain_table(f"batches over {HORIZON} samples, relative h2 errors", report["batches"]), "")
    write(report, arguments.output)
    if arguments.quality:
        report["quality"] = measure_quality(arguments.data, arguments.quick)
        console.print(plain_table("default against the best of random restarts", report["quality"]))
        write(report, arguments.output)


def write(report: dict, path: Path | None) -> None:
    """Write what has been measured so far."""
    if path is not None:
        path.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
