import dataclasses
import json
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.bounds.output_error import OutputErrorBound
from lqo_mor.compression.calibration.calibration import CalibrationOptions
from lqo_mor.compression.compress import CompressionResult
from lqo_mor.compression.report.html import html_page
from lqo_mor.compression.report.records import CompressionReport, LayerReport
from lqo_mor.errors import InvalidInputError, MissingDependencyError, OutputError
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import DeepSSM
from tests.network.random_models import random_model

HOSTILE = "<script>alert('x')</script> & \"$\\frac{\" \x00\ud800"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; every tag must be closed in the right order."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def by_hand(model, small, names=None, **fields):
    """The report on a compression with invented figures."""
    layers = tuple(
        LayerReport(
            a.name, 2 * a.ssm.n_slots, 2 * b.ssm.n_slots, 1200, 345, np.linspace(0.123, 0.4, a.width), 3, 0.5, 2.0 * b.ssm.n_slots
        )
        for a, b in zip(model.blocks, small.blocks, strict=True)
    )
    return CompressionReport(layers, 123456, 34567, "optimal", None, **fields)


def result_by_hand(model, small, **fields):
    """The result of a compression with invented figures."""
    return CompressionResult(small, by_hand(model, small, **fields), model)


def renamed(model, name):
    return dataclasses.replace(model, blocks=tuple(dataclasses.replace(block, name=name) for block in model.blocks))


@pytest.fixture
def pair(rng):
    """A model, and another with fewer slots that stands for its reduction."""
    return random_model(rng, slots=6), random_model(rng, slots=3)


@pytest.fixture
def drawing():
    pytest.importorskip("matplotlib")


def test_the_json_holds_every_figure(pair, tmp_path):
    report = by_hand(*pair, calibration_error=0.25, budget_curve=((2.0, 0.5), (4.0, 0.1)))
    first = dataclasses.replace(report.layers[0], weighted_error=np.array([0.1, np.nan, np.inf]))
    report = dataclasses.replace(report, layers=(first, report.layers[1]))
    report.save_json(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found.pop("version") == 1
    assert found.keys() == {field.name for field in dataclasses.fields(report)}
    assert found["budget_curve"] == [[2.0, 0.5], [4.0, 0.1]]
    assert found["predicted_error"] is None
    for layer, stored in zip(report.layers, found["layers"], strict=True):
        assert stored.keys() == {field.name for field in dataclasses.fields(layer)}
        assert stored["relative_error"] == layer.relative_error.tolist()
    assert found["layers"][0]["weighted_error"] == [0.1, None, None]
    assert found["layers"][1]["weighted_error"] is None


def test_the_json_is_never_overwritten_unasked(pair, tmp_path):
    report, path = by_hand(*pair), tmp_path / "report.json"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        report.save_json(path)
    assert path.read_text() == "mine"
    report.save_json(path, overwrite=True)
    assert json.loads(path.read_text())["method"] == "optimal"
    for bad in (tmp_path, tmp_path / "none" / "report.json", tmp_path / ("x" * 300), tmp_path / "\0"):
        with pytest.raises(OutputError):
            report.save_json(bad)
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_is_self_contained_and_shows_the_figures(drawing, pair, tmp_path):
    model, small = pair
    figures = {"predicted_error": 0.0321, "calibration_error": 0.0456, "budget_curve": ((2.0, 0.5), (4.0, 0.0))}
    result_by_hand(model, small, **figures).save_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(page)
    for figure in ("123,456 → 34,567", "1,200 → 345", "12 → 6", "0.0321", "0.0456", "0.262", "optimal", "layer 0", "layer 1"):
        assert figure in found.text
    assert "http" not in page
    assert "script" not in found.tags
    assert found.tags.count("svg") == 5  # errors, budget, impulse responses, poles of two layers
    identifiers = [value for name, value in found.attributes if name == "id"]
    assert len(set(identifiers)) == len(identifiers)
    for name, value in found.attributes:
        if name in ("href", "xlink:href", "src"):
            assert value.startswith("data:image/png") or value[1:] in identifiers
        if name == "clip-path":
            assert value[len("url(#") : -1] in identifiers
        assert not name.startswith("on")


def test_a_hostile_name_is_only_text(drawing, pair, tmp_path):
    model, small = (renamed(m, HOSTILE) for m in pair)
    bound = OutputErrorBound(
        np.inf,
        2.5,
        np.ones(2),
        np.array([np.inf, 2]),
        np.ones(2),
        dict.fromkeys(("bound", "calibrated"), "sum"),
        (HOSTILE,) * 2,
        7,
    )
    result_by_hand(model, small).save_html(tmp_path / "report.html", bound=bound)
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in found.tags
    assert found.text.count("<script>alert('x')</script> & \"$\\frac{\" ") == 6  # in two tables and under the pole maps


def test_the_bound_is_shown_with_its_calibrated_variant(drawing, pair):
    model, small = pair
    names, used = ("layer 0", "layer 1"), {"bound": "range", "calibrated": "chain"}
    bound = OutputErrorBound(4.321, 1.234, np.array([0.5, 2.0]), np.array([8.0, 4.0]), np.array([2.0, 1.0]), used, names, 77)
    text = Page(html_page(by_hand(model, small), model, small, bound)).text
    for figure in ("4.32", "1.23", "77 steps", "12", "ℓ2 gains", "normalised tokens"):
        assert figure in text
    with pytest.raises(InvalidInputError, match="other names"):
        html_page(by_hand(model, small), model, small, dataclasses.replace(bound, names=("a", "b")))


def test_an_existing_page_is_left_alone(drawing, pair, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        result_by_hand(*pair).save_html(path)
    assert path.read_text() == "mine"
    result_by_hand(*pair).save_html(path, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_the_error_says_what_to_install(pair, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"lqo-mor\[plot\]"):
        result_by_hand(*pair).save_html(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rank", [0, 2])
def test_systems_with_many_inputs_show_the_pair_that_differs_most(drawing, rng, rank):
    from lqo_mor.compression.report.svg import responses

    model = random_model(rng, mimo=True, rank=rank, slots=5)
    small = random_model(rng, mimo=True, rank=rank, slots=2)
    report = by_hand(model, small)
    layers = tuple(dataclasses.replace(layer, relative_error=np.array(0.3)) for layer in report.layers)
    assert "Errors of the layers" in Page(html_page(dataclasses.replace(report, layers=layers), model, small)).text
    ssm, other = model.blocks[0].ssm, small.blocks[0].ssm
    a, b, where = responses(ssm, other, None)
    every = np.array([[_answer(s, j, len(a)) for j in range(3)] for s in (ssm, other)])  # (2, inputs, outputs, steps)
    j, i = np.unravel_index(np.argmax(np.sum((every[0] - every[1]) ** 2, axis=-1)), (3, 3))
    assert where == f"input {j + 1} to output {i + 1}"
    np.testing.assert_allclose([a, b], every[:, j, i], atol=1e-10)


def _answer(ssm, source, steps):
    """Outputs (outputs, steps) for a unit impulse, by the recursion of the tests of the forward pass."""
    from tests.network.random_models import naive_system

    v = np.zeros((steps, ssm.n_inputs))
    v[0, source] = 1
    return naive_system(ssm, v).T


def test_the_worst_channels_and_their_responses(drawing, pair):
    from lqo_mor.compression.report.svg import responses, worst

    model, small = pair
    criteria = [np.array([0.1, np.nan, 0.5]), np.array([0.3, 0.4, 0.0])]
    assert worst(model, small, criteria) == [(0, 2), (1, 1), (1, 0)]
    assert worst(model, dataclasses.replace(small, blocks=(model.blocks[0], small.blocks[1])), criteria)[0] == (1, 1)
    ssm, other = model.blocks[0].ssm, small.blocks[0].ssm
    a, b, _ = responses(ssm, other, 2)
    np.testing.assert_allclose(a, _answer(ssm[2], 0, len(a))[0], atol=1e-12)
    np.testing.assert_allclose(b, _answer(other[2], 0, len(b))[0], atol=1e-12)
    assert len(responses(ssm, other, 2, horizon=9)[0]) <= 9


def test_a_split_compression_shows_the_states_kept(drawing, rng, tmp_path):
    width, slots = 4, 6
    poles = 0.95 * np.exp(1j * rng.uniform(0.1, 2, (width, slots)))
    C = rng.normal(size=(width, 1, slots)) * np.array([1, 0.3, 0.1, 0.01])[:, None, None]
    ssm = lqo.DiagonalLQOSystem(poles, np.ones((width, slots, 1)), C, dt=1.0)
    model = DeepSSM(Linear(rng.normal(size=(width, 1))), (Block("only", ssm),), Linear(rng.normal(size=(2, width))))
    result = lqo.compress(model, state_size=4, calibration=rng.normal(size=(4, 40, 1)), options=CalibrationOptions(split=True))
    result.save_html(tmp_path / "report.html")
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    for part in (
        "States kept",
        "Output error, predicted",
        "weighted error, calibration inputs",
        "Those with the largest weighted",
    ):
        assert part in text


def test_many_poles_keep_the_page_small(drawing):
    rng = np.random.default_rng(0)
    poles = rng.uniform(0.9, 0.999, (4, 128, 32)) * np.exp(1j * rng.uniform(0.01, 3, (4, 128, 32)))

    def model(slots):
        systems = [lqo.DiagonalLQOSystem(p[:, :slots], np.ones((128, slots, 1)), np.ones((128, 1, slots)), dt=1.0) for p in poles]
        blocks = tuple(Block(f"layer {i}", ssm) for i, ssm in enumerate(systems))
        return DeepSSM(Linear(np.ones((128, 1))), blocks, Linear(np.ones((2, 128))))

    full = model(32)
    assert len(html_page(by_hand(full, model(8)), full, model(8))) < 1.5e6
