"""The docstrings of the public names agree with their signatures."""

import builtins
import enum
import inspect
import re

import pytest

import lqo_mor
from lqo_mor import errors

SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "Notes", "References", "Examples", "See Also")
PUBLIC = {name: getattr(lqo_mor, name) for name in lqo_mor.__all__}
FUNCTIONS = [name for name, thing in PUBLIC.items() if inspect.isfunction(thing)]
CLASSES = [
    name
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing) and not issubclass(thing, (BaseException, enum.Enum)) and "__init__" in vars(thing)
]


def sections(doc: str) -> dict[str, list[str]]:
    """The numpydoc sections of a docstring by their titles; the text before the first is under ''."""
    lines, found, title = inspect.cleandoc(doc).splitlines(), {"": []}, ""
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and set(below) == {"-"}:
            assert line in SECTIONS, f"unknown section {line!r}"
            assert len(below) == len(line), f"the rule below {line!r} has another length"
            assert line not in found, f"section {line!r} twice"
            title = line
            found[title] = []
        elif set(line) != {"-"} or not line:
            found[title].append(line)
    return found


def names(lines: list[str]) -> list[str]:
    """The names that a section documents: the unindented lines, up to a colon, separated by commas."""
    heads = [re.split(r"\s:\s|:$", line)[0] for line in lines if line and not line[0].isspace()]
    return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


def signature(thing) -> list[str]:
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_parameters_are_documented_in_the_order_of_the_signature(name):
    found = sections(PUBLIC[name].__doc__)
    documented = found.get("Parameters") or found.get("Attributes") or []
    assert names(documented) == signature(PUBLIC[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_function_returns_is_documented(name):
    found = sections(PUBLIC[name].__doc__)
    if inspect.signature(PUBLIC[name]).return_annotation not in (None, "None"):
        assert any(line.strip() for line in found.get("Returns", []))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_a_doctest(name):
    assert any(line.startswith(">>>") for line in sections(PUBLIC[name].__doc__).get("Examples", []))


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_errors_and_warnings_exist(name):
    found = sections(PUBLIC[name].__doc__)
    for section, base in (("Raises", BaseException), ("Warns", Warning)):
        for error in names(found.get(section, [])):
            kind = getattr(errors, error, getattr(builtins, error, None))
            assert inspect.isclass(kind), f"{error} is neither ours nor builtin"
            assert issubclass(kind, base)


@pytest.mark.parametrize("name", PUBLIC)
def test_summaries_are_one_sentence_on_one_line(name):
    doc = inspect.cleandoc(PUBLIC[name].__doc__).splitlines()
    assert doc[0].endswith((".", ":"))
    assert len(doc) == 1 or not doc[1]


def test_every_public_name_is_there_and_sorted_once():
    assert sorted(set(lqo_mor.__all__)) == sorted(lqo_mor.__all__)
    for name in lqo_mor.__all__:
        assert hasattr(lqo_mor, name)


def test_the_parser_sees_a_missing_parameter():
    def wrong(a, b):
        """Do.

        Parameters
        ----------
        a : int
            One.
        c
            Two.
        """

    assert names(sections(wrong.__doc__)["Parameters"]) == ["a", "c"] != signature(wrong)


def test_our_errors_inherit_the_builtin_that_a_caller_expects():
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, errors.LQOError) and kind is not errors.LQOError:
            assert any(
                issubclass(kind, builtin)
                for builtin in (ValueError, TypeError, ImportError, OSError, ArithmeticError, RuntimeError)
            ), name
        if inspect.isclass(kind) and issubclass(kind, Warning):
            assert issubclass(kind, errors.LQOWarning), name
