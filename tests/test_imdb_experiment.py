"""The IMDb experiment on a tiny model and a few made-up reviews: rows, resumption, studies, tables."""

import csv
import gzip
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from benchmarks.imdb import compress, data, studies, tables
from benchmarks.imdb.rank import best_subset, measured_moments, white_moments, with_rank
from benchmarks.imdb.stability import described, plain_iteration, truncated
from lqo_mor.analysis.door import norm_of
from lqo_mor.reduction.balanced import balance

METHODS = ["hippo", "modal", "balanced", "tsia", "gradient-balanced", "optimal"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Reviews, and a model of two layers with 12 states."""
    torch = pytest.importorskip("torch")
    from lqo_mor.torch import LQODeepSSM

    folder = tmp_path_factory.mktemp("imdb")
    for part in ("train", "test"):
        lines = [f"{i % 2}\t5\t{i}\tReview {i} of {part}, {'good' if i % 2 else 'bad'}.\n" for i in range(30)]
        (folder / f"imdb_{part}.tsv.gz").write_bytes(gzip.compress(data.HEADER + b"\n" + "".join(lines).encode()))
    torch.manual_seed(0)
    net = LQODeepSSM(vocabulary=128, n_outputs=2, width=3, n_layers=2, n_slots=6, quadratic_rank=2)
    net.save(folder / "model.safetensors")
    return folder


@pytest.fixture
def small(monkeypatch, folder):
    """Settings that fit the tiny model."""
    for name in data.SHA256:
        monkeypatch.setitem(data.SHA256, name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
    monkeypatch.setattr(compress, "HELD_OUT", 10)
    monkeypatch.setattr(compress, "BOUND_REVIEWS", 3)


def command(folder, out, *more):
    return [str(folder), str(out), "--checkpoint", str(folder / "model.safetensors"), *more]


def test_rows_are_those_of_the_stored_models_and_a_second_run_adds_only_what_is_missing(small, folder, tmp_path, capsys):
    out = tmp_path / "r.json"
    arguments = command(folder, out, "--sizes", "4", "--methods", *METHODS, "--iterations", "3", "--test", "12")
    assert compress.main(arguments) == 0
    stored = json.loads(out.read_text())
    assert [row["method"] for row in stored["rows"]] == METHODS
    model, path = lqo.load_checkpoint(folder / "model.safetensors"), tmp_path / "r-models"
    test = data.load_reviews(folder, "test").take(np.round(np.linspace(0, 29, 12)).astype(int))
    full = model(test.windows(1024))
    assert stored["extra"]["full"] == {
        "parameters": model.n_parameters,
        "accuracy": np.mean(full.argmax(1) == test.labels),
        "reviews": 12,
    }
    for row in stored["rows"]:
        own = lqo.load_checkpoint(path / row["file"])
        logits = own(test.windows(1024))
        assert row["states"] == [4, 4]
        assert row["parameters"] == own.n_parameters == model.n_parameters - 2 * 4 * (2 + 4 * 3 + 4 * 2)
        assert row["accuracy"] == np.mean(logits.argmax(1) == test.labels)
        assert row["agreement"] == np.mean(logits.argmax(1) == full.argmax(1))
        assert row["logits_rms"] == pytest.approx(np.linalg.norm(logits - full) / np.linalg.norm(full), rel=1e-3)
        assert row["observed_error"] <= row["calibrated_bound"] <= row["bound"] <= row["bound_sum"] * (1 + 1e-9)
        assert row["h2_layers"] == [
            lqo.h2_error(a.ssm, b.ssm, 1024, relative=True, delay=0) for a, b in zip(model.blocks, own.blocks, strict=True)
        ]
    with out.with_suffix(".csv").open() as file:
        assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [row["accuracy"] for row in stored["rows"]]

    before = out.read_bytes()
    assert compress.main(arguments) == 0
    assert out.read_bytes() == before
    del stored["rows"][2]
    out.write_text(json.dumps(stored))
    assert compress.main(arguments) == 0
    rows = json.loads(out.read_text())["rows"]
    assert rows[:5] == stored["rows"]
    assert rows[5]["method"] == METHODS[2]
    with pytest.raises(SystemExit, match="test_reviews = 12, not 14"):
        compress.main([*arguments[:-1], "14"])
    with pytest.raises(SystemExit, match="at least 2 or all"):
        compress.main([*arguments[:-1], "1"])


def test_another_file_of_reviews_is_refused(folder, tmp_path):
    with pytest.raises(SystemExit, match="SHA-256"):
        compress.main(command(folder, tmp_path / "r.json", "--sizes", "4"))


def test_a_method_that_fails_is_told_and_the_others_go_on(small, folder, tmp_path, capsys, monkeypatch):
    from lqo_mor.errors import InvalidInputError

    seen = []

    def refuse(model, **options):
        seen.append(options["calibration"])
        raise InvalidInputError("not these layers")

    real = lqo.compress
    monkeypatch.setattr(lqo, "compress", lambda m, **o: refuse(m, **o) if "calibration" in o else real(m, **o))
    more = ["--sizes", "4", "--methods", "calibrated", "modal", "--calibration-count", "7", "--seeds", "0", "1", "--test", "4"]
    assert compress.main(command(folder, tmp_path / "r.json", *more)) == 1
    assert "calibrated-4-1-7 failed: not these layers" in capsys.readouterr().err
    assert [row["method"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]] == ["modal"]
    training, held_out = data.split_held_out(data.load_reviews(folder, "train"), 10)
    allowed, forbidden = ({bytes(w) for w in part.windows(1024)} for part in (training, held_out))
    drawn = [[bytes(w) for w in inputs] for inputs in seen]
    assert [len(set(d)) for d in drawn] == [7, 7]
    assert drawn[0] != drawn[1]
    assert {*drawn[0], *drawn[1]} <= allowed - forbidden


def test_studies_and_their_tables(small, folder, tmp_path, monkeypatch):
    for name, value in {"LAYER_SIZES": (4,), "EPS_SIZE": 6, "EPS_FACTORS": (1.0, 100.0), "STABILITY_ORDERS": (3,)}.items():
        monkeypatch.setattr(studies, name, value)
    monkeypatch.setattr(studies, "MOMENT_REVIEWS", 5)
    out = tmp_path / "s.json"
    assert studies.main(command(folder, out, "--test", "8")) == 0
    stored = json.loads(out.read_text())
    rows = {row["case"]: row for row in stored["rows"]}
    assert rows["blocks.1 to 4"]["states"] == [12, 4]
    assert rows["blocks.0 to 4"]["h2_layers"][1] < 1e-6 < rows["blocks.0 to 4"]["h2_layers"][0]
    assert rows["measured, rank 1"]["parameters"] == stored["extra"]["full"]["parameters"] - 2 * (4 * 6 + 3)
    assert rows["measured, rank 0"]["lost"] == [1.0, 1.0]
    assert rows["eps times 1"]["changed_rms"] == 0 < rows["eps times 100"]["changed_rms"]
    assert rows["eps times 1"]["bound_sum"] > rows["eps times 100"]["bound_sum"]
    assert {row["study"] for row in stored["rows"]} == set(studies.STUDIES)
    before = out.read_bytes()
    assert studies.main(command(folder, out, "--test", "8")) == 0
    assert json.loads(out.read_text())["rows"] == json.loads(before)["rows"]
    made = tables.all_tables({"rows": []}, stored)
    assert set(made) == set(studies.STUDIES)
    plots = pytest.importorskip("benchmarks.imdb.plots")  # needs Matplotlib
    assert set(plots.all_plots([], stored["extra"]["full"], stored["rows"])) == {"layers", "rank"}


def layer_with_products(rank=3, scale=1.0):
    rng = np.random.default_rng(1)
    poles = np.array([0.9 * np.exp(0.5j), 0.7 * np.exp(2j), 0.8])
    real = poles.imag == 0

    def rows(*shape):
        array = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        return np.where(real, array.real, array)

    q = lqo.QuadraticOutput(rows(rank, 3), rows(rank, 3), scale * rng.normal(size=(2, rank)))
    return lqo.DiagonalLQOSystem(poles, rows(2, 3).T, rows(2, 3), M=q, dt=1.0)


def test_white_moments_are_the_norm_of_the_quadratic_part_and_subsets_its_error():
    from lqo_mor.network.blocks import Block

    ssm = layer_with_products()
    quadratic = replace(ssm, C=0 * ssm.C)
    block = Block("layer", ssm)
    G, W = white_moments(block), ssm.M.W
    assert np.trace(W @ G @ W.T) == pytest.approx(lqo.h2_norm(quadratic, 1024) ** 2, rel=1e-10)
    assert best_subset(W, G, 3)[2] == pytest.approx(0, abs=1e-12)
    for count in (0, 1, 2):
        small, kept, lost = with_rank(block, G, count)
        other = replace(small.ssm, C=0 * ssm.C)
        error = lqo.h2_error(quadratic, other, 1024, relative=True)
        assert len(kept) == count
        assert error**2 == pytest.approx(lost, rel=1e-9)
        if count:
            moved = lqo.QuadraticOutput(other.M.U, other.M.V, 1.01 * other.M.W)
            assert lqo.h2_error(quadratic, replace(other, M=moved), 1024, relative=True) > error


def test_measured_moments_are_those_of_the_signals(folder):
    from lqo_mor.network.blocks import block_input
    from lqo_mor.network.signals import encode

    model = lqo.load_checkpoint(folder / "model.safetensors")
    tokens = np.random.default_rng(0).integers(0, 128, (3, 40))
    v = block_input(model.blocks[0], encode(model.encoder, tokens))
    ssm, z = model.blocks[0].ssm, []
    linear = lqo.DiagonalLQOSystem(ssm.poles, ssm.B, np.concatenate([ssm.M.U, ssm.M.V]), dt=1.0)
    for b in range(3):
        y = lqo.simulate(linear, v[:, b].T, delay=0)
        z.append(y[:, :2] * y[:, 2:])
    z = np.concatenate(z)
    np.testing.assert_allclose(measured_moments(model, tokens)[0], z.T @ z / len(z), rtol=1e-9)


def test_truncation_and_iteration_without_repair():
    full = layer_with_products(scale=0.02)
    balancing = balance(full, norm_of(full, 30))[0]
    dense, start = lqo.to_dense(full), truncated(balancing, 4)
    assert lqo.h2_error(start, lqo.balanced_truncation(dense, 4, horizon=30).system, 30, relative=True) < 1e-6
    found, steps, unstable = plain_iteration(dense, start, 400)
    assert steps > 1
    assert unstable == 0
    assert lqo.h2_error(dense, found, 400) == pytest.approx(lqo.tsia(dense, 4, horizon=400).error, rel=1e-6)
    assert plain_iteration(dense, truncated(balancing, 3), 400)[2] > 0  # an order without a Hankel gap; found by trying
    row = described(full, start, 30)
    assert row["unstable_poles"] == 0
    assert "repaired_error" not in row
    grown = lqo.LQOSystem(1.2 / row["largest_modulus"] * start.A, start.B, start.C, start.D, start.M, dt=1.0)
    row = described(full, grown, 30)
    assert row["unstable_poles"] > 0
    assert row["largest_modulus"] == pytest.approx(1.2)
    assert 0 < row["repaired_error"] < 1 < row["error"]
    assert described(full, grown, 10**5)["error"] is None


ROWS = [
    {"method": "modal", "size": 8, "accuracy": 0.7, "bound_sum": 3.0, "seed": None},
    {"method": "optimal", "size": 8, "accuracy": 0.8, "bound_sum": 2.0, "seed": None},
    {"method": "calibrated", "size": 8, "accuracy": 0.84, "bound_sum": 9.0, "seed": 0},
    {"method": "calibrated", "size": 8, "accuracy": 0.86, "bound_sum": 9.0, "seed": 1},
    {"method": "modal", "size": 4, "accuracy": 0.5, "bound_sum": 3.0, "seed": None},
]
OTHERS = (
    "parameters", "parameters_left", "drop", "agreement", "logits_rms", "h2_mean", "repaired", "cpu_seconds",
    "observed_error", "calibrated_bound", "bound", "calibrated_bound_sum",
)  # fmt: skip


def test_tables_and_plots(tmp_path):
    rows = [dict.fromkeys(OTHERS, 0.25) | row for row in ROWS]
    content = {"rows": rows, "extra": {"full": {"parameters": 1234, "accuracy": 0.9}}}
    (tmp_path / "r.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert tables.main([str(tmp_path / "r.json"), str(out)]) == 0
    lines = (out / "accuracy.md").read_text().splitlines()
    assert lines[0] == "| states of each layer (parameters left) | 8 (25.0 %) | 4 (25.0 %) |"
    assert lines[2:] == [
        "| full model, 1,234 parameters | 90.00 % | 90.00 % |",
        "| modal | 70.00 % | 50.00 % |",
        "| optimal h2 (ours) | 80.00 % |  |",
        "| calibrated (ours) | 85.00 % |  |",
    ]
    assert "85.00 % (84.00 % to 86.00 %)" in (out / "details.md").read_text()
    page, end = tmp_path / "page.md", "<!-- end -->"
    page.write_text(f"A\n<!-- table accuracy -->\nold\n{end}\nB <!-- table none -->\nstays\n{end}\n<!-- plot bound -->\n{end}\n")
    assert tables.main([str(tmp_path / "r.json"), str(out), "--page", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text
    assert all(line in text for line in [*lines, "A", "B <!-- table none -->", "stays"])
    assert tables.filled(text, {"table accuracy": "new\n"}).count("new") == 1
    pytest.importorskip("matplotlib")
    assert "![bound](out/bound.png)" in text
    assert sorted(file.name for file in out.glob("*.png")) == ["accuracy.png", "bound.png"]


def test_rankings():
    assert tables.correlation([1.0, 2.0, 3.0], [0.9, 0.8, 0.7]) == 1
    assert tables.correlation([1.0, 3.0, 2.0], [0.7, 0.9, 0.8]) == -1
    assert np.isnan(tables.correlation([1.0, 1.0, 1.0], [0.7, 0.9, 0.8]))
    line = tables.ranking_table([dict.fromkeys(OTHERS, 0.25) | row for row in ROWS[:3]]).splitlines()[2]
    assert line == "| 8 | 3 | none | -0.50 | none | none |"
