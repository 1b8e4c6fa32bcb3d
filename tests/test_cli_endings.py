"""How the command line ends: interrupts, signals, closed streams, too little memory or room, outputs that are inputs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.cli.main import main

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes are others there")
COMMAND = [sys.executable, "-m", "lqo_mor"]


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "digits.safetensors"
    shutil.copy(str(files("lqo_mor") / "data" / "demo_digits.safetensors"), path)
    return path


def fails(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def slow_start(tmp_path, text):
    """The environment of a process in which importing NumPy, as the package does, first does something else."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "safetensors.py").write_text(text)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


@POSIX
@pytest.mark.parametrize("as_script", [False, True])
def test_an_interrupt_while_the_package_is_imported_is_one_line(tmp_path, as_script):
    environment = slow_start(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)")
    command = [*COMMAND, "demo"]
    if as_script:
        script = tmp_path / "lqo-mor"
        script.write_text("import sys\nfrom lqo_mor.cli.main import main\nsys.exit(main())\n")
        command = [sys.executable, str(script), "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "lqo-mor: interrupted\n")


@POSIX
def test_programs_that_import_the_package_keep_their_own_interrupts(tmp_path):
    environment = slow_start(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    code = "try:\n    import lqo_mor\nexcept KeyboardInterrupt:\n    print('caught')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught\n", "")


@POSIX
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_puts_files_and_terminal_in_order(checkpoint, tmp_path, capsys, monkeypatch, name, code):
    def stopped(file):
        os.kill(os.getpid(), getattr(signal, name))
        os.kill(os.getpid(), signal.SIGTERM if name == "SIGHUP" else getattr(signal, name))  # of an impatient user
        time.sleep(9)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr("os.fsync", stopped)
    out = tmp_path / "small.safetensors"
    assert main(["compress", str(checkpoint), "-o", str(out), "--state-size", "8", "--method", "modal"]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "an output is complete or not there" in err
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    assert before == {number: signal.getsignal(number) for number in before}


class Last:
    """An object whose destructor is interrupted, and whose next one fails."""

    def __del__(self):
        os.kill(os.getpid(), self.signal)
        time.sleep(9)


@POSIX
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_a_destructor_is_not_lost(checkpoint, capsys, monkeypatch, name, code):
    def load(arguments):
        last = Last()
        last.signal = getattr(signal, name)
        del last
        lasting = Last()  # without a signal: its destructor fails
        del lasting
        time.sleep(9)

    monkeypatch.setattr("lqo_mor.cli.inspect.load", load)
    assert main(["inspect", str(checkpoint)]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@POSIX
def test_signals_that_are_ignored_stay_ignored(checkpoint, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        monkeypatch.setattr("lqo_mor.cli.inspect.load", lambda arguments: os.kill(os.getpid(), signal.SIGHUP) or stop())
        assert main(["inspect", str(checkpoint)]) == 1
    finally:
        signal.signal(signal.SIGHUP, before)


def stop():
    raise lqo.LQOError("came so far")


@POSIX
def test_a_terminal_has_its_cursor_again_after_a_signal(checkpoint, tmp_path):
    pty = pytest.importorskip("pty")
    leader, terminal = pty.openpty()
    code = (
        "import os, signal, sys\nimport lqo_mor.cli.compress as c\n"
        "c.compress = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from lqo_mor.cli.main import main\nsys.exit(main())"
    )
    arguments = ["compress", str(checkpoint), "-o", str(tmp_path / "o.npz"), "--state-size", "8"]
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 143
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") >= 0
    assert b"Traceback" not in shown


@POSIX
@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_closed_streams(checkpoint, tmp_path, closed):
    run = f'exec {closed}>&-; exec "$@"'
    for command, code in ((["inspect", str(tmp_path / "none.npz")], 1), (["inspect", str(checkpoint)], 0)):
        done = subprocess.run(["sh", "-c", run, "sh", *COMMAND, *command], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert bool(done.stdout) == (code == 0 and closed != "1")
        assert bool(done.stderr) == (code == 1 and closed != "2")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), MemoryError("Unable to allocate 8 GiB"), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".msgpack"])
def test_too_little_memory_or_room_while_writing_is_one_line(checkpoint, tmp_path, capsys, monkeypatch, suffix, error):
    def full(*args):
        raise error

    if suffix in (".pth", ".msgpack"):
        pytest.importorskip("torch" if suffix == ".pth" else "msgpack")
    out = tmp_path / f"o{suffix}"
    monkeypatch.setattr("os.fsync", full)
    message = fails(capsys, "compress", checkpoint, "-o", out, "--state-size", 8, "--method", "modal")
    assert "memory" in message or "No space left" in message
    assert str(out) in message
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


@POSIX
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_inputs_that_are_no_files_are_refused(checkpoint, tmp_path, capsys, kind):
    path = tmp_path / "odd.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    out = tmp_path / "o.safetensors"
    commands = [
        ["inspect", path],
        ["compare", checkpoint, path],
        ["compare", checkpoint, checkpoint, "--inputs", path],
        ["compress", path, "-o", out, "--state-size", 8],
        ["compress", path, "-o", out, "--state-size", 8, "--layer-by-layer"],
        ["compress", checkpoint, "-o", out, "--state-size", 8, "--calibration", path],
    ]
    for command in commands:
        assert "not a file" in fails(capsys, *command)
    for load in (lqo.load_checkpoint, lqo.io.load_system, lqo.io.load_mat):
        with pytest.raises(lqo.LQOError, match="is not a file"):
            load(path)


def test_a_report_is_no_other_file(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lqo_mor.cli.compress.load", lambda *args: pytest.fail("the checkpoint was read"))
    inputs, out = tmp_path / "x.npz", tmp_path / "o.safetensors"
    np.savez(inputs, inputs=np.zeros((1, 4, 1)))
    (tmp_path / "link").symlink_to(tmp_path)
    command = ["compress", checkpoint, "-o", out, "--state-size", 8, "--calibration", inputs, "--report"]
    for report in (out, tmp_path / "link" / out.name, tmp_path / f"{out.name}.json", checkpoint, inputs):
        message = fails(capsys, *command, report)
        assert "choose another name" in message
    assert not out.exists()
