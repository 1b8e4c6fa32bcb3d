"""The claim about low-rank right-hand sides; the solve runs in a process of its own, whose peak memory is told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lqo_mor.bench.dense import factor_residual
from lqo_mor.bench.timing import Row, Tell
from lqo_mor.matrix_equations.lyapunov import lyapunov_factor
from lqo_mor.matrix_equations.stein import stein_factor

SECONDS, MEMORY = 60.0, 2048.0  # limits at n = 4096; MiB
_RADIUS = 0.95


def low_rank(quick: bool, progress: Tell, n: int | None = None) -> list[Row]:
    """A factor of the Gramian of a dense system with one input."""
    n = n or (1024 if quick else 4096)
    rows = []
    for continuous in (False, True):
        case = "continuous" if continuous else "discrete"
        progress(f"n = {n}, {case}")
        done = subprocess.run([sys.executable, "-m", "lqo_mor.bench.low_rank", str(n), case], capture_output=True, text=True)
        row: dict[str, Any] = {"claim": "low_rank", "n": n, "case": case, "peer": "limit: 1 minute, 2 GiB at n = 4096"}
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            rows.append(Row(**row, note=f"ours failed: {reason[:80]}"))
            continue
        found = json.loads(done.stdout)
        if n == 4096:
            found |= {"peer_seconds": SECONDS, "ratio": SECONDS / found["seconds"], "target": 1.0}
            found["reached"] = found["ratio"] >= 1 and (found["memory"] is None or found["memory"] <= MEMORY)
        rows.append(Row(**row, **found, runs=1))
    return rows


def solve(n: int, continuous: bool) -> dict[str, Any]:
    """One solve in this process: seconds, rank, residual, and the peak memory of the process up to then."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((n, n))
    A *= _RADIUS / np.sqrt(n)  # by the circular law the spectral radius is about that; eigenvalues would take minutes
    if continuous:
        A[np.diag_indices(n)] -= 1.05
    B = rng.standard_normal((n, 1))
    factor = lyapunov_factor if continuous else stein_factor
    factor(np.array([[-0.5, 0.1], [0.0, -0.4]]), np.ones((2, 1)))  # loads and compiles what there is
    begin = time.perf_counter()
    R = factor(A, B)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "memory": peak_memory(), "rank": R.shape[1], "accuracy": factor_residual(continuous, A, B, R)}


def peak_memory() -> float | None:
    """The largest resident memory of this process so far in MiB, the interpreter included; None where it is not told."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start with the memory of the process that started this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(json.dumps(solve(int(sys.argv[1]), sys.argv[2] == "continuous")))
