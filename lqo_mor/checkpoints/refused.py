"""Models and files that are known by name and cannot be read here, with the reason and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lqo_mor.checkpoints.tensors import Values

_GATED = "its state equation depends on the input, so its layers are no linear systems and cannot be reduced here"

_MOST_HEADER = 2**16
_NAMES = (
    "flat = {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_flatten_with_path(%s)[0]}; np.savez('model.npz', **flat)"
)
_EQUINOX = (
    "holds arrays without their names, as Equinox writes them (.eqx); store them by their paths: "
    + _NAMES % "eqx.filter(model, eqx.is_array)"
)
_ORBAX = (
    "is a checkpoint folder of Orbax, which only its own library reads; restore it there and store the tree by its paths: "
    + _NAMES % "params"
)


@dataclass(frozen=True)
class _Kind:
    """A kind of models: the names that show it, each anywhere in the file, and why it is refused."""

    name: str
    shown_by: tuple[str, ...]  # patterns of the last names in a key
    reason: str = _GATED

    def key(self, keys: list[str]) -> str | None:
        """A key of this kind, if all of its names are there."""
        found = [next((key for key in keys if re.search(rf"(^|\.)({pattern})$", key)), None) for pattern in self.shown_by]
        return None if None in found else found[0]


_KINDS = (
    _Kind("the Mamba-2 kind", ("A_log", r"dt_bias", r"in_proj\.weight")),
    _Kind("the Mamba kind", (r"A_log|x_proj\.weight|dt_proj\.weight",)),
    _Kind(
        "the RG-LRU kind (Griffin, RecurrentGemma)",
        (r"a_param|recurrent_param|recurrent_gate_weight|input_gate_weight|(input|a)_gate\.\w+",),
    ),
    _Kind("the RWKV kind", (r"time_decay\w*|time_maa_\w+|time_mix_\w+",)),
    _Kind(
        "the H3 kind",
        (r"ssm_k_kernel\.\w+|ssm_k_D",),
        "its two kernels, a shift and a diagonal system, stand inside of products of the inputs, and no layer of a known format "
        "was found; a diagonal kernel is read where its tensors are those of S4D or S4",
    ),
    _Kind(
        "the D-LinOSS kind (damped oscillators)",
        ("G_diag", "A_diag"),
        "its damping can be put into the recurrence in several ways, which the tensors do not tell; only undamped LinOSS is read",
    ),
    _Kind(
        "the LinOSS kind in PyTorch (LinOSSM_Torch)",
        (r"linOSS_layers\.\d+\.B\.weight",),
        "it lacks the oscillators: that class keeps their A as a plain tensor, which state_dict leaves out, and takes the time "
        "step dt as an argument. With A from the live model, store each layer in an .npz as A_diag = diag(A), steps = "
        "log(dt / (1 - dt)), B and C = their weights with a last axis (weight, 0), and D = 0 (it is not reduced)",
    ),
    _Kind("a recurrent network (LSTM, GRU, RNN)", (r"weight_hh_l\d+\w*",), "its state equation is not linear"),
)


def refusal(keys: Iterable[str]) -> str | None:
    """What kind of model has these keys, and why it cannot be read; None where the kind is unknown."""
    keys = list(keys)
    for kind in _KINDS:
        if (key := kind.key(keys)) is not None:
            return f"the key {key} belongs to a model of {kind.name}: {kind.reason}"
    return None


def liquid(extras: Values) -> str | None:
    """As `refusal` for the settings beside the tensors: liquid layers have the tensors of their linear relatives."""
    for name, value in extras.items():
        if name in ("liquid", "liquid_kernel") and isinstance(value, (str, bool)) and value:
            return f"the entry {name} = {value!r} belongs to a model of the liquid kind (Liquid-S4, liquid S5): {_GATED}"
        found = liquid(value) if isinstance(value, dict) else None
        if found is not None:
            return found
    return None


def explain_file(path: Path, head: bytes) -> str | None:
    """What a file is that starts with `head`, and how to convert it; None where it is unknown."""
    if head.startswith(b"\x93NUMPY"):
        return _EQUINOX
    if head.startswith(b"{"):  # a line of JSON before the arrays is a custom of Equinox users
        with path.open("rb") as file:
            if b"\n\x93NUMPY" in file.read(_MOST_HEADER):
                return _EQUINOX
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "is an HDF5 file, which is not read here; store its arrays by their paths with numpy.savez"
    return None


def explain_folder(path: Path) -> str | None:
    """The same for a folder."""
    marks = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "_sharding")
    return _ORBAX if any((path / mark).exists() for mark in marks) else None
