"""Imports point only to a lower level of the package, so that no cycle can enter unnoticed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lqo_mor"
LEVELS = {
    "errors": 0,
    "types": 1,
    "files": 1,
    "text_table": 1,
    "parallel": 1,
    "figures": 1,
    "matrix_equations": 1,
    "systems": 2,
    "analysis": 3,
    "reduction": 4,
    "io": 4,
    "network": 5,
    "bounds": 6,
    "compression": 7,
    "checkpoints": 8,
    "torch": 9,
    "": 10,  # lqo_mor/__init__.py re-exports everything below
    "bench": 11,
    "cli": 12,
    "__main__": 13,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(path: Path, lazy: bool = True) -> set[str]:
    """The modules of the package that a file imports, also inside functions if `lazy`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else _at_import(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module for alias in node.names
            }
    return {name for name in found if name == "lqo_mor" or name.startswith("lqo_mor.")}


def _at_import(node):
    """Nodes that run when the module is imported: not the bodies of functions, nor what is for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_import(child)


def part(module: str) -> str:
    """The part of the package that a module belongs to, a key of `LEVELS`."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_level(module):
    assert part(module) in LEVELS, f"{module}: add it to LEVELS"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    own = part(module)
    for name in imports(MODULES[module]):
        other = part(name)
        if other != own:
            assert LEVELS[other] < LEVELS[own], f"{module} imports {name}, which is not below it"


def test_the_test_sees_an_upward_import(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "def f():\n    from lqo_mor.reduction.objective import error_kernels\nimport lqo_mor.network.model\n", encoding="utf-8"
    )
    assert imports(path) == {"lqo_mor.reduction.objective.error_kernels", "lqo_mor.network.model"}
    assert imports(path, lazy=False) == {"lqo_mor.network.model"}


def test_no_cycle_among_modules():
    graph = {module: imports(path, lazy=False) & MODULES.keys() for module, path in MODULES.items()}
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
        parts = {part(name) for name in imports(path)}
        if part(module) == "matrix_equations":
            assert parts <= {"errors", "matrix_equations"}, module
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
