"""The command line killed at any moment: files are complete or not there, and the next run finds nothing in its way."""

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
from lqo_mor.checkpoints.containers.files import write_file
from tests.checkpoints.test_sidecar import s5_state

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")]
ENDS = {"SIGKILL": -9, "SIGTERM": 143, "SIGHUP": 129, "SIGINT": 130}
WITHOUT_US = {"SIGTERM": -15, "SIGHUP": -1, "SIGINT": -2}  # before the first line of ours, or while Python ends


def compress(path, out, *more):
    command = [
        sys.executable,
        "-m",
        "lqo_mor",
        "compress",
        str(path),
        "-o",
        str(out),
        "--keep",
        "0.5",
        "--method",
        "modal",
        *more,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("way", [".safetensors", ".npz", "layer by layer"])
def test_killed_at_any_moment(tmp_path, name, way):
    source = tmp_path / "source.safetensors"
    state = s5_state(n=8, width=64) | {"other": np.zeros(10**7, np.float32)}  # large enough to be hit while it is written
    write_file(source, state, None, {})
    suffix, more = (way, []) if way.startswith(".") else (".safetensors", ["--layer-by-layer"])
    out = tmp_path / f"out{suffix}"
    whole = time.monotonic()
    process = compress(source, out, *more)
    assert process.communicate()[1] == ""
    whole = time.monotonic() - whole
    rng = np.random.default_rng(list(name.encode() + way.encode()))
    for part in rng.uniform(0.02, 1.02, 4):
        for path in (out, out.with_name(out.name + ".json")):
            path.unlink(missing_ok=True)
        process = compress(source, out, *more)
        time.sleep(part * whole)
        process.send_signal(getattr(signal, name))
        err = process.communicate()[1]
        assert process.returncode in (0, ENDS[name], WITHOUT_US.get(name))
        assert "Traceback" not in err or process.returncode == WITHOUT_US.get(name)
        left = {path.name for path in tmp_path.iterdir()} - {source.name, out.name, f"{out.name}.json"}
        assert all(file.endswith(".tmp") for file in left) if name == "SIGKILL" else not left
        if out.exists():
            assert (tmp_path / f"{out.name}.json").exists()
            assert lqo.load_checkpoint(out).blocks[0].state_size == 8
            out.unlink()
        process = compress(source, out, *more)
        assert (process.communicate()[1], process.returncode) == ("", 0)
        assert {path.name for path in tmp_path.iterdir()} == {source.name, out.name, f"{out.name}.json"}


def test_the_folder_of_calibration_data_goes_with_the_next_run(tmp_path):
    source, temporary = tmp_path / "digits.safetensors", tmp_path / "tmp"
    shutil.copy(str(files("lqo_mor") / "data" / "demo_digits.safetensors"), source)
    temporary.mkdir()
    code = (
        "import os, signal, numpy as np, lqo_mor as lqo\nfrom lqo_mor.compression.calibration.spool import Spool\n"
        "with Spool() as spool:\n    spool.append(np.ones(9)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert len(list(temporary.iterdir())) == 1
    code = "import lqo_mor\nfrom lqo_mor.compression.calibration.spool import Spool\nwith Spool(): pass"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(temporary.iterdir()) == []
