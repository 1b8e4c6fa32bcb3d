"""DSS layers (ag1988/dss): diagonal systems whose heads share one set of continuous poles.

Head h has the poles ``λ_j = e^{z_j}`` with ``z = dt_h Lambda``, or ``dt_h0 Re Lambda + i dt_h1 Im Lambda``, and the kernel
``K_k = Re Σ W g λ^k``. With ``x⁺ = x*/(|x|² + 1e-7)`` the factor g is, by `version`,

=================================== =========================================
exp, exp-re-im, clip                (e^z - 1) Lambda* / max(|Lambda|², 1e-7)
exp-no-scale, clip-no-scale         1
softmax, Re Lambda <= 0             (e^z - 1) ((e^{zL} - 1) Lambda)⁺
softmax, Re Lambda > 0              e^{-z(L-1)} (e^{-z} - 1) ((e^{-zL} - 1) Lambda)⁺
=================================== =========================================

for kernels of length L; see Gupta, Gu and Berant, "Diagonal state spaces are as effective as structured state spaces",
NeurIPS 2022.
Heads with different steps cannot have poles of their own, so most reduced systems are none that the class can hold;
`keep_shared_poles` makes one that it can.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.diagonal_kernels import (
    backward_delay,
    forward_feedthrough,
    half_storage,
    length_setting,
    linear_parts,
)
from lqo_mor.checkpoints.families.in_class import keep_shared_poles
from lqo_mor.checkpoints.families.slots import (
    NO_ANGLE,
    SMALLEST,
    WAY_OUT,
    beside_axis,
    complex_numbers,
    per_slot,
    real_view,
    size,
)
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, check_tensors, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_VERSIONS = {
    "Lambda": ("softmax", "clip", "clip-no-scale"),
    "Lambda_im": ("exp", "exp-no-scale"),
    "Lambda_log_im": ("exp-re-im",),
}
_EPSILON = 1e-7  # of the class
_SAME = 1e-11  # distance of poles that are the same but for what reading does to them


def _form(names: set[str]) -> str:
    """How Lambda is stored: the name of the tensor that only this form has."""
    return next((form for form in ("Lambda_log_im", "Lambda_im") if f"kernel.{form}" in names), "Lambda")


def _lambda_names(form: str) -> tuple[str, ...]:
    return ("kernel.Lambda",) if form == "Lambda" else ("kernel.Lambda_log_neg_re", f"kernel.{form}")


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    form = _form(set(tensors))
    if "kernel.Lambda_log_neg_re" in tensors and form == "Lambda":
        form = "Lambda_im"
    p, H, n = (size(tensors, "kernel.W", axis, 4) for axis in range(3))
    shapes: Shapes = {name: (n, 2) if form == "Lambda" else (n,) for name in _lambda_names(form)}
    shapes |= {"kernel.log_dt": (H,) if size(tensors, "kernel.log_dt", 1, 2) is None else (H, 2), "kernel.W": (p, H, n, 2)}
    check_tensors(tensors, shapes | {"D": (size(tensors, "D", 0, 2), H)})
    W, D = tensors["kernel.W"], tensors["D"]
    backward = backward_delay(layer, "W", p, D)
    chosen = _settings(layer, form, settings)
    Lambda = _lambda(tensors, form, chosen)
    with np.errstate(all="ignore"):  # what is not finite is reported
        z = _exponents(tensors["kernel.log_dt"], Lambda)
        gains = _gains(Lambda, z, chosen)
        residues = np.swapaxes(complex_numbers(W) * gains, 0, 1)
        poles = np.exp(z)
    if np.any((gains == 0) & (Lambda.real > 0)):
        raise CheckpointError(f"{layer} has poles that grow beyond double precision within its max_kernel_length steps")
    return Layer(half_storage(layer, poles, residues, 1, D.astype(np.float64), form != "Lambda"), backward)


def _settings(layer: str, form: str, settings: Settings) -> Values:
    """The version and what it needs; the tensors of "exp-re-im" tell it."""
    versions = _VERSIONS[form]
    asked = len(versions) > 1 or settings.given("version") is not None
    version = settings.choice("version", versions, versions[0]) if asked else versions[0]
    chosen = {"version": version, "max_kernel_length": length_setting(settings, "max_kernel_length")}
    if version == "softmax" and chosen["max_kernel_length"] is None:
        raise CheckpointError(
            f"{layer}: version = 'softmax' normalises its kernel by the length of it; give the setting max_kernel_length, the "
            "smaller one of the length of the sequences and of max_kernel_length in the model's configuration, or another version"
        )
    if version.startswith("clip"):
        chosen["max_real_Lambda"] = settings.number("max_real_Lambda", 1e-4)
    return chosen


def _lambda(tensors: Tensors, form: str, chosen: Values) -> np.ndarray:
    """Lambda (n,)."""
    if form == "Lambda":
        Lambda = complex_numbers(tensors["kernel.Lambda"])
        return np.minimum(Lambda.real, chosen.get("max_real_Lambda", np.inf)) + 1j * Lambda.imag
    real, imag = (tensors[name].astype(np.float64) for name in _lambda_names(form))
    with np.errstate(over="ignore"):
        return -np.exp(real) + 1j * (imag if form == "Lambda_im" else np.exp(imag))


def _exponents(log_dt: np.ndarray, Lambda: np.ndarray) -> np.ndarray:
    """z (H, n)."""
    dt = np.exp(log_dt.astype(np.float64)).reshape(len(log_dt), -1)
    return dt[:, :1] * Lambda.real + 1j * dt[:, -1:] * Lambda.imag


def _gains(Lambda: np.ndarray, z: np.ndarray, chosen: Values) -> np.ndarray:
    """g (H, n)."""
    if chosen["version"].endswith("no-scale"):
        return np.ones(z.shape)
    if chosen["version"] != "softmax":
        return np.expm1(z) * Lambda.conj() / np.maximum(np.abs(Lambda) ** 2, _EPSILON)
    length, grows = chosen["max_kernel_length"], Lambda.real > 0
    falling = np.where(grows, -z, z)
    x = np.expm1(falling * length) * Lambda
    return np.where(grows, np.exp(-z * (length - 1)), 1) * np.expm1(falling) * x.conj() / (np.abs(x) ** 2 + _EPSILON)


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    form = _form(set(tensors))
    chosen = {"version": _VERSIONS[form][0]} | settings
    residues, D = linear_parts(layer, ssm)
    residues = residues * per_slot(ssm, 1)[:, np.newaxis]
    zero = np.abs(ssm.poles) < SMALLEST
    D = forward_feedthrough(layer, D + np.sum(np.where(zero[:, np.newaxis], residues, 0), axis=-1).real.T, len(tensors["D"]))
    residues = np.where(zero[:, np.newaxis], 0, residues)
    used, log_dt = np.any(residues, axis=1), tensors["kernel.log_dt"]
    places, flipped = _places(ssm.poles, used, _exponents(log_dt, _lambda(tensors, form, chosen)))
    if places is not None and flipped is not None:
        kept = np.unique(places[used]) if np.any(used) else np.zeros(1, int)
        new = {name: tensors[name][kept] for name in _lambda_names(form)}
    else:
        z, flipped = _common_exponents(layer, ssm.poles, used, log_dt)
        places, kept = np.broadcast_to(np.arange(z.size), used.shape), np.arange(z.size)
        new = _lambda_tensors(form, z, np.exp(log_dt[0].astype(np.float64)).reshape(-1))
    Lambda = _lambda(new, form, chosen)
    with np.errstate(all="ignore"):  # `rounded` refuses what is not finite
        residues = np.where(flipped[:, np.newaxis], residues.conj(), residues)
        W = np.zeros((*residues.shape[:2], kept.size), complex)
        for h, slot in zip(*np.nonzero(used), strict=True):
            W[h, :, np.searchsorted(kept, places[h, slot])] += residues[h, :, slot]
        W = W / _gains(Lambda, _exponents(log_dt, Lambda), chosen)[:, np.newaxis]
    return new | {"D": D, "kernel.log_dt": log_dt, "kernel.W": real_view(np.swapaxes(W, 0, 1))}


def _places(poles: np.ndarray, used: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Which pole of the file (H, n) each used slot (H, s) has, and whether as its conjugate; (None, None) where one has none."""
    old = np.exp(z)[:, np.newaxis]
    real = np.where(beside_axis(old), np.copysign(np.abs(old), old.real), np.inf)
    distances = np.abs(poles[..., np.newaxis] - np.stack([old, old.conj(), real])) / np.maximum(np.abs(old), 1)
    places = np.argmin(np.min(distances, axis=0), axis=-1)
    nearest = np.take_along_axis(distances, places[np.newaxis, ..., np.newaxis], axis=-1)[..., 0]
    if np.any((np.min(nearest, axis=0) > _SAME) & used):
        return None, None
    return places, nearest[1] < np.minimum(nearest[0], nearest[2])


def _common_exponents(layer: str, poles: np.ndarray, used: np.ndarray, log_dt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z (s,) with Im z >= 0 that all heads have, and which slots (H, s) are conjugated for that; raises where heads differ."""
    upper = np.where(poles.imag < 0, poles.conj(), poles)
    first = np.take_along_axis(upper, np.argmax(used, axis=0)[np.newaxis], axis=0)
    if np.any(log_dt != log_dt[:1]) or np.any((np.abs(upper - first) > _SAME) & used):
        raise CheckpointError(
            f"{layer}: the heads of this class share one set of poles, and the reduced ones do not. Reduce it by "
            f"lqo_mor.checkpoints.families.in_class.keep_shared_poles, which keeps some of the poles of the file; or {WAY_OUT}"
        )
    return np.log(stable_poles(layer, np.where(np.any(used, axis=0), first[0], 0.5))), poles.imag < 0


def _lambda_tensors(form: str, z: np.ndarray, dt: np.ndarray) -> dict[str, np.ndarray]:
    """Lambda as the form stores it, from z (s,) of heads that all have the steps `dt` (1,) or (2,)."""
    real, imag = z.real / dt[0], z.imag / dt[-1]
    if form == "Lambda":
        return {"kernel.Lambda": np.stack([real, imag], axis=-1)}
    imag = imag if form == "Lambda_im" else np.log(np.maximum(imag, NO_ANGLE))
    return dict(zip(_lambda_names(form), (np.log(-real), imag), strict=True))


_LAMBDA = {"kernel.Lambda", "kernel.Lambda_log_neg_re"}
DSS = Family(
    name="dss",
    looks_like="DSS layers (kernel.{log_dt, W, Lambda or Lambda_log_neg_re and Lambda_im}, D)",
    markers=("kernel.Lambda", "kernel.Lambda_log_neg_re", "kernel.W"),
    names=("D", *(f"kernel.{key}" for key in ("log_dt", "W", "Lambda", "Lambda_log_neg_re", "Lambda_im", "Lambda_log_im"))),
    recognises=lambda names: {"kernel.W", "kernel.log_dt"} <= names or not names.isdisjoint(_LAMBDA),
    read=_read,
    write=_write,
    in_class=lambda model, state_size, horizon: keep_shared_poles(model, state_size // 2, horizon),
)
