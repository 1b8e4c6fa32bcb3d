"""The pages are tests, ``python -m pytest --doctest-glob='*.md' docs``; each one runs in an empty folder of its own."""

import pytest

collect_ignore = ["conf.py"]


def pytest_configure(config):
    """Let ``...`` stand for what depends on the machine, and spaces for spaces."""
    config.addinivalue_line("doctest_optionflags", "ELLIPSIS")
    config.addinivalue_line("doctest_optionflags", "NORMALIZE_WHITESPACE")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Start in a temporary folder, where the page may write."""
    monkeypatch.chdir(tmp_path)
