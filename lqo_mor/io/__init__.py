"""Systems to and from other toolboxes and files: python-control, SciPy, pyMOR, MATLAB, and a format of our own."""

from lqo_mor.io.mat_files import load_mat, save_mat
from lqo_mor.io.pymor_models import from_pymor, to_pymor
from lqo_mor.io.python_control import from_control, to_control
from lqo_mor.io.scipy_signal import from_scipy, to_scipy
from lqo_mor.io.system_files import load_system, save_system

__all__ = [
    "from_control",
    "from_pymor",
    "from_scipy",
    "load_mat",
    "load_system",
    "save_mat",
    "save_system",
    "to_control",
    "to_pymor",
    "to_scipy",
]
