"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS")


def describe(*packages: str) -> str:
    """Processor, cores, Python and the versions of the named packages, in one line."""
    versions = [f"{name} {_version(name) or 'missing'}" for name in packages]
    return f"{_processor()}, {_cores()} cores, Python {platform.python_version()}, {', '.join(versions)}"


def machine_facts(*packages: str) -> dict[str, Any]:
    """The same and the linear algebra underneath, as a dictionary; a missing package has the version None."""
    return {
        "processor": _processor(),
        "cores": _cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": blas(),
        "versions": {name: _version(name) for name in packages},
    }


def blas() -> list[str]:
    """Every BLAS library loaded in this process with its threads; of threadpoolctl where it is installed."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        settings = [f"{name}={os.environ[name]}" for name in _THREAD_VARIABLES if name in os.environ]
        name = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {}).get("name", "unknown BLAS")
        return [f"{name}, {', '.join(settings) or 'default number of threads'}"]
    found = [info for info in threadpool_info() if info.get("user_api") == "blas"]
    return list(dict.fromkeys(f"{info['internal_api']} {info['version']}, {info['num_threads']} threads" for info in found))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
