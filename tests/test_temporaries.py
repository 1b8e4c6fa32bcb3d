"""Temporary files: used ones stay, those of killed processes go, those of others stay; no checkpoint lacks its settings."""

import os
import subprocess
import sys

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.checkpoints.settings import sidecar_path
from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.errors import OutputError
from lqo_mor.files import check_new, write_atomically
from lqo_mor.temporaries import remove_remainders, temporary_file, temporary_folder
from tests.checkpoints.test_sidecar import BILINEAR, lru_state, s5_state

pytest.importorskip("fcntl")


def killed(code, **variables):
    """Run Python that ends by killing itself."""
    process = [sys.executable, "-c", f"import os, signal\n{code}"]
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(process, capture_output=True, check=False, env=environment).returncode == -9


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    killed(
        "from pathlib import Path\nfrom lqo_mor.temporaries import temporary_file, temporary_folder\n"
        f"with temporary_file(Path({str(tmp_path)!r})) as (path, file), temporary_folder() as folder:\n"
        "    file.write(bytes(9)); file.flush(); (folder / 'x').write_text('x')\n    os.kill(os.getpid(), signal.SIGKILL)",
        TMPDIR=str(tmp_path),
    )
    assert len(names(tmp_path)) == 2
    check_new(tmp_path / "x", overwrite=False)
    assert names(tmp_path) == []


def test_what_is_used_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_file(tmp_path) as (_, file), temporary_folder() as folder, Spool() as spool:
        assert folder.stat().st_mode & 0o777 == 0o700
        spool.append(np.ones(3))
        before = names(tmp_path)
        assert len(before) == 3
        remove_remainders(tmp_path)
        file.close()
        remove_remainders(tmp_path)
        write_atomically(tmp_path / "x", b"x", overwrite=False)
        assert names(tmp_path) == sorted([*before, "x"])
        assert np.all(spool[0] == 1)
    assert names(tmp_path) == ["x"]


def test_what_belongs_to_others_stays(tmp_path):
    with temporary_file(tmp_path) as (path, _):
        ours = path.name
    other_machine = ours[:9] + "00000000" + ours[17:]
    for name in (other_machine, ours + "x", "x" + ours, ".abcdefgh.tmp"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "target").write_text("precious")
    (tmp_path / ours).symlink_to("target")
    other = "1" if ours[-5] == "0" else "0"  # the name ends at random
    os.mkfifo(tmp_path / (ours[:-5] + f"{other}.tmp"))
    before = names(tmp_path)
    remove_remainders(tmp_path)
    assert names(tmp_path) == before


def test_file_systems_without_locks_are_served(tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with temporary_file(tmp_path) as (path, _):
        remove_remainders(tmp_path)
        assert path.exists()
    write_atomically(tmp_path / "x", b"x", overwrite=False)
    assert names(tmp_path) == ["x"]


def test_a_file_that_is_taken_for_a_remainder_is_made_again(tmp_path, monkeypatch):
    import fcntl

    lock, calls = fcntl.flock, []

    def late(holder, how):
        calls.append(holder)
        if len(calls) == 1:
            next(tmp_path.glob(".*.tmp")).unlink()
        elif len(calls) == 2:
            raise BlockingIOError
        lock(holder, how)

    monkeypatch.setattr("fcntl.flock", late)
    with temporary_file(tmp_path) as (path, _):
        assert len(calls) == 3
        assert path.exists()


def test_a_checkpoint_is_never_without_its_settings(tmp_path):
    write_file(tmp_path / "a.npz", s5_state(), None, {})
    out = tmp_path / "b.npz"
    killed(
        "import lqo_mor as lqo\nlink = os.link\n"
        "def once(a, b):\n    link(a, b)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.link = once\n"
        f"lqo.load_checkpoint({str(tmp_path / 'a.npz')!r}, settings={BILINEAR!r}).save({str(out)!r})"
    )
    assert sidecar_path(out).exists()
    assert not out.exists()
    model = lqo.load_checkpoint(tmp_path / "a.npz", settings=BILINEAR)
    model.save(out)  # the sidecar without a checkpoint does not stand in the way
    assert lqo.load_checkpoint(out).source.settings == BILINEAR
    assert names(tmp_path) == ["a.npz", "b.npz", "b.npz.json"]
    out.unlink()
    write_file(tmp_path / "c.npz", lru_state(), None, {})
    lqo.load_checkpoint(tmp_path / "c.npz").save(out)
    assert not sidecar_path(out).exists()


def test_without_a_checkpoint_no_settings_are_left(tmp_path, monkeypatch):
    def no_room(source, target):
        if str(target).endswith(".npz"):
            raise FileExistsError
        link(source, target)

    link = os.link
    write_file(tmp_path / "a.npz", s5_state(), None, {})
    model = lqo.load_checkpoint(tmp_path / "a.npz", settings=BILINEAR)
    monkeypatch.setattr("os.link", no_room)
    with pytest.raises(OutputError, match="exists already"):
        model.save(tmp_path / "b.npz")
    assert names(tmp_path) == ["a.npz"]
    sidecar_path(tmp_path / "b.npz").write_text("somebody else's notes")
    with pytest.raises(OutputError, match="exists already"):
        model.save(tmp_path / "b.npz")
    assert sidecar_path(tmp_path / "b.npz").read_text() == "somebody else's notes"
