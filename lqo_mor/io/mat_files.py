"""Systems in MATLAB files of versions 5 to 7."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from scipy.sparse import csc_array

from lqo_mor.errors import DimensionError, InvalidInputError, OutputError
from lqo_mor.files import FilePath, write_atomically
from lqo_mor.io._mat5 import read_mat5
from lqo_mor.io.descriptor import without_descriptor
from lqo_mor.io.matrices import as_dense_system, full, is_large
from lqo_mor.io.system_checks import naming, new_path, read_bytes, unpacked_bound
from lqo_mor.systems.checks import check_shape
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import System

_MATRICES = ("A", "B", "C", "D", "E", "M")
_STEPS = ("Ts", "ts", "dt")


def load_mat(path: FilePath, dt: float | bool | None = None) -> LQOSystem | SparseLQOSystem:
    """Read a system from a MATLAB file, such as the benchmarks of the SLICOT collection.

    Parameters
    ----------
    path : str or path-like
        A file with the variables `A` (n, n), `B` (n, m) and `C` (p, n), where there are any also `D` (p, m), `E` (n, n) and the
        quadratic outputs `M` (n, n, p), or (n, n) for one output, with which `C` may be missing; dense or sparse. A
        linear system may be in lower case, `a` to `e`, and either may be the fields of one structure. Empty matrices count as
        missing, as does a scalar ``D = 0``. `E` is solved for, as in `from_pymor`. Other variables do not matter.
    dt : float or True, optional
        The time step: 0 continuous, a number (seconds) or True discrete. By default that of a variable `Ts`, `ts` or `dt` of the
        file (-1, MATLAB's unspecified step, is True); without one, 0, since a file does not tell otherwise.

    Returns
    -------
    LQOSystem or SparseLQOSystem
        The second for sparse matrices with more than 4096 states, with `E` as it is.

    Warns
    -----
    AccuracyWarning
        If the condition number of `E` exceeds 1e8, with its value.
    SymmetrisedWarning
        If a matrix of `M` is not symmetric.

    Raises
    ------
    InvalidInputError
        If the file is missing, damaged, of version 7.3 (HDF5), too large or without such matrices, or its `E` is singular; a
        `DimensionError` if the shapes do not fit together. The message names the file.

    Examples
    --------
    >>> import tempfile, lqo_mor as lqo
    >>> from lqo_mor.io import load_mat, save_mat
    >>> folder = tempfile.TemporaryDirectory()
    >>> save_mat(folder.name + "/system.mat", lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], M=[[[2.0]]], dt=0.1))
    >>> load_mat(folder.name + "/system.mat")
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=dense, dt=0.1)
    """
    path, content = read_bytes(path)
    with naming(path):
        fields = _fields(content)
        if dt is None:
            dt = _time_step(fields)
        A, E, M = fields["A"], fields.get("E"), fields.get("M")
        if is_large(A, E, M):
            M = M if M is None else [csc_array(Mi) for Mi in ([M] if M.ndim == 2 else _quadratic(fields))]
            E = None if E is None else csc_array(E)
            return SparseLQOSystem(csc_array(A), fields["B"], fields.get("C"), fields.get("D"), M, E, dt)
        fields = {name: full(matrix) for name, matrix in fields.items()}
        E = fields.get("E")
        sys = LQOSystem(fields["A"], fields["B"], fields.get("C"), fields.get("D"), _quadratic(fields), dt)
        return sys if E is None else without_descriptor(sys, E)


def save_mat(path: FilePath, sys: System, *, overwrite: bool = False) -> None:
    """Write a system as a MATLAB file (version 7).

    Parameters
    ----------
    path : str or path-like
        File to write; it is complete or not there at all.
    sys : LQOSystem or DiagonalLQOSystem
        A single one. It is stored as the variables `A`, `B`, `C`, `D`, the time step `Ts` (0 continuous, -1 for ``dt=True``) and,
        with a quadratic output, dense symmetric matrices `M` (n, n, p), also for one that is given in factors. A diagonal system
        gets the coordinates of `to_dense`.
    overwrite : bool, default False
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists already or cannot be written.
    InvalidInputError
        If `sys` is a batch or no system.

    Examples
    --------
    >>> import tempfile, scipy.io, lqo_mor as lqo
    >>> from lqo_mor.io import save_mat
    >>> folder = tempfile.TemporaryDirectory()
    >>> save_mat(folder.name + "/system.mat", lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=True))
    >>> scipy.io.loadmat(folder.name + "/system.mat")["Ts"]
    array([[-1.]])
    """
    import scipy.io  # takes long, and few need it

    path, sys = new_path(path, overwrite), as_dense_system(sys)
    fields = {"A": sys.A, "B": sys.B, "C": sys.C, "D": sys.D, "Ts": -1.0 if sys.dt is True else sys.dt}
    if sys.M is not None:
        fields["M"] = (sys.M.to_dense() if isinstance(sys.M, QuadraticOutput) else sys.M).transpose(1, 2, 0)
    file = io.BytesIO()
    try:
        scipy.io.savemat(file, fields, do_compression=True)
    except ValueError as err:  # from 4 GiB a matrix
        raise OutputError(f"{path} cannot be written as a MATLAB file: {err}") from None
    write_atomically(path, file.getvalue(), overwrite)


def _fields(content: bytes) -> dict[str, Any]:
    """The matrices and the time step of a file by their names in upper case, those that are empty left out."""
    variables = read_mat5(content, unpacked_bound(content))
    if not {"A", "a"} & variables.keys():
        variables = _structure(variables)
    wanted = {name: name for name in _MATRICES}
    if "A" not in variables:  # m of such a file is a number of inputs, if anything
        wanted = {name: name.lower() for name in _MATRICES if name != "M"}
    fields = {name: variables[key] for name, key in wanted.items() if key in variables and 0 not in np.shape(variables[key])}
    for name in ("A", "B", *(() if "M" in fields else ("C",))):
        if name not in fields:
            raise InvalidInputError(f"has no matrix {wanted[name]}, or an empty one")
    for name, matrix in fields.items():
        if isinstance(matrix, (str, dict)):
            kind = matrix if isinstance(matrix, str) else "a structure"
            raise InvalidInputError(f"{wanted[name]} is {kind}, expected a numeric matrix")
    if "D" in fields and fields["D"].shape == (1, 1) and full(fields["D"])[0, 0] == 0:
        del fields["D"]  # MATLAB's ss(A, B, C, 0) for any number of inputs and outputs
    return fields | {name: variables[name] for name in _STEPS if name in variables}


def _structure(variables: dict[str, Any]) -> dict[str, Any]:
    """The only structure with a field `A` or `a`."""
    found = [name for name, value in variables.items() if isinstance(value, dict) and {"A", "a"} & value.keys()]
    if len(found) > 1:
        raise InvalidInputError(f"holds several systems, the structures {', '.join(found)}; one is expected")
    if not found:
        names = ", ".join(name for name in variables if name)[:200] or "nothing"
        objects = any(isinstance(value, str) and value == "an object" for value in variables.values())
        hint = "; of a MATLAB object save the matrices: [A, B, C, D] = ssdata(sys); Ts = sys.Ts" if objects else ""
        raise InvalidInputError(f"has no matrix A, nor one structure with a field A, but {names}{hint}")
    return variables[found[0]]


def _quadratic(fields: dict[str, Any]) -> Any:
    """`M` with the outputs first, as an `LQOSystem` takes it."""
    M = fields.get("M")
    if M is None or M.ndim == 2:
        return M
    n = fields["A"].shape[0]
    if M.ndim != 3:
        raise DimensionError(f"M has shape {M.shape}, expected (n, n, p) = ({n}, {n}, p), one matrix per output")
    check_shape("M", M, (n, n, M.shape[2]), "(n, n, p)")
    return M.transpose(2, 0, 1)


def _time_step(fields: dict[str, Any]) -> float | bool:
    """The time step that the file gives, 0 without one."""
    for name in _STEPS:
        if name in fields:
            value = fields[name]
            if not isinstance(value, np.ndarray) or value.size != 1:
                raise InvalidInputError(f"{name} of the file is no time step; give the step as the argument dt")
            step = value.item()
            return True if step == -1 else step
    return 0.0
