"""Collection without the optional libraries: files that need torch are left out where it is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["lqo_mor/torch", "tests/s4d_example.py"]
for library, module in (("control", "python_control"), ("pymor", "pymor_models")):
    if not find_spec(library):
        collect_ignore.append(f"lqo_mor/io/{module}.py")
if not find_spec("pymor"):
    collect_ignore += [
        "lqo_mor/analysis/low_rank_gramians.py",
        "lqo_mor/analysis/low_rank_norms.py",
        "lqo_mor/reduction/large.py",
    ]
