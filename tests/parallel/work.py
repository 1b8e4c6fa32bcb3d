"""Tasks of a module, so that workers find them; each leaves a file that says which process did it."""

import os
import signal
import time
import warnings
from pathlib import Path

import numba

from lqo_mor.errors import AccuracyWarning, InvalidInputError


def done_by(folder) -> list[tuple[int, int]]:
    """Numbers of the tasks begun so far and the processes that did, in this order."""
    found = sorted((path.stat().st_mtime_ns, path.name) for path in Path(folder).iterdir())
    return [tuple(map(int, name.split("-")[:2])) for _, name in found]


def square(k: int, folder, seconds: float = 0.0, progress=None) -> int:
    (Path(folder) / f"{k}-{os.getpid()}-{time.time_ns()}").touch()
    time.sleep(seconds)
    if progress is not None:
        progress(1, 2)
    return k * k


def fatal(k: int, folder, progress) -> int:
    """The square, but task 3 kills its worker."""
    if k == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(k, folder, 0.05)


def refused(k: int, progress) -> int:
    if k == 1:
        raise InvalidInputError(f"task {k} is not possible")
    return k


def lost(k: int, progress) -> int:
    """Ends in an error that cannot be pickled, as its class takes other arguments than its text."""
    raise type("LostError", (ValueError,), {})(f"task {k} is lost")


def inaccurate(k: int, progress) -> int:
    warnings.warn("a digit is lost", AccuracyWarning, stacklevel=1)
    return k


def threads(progress) -> int:
    return numba.get_num_threads()
