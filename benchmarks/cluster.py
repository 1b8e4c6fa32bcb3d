"""One layer on the workers of joblib: in this process, on processes (loky) and on a local Dask cluster.

    python -m benchmarks.cluster [--workers 2] [--channels 512]

S4D channels, 64 to 16 states over 1024 samples, by the default method. One machine is measured: its cores are shared by all
workers and there is no network between them. What carries over to a cluster are channels per second and core, the time that a
task costs beyond its work, and the bytes per channel, not the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import statistics
import time
from collections.abc import Callable, Iterator

import joblib
import numpy as np

import lqo_mor as lqo
from lqo_mor import parallel
from lqo_mor.bench.machine import describe

RUNS = 3
EMPTY = 200  # tasks that do nothing


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--channels", type=int, default=512)
    options = parser.parse_args()
    sys = lqo.examples.s4d(n_slots=32, channels=options.channels)
    print(describe("lqo-mor", "numpy", "scipy", "numba", "joblib", "distributed"))
    print(f"{options.channels} S4D channels, 64 to 16 states, horizon 1024; one machine; medians of {RUNS} runs\n")
    print("workers            seconds  channels/s  ratio  ms per empty task")
    first = None
    for name, config in (("this process", None), ("loky", "loky"), ("dask", "dask")):
        with _workers(config, options.workers):
            seconds, found = _timed(lambda: lqo.reduce(sys, slots=8, horizon=1024))
            empty, _ = _timed(lambda: parallel.run(_nothing, [()] * EMPTY))
        if first is None:
            first = seconds, found
        title = name if config is None else f"{name}, {options.workers}"
        rate, ratio = options.channels / seconds, first[0] / seconds
        print(f"{title:17s}  {seconds:7.2f}  {rate:10.0f}  {ratio:5.2f}  {1e3 * empty / EMPTY:17.2f}")
        for array in ("poles", "C"):
            np.testing.assert_array_equal(getattr(found.system, array), getattr(first[1].system, array))
    sent, returned = (len(pickle.dumps(one)) / options.channels for one in (sys, first[1]))
    print(f"\nbytes per channel: {sent:.0f} to the worker, {returned:.0f} back")


@contextlib.contextmanager
def _workers(backend: str | None, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            from distributed import Client, LocalCluster

            cluster = LocalCluster(n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None)
            stack.enter_context(Client(stack.enter_context(cluster)))
        if backend is not None:
            stack.enter_context(joblib.parallel_config(backend, n_jobs=count))
        yield


def _timed(call: Callable) -> tuple[float, object]:
    """Median seconds, and the result; the first call, in which workers load the kernels, is not counted."""
    call()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def _nothing(progress) -> None:
    """An empty task."""


if __name__ == "__main__":
    main()
