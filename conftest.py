"""Collection without the optional libraries: files that need torch are left out where it is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["lqo_mor/torch_modules.py", "lqo_mor/torch_s4d.py", "tests/s4d_example.py"]
for library, module in (("control", "python_control"), ("pymor", "pymor_models")):
    if not find_spec(library):
        collect_ignore.append(f"lqo_mor/toolboxes/{module}.py")
if not find_spec("pymor"):
    collect_ignore += ["lqo_mor/large/gramians.py", "lqo_mor/large/norms.py", "lqo_mor/large/reduction.py"]
