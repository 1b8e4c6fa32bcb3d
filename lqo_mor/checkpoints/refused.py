"""Models that are known by name and cannot be reduced here, with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lqo_mor.checkpoints.tensors import Values

_GATED = "its state equation depends on the input, so its layers are no linear systems and cannot be reduced here"


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
        key = kind.key(keys)
        if key is not None:
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
