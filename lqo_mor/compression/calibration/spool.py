"""Arrays in files: calibration data may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lqo_mor.temporaries import temporary_folder


class Spool:
    """A sequence of arrays that are kept in files, in single precision; a context manager, at whose end the files go."""

    def __init__(self) -> None:
        self._folder = temporary_folder()
        self._files: list[Path] = []

    def __enter__(self) -> Spool:
        self._path = self._folder.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.__exit__(None, None, None)

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> np.ndarray:
        array = np.load(self._files[k])
        return array.astype(np.float64) if array.dtype == np.float32 else array

    def __setitem__(self, k: int, array: np.ndarray) -> None:
        np.save(self._files[k], array.astype(np.float32) if array.dtype.kind == "f" else array)

    def append(self, array: np.ndarray) -> None:
        """Keep one more array."""
        self._files.append(self._path / f"{len(self)}.npy")
        self[len(self) - 1] = array
