"""The harness of ``lqo-mor bench``: no test here depends on how fast the machine is."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lqo_mor.bench import claims, dense, diagonal, hankel, low_rank, machine, output, peers
from lqo_mor.bench.timing import Row, Timing, compare, measure
from lqo_mor.cli.main import main


class Clock:
    """A clock that only functions with a known cost advance."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def function(self, name, *costs):
        """Costs of the first runs; the last one repeats."""

        def run():
            self.calls.append(name)
            self.now += costs[min(self.calls.count(name), len(costs)) - 1]
            return name

        return run

    def measure(self, competitors, **options):
        return measure(competitors, clock=self, sleep=lambda seconds: None, **options)


def test_functions_take_turns_and_the_first_run_is_a_warm_up():
    clock = Clock()
    timings = clock.measure({"a": clock.function("a", 90, 0.1), "b": clock.function("b", 0.5, 0.2)}, rounds=3)
    assert clock.calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert timings["a"].seconds == pytest.approx(0.1)
    assert timings["b"].seconds == pytest.approx(0.2)
    assert timings["a"].runs == timings["b"].runs == 3
    assert timings["b"].result == "b"


def test_a_slow_peer_runs_once_and_a_fast_one_goes_on():
    clock = Clock()
    timings = clock.measure({"a": clock.function("a", 0.1), "slow": clock.function("slow", 7)})
    assert timings["slow"].runs == clock.calls.count("slow") == 1
    assert timings["slow"].seconds == 7
    assert timings["a"].runs == 5


def test_a_peer_of_seconds_has_three_runs_and_their_median():
    clock = Clock()
    timings = clock.measure({"a": clock.function("a", 0.1), "b": clock.function("b", 50, 1.2, 1.4, 1.6)}, compiled=("b",))
    assert timings["b"].runs == 3
    assert timings["b"].seconds == pytest.approx(1.4)


def test_a_fast_function_is_repeated_in_its_turn():
    clock = Clock()
    timings = clock.measure({"a": clock.function("a", 0.004)}, rounds=1)
    assert timings["a"].runs == 8  # until 0.03 s have passed


def test_a_peer_that_raises_is_a_result():
    clock = Clock()

    def fails():
        raise ArithmeticError("no\n  solution")

    timings = clock.measure({"a": clock.function("a", 0.1), "bad": fails})
    assert timings["bad"] == Timing(None, failure="ArithmeticError: no solution")
    (row,) = compare("stein_dense", 3, "", timings, target=2.0)
    assert (row.ratio, row.reached, row.note) == (None, None, "ArithmeticError: no solution")
    (row,) = compare("stein_dense", 3, "", {"bad": timings["bad"], "a": timings["a"]}, target=2.0)
    assert (row.ratio, row.reached) == (None, False)
    assert "ours failed" in row.note


def test_the_ratio_and_the_target_against_the_fastest_peer():
    timings = {"ours": Timing(2.0, 3, 1.0), "slow": Timing(40.0, 1, 3.0), "fast": Timing(5.0, 2, 2.0)}
    slow, fast, absent = compare("stein_dense", 8, "case", timings, lambda x: x / 10, 3.0, {"other": "not installed"})
    assert (slow.peer, slow.ratio, slow.target, slow.reached) == ("slow", 20.0, None, None)
    assert (fast.peer, fast.ratio, fast.target, fast.reached) == ("fast", 2.5, 3.0, False)
    assert (fast.accuracy, fast.peer_accuracy, fast.runs, fast.peer_runs) == (0.1, 0.2, 3, 2)
    assert (absent.peer, absent.ratio, absent.note) == ("other", None, "not installed")
    assert compare("x", 8, "", timings, target=2.5)[1].reached


def hide(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_missing_peers_are_named_and_the_others_take_part(monkeypatch):
    hide(monkeypatch, *peers.PACKAGES.values())
    functions, absent = peers.solvers(False, 0.5 * np.eye(2), np.eye(2))
    assert (set(functions), set(absent)) == ({"SciPy"}, set(peers.PACKAGES))
    report = claims.Report(
        {"stein_dense": compare("stein_dense", 2, "", {"ours": Timing(1.0)}, absent=absent)}, FACTS, absent, True, 1
    )
    assert "slycot: " in output.summary(report)
    assert [row["peer"] for row in json.loads(output.to_json(report))["claims"][0]["rows"]] == list(absent)


def test_a_package_that_is_not_there_is_not_installed(monkeypatch):
    monkeypatch.setitem(peers.PACKAGES, "slycot", "a_module_that_does_not_exist")
    assert peers.installed()["slycot"] == "not installed"


def test_wrappers_of_the_same_routine_can_be_left_out(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: dict.fromkeys(peers.PACKAGES, object()) | {"slycot": "not installed"})
    functions, absent = peers.solvers(True, -np.eye(2), np.eye(2), wrappers=False)
    assert set(functions) == {"SciPy"}
    assert absent["pyMOR"] == "calls SciPy, see there"


@pytest.mark.parametrize("continuous", [False, True])
def test_all_solvers_solve_the_same_equation(continuous):
    A, root = dense.stable_matrix(6, continuous, 0.9), np.random.default_rng(0).standard_normal((6, 6))
    functions, absent = peers.solvers(continuous, A, root)
    before = A.copy()
    for name, solve in functions.items():
        X = solve()
        rest = A @ X + X @ A.T if continuous else A @ X @ A.T - X
        np.testing.assert_allclose(rest, -root @ root.T, atol=1e-10, err_msg=name)
    assert functions.keys() | absent.keys() == {"SciPy", *peers.PACKAGES}
    np.testing.assert_array_equal(A, before)


@pytest.mark.parametrize("continuous", [False, True])
def test_the_residual_of_a_factor_sees_a_wrong_one(continuous):
    A, B = dense.stable_matrix(12, continuous, 0.9), np.ones((12, 1))
    R = (dense.lyapunov_factor if continuous else dense.stein_factor)(A, B)
    assert dense.factor_residual(continuous, A, B, R) < 1e-14
    assert dense.factor_residual(continuous, A, B, 1.001 * R) > 1e-5


def test_a_factor_in_a_process_of_its_own():
    rows = low_rank.low_rank(True, lambda text: None, n=30)
    assert [row.case for row in rows] == ["discrete", "continuous"]
    for row in rows:
        assert not row.note
        assert row.target is None
        assert row.accuracy < 1e-13
        assert 0 < row.rank <= 30
        assert row.memory is None or row.memory > 10


def test_a_factor_that_fails_is_told(monkeypatch):
    class Failed:
        returncode, stdout, stderr = 1, "", "Traceback\nMemoryError: too large"

    monkeypatch.setattr(low_rank.subprocess, "run", lambda *args, **options: Failed)
    assert low_rank.low_rank(True, lambda text: None)[0].note == "ours failed: MemoryError: too large"


def fast(monkeypatch):
    """Let every function run only twice."""
    for module in (dense, diagonal, hankel):
        monkeypatch.setattr(
            module, "measure", lambda functions, **options: measure(functions, rounds=1, sleep=lambda s: None, **options)
        )


def test_diagonal_claims(monkeypatch):
    fast(monkeypatch)
    rows = diagonal.diagonal(True, lambda text: None, n=5) + diagonal.diagonal_batch(True, lambda text: None, channels=40)
    assert [row.target for row in rows[:3]] == [0.5, None, None]
    for row in rows:
        assert row.accuracy < 1e-15
        assert row.peer_accuracy is None or row.peer_accuracy < 1e-15
        assert row.ratio == pytest.approx(row.peer_seconds / row.seconds) if row.ratio else row.note
    assert sorted(row.target for row in rows[3:] if row.target)[-2:] == [3.0, 20.0]


def test_hankel_values(monkeypatch):
    pytest.importorskip("mpmath")
    fast(monkeypatch)
    rows = hankel.hankel_values(True, lambda text: None, slots=2)
    assert all(row.reached and row.accuracy < 1e-12 for row in rows)
    assert all(row.peer_accuracy < 1e-8 for row in rows)  # four values are easy


def test_hankel_values_without_mpmath(monkeypatch):
    fast(monkeypatch)
    hide(monkeypatch, "mpmath")
    rows = hankel.hankel_values(True, lambda text: None, slots=2)
    assert rows[2].note == "mpmath: not installed"
    assert all(row.accuracy is None for row in rows)


def test_a_value_that_is_not_a_number_makes_the_error_so():
    assert math.isnan(hankel.largest_error(np.array([1.0, np.nan]), np.array([1.0, 0.1])))
    assert hankel.largest_error(np.array([1.0, np.nan]), np.array([1.0, 1e-15])) == 0


FACTS = {"processor": "P", "cores": 2, "system": "S", "python": "3", "blas": ["b"], "versions": {"slycot": None}}
ROWS = [
    Row("stein_dense", n, "radius 0.9", peer, n**3 / 1e6, n**4 / 1e6, n, target=3.0, reached=True, accuracy=math.nan)
    for n in (10, 100)
    for peer in ("SciPy", "slycot")
]


@pytest.fixture
def canned(monkeypatch):
    """Figures instead of measurements."""
    monkeypatch.setitem(claims.CLAIMS, "stein_dense", claims.Claim("Title", lambda quick, tell: tell("n = 10") or ROWS))
    monkeypatch.setattr(claims, "machine_facts", lambda *packages: FACTS)


def test_the_command_writes_tables_figures_and_a_picture(canned, tmp_path, capsys):
    figures, picture = tmp_path / "a.json", tmp_path / "a.png"
    command = ["bench", "--quick", "--only", "stein_dense", "--json", str(figures)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == "stein_dense: n = 10\n"
    assert "slycot not installed" in out
    assert "4 of 4 targets reached" in out
    content = json.loads(figures.read_text())
    assert content["claims"][0]["name"] == "stein_dense"
    assert content["claims"][0]["rows"][0]["ratio"] == 10
    assert content["claims"][0]["rows"][0]["accuracy"] is None
    assert content["quick"] is True
    assert content["machine"] == FACTS
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    pytest.importorskip("matplotlib")
    assert main(["bench", "--only", "stein_dense", "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_slopes_are_in_the_legend():
    pytest.importorskip("matplotlib")
    (axis,) = output.plot_times(claims.Report({"stein_dense": ROWS}, FACTS, {}, True, 1.0)).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["lqo-mor, n^3.0", "SciPy, n^4.0", "slycot, n^4.0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "{old}"], "exists already"),
        (["--plot", "{old}"], "exists already"),
        (["--plot", "{new}.txt"], "suffix"),
        (["--json", "{new}.png", "--plot", "{new}.png"], "both outputs"),
        (["--only", "low_rank", "--plot", "{new}.png"], "nothing to draw"),
        (["--only", "wrong"], "no comparison 'wrong'"),
    ],
)
def test_bad_outputs_are_refused_before_anything_is_measured(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(claims, "run_claims", None)
    old = tmp_path / "old.png"
    old.write_text("kept")
    assert main(["bench", *(a.format(old=old, new=tmp_path / "new") for a in arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert old.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [old]


def test_a_picture_without_matplotlib(tmp_path, monkeypatch, capsys):
    hide(monkeypatch, "matplotlib", "matplotlib.figure")
    assert main(["bench", "--plot", str(tmp_path / "a.png")]) == 1
    assert "needs Matplotlib" in capsys.readouterr().err


def test_an_output_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("kept")
    with pytest.raises(output.OutputError):
        output.write_json(claims.Report({}, FACTS, {}, True, 1.0), str(path))
    assert path.read_text() == "kept"


def test_the_machine_is_described_without_threadpoolctl(monkeypatch):
    hide(monkeypatch, "threadpoolctl")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS=3" in machine.blas()[0]
    facts = machine.machine_facts("numpy", "a-package-that-does-not-exist")
    assert facts["versions"] == {"numpy": np.__version__, "a-package-that-does-not-exist": None}
    assert machine.describe("a-package-that-does-not-exist").endswith("missing")


def test_the_claims_run_from_a_clone():
    folder = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "benchmarks", "--only", "diagonal", "--plot", "x.txt"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "suffix" in done.stderr
