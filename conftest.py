"""What needs an optional library that is missing is left out (files) or skipped (examples), by what it imports: no list to keep.

Test modules and tests say it themselves: ``pytest.importorskip``.
"""

from configparser import ConfigParser
from doctest import DocTestFailure, UnexpectedException
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.imports import ROOT, libraries

IMPORTED_AS = {"pytest-xdist": "xdist", "python-flint": "flint", "scikit-learn": "sklearn", "s5-pytorch": "s5"}


@cache
def missing() -> frozenset[str]:
    """The libraries of the extras in setup.cfg that are not installed."""
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = " ".join(config["options.extras_require"].values()).split()
    named = {line.split(">=")[0] for line in lines if not line.startswith("%")}
    return frozenset(name for name in {IMPORTED_AS.get(name, name) for name in named} if not find_spec(name))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a file with examples, or a helper of the tests, that cannot be imported without a missing library."""
    if collection_path.suffix != ".py" or collection_path.name.startswith("test_"):
        return None
    return bool(missing() and libraries(collection_path) & missing()) or None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Skip an example or a page whose first failure is that an optional library is missing."""
    try:
        return (yield)
    except UnexpectedException as failure:
        error = failure.exc_info[1]
        if isinstance(error, ImportError) and missing():
            pytest.skip(str(error))
        raise
    except DocTestFailure as failure:  # another error was expected
        error = failure.got.rstrip().rpartition("\n")[2]
        if "MissingDependencyError" in error and missing():
            pytest.skip(error)
        raise
