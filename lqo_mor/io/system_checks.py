"""Paths and contents of the files of this package; a file is untrusted input, and every message about one names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lqo_mor.errors import InvalidInputError
from lqo_mor.files import FilePath, check_new, memory_bound

MAX_BYTES = 4 * 2**30  # of a file, and of what it unpacks to
_FLOOR = 2**29  # bytes that even a small file may unpack to: matrices are often full of zeros


def read_bytes(path: FilePath) -> tuple[Path, bytes]:
    """`path` as a `Path`, and the content of the file; raises `InvalidInputError` if it cannot be read or is too large."""
    path = _as_path(path)
    try:
        if not path.is_file():
            raise InvalidInputError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        if isinstance(err, InvalidInputError):
            raise
        raise InvalidInputError(f"{path} cannot be read: {getattr(err, 'strerror', None) or err}") from None
    if len(content) > MAX_BYTES:
        raise InvalidInputError(f"{path} has more than {MAX_BYTES // 2**30} GiB, which is refused")
    return path, content


def unpacked_bound(content: bytes) -> int:
    """The bytes that the content of a file may unpack to."""
    return min(MAX_BYTES, memory_bound(len(content), _FLOOR))


def new_path(path: FilePath, overwrite: bool) -> Path:
    """`path` as a `Path`; raises `OutputError` where no file can be written."""
    path = _as_path(path)
    check_new(path, overwrite)
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of the file before every error about its content."""
    try:
        yield
    except InvalidInputError as err:
        raise type(err)(f"{path.name}: {err}") from None
    except MemoryError:
        raise InvalidInputError(f"{path.name}: cannot be read, it needs more memory than there is") from None


def _as_path(path: FilePath) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise InvalidInputError(f"expected the path of a file, got {type(path).__name__}") from None
