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
    """What came of one function."""

    seconds: float | None  # median over all runs; None if the function failed
    runs: int = 0
    result: Any = None  # what it returned in the last run
    failure: str = ""  # the exception, if there was one


@dataclass(frozen=True)
class Row:
    """One line of a table: ours against one peer."""

    claim: str  # the comparison that it belongs to
    n: int  # size of the problem
    case: str  # what distinguishes the problem beyond its size
    peer: str
    seconds: float | None = None  # median times; that of a peer which is a limit is the limit
    peer_seconds: float | None = None
    ratio: float | None = None  # ``peer_seconds / seconds``: how many times as fast as the peer we are
    target: float | None = None  # what the ratio should be, at least
    reached: bool | None = None  # whether the target, of the ratio or of the accuracy, was reached
    accuracy: float | None = None  # relative residuals or errors; the heading of the table says which
    peer_accuracy: float | None = None
    memory: float | None = None  # peak of the process that solved it, in MiB
    rank: int | None = None  # columns of a factor
    runs: int = 0  # that the medians are of
    peer_runs: int = 0
    note: str = ""  # why there are no figures, or what to know about them


def measure(
    competitors: Mapping[str, Callable[[], object]],
    budget: float = 1.0,
    rounds: int = 5,
    compiled: Collection[str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Time functions in turns, so that a disturbance of the machine meets all of them.

    In at most `rounds` rounds, each of which begins with another function. A function that has run three times takes part in no
    further round after `budget` seconds; after five times as many it is out with fewer runs, but at least one. The first run is
    a warm-up and not counted, unless it took the whole budget and there is nothing to compile: the functions named in `compiled`
    (by default the first one) may compile something in it, so that it is never counted. A function that raises is out, and its
    `Timing` says why. The clock and `sleep` are arguments for tests.
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
            spent = sum(samples[name])
            enough = spent >= _PATIENCE * budget or (spent >= budget and len(samples[name]) >= _RUNS)
            if name not in failures and not enough:
                sleep(_PAUSE)
                turn(name, _TURN)
    return {
        name: Timing(None, failure=failures[name])
        if name in failures
        else Timing(median(samples[name]), len(samples[name]), results[name])
        for name in competitors
    }


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

    Ours is first. An accuracy maps a result to its relative residual or error, one for all or one for each name; `target` is the
    wanted ratio against the fastest of the peers, `targets` are those against single peers.
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
