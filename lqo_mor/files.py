"""Writing of new files: checked before the work is done, and complete or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from lqo_mor.errors import OutputError
from lqo_mor.temporaries import remove_remainders, temporary_file

FilePath: TypeAlias = str | PathLike[str]


def memory_bound(size: int, floor: int = 2**28) -> int:
    """The bytes that the content of a file of `size` bytes may take: a crafted small file must not ask for gigabytes."""
    return floor + 16 * size


def check_new(path: FilePath, overwrite: bool) -> None:
    """Raise `OutputError` where no file can be written at `path`, so that no work is done in vain.

    What killed processes have left in its folder is removed.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a directory")
        if not overwrite and os.path.lexists(path):
            raise OutputError(f"{path} exists already; choose another name or allow overwriting")
        if not path.parent.is_dir():
            raise OutputError(f"the folder {path.parent} does not exist")
        with suppress(FileNotFoundError):
            path.lstat()  # raises for a name that the file system does not take
    except OutputError:
        raise
    except (OSError, ValueError) as err:
        raise OutputError(f"{path} cannot be written: {getattr(err, 'strerror', None) or err}") from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: no permission to write into the folder {path.parent}")
    remove_remainders(path.parent)


def write_atomically(path: FilePath, payload: bytes, overwrite: bool, last: Callable[[], None] | None = None) -> None:
    """Write to a temporary file beside `path` and give it its name when it is complete; `last` as for `new_file`."""
    with new_file(path, overwrite, last) as file:
        file.write(payload)


@contextmanager
def new_file(path: FilePath, overwrite: bool, last: Callable[[], None] | None = None) -> Iterator[BinaryIO]:
    """A temporary file beside `path`, open for writing, which gets its name when the block ends without an error.

    `last` is done when it is complete on the disk, just before it gets its name.
    """
    path = Path(path)
    try:
        with temporary_file(path.parent) as (temporary, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            if last is not None:
                last()
            if overwrite or not _link(temporary, path):
                temporary.replace(path)
    except FileExistsError:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting") from None
    except OSError as err:
        raise OutputError(f"{path} cannot be written: {err.strerror or err}") from None
    except MemoryError as err:
        raise out_of_memory(path, err) from None


def out_of_memory(path: FilePath, err: MemoryError) -> OutputError:
    """The error for a file that needs more memory than there is while it is made."""
    return OutputError(f"{path} cannot be written: it needs more memory than there is" + (f" ({err})" if str(err) else ""))


def json_text(content: Any, ensure_ascii: bool = True) -> str:
    """Nested data as JSON: arrays become flat lists, numbers that are not finite null."""
    return json.dumps(_plain(content), indent=1, ensure_ascii=ensure_ascii, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Numbers, lists and dictionaries that JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _link(temporary: Path, path: Path) -> bool:
    """Name the finished file by a hard link, which fails if the name was taken meanwhile; False where there are no links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError from None
        return False
    return True
