"""Fixtures shared by all tests."""

from pathlib import Path

import numpy as np
import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
COMPILING = {"test_edges.py", "test_toy_norm.py"}  # whose reductions compile for a minute
PORTABLE = ("analysis", "io", "matrix_equations", "network", "systems", "test_house.py", "test_layers.py")


def pytest_collection_modifyitems(items):
    """Mark the tests that also run without extras and on other Pythons: those of the layers that compile few kernels."""
    folder = Path(__file__).parent
    for item in items:
        inside = item.path.is_relative_to(folder) and item.path.relative_to(folder).parts[0] in PORTABLE
        if inside and item.path.name not in COMPILING:
            item.add_marker("portable")


@pytest.fixture
def rng():
    """A generator with a fixed seed, fresh for every test."""
    return np.random.default_rng(20260101)


@pytest.fixture(scope="session")
def lqo_data():
    """The folder with the reference systems; the test is skipped where it is missing."""
    folder = SHARED_DATA / "lqo"
    if not (folder / "reference.json").is_file():
        pytest.skip("the reference systems are not there: no folder shared/data/lqo beside the repository")
    return folder
