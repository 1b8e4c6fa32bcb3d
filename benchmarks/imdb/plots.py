"""Plots of the IMDb experiment, with Matplotlib."""

from __future__ import annotations

from matplotlib.figure import Figure

from benchmarks.imdb.methods import LABELS

# A colour for each kind of method, a marker for each of its members; ours stand out.
STYLES = {
    "hippo": ("0.55", "v", "-"),
    "modal": ("tab:brown", "s", "-"),
    "balanced": ("tab:blue", "o", "-"),
    "tsia": ("tab:blue", "^", "-"),
    "gradient-hippo": ("tab:orange", "v", "--"),
    "gradient-balanced": ("tab:orange", "o", "--"),
    "gradient-tsia": ("tab:orange", "^", "--"),
    "optimal": ("tab:green", "D", "-"),
    "calibrated": ("tab:red", "*", "-"),
}


def accuracy_plot(rows: list[dict], full: dict) -> Figure:
    """Accuracy against the parameters left, a line per method."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(100 * full["accuracy"], color="0.3", lw=0.8, ls=":")
    axes.text(0.99, 100 * full["accuracy"], "full model", transform=axes.get_yaxis_transform(), ha="right", va="bottom", size=9)
    for method in LABELS:
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["parameters"])
        if own:
            colour, marker, line = STYLES[method]
            x, y = [100 * row["parameters_left"] for row in own], [100 * row["accuracy"] for row in own]
            axes.plot(x, y, color=colour, marker=marker, ls=line, label=LABELS[method])
    axes.set_xscale("log")
    ticks = sorted({round(100 * row["parameters_left"], 1) for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="parameters left (%)", ylabel="test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def bound_plot(rows: list[dict]) -> Figure:
    """Bounds against the observed error, a point per method and size."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    kinds = {
        "bound, as a weighted sum of h2 errors": ("bound_sum", "calibrated_bound_sum"),
        "least bound": ("bound", "calibrated_bound"),
    }
    for axes, (title, names) in zip(figure.subplots(1, 2), kinds.items(), strict=True):
        for method in LABELS:
            own = [row for row in rows if row["method"] == method]
            for name, filled in zip(names, (True, False), strict=True):
                colour, marker, _ = STYLES[method]
                x, y = [row["observed_error"] for row in own], [row[name] for row in own]
                face = colour if filled else "none"
                label = LABELS[method] if filled and own else None
                axes.plot(x, y, marker, ls="none", color=colour, markerfacecolor=face, label=label)
        low, high = min(row["observed_error"] for row in rows), max(row["observed_error"] for row in rows)
        axes.plot([low, high], [low, high], color="0.3", lw=0.8, ls=":")
        axes.set(xscale="log", yscale="log", title=title, xlabel="largest observed error of the outputs", ylabel="bound")
        axes.grid(alpha=0.3)
    axes.legend(
        fontsize=9,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        title="filled: all inputs\nopen: calibrated\ndotted: equal",
    )
    return figure


def layers_plot(rows: list[dict]) -> Figure:
    """What the reduction of one layer changes, and that for each unit of its h2 error."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    sizes = sorted({row["size"] for row in rows}, reverse=True)
    names = list(dict.fromkeys(row["layer"] for row in rows))
    titles = {"logits_rms": "relative rms error of the outputs", "rms_per_h2": "the same for an h2 error of 1"}
    for axes, (column, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for k, size in enumerate(sizes):
            own = {row["layer"]: row[column] for row in rows if row["size"] == size}
            places = [i + (k - (len(sizes) - 1) / 2) * 0.35 for i in range(len(names))]
            axes.bar(places, [own.get(name, 0.0) for name in names], 0.33, label=f"{size} states")
        axes.set_xticks(range(len(names)), [f"layer {i + 1}" for i in range(len(names))])
        axes.set(title=title, ylim=(0, None))
    axes.legend(fontsize=9)
    return figure


def rank_plot(rows: list[dict], full: dict) -> Figure:
    """Accuracy and lost power against the number of products kept."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    none = [row for row in rows if row["rank"] == 0]
    most = 8
    for kind, colour in (("measured", "tab:red"), ("white", "tab:blue")):
        own = sorted([row for row in rows if row["kind"] == kind or row in none], key=lambda row: row["rank"])
        x = [row["rank"] for row in own]
        left.plot(
            [*x, most],
            [100 * row["accuracy"] for row in own] + [100 * full["accuracy"]],
            "o-",
            color=colour,
            label=f"by {kind} signals",
        )
        lost = [100 * sum(row["lost"]) / len(row["lost"]) for row in own]
        right.plot([*x, most], [*lost, 0.0], "o-", color=colour, label=f"of {kind} signals")
    left.set(xlabel="products kept of 8", ylabel="test accuracy (%)", title="accuracy")
    right.set(xlabel="products kept of 8", ylabel="power lost (%)", title="power of the quadratic outputs, mean of the layers")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return figure


def all_plots(rows: list[dict], full: dict, studies: list[dict]) -> dict[str, Figure]:
    """Every plot that there are rows for, by its name."""
    plots = {"accuracy": accuracy_plot(rows, full), "bound": bound_plot(rows)} if rows else {}
    layers, ranks = ([row for row in studies if row["study"] == name] for name in ("layers", "rank"))
    if layers:
        plots["layers"] = layers_plot(layers)
    if ranks:
        plots["rank"] = rank_plot(ranks, full)
    return plots
