"""What the files of this repository import, read from their text and not by importing them."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def module_name(path: Path) -> str:
    """The name under which a file of the repository is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FOLDERS = ("lqo_mor", "tests", "benchmarks")
MODULES = {module_name(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


@cache
def imports(path: Path, everywhere: bool = True) -> frozenset[str]:
    """The modules that a file imports; if `everywhere` also inside functions and for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if everywhere else _at_import(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return frozenset(found)


def _at_import(node: ast.AST):
    """Nodes that run when the module is imported: not the bodies of functions, nor what is for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_import(child)


def libraries(path: Path) -> set[str]:
    """The libraries that importing a file imports, by itself or through other files of the repository."""
    found, seen = set(), set()
    files = [path, *(folder / "__init__.py" for folder in path.parents if folder.is_relative_to(ROOT))]
    while files:
        if not (file := files.pop()).is_file():
            continue
        for name in imports(file, everywhere=False) - seen:
            seen.add(name)
            if name.split(".")[0] in FOLDERS:
                parts = name.split(".")  # importing a module imports the packages around it, too
                files += [MODULES[above] for k in range(len(parts)) if (above := ".".join(parts[: k + 1])) in MODULES]
            else:
                found.add(name.split(".")[0])
    return found
