"""Imports point only to a lower level of the package, so that no cycle can enter unnoticed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import MODULES as REPOSITORY
from tests.imports import ROOT, imports

LEVELS = {
    "errors": 0,
    "types": 1,
    "temporaries": 1,
    "interrupts": 1,
    "text_table": 1,
    "parallel": 1,
    "figures": 1,
    "files": 2,
    "starting": 2,
    "compiling": 2,
    "matrix_equations": 3,
    "systems": 4,
    "analysis": 5,
    "reduction": 6,
    "io": 6,
    "network": 7,
    "bounds": 8,
    "compression": 9,
    "checkpoints": 10,
    "torch": 11,
    "": 12,  # lqo_mor/__init__.py re-exports everything below
    "bench": 13,
    "cli": 14,
    "__main__": 15,
}
MODULES = {name: path for name, path in REPOSITORY.items() if name.split(".")[0] == "lqo_mor"}


def own_imports(path: Path) -> frozenset[str]:
    """The modules of the package that a file imports, wherever in the file."""
    return frozenset(name for name in imports(path) if name.split(".")[0] == "lqo_mor")


def part(module: str) -> str:
    """The part of the package that a module belongs to, a key of `LEVELS`."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_level(module):
    assert part(module) in LEVELS, f"{module}: add it to LEVELS"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    own = part(module)
    for name in own_imports(MODULES[module]):
        other = part(name)
        if other != own:
            assert LEVELS[other] < LEVELS[own], f"{module} imports {name}, which is not below it"


def test_the_test_sees_an_import_wherever_it_is(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "def f():\n    from lqo_mor.reduction.objective import error_kernels\nimport lqo_mor.network.model\n"
        "if TYPE_CHECKING:\n    from lqo_mor.reduction.result import Reduction\n",
        encoding="utf-8",
    )
    at_import = {"lqo_mor.network.model"}
    assert imports(path) == {"lqo_mor.reduction.objective.error_kernels", "lqo_mor.reduction.result"} | at_import
    assert imports(path, everywhere=False) == at_import


def test_no_cycle_among_modules():
    graph = {module: own_imports(path) & MODULES.keys() for module, path in MODULES.items()}
    done, active = set(), []

    def visit(module):
        assert module not in active, " -> ".join([*active[active.index(module) :], module])
        if module in done:
            return
        active.append(module)
        for name in sorted(graph[module]):
            visit(name)
        active.pop()
        done.add(module)

    for module in graph:
        visit(module)


def test_solvers_know_no_systems_and_systems_no_solvers():
    for module, path in MODULES.items():
        parts = {part(name) for name in own_imports(path)}
        if part(module) == "matrix_equations":
            assert parts <= {"errors", "compiling", "matrix_equations"}, module
        if part(module) == "systems":
            assert parts <= {"errors", "systems"}, module
        if part(module) == "errors":
            assert not parts


def test_importing_the_package_brings_in_no_optional_library():
    optional = {"torch", "matplotlib", "sklearn", "control", "pymor", "dask", "msgpack", "slycot", "hypothesis"}
    code = f"import sys, lqo_mor; print(*({optional!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not done.stdout.split()


def test_without_torch_its_door_names_the_extra():
    code = "import sys; sys.modules['torch'] = None; import lqo_mor; lqo_mor.torch"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith(
        "MissingDependencyError: lqo_mor.torch needs torch; install it with: pip install 'lqo-mor[torch]'"
    )


def test_the_door_of_torch_needs_no_further_import():
    pytest.importorskip("torch")
    code = "import lqo_mor; print(all(hasattr(lqo_mor.torch, name) for name in lqo_mor.torch.__all__), hasattr(lqo_mor, 'other'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]
