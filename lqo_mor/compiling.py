"""Kernels are compiled by Numba, and the result is kept in a folder, where there is one that can be written.

Numba refuses to define a kernel without such a folder, as in a container with a read-only root and a user without a home.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from lqo_mor.errors import LQOWarning, warn
from lqo_mor.temporaries import temporary_folder

_SLOW = "kernels are compiled anew in every process; NUMBA_CACHE_DIR can name a folder for them"


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, without a cache where none can be had."""
    return numba.njit(**(options if _CAN_CACHE else options | {"cache": False}))


def _has_folder() -> bool:
    """Whether Numba finds a folder: NUMBA_CACHE_DIR, one beside the code, or one in the user's home."""
    homeless = os.path.expanduser("~") == "~"  # noqa: PTH111 (Path.expanduser raises)
    if homeless and not (os.environ.get("NUMBA_CACHE_DIR") or os.access(Path(__file__).parent, os.W_OK)):
        return False  # it would make a folder "~" in the working directory
    try:
        numba.njit(cache=True)(_has_folder)
    except RuntimeError:
        return False
    return True


def _prepare() -> bool:
    """Whether kernels can be cached, if need be in a temporary folder, which the workers of this process use, too."""
    if _has_folder():
        return True
    folder = temporary_folder()
    try:
        path = folder.__enter__()
    except OSError:
        warn(f"there is no folder to keep compiled kernels in, so that {_SLOW}", LQOWarning)
        return False
    owner = os.getpid()
    atexit.register(lambda: folder.__exit__(None, None, None) if os.getpid() == owner else None)  # not in a fork
    numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = str(path)  # type: ignore[attr-defined]
    warn(f"there is only a temporary folder to keep compiled kernels in, so that {_SLOW}", LQOWarning)
    return True


_CAN_CACHE = _prepare()
