"""Temporary files and folders of our own, and the removal of those that a killed process has left.

Each has a name of one pattern and is locked as long as its process lives. What can be locked, belongs to this user and has the
name of this machine is nobody's any more; everything else is left alone, also where a file system knows no locks.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = f"lqo-mor-{zlib.crc32(platform.node().encode()):08x}-"
_OURS = re.compile(rf"\.?{_PREFIX}\w{{8}}\.tmp")


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in a folder, open for writing, and its path; it may get another name, otherwise it is removed."""
    while True:
        path = folder / f".{_PREFIX}{secrets.token_hex(4)}.tmp"  # short: the folder may allow no long names
        file = path.open("xb")
        if _locked(file.fileno(), path):
            break
        file.close()
    holder = (
        os.dup(file.fileno()) if fcntl else None
    )  # the lock holds when the file is closed, as Windows wants it for a new name
    try:
        with file:
            yield path, file
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if holder is not None:
            os.close(holder)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that only this user can read, where temporary files belong; it is removed with all that is in it."""
    remove_remainders(Path(tempfile.gettempdir()))
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=".tmp"))
    holder = os.open(path, os.O_RDONLY) if fcntl else None
    try:
        if holder is not None:
            _locked(holder, path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if holder is not None:
            os.close(holder)


def remove_remainders(folder: Path) -> None:
    """Remove from a folder what killed processes of this user on this machine have left there."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name):
                _remove_unless_used(Path(entry.path))


def _remove_unless_used(path: Path) -> None:
    with suppress(OSError):
        folder = stat.S_ISDIR(path.lstat().st_mode)
        holder = os.open(path, os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_RDONLY if folder else os.O_RDWR))
        try:
            status = os.fstat(holder)
            if status.st_uid == os.geteuid() and (stat.S_ISDIR if folder else stat.S_ISREG)(status.st_mode):
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(status, path.lstat()):
                    shutil.rmtree(path) if folder else path.unlink()
        finally:
            os.close(holder)


def _locked(holder: int, path: Path) -> bool:
    """Lock a new file; False if somebody has taken it for a remainder in between."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here, so that nobody removes it
        return True
    return path.exists()
