"""A compression as one self-contained HTML page, with pictures by Matplotlib (extra ``plot``)."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import numpy as np

from lqo_mor.bounds.gains import times_each
from lqo_mor.bounds.output_error import OutputErrorBound
from lqo_mor.compression.report import svg as plots
from lqo_mor.compression.report.records import CompressionReport
from lqo_mor.errors import InvalidInputError
from lqo_mor.network.model import DeepSSM

_CSS = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5b6470; --paper: #fff; --card: #f4f5f7; --line: #b9bfc8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa4b0; --paper: #15181c; --card: #20252b; --line: #4b545f; }
}
body { margin: 0 auto; padding: 1.5rem; max-width: 62rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p, figcaption, dt, small { color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; margin: 0; }
dl > div { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
dd small { display: block; font-size: .85rem; font-weight: 400; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .45rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } tr > :nth-child(2) { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 7rem; }
tfoot td { font-weight: 600; border-bottom: 0; }
figure { margin: 0 0 1.2rem; overflow-x: auto; } figcaption { font-size: .9rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; color: var(--ink); }
svg text { font-family: system-ui, sans-serif !important; }
"""
_ESTIMATES = {
    "sum": "sum of the layers' h2 errors times their weights",
    "chain": "ℓ2 gains, layer after layer",
    "range": "normalised tokens are never further apart",
}


def html_page(report: CompressionReport, model: DeepSSM, small: DeepSSM, bound: OutputErrorBound | None = None) -> str:
    """The page of a report on the reduction of `model` to `small`, see `CompressionResult.save_html`."""
    if bound is not None and list(bound.names) != [block.name for block in model.blocks]:
        raise InvalidInputError("the bound must be that of the compression: its blocks have other names")
    parts = [
        "<h1>Compression of a deep state-space model</h1>",
        _headline(report),
        "<h2>Layers</h2>",
        _layers(report),
        *([] if bound is None else ["<h2>Bound on the output error</h2>", _bound(bound)]),
        *_pictures(report, model, small),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Compression report</title>\n<style>{_CSS}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Text from a file for the page: escaped, printable and not endless."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return html.escape(shown if len(shown) <= 120 else f"{shown[:119]}…")


def _number(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else "∞" if np.isinf(value) else f"{value:.3g}"


def _share(before: int, after: int) -> str:
    return "" if not before else "unchanged" if after == before else f"{after / before - 1:+.1%}".replace("-", "−")


def _table(header: Sequence[object], rows: Sequence[Sequence[object]], last: Sequence[object]) -> str:
    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    head, foot = f"<thead>{line(header, 'th')}</thead>", f"<tfoot>{line(last, 'td')}</tfoot>"
    return f'<div class="wide"><table>\n{head}\n<tbody>\n{body}\n</tbody>\n{foot}\n</table></div>'


def _cards(cards: Sequence[tuple[str, str, str]]) -> str:
    inner = "\n".join(f"<div><dt>{what}</dt><dd>{value}<small>{note}</small></dd></div>" for what, value, note in cards)
    return f"<dl>\n{inner}\n</dl>"


def _mean_states(report: CompressionReport) -> tuple[float, float]:
    """Mean states per system over the layers, before and after; channels weigh equally."""
    weights = [np.size(layer.relative_error) for layer in report.layers]
    states = [(layer.states_before, layer.mean_states) for layer in report.layers]
    before, after = (float(np.average(column, weights=weights)) for column in zip(*states, strict=True))
    return before, after


def _headline(report: CompressionReport) -> str:
    before, after = report.parameters_before, report.parameters_after
    layers = [sum(getattr(layer, f"parameters_{when}") for layer in report.layers) for when in ("before", "after")]
    states = _mean_states(report)
    white = np.concatenate([np.ravel(layer.relative_error) for layer in report.layers])
    repaired = sum(layer.repaired for layer in report.layers)
    horizon = "infinite horizon" if report.horizon is None else f"horizon of {report.horizon} samples"
    cards = [
        ("Parameters, whole model", f"{before:,} → {after:,}", _share(before, after)),
        ("Parameters, systems alone", f"{layers[0]:,} → {layers[1]:,}", _share(*layers)),
        ("States per system", f"{states[0]:g} → {states[1]:.3g}", "mean over all systems"),
    ]
    errors = (
        ("Output error, predicted", report.predicted_error, "relative rms, for other inputs of the same kind"),
        ("Output error, measured", report.calibration_error, "relative rms, on the calibration inputs"),
    )
    cards += [(what, f"{error:.3g}", note) for what, error, note in errors if error is not None]
    cards += [
        ("White h2 error of the systems", f"{np.median(white):.3g}", f"relative, median; worst {np.max(white):.3g}"),
        ("Method", _text(report.method), f"{horizon}, {sum(layer.seconds for layer in report.layers):.1f} s"),
        ("Repaired", f"{repaired:,}", "reduced systems that had been unstable"),
    ]
    return _cards(cards)


def _layers(report: CompressionReport) -> str:
    weighted = any(layer.weighted_error is not None for layer in report.layers)
    header = ["#", "layer", "states", "parameters", "change", "h2 median", "h2 worst"]
    header += ["weighted", "worst"] if weighted else []
    rows = []
    for number, layer in enumerate(report.layers, 1):
        even = layer.mean_states == layer.states_after
        after = layer.states_after if even else f"{layer.mean_states:.1f} <small>(up to {layer.states_after})</small>"
        before = layer.parameters_before
        row: list[object] = [number, _text(layer.name), f"{layer.states_before} → {after}"]
        row += [f"{before:,} → {layer.parameters_after:,}", _share(before, layer.parameters_after)]
        row += [_number(np.median(layer.relative_error)), _number(np.max(layer.relative_error))]
        if weighted:
            w = layer.weighted_error
            row += ["–", "–"] if w is None else [_number(float(np.linalg.norm(w))), _number(np.max(w))]
        rows.append([*row, layer.repaired])
    before, after = report.parameters_before, report.parameters_after
    total: list[object] = ["", "whole model", "", f"{before:,} → {after:,}", _share(before, after)]
    total += [""] * (len(header) - len(total)) + [sum(layer.repaired for layer in report.layers)]
    note = "<p>h2 errors are relative, for white inputs."
    if any(layer.mean_states != layer.states_after for layer in report.layers):
        note += " States: the mean over the channels (up to the largest number)."
    if weighted:
        note += " Weighted errors are those for the calibration inputs, as they count in the model's output (root of the expected"
        note += " squared error, not relative), of all channels together and of the worst."
    return _table([*header, "repaired"], rows, total) + note + "</p>"


def _bound(bound: OutputErrorBound) -> str:
    steps = f"{bound.horizon} steps"
    cards = [(f"For all inputs of {steps}", _number(bound.bound), _ESTIMATES.get(bound.used["bound"], ""))]
    if bound.calibrated is not None:
        note = _ESTIMATES.get(bound.used["calibrated"], "")
        cards.append((f"For inputs of {steps} like the calibration", _number(bound.calibrated), note))
    sums = [(bound.layer_weights, bound.mixing_terms)]
    if bound.calibrated_weights is not None:
        sums.append((bound.calibrated_weights, 0.0 if bound.calibrated_mixing_terms is None else bound.calibrated_mixing_terms))
    header = ["#", "layer", "h2 error", "weight", "product", "calibrated weight", "product"][: 3 + 2 * len(sums)]
    rows: list[list[object]] = []
    for i, (name, error) in enumerate(zip(bound.names, bound.layer_errors, strict=True)):
        cells = (_number(value) for weights, _ in sums for value in (weights[i], float(times_each(weights[i], error))))
        rows.append([i + 1, _text(name), _number(error), *cells])
    added = [float(np.sum(terms)) for _, terms in sums]
    if np.any(bound.mixing_terms):
        rows.append(["", "changes of the mixing maps", "", *(cell for term in added for cell in ("", _number(term)))])
    own = [float(np.sum(times_each(weights, bound.layer_errors))) for weights, _ in sums]
    totals = [one + term for one, term in zip(own, added, strict=True)]
    last = ["", "sum", "", *(cell for total in totals for cell in ("", _number(total)))]
    note = "<p>The 2-norm of the difference of two output vectors is never larger. The table shows the sum of the weighted h2"
    note += " errors of the layers; the bound is the least of this and other proven estimates.</p>"
    return _cards(cards) + note + _table(header, rows, last)


def _figure(caption: str, name: str, size: tuple[float, float], draw: Callable[..., None], *args: object) -> str:
    svg = plots.drawn(name, size, draw, *args)
    below = f"\n<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure>\n{svg}{below}\n</figure>"


def _pictures(report: CompressionReport, model: DeepSSM, small: DeepSSM) -> list[str]:
    panels = [("relative h2 error, white inputs", [layer.relative_error for layer in report.layers])]
    weighted = [layer.weighted_error for layer in report.layers if layer.weighted_error is not None]
    if len(weighted) == len(report.layers):
        panels.append(("weighted error, calibration inputs", weighted))
    single = all(np.size(layer.relative_error) == 1 for layer in report.layers)
    parts = [f"<h2>Errors of the {'layers' if single else 'channels'}</h2>"]
    zeros = sum(np.count_nonzero(np.asarray(layer) == 0) for _, values in panels for layer in values)
    caption = f"Not shown: {zeros} errors that are zero." if zeros else ""
    parts.append(_figure(caption, "errors", (10, 3.2), plots.errors, panels))
    if report.budget_curve:
        caption = "Error that the calibration predicts for other budgets, from the errors of the layers."
        curve = report.budget_curve, _mean_states(report)[1]
        parts += ["<h2>Budget</h2>", _figure(caption, "budget", (10, 3), plots.budget, *curve)]
    counts = [np.sum(plots.used_slots(block.ssm), axis=-1) for block in small.blocks]
    if any(np.ptp(count) > 0 for count in counts):
        size = (10, 0.4 + 2.1 * -(-len(counts) // 4))
        systems = [block.ssm for block in small.blocks]
        parts += ["<h2>States kept</h2>", _figure("Channels by their states.", "kept", size, plots.histograms, systems)]
    if places := plots.worst(model, small, panels[-1][1]):
        caption = f"Those with the largest {'weighted' if len(panels) > 1 else 'relative h2'} errors."
        pictured = _figure(caption, "worst", (10, 2.8), plots.impulse_responses, model, small, places, report.horizon)
        parts += ["<h2>Impulse responses of the worst systems</h2>", pictured]
    parts.append("<h2>Poles before and after</h2>")
    for number, (block, other) in enumerate(zip(model.blocks, small.blocks, strict=True), 1):
        caption = f"Layer {number}: {_text(block.name)}"
        parts.append(_figure(caption, f"poles{number}", (10, 2.9), plots.pole_map, block.ssm, other.ssm))
    return parts
