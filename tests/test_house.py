"""The house rules: how long a module and a function may be, and how many parameters a function may have.

Functions that Numba compiles are exempt (their arrays come one by one), and from the length of modules those that hold them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import MODULES

LINES_OF_MODULE = 400
LINES_OF_FUNCTION = 60  # without the docstring
PARAMETERS = 8  # without self and cls

OPTIONS = "options of a public function, each documented"
LONG_MODULES: dict[str, str] = {}  # module -> why
LONG_FUNCTIONS: dict[str, str] = {}  # module:function -> why
MANY_PARAMETERS = {
    "lqo_mor.checkpoints.streaming:compress_file": OPTIONS,
    "lqo_mor.compression.compress:compress": OPTIONS,
    "lqo_mor.reduction.descent.projected_gradient:projected_gradient": OPTIONS,
    "lqo_mor.reduction.reduce:reduce": OPTIONS,
    "lqo_mor.reduction.two_sided.irka:irka": OPTIONS,
    "lqo_mor.reduction.two_sided.tsia:tsia": OPTIONS,
    "lqo_mor.reduction.unstable:solved": OPTIONS,
    "lqo_mor.reduction.variable_projection:variable_projection": OPTIONS,
    "lqo_mor.torch.lqo_deep_ssm:LQODeepSSM.__init__": OPTIONS,
}
PACKAGE = {module: path for module, path in MODULES.items() if module.split(".")[0] == "lqo_mor"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    """All functions in a module, also methods and functions in functions, by their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*Function.__args__, ast.ClassDef)):
            if not isinstance(child, ast.ClassDef):
                yield prefix + child.name, child
            yield from functions(child, f"{prefix}{child.name}.")
        else:
            yield from functions(child, prefix)


def compiled(function: Function) -> bool:
    return any("njit" in ast.unparse(decorator) for decorator in function.decorator_list)


def length(function: Function) -> int:
    """The lines from ``def`` to the end without those of the docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    return lines - (function.body[0].end_lineno - function.body[0].lineno + 1)


def parameters(function: Function) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def broken(modules: dict[str, Path]) -> tuple[set[str], set[str], set[str]]:
    """The modules that are too long, the functions that are, and those of too many parameters."""
    modules_too_long, too_long, too_many = set(), set(), set()
    for module, path in modules.items():
        text = path.read_text(encoding="utf-8")
        found = list(functions(ast.parse(text), f"{module}:"))
        plain = [(name, function) for name, function in found if not compiled(function)]
        if len(text.splitlines()) > LINES_OF_MODULE and len(plain) == len(found):
            modules_too_long.add(module)
        too_long |= {name for name, function in plain if length(function) > LINES_OF_FUNCTION}
        too_many |= {name for name, function in plain if parameters(function) > PARAMETERS}
    return modules_too_long, too_long, too_many


@pytest.mark.parametrize("what", range(3), ids=["lines of modules", "lines of functions", "parameters"])
def test_the_house_rules_are_kept_or_a_reason_stands_here(what):
    found, reasons = broken(PACKAGE)[what], (LONG_MODULES, LONG_FUNCTIONS, MANY_PARAMETERS)[what]
    assert sorted(found - reasons.keys()) == [], "shorten it, or give a reason in tests/test_house.py"
    assert sorted(reasons.keys() - found) == [], "these keep the rule now: take them off the list in tests/test_house.py"


def test_the_test_sees_what_breaks_a_rule(tmp_path):
    many = ", ".join(f"p{i}" for i in range(6))
    body = "\n    ".join(["pass"] * 60)
    (tmp_path / "bad.py").write_text(
        f'class A:\n  def f(self, {many}, *a, k, **b):\n    """One.\n\n    Two."""\n    {body}\n'
        f"def g(self, {many}, *, k, l):\n  def inner():\n    {body}\n  return inner\n"
        f"@njit\ndef h({many}, a, b, c):\n    {body}\n    {body}\n",
        encoding="utf-8",
    )
    (tmp_path / "long.py").write_text("\n" * 401, encoding="utf-8")
    (tmp_path / "kernels.py").write_text("@njit(cache=True)\ndef f(): pass\n" + "\n" * 401, encoding="utf-8")
    modules = {path.stem: path for path in tmp_path.iterdir()}
    assert broken(modules) == ({"long"}, {"bad:A.f", "bad:g", "bad:g.inner"}, {"bad:A.f"})
