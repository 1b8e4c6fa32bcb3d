"""Systems for `benchmarks.reduction`, and the reducers of other packages for linear systems."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import scipy.linalg

import lqo_mor as lqo
from lqo_mor.bench.peers import installed

SLICOT = ("build", "CDplayer", "heat-cont", "iss1R")
REFERENCE = {"advdiff200": lqo.examples.advection_diffusion, "msd120p2": lqo.examples.mass_spring_damper}


def systems(data: Path | None, quick: bool) -> dict[str, lqo.LQOSystem | lqo.DiagonalLQOSystem]:
    """The systems by name: the two of the published figures, SLICOT's as far as there is data, and the other examples."""
    found = {name: _reference(data, name) for name in REFERENCE}
    for name in SLICOT if data is not None else ():
        found[name] = slicot(data, name)
        found[f"{name} + energy"] = _with_equal_energy(found[name])
    found["triple chain"] = lqo.examples.triple_chain()
    found["light damping"] = lqo.examples.lightly_damped()
    found["random discrete"] = lqo.examples.random_lqo(100, 2, 2, seed=1)
    found["random continuous"] = lqo.examples.random_lqo(100, 2, 2, seed=1, continuous=True)
    found["random linear discrete"] = lqo.examples.random_lqo(100, seed=1, quadratic=None)
    return {name: sys for name, sys in found.items() if sys.order <= 120} if quick else found


def slicot(data: Path, name: str) -> lqo.LQOSystem:
    """One of SLICOT's benchmark systems."""
    file = scipy.io.loadmat(data / "slicot" / f"{name}.mat")
    matrices = [file[key].toarray() if hasattr(file[key], "toarray") else file[key] for key in "ABC"]
    return lqo.LQOSystem(*(matrix.astype(float) for matrix in matrices), dt=0)


def _reference(data: Path | None, name: str) -> lqo.LQOSystem:
    if data is None:
        return REFERENCE[name]()
    with np.load(data / "lqo" / f"{name}.npz") as file:
        return lqo.LQOSystem(file["A"], file["B"], file["C"], M=np.moveaxis(file["M"], 2, 0), dt=0)


def _with_equal_energy(sys: lqo.LQOSystem) -> lqo.LQOSystem:
    """The output energy added, as strong in the norm as the linear outputs are."""
    both, linear = lqo.h2_norm(lqo.examples.with_energy_output(sys)), lqo.h2_norm(sys)
    return lqo.examples.with_energy_output(sys, weight=linear / np.sqrt(both**2 - linear**2))


def published(data: Path | None) -> dict[str, dict[str, dict[int, float]]]:
    """Relative errors of the public MATLAB code by system, method and order."""
    if data is None:
        return {}
    found = {}
    for name, entry in json.loads((data / "lqo" / "reference.json").read_text()).items():
        by_method = {method: {int(r): error for r, error in row.items()} for method, row in entry["relative_h2_error"].items()}
        found[name] = {
            "published balanced truncation": by_method["bt"] if "bt" in by_method else by_method["bt_own"],
            "published TSIA or IRKA, the best": {int(r): one["rel_err"] for r, one in entry["best"].items()},
        }
    return found


def reducers(sys) -> tuple[dict[str, Callable], dict[str, str]]:
    """Functions from an order to a reduced system, for linear dense systems, and the peers that take no part with the reason.

    The function reduces; what it returns turns the result into an `LQOSystem`, which belongs outside of the clock.
    """
    if not isinstance(sys, lqo.LQOSystem) or sys.M is not None:
        return {}, {}
    modules, found, absent = installed(), {}, {}
    for peer in ("pyMOR", "python-control"):
        if isinstance(modules[peer], str):
            absent[peer] = modules[peer]
    if "pyMOR" not in absent:
        found |= _pymor(sys)
    if "python-control" not in absent:
        if sys.is_continuous:
            found["python-control balanced_reduction"] = _control(modules["python-control"], sys)
        else:
            absent["python-control"] = "its balanced_reduction treats discrete systems as continuous ones"
    return found, absent


def _control(control, sys):
    model = control.ss(sys.A, sys.B, sys.C, sys.D)

    def run(order):
        rom = control.balanced_reduction(model, order, method="truncate")
        return lambda: lqo.LQOSystem(rom.A, rom.B, rom.C, rom.D, dt=0)

    return run


def _pymor(sys):
    from pymor.core.logger import set_log_levels
    from pymor.models.iosys import LTIModel
    from pymor.reductors.bt import BTReductor
    from pymor.reductors.h2 import IRKAReductor, TSIAReductor

    set_log_levels({"pymor": "ERROR"})
    time_step = 0 if sys.is_continuous else float(sys.dt)

    def make(reductor):
        def run(order):  # a model of its own each time: it caches Gramians
            rom = reductor(LTIModel.from_matrices(sys.A, sys.B, sys.C, sampling_time=time_step)).reduce(order)
            return lambda: _from_pymor(rom, sys.dt)

        return run

    return {f"pyMOR {reductor.__name__}": make(reductor) for reductor in (BTReductor, IRKAReductor, TSIAReductor)}


def _from_pymor(rom, dt) -> lqo.LQOSystem:
    A, B, C, D, E = rom.to_matrices()
    if E is not None:
        A, B = np.linalg.solve(E, A), np.linalg.solve(E, B)
    return lqo.LQOSystem(A, B, C, D, dt=dt)


def plain_error(sys, rom) -> float:
    """The relative h² error once more, from SciPy's solution of the error system's equation: a check of `h2_error`."""
    a, b = (lqo.to_dense(s) if isinstance(s, lqo.DiagonalLQOSystem) else s for s in (sys, rom))
    difference = lqo.LQOSystem(
        scipy.linalg.block_diag(a.A, b.A),
        np.vstack([a.B, b.B]),
        np.hstack([a.C, -b.C]),
        M=[scipy.linalg.block_diag(left, -right) for left, right in zip(_matrices(a), _matrices(b), strict=True)],
        dt=a.dt,
    )
    return float(np.sqrt(max(_squared_norm(difference), 0.0) / _squared_norm(a)))


def _squared_norm(sys: lqo.LQOSystem) -> float:
    Q = sys.B @ sys.B.T
    if sys.is_continuous:
        P = scipy.linalg.solve_continuous_lyapunov(sys.A, -Q)
    else:
        P = scipy.linalg.solve_discrete_lyapunov(sys.A, Q)
    return np.trace(sys.C @ P @ sys.C.T) + sum(np.trace(M @ P @ M @ P) for M in _matrices(sys))


def _matrices(sys: lqo.LQOSystem) -> np.ndarray:
    M = sys.M.to_dense() if isinstance(sys.M, lqo.QuadraticOutput) else sys.M
    return np.zeros((sys.n_outputs, sys.order, sys.order)) if M is None else M
