"""A heat equation with an energy output and 90,000 states, reduced: seconds, residuals, errors, memory.

    python -m benchmarks.large_heat [--nx 300] [--inputs 1] [--orders 5 10 15] [--methods balanced tsia optimal]

The stages are timed one by one: the two low-rank Gramians (pyMOR's ADI iteration, sparse factorisations by SuperLU), the
projection to the intermediate dense system, and every reduction from there with its error to the large system.
"""

from __future__ import annotations

import argparse
import resource
import time

from rich.console import Console
from rich.table import Table

import lqo_mor as lqo
from lqo_mor.bench.machine import describe
from lqo_mor.systems.examples import heat_equation_2d


def timed(work) -> tuple[object, float]:
    """What `work()` returns, and its seconds."""
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin


def peak_memory() -> float:
    """Largest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nx", type=int, default=300, help="inner points per direction; there are nx² states (default: 300)")
    parser.add_argument("--inputs", type=int, default=1, choices=(1, 2), help="heated patches (default: 1)")
    parser.add_argument("--orders", type=int, nargs="+", default=[5, 10, 15])
    parser.add_argument("--methods", nargs="+", default=["balanced", "tsia", "optimal"])
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=120)
    console.print(describe("lqo-mor", "numpy", "scipy", "pymor"))
    for method in arguments.methods:  # compiles what is compiled
        lqo.reduce(heat_equation_2d(12, inputs=arguments.inputs), 3, method=method)
    sys = heat_equation_2d(arguments.nx, inputs=arguments.inputs)
    console.print(sys)
    begin, marks = time.perf_counter(), []
    balancing = lqo.balance(sys, progress=lambda done, total: marks.append(time.perf_counter()))
    for name, start, end in zip(("P", "Q", "projection and its error"), [begin, *marks], marks, strict=False):
        console.print(f"{name}: {end - start:.1f} s")
    norm, seconds = timed(lambda: lqo.h2_norm(sys, controllability=balancing.controllability))
    console.print(f"h2 norm {norm:.12g}: {seconds:.2f} s")
    console.print(f"residuals of P and Q: {balancing.residuals[0]:.1e}, {balancing.residuals[1]:.1e}")
    console.print(f"columns of the factor of P: {balancing.controllability.columns}")
    console.print(f"intermediate system: order {balancing.system.order}, relative h2 error {balancing.relative_error:.1e}")
    table = Table("order", "method", "relative h2 error", "digits", "seconds", "status", box=None, pad_edge=False)
    for order in arguments.orders:
        for method in arguments.methods:
            red, seconds = timed(lambda: lqo.reduce(sys, order, method=method, balancing=balancing))  # noqa: B023 (runs now)
            table.add_row(str(order), method, f"{red.relative_error:.3e}", str(red.digits), f"{seconds:.2f}", red.status.value)
    console.print(table)
    console.print(f"peak memory {peak_memory():.2f} GiB")


if __name__ == "__main__":
    main()
