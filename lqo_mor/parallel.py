"""Many systems on the workers of joblib: the cores of a machine or of a cluster, as ``joblib.parallel_config`` says.

Without it everything is done in this process, whose kernels use all cores by threads already. Systems are independent of each
other, and the results do not depend on how a batch is cut or on where its pieces are computed, but for the last bit where BLAS
uses another number of threads there.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import secrets
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import ContextVar, copy_context
from importlib.metadata import version
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import joblib
import numba
from joblib.parallel import get_active_backend

from lqo_mor.errors import InvalidInputError, LQOWarning, OutputError, WorkerError, warn

Task: TypeAlias = tuple[Any, ...]  # arguments

_PIECE = 16  # systems of a task: some 0.1 s of work; the same everywhere, so that kept results fit any number of workers
_AHEAD = 4  # tasks per core that are on a cluster at a time
_TRIES = 3  # breakdowns of the workers in a row, without a task that ended, after which it is no use
_LOOK = 1.0  # seconds after which it is asked whether there are still workers
_REST = 0.005  # seconds between looks for results of a cluster

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextlib.contextmanager
def kept(folder: str | PathLike[str]) -> Iterator[None]:
    """Keep the results of finished tasks in a folder, and take them from there where the same is asked again.

    For work that may be interrupted: run the same call once more, with as many workers as you like, and it goes on. Tasks are
    the pieces of batches and the layers of models; the reduction of a single system is none.

    Parameters
    ----------
    folder : path-like
        Made if it does not exist. Files of other inputs or of another version of lqo-mor do no harm. They are pickles, which
        can run code when they are read: name no folder that others write to.

    Raises
    ------
    OutputError
        If the folder cannot be made.

    Examples
    --------
    >>> import tempfile, lqo_mor as lqo
    >>> from lqo_mor import parallel
    >>> with tempfile.TemporaryDirectory() as folder, parallel.kept(folder):
    ...     first = lqo.reduce(lqo.examples.s4d(n_slots=8, channels=4), slots=2)
    ...     again = lqo.reduce(lqo.examples.s4d(n_slots=8, channels=4), slots=2)  # read from the folder
    >>> bool((first.error == again.error).all())
    True
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path} for finished tasks cannot be made: {error}; name another one") from error
    token = _folder.set(path)
    try:
        yield
    finally:
        _folder.reset(token)


def keeps() -> bool:
    """Whether the results of tasks are kept in a folder."""
    return _folder.get() is not None


def pieces(count: int) -> list[slice]:
    """How a batch of `count` systems is cut into tasks: not at all where this process does them all, and nothing is kept."""
    if _here() and not keeps():
        return [slice(0, count)]
    return [slice(first, min(first + _PIECE, count)) for first in range(0, count, _PIECE)]


def run(function: Callable[..., Any], tasks: Sequence[Task], progress: Callable[[int, int], object] | None = None) -> list[Any]:
    """Call a function for every task, on the workers that joblib has been told of, or else in this process.

    A worker that dies is no harm: what it was at is done again. A task holds the arguments, to be pickled, of
    ``function(*task, progress=tell)``, a function of a module, so that workers find it, with ``tell(done, total)`` or None;
    results come in the order of the tasks. ``progress(done, total)`` is called in this process; every task counts 100.

    Raises `WorkerError` if there have been no workers for as long as joblib's Dask backend waits for them
    (``wait_for_workers_timeout``, ten seconds), or they break down time and again (finished tasks are in the folder named by
    `kept`, or in a new one), and for the error of a task that cannot be sent from one process to another, with its text;
    `InvalidInputError` if joblib's backend would wait for ever for a worker that died (``"multiprocessing"``); `OutputError` if
    a result cannot be written into the folder named by `kept`.
    """
    store, tasks = _folder.get(), list(tasks)
    results: dict[int, Any] = {}
    tell = progress or (lambda done, total: None)
    if store is not None:
        files = [_file(store, function, task) for task in tasks]
        for k, file in enumerate(files):
            with contextlib.suppress(Exception):  # not there, or damaged: then it is done
                results[k] = joblib.load(file)
        tell(100 * len(results), 100 * len(tasks))

    def finish(k: int, result: Any) -> None:
        results[k] = result
        if store is not None:
            _save(result, files[k])
        tell(100 * len(results), 100 * len(tasks))

    missing = [k for k in range(len(tasks)) if k not in results]
    if _here():
        inside = copy_context()
        inside.run(_folder.set, None)  # the whole task is kept, and nothing within
        for k in missing:
            before = 100 * len(results)

            def within(done: int, total: int, before: int = before) -> None:
                tell(before + (100 * done) // max(total, 1), 100 * len(tasks))

            finish(k, inside.run(functools.partial(function, *tasks[k], progress=within)))
        return [results[k] for k in range(len(tasks))]
    said: set[tuple[str, type[LQOWarning]]] = set()
    try:
        with contextlib.closing(_outcomes(function, {k: tasks[k] for k in missing})) as outcomes:
            for k, result, error, told in outcomes:
                for message in told:
                    if message not in said:
                        said.add(message)
                        warn(*message)
                if error is not None:
                    raise error[0] from RuntimeError(f"on a worker:\n{error[1]}")
                finish(k, result)
    except _BreakdownError as breakdown:
        raise WorkerError(
            f"joblib's workers broke down ({breakdown}); {len(results)} of {len(tasks)} tasks are finished"
            + (_kept_hint(store, function, tasks, results) if results else "")
        ) from breakdown.__cause__
    return [results[k] for k in range(len(tasks))]


class _BreakdownError(Exception):
    """No worker does the tasks that are left."""


def _here() -> bool:
    """Whether tasks are to be done in this process: one job, or threads, which the kernels use anyway."""
    backend, _ = get_active_backend()
    return getattr(backend, "supports_sharedmem", False) or not (hasattr(backend, "client") or joblib.effective_n_jobs(None) > 1)


def _outcomes(function: Callable[..., Any], left: dict[int, Task]) -> Generator[_Outcome, None, None]:
    """What `_carried_out` returns for every task, as they end; tasks that a dead worker took along are started again."""
    backend, _ = get_active_backend()
    if not (hasattr(backend, "client") or backend.supports_return_generator):
        raise InvalidInputError(f"joblib's {type(backend).__name__} waits for ever for a worker that died; take 'loky' or 'dask'")
    stream = functools.partial(_from_dask, backend) if hasattr(backend, "client") else _from_joblib
    tries = 0
    while left:
        try:
            for outcome in stream(function, dict(left)):
                del left[outcome.k]
                tries = 0
                yield outcome
        except Exception as error:  # those of a task are part of its outcome
            tries += 1
            if isinstance(error, _BreakdownError):
                raise
            if tries == _TRIES:
                raise _BreakdownError(f"{type(error).__name__}: {error}".partition("\n")[0]) from error


def _from_joblib(function: Callable[..., Any], tasks: dict[int, Task]) -> Iterator[_Outcome]:
    """By the backend in charge. No memory-mapped arguments: kernels would be compiled once more for arrays of that kind."""
    parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, max_nbytes=None)
    stream = parallel(joblib.delayed(_carried_out)(k, function, task, None) for k, task in tasks.items())
    try:
        yield from stream
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that results are not used, after an error or an interrupt
            stream.close()


def _from_dask(backend: Any, function: Callable[..., Any], tasks: dict[int, Task]) -> Iterator[_Outcome]:
    """By the client of joblib's Dask backend.

    Not through the backend itself: it hands arguments to workers, with which they are lost, and waits for ever for a task that
    the scheduler has given up, or for workers that do not come back.
    """
    from distributed import as_completed

    client, limit = backend.client, backend.wait_for_workers_timeout or 0
    ended: Any = as_completed(loop=client.loop, with_results=True, raise_errors=False)
    running, todo = set(), iter(tasks.items())

    def cores() -> int:
        if client.status in ("closing", "closed"):
            raise _BreakdownError("the scheduler is gone")
        return sum(client.ncores().values())

    def submit(count: int) -> None:
        for k, task in islice(todo, count):
            future = client.submit(_carried_out, k, function, task, 1, pure=False)
            running.add(future)
            ended.add(future)

    try:
        submit(_AHEAD * max(1, cores()))
        seen = looked = time.monotonic()
        while running:
            now = time.monotonic()
            if ended.has_ready():
                seen = now
                future, outcome = next(ended)
                running.remove(future)
                if not isinstance(outcome, _Outcome):  # given up: type, exception and traceback, or that of a cancellation
                    error = outcome[1] if isinstance(outcome, tuple) else outcome
                    raise error if isinstance(error, Exception) else RuntimeError(f"tasks were cancelled: {error}")
                submit(1)
                yield outcome
            elif now - looked < _LOOK:
                time.sleep(_REST)
            else:
                looked = now
                if cores():
                    seen = now
                elif now - seen > limit:
                    raise _BreakdownError(
                        f"no worker for {limit:g} seconds; those that cannot import lqo_mor go, as their log says"
                    )
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.cancel(list(running))


class _Outcome(NamedTuple):
    """Of a task: its number, result, error with the traceback of the worker (or None), and warnings."""

    k: int
    result: object
    error: tuple[Exception, str] | None
    warnings: list[tuple[str, type[LQOWarning]]]


def _carried_out(k: int, function: Callable[..., Any], task: Task, threads: int | None) -> _Outcome:
    """On a worker; `threads` is how many it may use where the backend has not seen to that."""
    before, result, error = numba.get_num_threads(), None, None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            numba.set_num_threads(threads or before)
            result = function(*task, progress=None)
        except Exception as raised:
            error = _sendable(raised), traceback.format_exc()
        finally:
            numba.set_num_threads(before)
    return _Outcome(k, result, error, [(str(one.message), one.category) for one in told if issubclass(one.category, LQOWarning)])


def _sendable(error: Exception) -> Exception:
    """The error itself, or its text where it cannot be pickled, by which a worker would break down."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")
    return error


def _file(folder: Path, function: Callable[..., Any], task: Task) -> Path:
    name = joblib.hash((version("lqo-mor"), function.__module__, function.__qualname__, task))
    return folder / f"{name}.pickle"


def _save(result: Any, file: Path) -> None:
    part = file.with_suffix(f".{secrets.token_hex(4)}.part")  # an interrupt leaves no half of a result
    try:
        joblib.dump(result, part)
        part.replace(file)
    except OSError as error:
        raise OutputError(f"the result of a task cannot be kept in {file.parent}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _kept_hint(store: Path | None, function: Callable[..., Any], tasks: Sequence[Task], results: dict[int, Any]) -> str:
    """Where finished tasks are, which are saved now if no folder was named."""
    if store is None:
        store = Path(tempfile.mkdtemp(prefix="lqo-mor-"))
        for k, result in results.items():
            _save(result, _file(store, function, tasks[k]))
    return f"; run the same again inside lqo_mor.parallel.kept({str(store)!r}), and it goes on from there"
