"""Inputs for models: read from a file, or random."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.files import FilePath, memory_bound
from lqo_mor.network.layers import Embedding
from lqo_mor.network.model import DeepSSM, check_inputs, chunk_size, ends

_FLOOR = 2**30  # bytes that even a small file may unpack to: inputs are often padded with zeros
CalibrationInputs: TypeAlias = np.ndarray | Iterable[ArrayLike]  # all at once, or piece by piece


def read_inputs(path: FilePath) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays ``inputs`` (batch, steps, features) or (batch, steps) and, where present, ``labels`` (batch,) of an .npz file.

    Raises `InvalidInputError` if the file is missing, no .npz file, or lacks ``inputs``, or the labels do not fit.
    """
    path = Path(path)
    try:
        if not path.is_file() and path.exists():  # a pipe would be waited for
            raise InvalidInputError(f"cannot read inputs from {path}: it is not a file")
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            bound = memory_bound(path.stat().st_size, _FLOOR)
            if sum(entry.file_size for entry in file.zip.infolist()) > bound:
                raise InvalidInputError(
                    f"{path} unpacks to more than {bound // 2**20} MiB, which is refused for its size; store it with np.savez"
                )
            arrays = {name: file[name] for name in ("inputs", "labels") if name in file.files}
    except InvalidInputError:
        raise
    except MemoryError:
        raise InvalidInputError(f"cannot read inputs from {path}: they need more memory than there is") from None
    except Exception as err:  # a damaged file makes NumPy and zipfile raise nearly anything
        reason = err.strerror if isinstance(err, OSError) and err.strerror else _not_npz(path)
        raise InvalidInputError(f"cannot read inputs from {path}: {reason}") from None
    if "inputs" not in arrays:
        raise InvalidInputError(
            f"{path} has no array named inputs; save one with np.savez(path, inputs=x), x (batch, steps, features)"
        )
    labels = arrays.get("labels")
    if labels is not None and labels.dtype.kind not in "biuf":
        raise InvalidInputError(f"{path}: labels hold {labels.dtype}, expected the number of a class for every input")
    if labels is not None and labels.shape != arrays["inputs"].shape[:1]:
        raise InvalidInputError(f"{path}: labels have shape {labels.shape}, expected one per input, {arrays['inputs'].shape[:1]}")
    return arrays["inputs"], labels


def _not_npz(path: Path) -> str:
    """Why a file that exists is no .npz file."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            return "it holds a single array; save it under its name with np.savez(path, inputs=x)"
    return "it is damaged or not an .npz file of plain arrays"


def random_inputs(model: DeepSSM, batch: int, steps: int, seed: int) -> np.ndarray:
    """Standard normal inputs (batch, steps, features) for a model, or uniform tokens (batch, steps)."""
    if steps < 1:
        raise InvalidInputError(f"the number of steps must be at least 1, got {steps}")
    if seed < 0:
        raise InvalidInputError(f"the seed must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    encoder = ends(model)[0]
    try:
        if isinstance(encoder, Embedding):
            return rng.integers(0, encoder.n_tokens, (batch, steps))
        return rng.standard_normal((batch, steps, encoder.n_inputs))
    except (MemoryError, OverflowError, ValueError):
        raise InvalidInputError(f"{batch} random inputs of {steps} steps do not fit into memory; take fewer steps") from None


def input_kind(model: DeepSSM) -> str:
    """What a model reads at every time step, in words."""
    encoder = ends(model)[0]
    return f"tokens from {encoder.n_tokens}" if isinstance(encoder, Embedding) else f"{encoder.n_inputs} input feature(s)"


def chunks(model: DeepSSM, calibration: CalibrationInputs) -> Iterator[np.ndarray]:
    """Checked pieces of the calibration inputs, an array or an iterable of arrays, small enough for the layers' signals.

    Raises `InvalidInputError` or `DimensionError` if there are none, they do not fit the model, or their lengths differ.
    """
    batches: Iterable[ArrayLike] = [calibration] if isinstance(calibration, np.ndarray) else calibration
    steps = None
    for batch in batches:
        u = check_inputs(model.encoder, batch)
        if steps not in (None, u.shape[1]):
            raise DimensionError(f"calibration inputs have {steps} and {u.shape[1]} steps; give sequences of one length")
        steps, size = u.shape[1], chunk_size(model, u.shape[1])
        for start in range(0, len(u), size):
            yield u[start : start + size]
    if steps is None:
        raise InvalidInputError("there are no calibration inputs")
