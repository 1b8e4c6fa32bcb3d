"""S5 layers: the names of lindermanlab/S5 (JAX) and those of s5-pytorch.

All features share the slots ``x[k] = λ ∘ x[k-1] + g ∘ B u[k]`` with ``λ`` and ``g`` from `Lambda` and a step ``exp(log_step)``
of each slot; a layer gives ``scale Re(C x) + D ∘ u``. In a bidirectional one a second C reads the same recursion run from the
end of the sequence; both directions see ``u[k]``. Source: Smith, Warrington, Linderman, *Simplified State Space Layers for
Sequence Modeling*, 2023.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.slots import (
    check_layer,
    check_linear,
    complex_numbers,
    diagonal_feedthrough,
    diagonal_of,
    discretise,
    from_half_storage,
    pulled_inside,
    real_view,
    size,
    to_half_storage,
    undiscretise,
)
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_RULES = ("zoh", "bilinear")
_CLIP = -1e-4  # clip_eigs: the largest real part
_FACTORS = ("BH", "BP", "CH", "CP")


def _read_jax(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    if "P" in tensors:
        raise CheckpointError(f"{layer} is a diagonal-plus-low-rank S4 layer of the annotated S4, which is not supported")
    n, width, halves = size(tensors, "Lambda_re", 0, 1), size(tensors, "B", 1, 3), "C1" in tensors or "C2" in tensors
    outputs = dict.fromkeys(("C1", "C2"), (width, n, 2)) if halves else {"C": (width, _columns(tensors, n, 3), 2)}
    shapes = {"Lambda_re": (n,), "Lambda_im": (n,), "B": (n, width, 2), **outputs, "D": (width,), "log_step": (n, 1)}
    check_layer(layer, tensors, shapes)
    A_real, A_imag = tensors["Lambda_re"].astype(np.float64), tensors["Lambda_im"].astype(np.float64)
    scale = 2 if settings.flag("conj_sym", True) else 1
    rule = settings.choice("discretization", _RULES, "zoh")
    if np.any(A_real > _CLIP) or settings.given("clip_eigs") is not None:
        A_real = np.minimum(A_real, _CLIP) if settings.flag("clip_eigs", False) else A_real
    C = np.concatenate([complex_numbers(tensors[name]) for name in outputs], axis=1)
    return _layer(layer, tensors, A_real + 1j * A_imag, C, rule, _rescale(settings), scale)


def _read_torch(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    if any(name in tensors for name in _FACTORS):
        factors = ", ".join(_FACTORS)
        raise CheckpointError(f"{layer} has factors {factors} of B and C, which no released class reads; multiply them out")
    n, width = size(tensors, "Lambda", 0, 1), size(tensors, "B", 1, 3)
    shapes = {"Lambda": (n,), "B": (n, width, 2), "C": (width, _columns(tensors, n, 2)), "D": (width,), "log_step": (n,)}
    check_layer(layer, tensors, shapes, complexes=("Lambda", "C"))
    A, C = tensors["Lambda"].astype(np.complex128), tensors["C"].astype(np.complex128)
    # The module S5 has no other rule; only one built from its inner class does.
    rule = "zoh" if settings.given("discretization") is None else settings.choice("discretization", _RULES, "zoh")
    return _layer(layer, tensors, A, C, rule, _rescale(settings), scale=1)


def _columns(tensors: Tensors, n: int | None, ndim: int) -> int | None:
    """The columns of C: one for every slot, or two in a bidirectional layer."""
    return 2 * n if n is not None and size(tensors, "C", 1, ndim) == 2 * n else n


def _rescale(settings: Settings) -> float:
    """The factor of all steps, for another sampling rate than that of the training: 1 unless it is given."""
    return 1.0 if settings.given("step_rescale") is None else settings.number("step_rescale", 1.0, least=1e-6)


def _layer(layer: str, tensors: Tensors, A: np.ndarray, C: np.ndarray, rule: str, rescale: float, scale: int) -> Layer:
    """The system of a layer with the state matrix `A` (n) and `C` (H, n) or (H, 2n), where the second half runs backward."""
    log_step = tensors["log_step"].astype(np.float64).ravel()
    poles, factors = discretise(layer, A, log_step + np.log(rescale), rule)
    bidirectional = C.shape[1] > len(poles)
    D = diagonal_feedthrough(layer, tensors["D"])
    if bidirectional:
        C, D = np.concatenate(np.split(C, 2, axis=1)), np.concatenate([D, np.zeros_like(D)])
    poles, B, C = to_half_storage(poles, factors[:, np.newaxis] * complex_numbers(tensors["B"]), C, scale)
    return Layer(DiagonalLQOSystem(poles, B, C, D, dt=1.0), 0 if bidirectional else None)


def _arrays(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values, scale: int) -> Tensors:
    """`A`, `B`, `C` (H, n) or (H, 2n), `D` and `log_step` of a system, before they get their shapes in the file."""
    check_linear(layer, ssm)
    z, factors = undiscretise(pulled_inside(layer, ssm.poles, ~_unstable(ssm.poles)), settings.get("discretization", "zoh"))
    # Only z = dt A matters: the usual step, or a smaller one where clip_eigs would cut the decay rate.
    rescale, old = settings.get("step_rescale", 1.0), tensors["log_step"]
    log_step = np.full(len(z), np.mean(old.astype(np.float64)))
    decays = z.real < 0
    most = np.log(np.where(decays, z.real, -1.0) / (2 * _CLIP * rescale))
    log_step = np.where(decays, np.minimum(log_step, most), log_step)
    log_step = log_step.astype(old.dtype).astype(np.float64)  # as the class will read it
    dt = rescale * np.exp(log_step)
    C, D = from_half_storage(ssm, scale), ssm.D
    if len(C) > ssm.n_inputs:  # the second half of the outputs runs backward
        first, second = np.split(D, 2)
        C, D = np.concatenate(np.split(C, 2), axis=1), first + second
    return {"A": z / dt, "B": ssm.B / (dt * factors)[:, np.newaxis], "C": C, "D": diagonal_of(layer, D), "log_step": log_step}


def _unstable(poles: np.ndarray) -> np.ndarray:
    """The poles that `stable_poles` refuses."""
    return np.abs(poles) > 1 + 1e-12


def _write_jax(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    if settings.get("clip_eigs") is not False and np.any(_unstable(ssm.poles)):
        raise CheckpointError(
            f"{layer} has a pole of modulus {np.max(np.abs(ssm.poles)):.6g}, which the class may clip: load the checkpoint with "
            'settings={"clip_eigs": False} if it does not, or use save(..., format="native")'
        )
    arrays = _arrays(layer, ssm, tensors, settings, 2 if settings["conj_sym"] else 1)
    A, C = arrays["A"], arrays["C"]
    outputs = dict(zip(("C1", "C2"), np.split(C, 2, axis=1), strict=True)) if "C1" in tensors else {"C": C}
    return {
        "Lambda_re": A.real,
        "Lambda_im": A.imag,
        "B": real_view(arrays["B"]),
        **{name: real_view(value) for name, value in outputs.items()},
        "D": arrays["D"],
        "log_step": arrays["log_step"][:, np.newaxis],
    }


def _write_torch(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    arrays = _arrays(layer, ssm, tensors, settings, 1)
    return {"Lambda": arrays["A"], "B": real_view(arrays["B"]), **{name: arrays[name] for name in ("C", "D", "log_step")}}


S5 = Family(
    name="s5",
    looks_like="S5 layers (Lambda_re, Lambda_im, B, C or C1 and C2, D, log_step)",
    markers=("Lambda_re",),
    names=("Lambda_re", "Lambda_im", "B", "C", "C1", "C2", "D", "log_step", "P"),
    read=_read_jax,
    write=_write_jax,
)
S5_TORCH = Family(
    name="s5-torch",
    looks_like="S5 layers of s5-pytorch (complex Lambda and C, B, D, log_step)",
    markers=("Lambda",),
    names=("Lambda", "B", "C", "D", "log_step", *_FACTORS),
    # DSS kernels have a Lambda too, but none of the others.
    recognises=lambda names: len(names) > 2,
    read=_read_torch,
    write=_write_torch,
)
