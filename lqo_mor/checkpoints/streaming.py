"""Safetensors files compressed layer by layer, for models larger than memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from lqo_mor.checkpoints.containers.files import as_path
from lqo_mor.checkpoints.containers.safetensors_files import NUMBER_NAMES, LazyFile, Renamed, write
from lqo_mor.checkpoints.containers.trees import Layout, find_state
from lqo_mor.checkpoints.contracts import Family
from lqo_mor.checkpoints.families.registry import IN_ANY_MODEL
from lqo_mor.checkpoints.layered import alone, find_layers, local_key, local_tensors, stored_tensors
from lqo_mor.checkpoints.settings import Settings, Sidecar, check_given, read_sidecar, warn_of_assumptions
from lqo_mor.checkpoints.tensors import Values, listing, parameter_count
from lqo_mor.compression.compress import compress
from lqo_mor.compression.report.records import CompressionReport, LayerReport
from lqo_mor.errors import CheckpointError, InvalidInputError, OrderError, OutputError
from lqo_mor.files import FilePath, check_new, new_file
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.batches import pad
from lqo_mor.types import Progress

_NOTHING = np.zeros(1)  # stands for a tensor that is not read yet


def compress_file(
    path: FilePath,
    output: FilePath,
    *,
    state_size: int | None = None,
    keep: float | None = None,
    method: str = "optimal",
    horizon: int | None = None,
    format: str | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CompressionReport:
    """Reduce the state-space layers of a safetensors file one after the other, without reading it as a whole.

    For checkpoints larger than memory: only one layer is in memory at a time, and all other tensors are copied from file
    to file. There is no calibration, which needs the whole model; for a model that fits use `load_checkpoint` and `compress`.

    Parameters
    ----------
    path : path-like
        A .safetensors file with layers of a known family.
    output : path-like
        New .safetensors file; it appears complete or not at all.
    state_size : int, optional
        Real states of every system, even. A layer that has no more stays as it is.
    keep : float, optional
        Instead of `state_size`: the fraction of the states to keep.
    method, horizon
        As for `compress`.
    format, settings
        As for `load_checkpoint`.
    overwrite : bool
        Whether another existing file may be replaced; the input file never is.
    progress : callable, optional
        Called as ``progress(done, total)`` with numbers of layers.

    Returns
    -------
    CompressionReport
        Its parameters are the numbers in the files.

    Raises
    ------
    CheckpointError
        If the file is damaged or has no layers of a known family, or a reduced layer cannot be stored in it.
    OutputError
        If the output cannot be written.
    OrderError
        If no layer has more states than are to be kept.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.compress_file("missing.safetensors", "small.safetensors", state_size=16)
    Traceback (most recent call last):
    ...
    lqo_mor.errors.CheckpointError: missing.safetensors does not exist
    """
    path, output = as_path(path), as_path(output)
    if output.suffix.lower() != ".safetensors":
        raise OutputError(f"{output} must be a .safetensors file: only those are written layer by layer")
    file = LazyFile(path)
    check_new(output, overwrite)
    if output.exists() and output.samefile(path):
        raise OutputError(f"{output} is the file that is read; choose another name")
    _, layout, _ = find_state(dict.fromkeys(file, _NOTHING), {})
    state = Renamed(file, cast("dict[str, str]", layout.places))  # no paths in a flat file
    family, layers = _found(state, format)
    stored = read_sidecar(path, (entry["shape"] for entry in file.entries.values()))
    asked = Settings(stored | check_given(settings))
    job = _Job(family, layers, state, asked, dict(state_size=state_size, keep=keep, method=method, horizon=horizon))
    with _spool(output) as spool:
        try:
            results, reduced = _reduced(job, layout, spool, progress)
            asked.check_used(also=stored)  # what it says of the model around the layers
        except InvalidInputError as err:
            raise type(err)(f"{path.name}: {err}") from None
        warn_of_assumptions(path.name, asked.assumed)
        keys = (local_key(prefix, name) for prefix, names in layers.items() for name in names)
        entries: Values = dict.fromkeys(str(layout.places[key]) for key in keys)
        for places in reduced.values():
            entries |= places
        with Sidecar(output, stored | asked.values, overwrite) as sidecar:
            shapes: list[tuple[int, ...]] = []
            with new_file(output, overwrite, last=lambda: sidecar.write(family.name, shapes)) as out:
                shapes += write(file, entries, spool, out)
    reports = tuple(result.report for result in results)
    before = sum(_numbers(entry["dtype"], entry["shape"]) for entry in file.entries.values())
    change = sum(report.parameters_after - report.parameters_before for report in reports)
    return CompressionReport(reports, before, before + change, method, horizon)


def _reduced(job: _Job, layout: Layout, spool: BinaryIO, progress: Progress | None) -> tuple[list[_Result], dict[str, Values]]:
    """All layers reduced, and by their prefixes the places of their tensors in the spool; only those stay in memory."""
    results: dict[str, _Result] = {}
    layers: dict[str, Values] = {}

    def reduce(prefix: str, slots: int = 0) -> None:
        result = results[prefix] = job.reduced(prefix, slots)
        layers[prefix] = {}
        for key, value in layout.restored(result.tensors).items():
            layers[prefix][str(key)] = (NUMBER_NAMES[value.dtype], value.shape, spool.tell())
            spool.write(np.ascontiguousarray(value).tobytes())
        result.tensors.clear()

    for prefix in job.layers:
        reduce(prefix)
        if progress is not None:
            progress(len(results), len(job.layers))
    first, *_ = refused = [result.refused for result in results.values()]
    if first is not None and all(refused):
        raise first
    if job.family.same_size:  # most classes take one size for all layers, and tensors of the same shapes
        slots = max(result.slots for result in results.values())
        for prefix, result in results.items():
            if result.slots < slots:
                reduce(prefix, slots)
        shapes = {result.shapes for result in results.values() if not result.refused}
        for prefix, result in results.items():
            if result.refused and result.shapes not in shapes:  # it stayed as it was
                reduce(prefix, slots)
    return list(results.values()), layers


@contextmanager
def _spool(output: Path) -> Iterator[BinaryIO]:
    """A nameless file for the reduced layers, on the disk of `output`: the folder for temporary files may be in memory."""
    try:
        with tempfile.TemporaryFile(dir=output.parent) as file:
            yield file
    except OSError as err:  # also of the rest in its buffer, when it is closed
        raise OutputError(f"{output} cannot be written: {err.strerror or err}") from None


def _found(state: Mapping[str, np.ndarray], name: str | None) -> tuple[Family, dict[str, set[str]]]:
    """The family of layers by its name, or by the keys, and the layers as of `find_layers`."""
    asked = [family for family in IN_ANY_MODEL if name in (None, family.name)]
    if not asked:
        known = ", ".join(family.name for family in IN_ANY_MODEL)
        raise InvalidInputError(f"there are no layers of the format {name!r}; known are {known}")
    for family in asked:
        if layers := find_layers(family, state):
            return family, layers
    expected = " or ".join(family.looks_like for family in asked)
    raise CheckpointError(f"no layers recognised; found {listing(list(state))}; expected {expected}")


@dataclass(frozen=True, eq=False)
class _Result:
    """A layer after its reduction: its tensors by their bare keys, their shapes, its slots, and why it stayed as it was."""

    tensors: dict[str, np.ndarray]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    slots: int
    report: LayerReport
    refused: OrderError | None


@dataclass(frozen=True, eq=False)
class _Job:
    """The reduction of the layers of a file one by one."""

    family: Family
    layers: dict[str, set[str]]  # as of `find_layers`
    state: Mapping[str, np.ndarray]
    settings: Settings
    options: Values  # of `compress`

    def reduced(self, prefix: str, slots: int = 0) -> _Result:
        """Read and reduce a layer, filled up to `slots`; one that is small enough keeps its tensors, if `slots` is 0."""
        tensors = local_tensors(self.family, prefix, self.layers[prefix], self.state)
        before = sum(map(parameter_count, tensors.values()))
        block = alone(prefix, self.family.read(prefix or "layer", tensors, self.settings))
        ssm, refused = block.ssm, None
        try:
            result = compress(DeepSSM(None, (block,), None), **self.options)
        except OrderError as err:  # which is raised in the end if it holds for all layers
            size, refused = block.state_size, err
            report = LayerReport(block.name, size, size, before, before, np.zeros(ssm.batch), 0, 0.0, float(size))
        else:
            (report,), ssm = result.report.layers, result.model.blocks[0].ssm
            ssm = pad(ssm, report.states_after // 2)
        if refused is None or slots:
            ssm = pad(ssm, max(slots, ssm.n_slots))
            new = stored_tensors(self.family, prefix, ssm, tensors, self.settings.values)
        else:
            new = {local_key(prefix, name): value for name, value in tensors.items()}
        shapes = tuple(sorted((key.removeprefix(prefix), value.shape) for key, value in new.items()))
        report = replace(report, parameters_before=before, parameters_after=sum(map(parameter_count, new.values())))
        return _Result(new, shapes, ssm.n_slots, report, refused)


def _numbers(dtype: str, shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * {"F": 1, "B": 1, "C": 2}.get(dtype[0] if dtype != "BOOL" else "", 0)
