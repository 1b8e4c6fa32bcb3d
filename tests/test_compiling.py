"""The package works where no compiled kernel can be kept beside the code or in the user's home."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.imports import MODULES, ROOT

NORM = "import lqo_mor as lqo\nprint(lqo.h2_norm(lqo.DiagonalLQOSystem([0.5], [[1.0]], [[1.0]], dt=1.0)))\n"
REDUCTION = (
    "system = lqo.DiagonalLQOSystem([0.9, 0.5, -0.4], [[1.0]] * 3, [[1.0, 0.3, 0.2]], dt=1.0)\n"
    "print(lqo.reduce(system, 1).status.name)\n"
)
HOMELESS = "import os, sys\nos.path.expanduser = lambda path: path\nos.access = lambda *arguments, **options: False\n"
NOWHERE = "import tempfile\ntempfile.tempdir = '/dev/null/x'\n"


@pytest.fixture
def run(tmp_path):
    """A function that runs Python where nothing can be written but `tmp_path / "tmp"`; output and warnings."""
    shutil.copytree(ROOT / "lqo_mor", tmp_path / "lqo_mor", ignore=shutil.ignore_patterns("__pycache__", "data"))
    for folder in [tmp_path / "lqo_mor", *(path for path in (tmp_path / "lqo_mor").rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()  # where a folder cannot be made, also not by the superuser
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    nothing = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), f"{os.devnull}/x")
    environment = {**os.environ, **nothing, "TMPDIR": str(temporary), "PYTHONPATH": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)

    def run(code):
        (tmp_path / "program.py").write_text(code)
        command = [sys.executable, "-B", "program.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert list(temporary.iterdir()) == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lqo_mor", "program.py", "tmp"]
        return done.stdout.split(), [line for line in done.stderr.splitlines() if "Warning" in line]

    return run


@pytest.mark.parametrize("first", ["", HOMELESS], ids=["home", "homeless"])
def test_kernels_are_kept_in_a_temporary_folder_where_there_is_no_other(run, first):
    told = (
        "folder = os.environ['NUMBA_CACHE_DIR']\nprint(oct(os.stat(folder).st_mode & 0o777), len(os.listdir(folder)) > 0)\n"
        "import subprocess\nsubprocess.run([sys.executable, '-B', '-W', 'error', '-c', 'import lqo_mor'], check=True)"
    )
    output, warnings = run(first + "import os, sys\n" + NORM + told)
    assert float(output[0]) == pytest.approx((4 / 3) ** 0.5)
    assert output[1:] == ["0o700", "True"]
    (warning,) = warnings  # none in the process of the process
    assert "program.py:" in warning
    assert "LQOWarning: there is only a temporary folder" in warning
    assert "NUMBA_CACHE_DIR" in warning


def test_without_a_temporary_folder_nothing_is_kept(run):
    output, (warning,) = run(NOWHERE + NORM)
    assert float(output[0]) == pytest.approx((4 / 3) ** 0.5)
    assert "LQOWarning: there is no folder" in warning


@pytest.mark.slow  # it compiles for a minute
@pytest.mark.parametrize("first", ["", NOWHERE], ids=["temporary", "nowhere"])
def test_a_reduction_without_a_folder_for_kernels(run, first):
    assert run(first + NORM + REDUCTION)[0][1:] == ["CONVERGED"]


def test_kernels_are_compiled_by_the_one_that_knows_where_they_are_kept():
    texts = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items() if name.startswith("lqo_mor.")}
    assert [name for name, text in texts.items() if re.search(r"numba\.njit|from numba import .*njit", text)] == [
        "lqo_mor.compiling"
    ]
