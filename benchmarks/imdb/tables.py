"""Tables and plots of the IMDb experiment.

    python -m benchmarks.imdb.tables RESULTS.json OUTDIR [--studies STUDIES.json] [--page docs/imdb.md]

RESULTS.json is that of `benchmarks.imdb.compress`, STUDIES.json that of `benchmarks.imdb.studies`. With Matplotlib, OUTDIR
gets a PNG for every plot; and a Markdown file for every table, but with ``--page`` both are put into that page, between its lines
``<!-- table NAME -->`` or ``<!-- plot NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks.imdb.methods import LABELS
from lqo_mor.files import write_atomically

GUIDES = {  # what a ranking of methods may go by; all are the better the smaller they are
    "h2_mean": "h2 error",
    "bound_sum": "bound",
    "calibrated_bound_sum": "calibrated bound",
    "logits_rms": "rms of the outputs",
}


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def averaged(rows: list[dict]) -> list[dict]:
    """One row per method and size: the means over seeds, and the accuracies of all."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["size"], row["method"]), []).append(row)
    found = []
    for group in groups.values():
        means = {}
        for name, value in group[0].items():
            if isinstance(value, (int, float)) and name != "seed":
                means[name] = type(value)(np.mean([row[name] for row in group]))
        found.append({**group[0], **means, "accuracies": [row["accuracy"] for row in group]})
    order = list(LABELS)
    return sorted(found, key=lambda row: (-row["size"], order.index(row["method"])))


def percent(value: float, digits: int = 2) -> str:
    """A share as text."""
    return f"{100 * value:.{digits}f} %"


def short(value: float | None) -> str:
    """A number of any size as text."""
    return "" if value is None else f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.1e}"


def accuracy_table(rows: list[dict], full: dict) -> str:
    """Accuracies of every method at every size."""
    sizes = sorted({row["size"] for row in rows}, reverse=True)
    left = {row["size"]: percent(row["parameters_left"], 1) for row in rows}
    found = {(row["method"], row["size"]): row["accuracy"] for row in rows}
    body = [[f"full model, {full['parameters']:,} parameters", *[percent(full["accuracy"])] * len(sizes)]]
    for method in (name for name in LABELS if any(row["method"] == name for row in rows)):
        cells = [percent(found[method, size]) if (method, size) in found else "" for size in sizes]
        body.append([LABELS[method], *cells])
    return markdown(["states of each layer (parameters left)", *(f"{size} ({left[size]})" for size in sizes)], body)


def details_table(rows: list[dict]) -> str:
    """All that is measured on the outputs."""
    columns = ["states", "method", "parameters", "accuracy", "drop (points)", "agreement", "rms", "h2 error", "repaired", "CPU s"]
    body = []
    for row in rows:
        spread = row["accuracies"]
        several = f" ({percent(min(spread))} to {percent(max(spread))})" if len(spread) > 1 else ""
        texts = [f"{row['size']}", LABELS[row["method"]], f"{row['parameters']:,}", percent(row["accuracy"]) + several]
        texts += [f"{100 * row['drop']:+.2f}", percent(row["agreement"], 1), short(row["logits_rms"]), short(row["h2_mean"])]
        body.append([*texts, f"{row['repaired']}", f"{row['cpu_seconds']:.1f}"])
    return markdown(columns, body)


def bounds_table(rows: list[dict]) -> str:
    """The observed error and the bounds."""
    columns = ["states", "method", "observed", "calibrated bound", "bound", "calibrated, as a sum", "bound, as a sum"]
    names = ("observed_error", "calibrated_bound", "bound", "calibrated_bound_sum", "bound_sum")
    return markdown(columns, [[f"{r['size']}", LABELS[r["method"]], *(short(r[n]) for n in names)] for r in rows])


def correlation(guide: list[float], accuracy: list[float]) -> float:
    """Spearman's rank correlation of a guide, turned around, with the accuracy; NaN where all values of one are equal."""
    a, b = rankdata(-np.array(guide)), rankdata(accuracy)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def ranking_table(rows: list[dict]) -> str:
    """How well guides rank the methods of each size: 1 is the order of the accuracies, −1 its reverse."""
    body = []
    for size in sorted({row["size"] for row in rows}, reverse=True):
        own = [row for row in rows if row["size"] == size]
        values = [correlation([row[name] for row in own], [row["accuracy"] for row in own]) for name in GUIDES]
        body.append([str(size), str(len(own)), *("none" if np.isnan(value) else f"{value:+.2f}" for value in values)])
    return markdown(["states", "methods", *GUIDES.values()], body)


def layers_table(rows: list[dict]) -> str:
    """One layer at a time reduced."""
    columns = [
        "reduced layer",
        "states",
        "accuracy",
        "agreement",
        "rms",
        "h2 error",
        "rms per h2 error",
        "observed",
        "bound, as a sum",
    ]
    body = []
    for r in rows:
        texts = [r["layer"], str(r["size"]), percent(r["accuracy"]), percent(r["agreement"], 1), short(r["logits_rms"])]
        body.append([*texts, *(short(r[name]) for name in ("h2_absolute", "rms_per_h2", "observed_error", "bound_sum"))])
    return markdown(columns, body)


def rank_table(rows: list[dict]) -> str:
    """Fewer products in the quadratic outputs."""
    columns = ["products kept", "chosen by", "power lost, by layer", "parameters", "accuracy", "agreement", "rms"]
    body = []
    for r in sorted(rows, key=lambda r: (-r["rank"], r["kind"])):
        lost = ", ".join(percent(value, 0) for value in r["lost"])
        texts = [str(r["rank"]), f"{r['kind']} signals", lost, f"{r['parameters']:,}", percent(r["accuracy"])]
        body.append([*texts, percent(r["agreement"], 1), short(r["logits_rms"])])
    return markdown(columns, body)


def eps_table(rows: list[dict]) -> str:
    """Another ε in the normalisations."""
    columns = ["ε", "accuracy", "change of the outputs (rms)", "observed", "calibrated, as a sum", "bound, as a sum", "bound"]
    names = ("changed_rms", "observed_error", "calibrated_bound_sum", "bound_sum", "bound")
    ordered = sorted(rows, key=lambda r: r["eps"])
    return markdown(columns, [[short(r["eps"]), percent(r["accuracy"], 1), *(short(r[name]) for name in names)] for r in ordered])


def stability_table(rows: list[dict]) -> str:
    """TLBT and TLH2 without repair: where no iterate is unstable in one line per layer, then the others."""
    columns = [
        "layer",
        "method",
        "orders",
        "unstable iterates",
        "unstable poles",
        "largest modulus",
        "h2 error",
        "after the repair",
    ]
    calm, body = {}, []
    for r in sorted(rows, key=lambda r: r["layer"]):
        name = r["layer"], LABELS[r["method"]]
        if "unstable_orders" in r:
            orders = f", but {', '.join(map(str, r['unstable_orders']))}" if r["unstable_orders"] else ""
            calm[name] = [f"{r['order']}{orders}"]
        elif r["method"] == "tsia" and not r["unstable"]:
            calm.setdefault(name, []).append(str(r["order"]))
        elif r["method"] == "tsia":
            texts = [
                str(r["order"]),
                f"{r['unstable']} of {r['iterates']}",
                str(r["unstable_poles"]),
                short(r["largest_modulus"]),
            ]
            body.append([*name, *texts, short(r["error"]) or "overflows", short(r.get("repaired_error"))])
            body[-1][-1] += f"; every step repaired {short(r['guarded_error'])}" if r.get("guarded_error") else ""
    stable = [[*name, ", ".join(orders), "none", "0", "", "", ""] for name, orders in calm.items()]
    return markdown(columns, stable + body)


STUDIES: dict[str, Callable[[list[dict]], str]] = {
    "layers": layers_table,
    "rank": rank_table,
    "eps": eps_table,
    "stability": stability_table,
}


def all_tables(results: dict, studies: dict | None) -> dict[str, str]:
    """Every table that there are rows for, by its name."""
    rows, tables = averaged(results["rows"]), {}
    if rows:
        tables = {
            "accuracy": accuracy_table(rows, results["extra"]["full"]),
            "details": details_table(rows),
            "bounds": bounds_table(rows),
            "ranking": ranking_table(rows),
        }
    for name, table in STUDIES.items():
        own = [row for row in (studies or {"rows": []})["rows"] if row["study"] == name]
        if own:
            tables[name] = table(own)
    return tables


def filled(page: str, parts: dict[str, str]) -> str:
    """A page with the `parts`, such as "table accuracy", between its marks; those that are not there stay as they are."""

    def replaced(match: re.Match) -> str:
        part = parts.get(match[1])
        return match[0] if part is None else f"<!-- {match[1]} -->\n\n{part}\n<!-- end -->"

    return re.sub(r"<!-- ((?:table|plot) \w+) -->\n.*?<!-- end -->", replaced, page, flags=re.DOTALL)


def save_plots(results: dict, studies: dict | None, folder: Path) -> list[str]:
    """Write every plot that there are rows for; their names, none without Matplotlib."""
    try:
        from benchmarks.imdb.plots import all_plots
    except ImportError:
        print("no plots: they need Matplotlib", file=sys.stderr)
        return []
    plots = all_plots(averaged(results["rows"]), results["extra"]["full"], (studies or {"rows": []})["rows"])
    for name, figure in plots.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
    return list(plots)


def main(arguments: list[str] | None = None) -> int:
    """Write the tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--studies", type=Path)
    parser.add_argument("--page", type=Path, help="Markdown page with marks to fill")
    args = parser.parse_args(arguments)
    results = json.loads(args.results.read_text())
    studies = json.loads(args.studies.read_text()) if args.studies else None
    args.outdir.mkdir(parents=True, exist_ok=True)
    tables, plots = all_tables(results, studies), save_plots(results, studies, args.outdir)
    if args.page is None:
        for name, table in tables.items():
            write_atomically(args.outdir / f"{name}.md", table.encode(), overwrite=True)
        return 0
    parts = {f"table {name}": table for name, table in tables.items()}
    for name in plots:
        place = Path(os.path.relpath(args.outdir / f"{name}.png", args.page.parent)).as_posix()
        parts[f"plot {name}"] = f"![{name}]({place})\n"
    write_atomically(args.page, filled(args.page.read_text(encoding="utf-8"), parts).encode(), overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
