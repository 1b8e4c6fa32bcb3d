"""Fair timing of several functions in one process, and the rows of a comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

Tell: TypeAlias = Callable[[str], None]  # says what is being measured

_TURN = 0.03  # seconds that a fast function is repeated in its turn
_RUNS, _PATIENCE = 3, 5  # runs that even a slow function should have, and budgets after which it has fewer
_PAUSE = 0.2  # seconds before a turn: the threads of the BLAS of the one before spin for a while after their work


Accuracy: TypeAlias = Callable[[Any], float | None] | Mapping[str, Callable[[Any], float]] | None


@dataclass(frozen=True)
class Timing:
    """What came of one function.

    Attributes
    ----------
    seconds : float or None
        Median over all runs; None if the function failed.
    runs : int
        How many.
    result : object
        What it returned in the last run.
    failure : str
        The exception, if there was one.
    """

    seconds: float | None
    runs: int = 0
    result: Any = None
    failure: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a table: ours against one peer.

    Attributes
    ----------
    claim : str
        The comparison that it belongs to.
    n : int
        Size of the problem.
    case : str
        What distinguishes the problem beyond its size.
    peer : str
        Whom we are compared with.
    seconds, peer_seconds : float or None
        Median times; that of a peer which is a limit is the limit.
    ratio : float or None
        ``peer_seconds / seconds``: how many times as fast as the peer we are.
    target : float or None
        What the ratio should be, at least.
    reached : bool or None
        Whether the target, of the ratio or of the accuracy, was reached.
    accuracy, peer_accuracy : float or None
        Relative residuals or errors; what they are is said in the heading of the table.
    memory : float or None
        Peak memory of the process that solved it, in MiB.
    rank : int or None
        Columns of a factor.
    runs, peer_runs : int
        Runs that the medians are of.
    note : str
        Why there are no figures, or what to know about them.
    """

    claim: str
    n: int
    case: str
    peer: str
    seconds: float | None = None
    peer_seconds: float | None = None
    ratio: float | None = None
    target: float | None = None
    reached: bool | None = None
    accuracy: float | None = None
    peer_accuracy: float | None = None
    memory: float | None = None
    rank: int | None = None
    runs: int = 0
    peer_runs: int = 0
    note: str = ""


def measure(
    competitors: Mapping[str, Callable[[], object]],
    budget: float = 1.0,
    rounds: int = 5,
    compiled: Collection[str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Time functions in turns, so that a disturbance of the machine meets all of them.

    Parameters
    ----------
    competitors : mapping of str to callable
        The functions, without arguments.
    budget : float, default 1
        Seconds after which a function that has run three times takes part in no further round; after five times as
        many seconds it is out with fewer runs, but at least one.
    rounds : int, default 5
        Rounds at most; each one begins with another function.
    compiled : collection of str, optional
        Functions that may compile something in their first run, which is then never counted; by default the first one.
    clock, sleep : callable
        For tests.

    Returns
    -------
    dict of str to Timing
        In the order of `competitors`.

    Notes
    -----
    The first run is a warm-up and not counted, unless it took the whole budget and there is nothing to compile. A
    function that raises is out, and its `Timing` says why.
    """
    names = list(competitors)
    compiled = names[:1] if compiled is None else compiled
    samples: dict[str, list[float]] = {name: [] for name in competitors}
    results: dict[str, object] = {}
    failures: dict[str, str] = {}

    def turn(name: str, at_least: float) -> None:
        spent = 0.0
        while not spent or spent < at_least:
            results.pop(name, None)
            begin = clock()
            try:
                results[name] = competitors[name]()
            except Exception as err:  # a peer that fails is a result, and must not end the comparison
                failures[name] = f"{type(err).__name__}: {' '.join(str(err).split())[:80]}"
                return
            seconds = max(clock() - begin, 1e-9)
            samples[name].append(seconds)
            spent += seconds

    for name in competitors:
        turn(name, 0.0)
        if name not in failures and (name in compiled or samples[name][0] < budget):
            samples[name].clear()
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            if name not in failures and not _enough(samples[name], budget):
                sleep(_PAUSE)
                turn(name, _TURN)
    return {
        name: Timing(None, failure=failures[name])
        if name in failures
        else Timing(median(samples[name]), len(samples[name]), results[name])
        for name in competitors
    }


def _enough(samples: list[float], budget: float) -> bool:
    spent = sum(samples)
    return spent >= _PATIENCE * budget or (spent >= budget and len(samples) >= _RUNS)


def compare(
    claim: str,
    n: int,
    case: str,
    timings: Mapping[str, Timing],
    accuracy: Accuracy = None,
    target: float | None = None,
    absent: Mapping[str, str] | None = None,
    targets: Mapping[str, float] | None = None,
) -> list[Row]:
    """Rows of the first function in `timings` against each of the others, then the absent ones with the reason.

    Parameters
    ----------
    claim, n, case
        What was solved.
    timings : mapping of str to Timing
        Ours first.
    accuracy : callable or mapping of str to callable, optional
        Maps a result to its relative residual or error; one for all, or one for each name.
    target : float, optional
        Wanted ratio against the fastest of the peers.
    absent : mapping of str to str, optional
        Peers that did not take part, and why.
    targets : mapping of str to float, optional
        Wanted ratios against single peers.

    Returns
    -------
    list of Row
    """
    ours, *peers = timings
    own = timings[ours]
    own_accuracy = _accuracy(ours, own, accuracy)
    timed = [name for name in peers if timings[name].seconds is not None]
    wanted = dict(targets or {})
    if target is not None and timed:
        wanted[min(timed, key=lambda name: timings[name].seconds or 0.0)] = target
    rows = []
    for name in peers:
        peer = timings[name]
        ratio = peer.seconds / own.seconds if own.seconds and peer.seconds else None
        goal = wanted.get(name)
        rows.append(
            Row(
                claim=claim,
                n=n,
                case=case,
                peer=name,
                seconds=own.seconds,
                peer_seconds=peer.seconds,
                ratio=ratio,
                target=goal,
                reached=None if goal is None else ratio is not None and ratio >= goal,
                accuracy=own_accuracy,
                peer_accuracy=_accuracy(name, peer, accuracy),
                runs=own.runs,
                peer_runs=peer.runs,
                note="; ".join(filter(None, (own.failure and f"ours failed: {own.failure}", peer.failure))),
            )
        )
    rows += [
        Row(claim, n, case, name, own.seconds, accuracy=own_accuracy, runs=own.runs, note=why)
        for name, why in (absent or {}).items()
    ]
    return rows


def _accuracy(name: str, timing: Timing, accuracy: Accuracy) -> float | None:
    measured = accuracy.get(name) if isinstance(accuracy, Mapping) else accuracy
    if measured is None or timing.seconds is None:
        return None
    value = measured(timing.result)
    return None if value is None else float(value)
