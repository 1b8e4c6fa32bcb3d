"""One block of a model: a state-space system with a mixing map, an activation, a gate and a normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network import signal_kernels
from lqo_mor.network.layers import BatchNorm, LayerNorm, Linear
from lqo_mor.network.signals import Map, activate, linear, normalise, system_map
from lqo_mor.systems import checks
from lqo_mor.systems.diagonal import DiagonalLQOSystem

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "identity")


@dataclass(frozen=True, eq=False)
class Block:
    """One block, ``x ↦ x + mix(activation(ssm(x)))`` with a normalisation before (pre-norm) or after it.

    Parameters
    ----------
    name : str
        Name of the layer in reports.
    ssm : DiagonalLQOSystem
        Discrete system *with delay 0*: its output reads the updated state, so that the kernel is
        ``K_j = C λ^j B`` for ``j ≥ 0``, plus `D` at lag 0. Either a batch ``(width,)`` of systems
        with one input, one per feature, or a single system with `width` inputs. The outputs of a batch are in the order
        (output, feature).
    mixing : Linear or None
        Map of every token after the activation; for the gate "glu" it has twice as many outputs.
    norm : LayerNorm, BatchNorm or None
        Normalisation, before the system if `prenorm`, otherwise after the residual sum.
    prenorm : bool
        Where the normalisation stands.
    activation : {"gelu", "gelu_tanh", "relu", "identity"}
        Nonlinearity after the system; "gelu" is the exact one.
    gate : {"glu", None}
        "glu": ``a ∘ sigmoid(b)`` of the two halves of the mixed features.
    residual : bool
        Whether the input is added to the output.
    backward : {None, 0, 1}
        None for systems that run forward in time only. Otherwise the second half of their outputs reads the sequence from its
        end, with that delay, ``Σ_j K_j u[k + j + backward]``, and is added to the first half.

    Raises
    ------
    DimensionError
        If the parts do not fit together.
    InvalidInputError
        If the system is continuous or a name is unknown.
    """

    name: str
    ssm: DiagonalLQOSystem
    mixing: Linear | None = None
    norm: LayerNorm | BatchNorm | None = None
    prenorm: bool = False
    activation: str = "gelu"
    gate: str | None = None
    residual: bool = True
    backward: int | None = None

    def __post_init__(self) -> None:
        ssm = self.ssm
        if ssm.is_continuous:
            raise InvalidInputError(f"{self.name}: the system is continuous, a block needs a discrete one")
        if self.activation not in ACTIVATIONS:
            raise InvalidInputError(f"{self.name}: activation {self.activation!r} is none of {ACTIVATIONS}")
        if self.gate not in ("glu", None):
            raise InvalidInputError(f"{self.name}: gate {self.gate!r} is neither 'glu' nor None")
        if len(ssm.batch) > 1 or (ssm.batch and ssm.n_inputs != 1):
            raise DimensionError(
                f"{self.name}: a batch of systems must have one axis and one input, got batch {ssm.batch} "
                f"with {ssm.n_inputs} inputs"
            )
        if self.backward not in (None, 0, 1):
            raise InvalidInputError(f"{self.name}: backward must be None, 0 or 1, got {self.backward!r}")
        if self.backward is not None and (ssm.n_outputs % 2 or ssm.M is not None):
            raise DimensionError(f"{self.name}: half of the outputs run backward: an even number, none quadratic")
        features = self.system_features
        if self.mixing is not None:
            if self.mixing.n_inputs != features:
                raise DimensionError(f"{self.name}: mixing takes {self.mixing.n_inputs} features, the system gives {features}")
            features = self.mixing.n_outputs
        if self.gate and features % 2:
            raise DimensionError(f"{self.name}: the gate halves its features, but there are {features}")
        if self.residual and self.n_outputs != self.width:
            raise DimensionError(f"{self.name}: {self.n_outputs} outputs cannot be added to {self.width} inputs")
        if self.norm is not None:
            wanted = self.width if self.prenorm else self.n_outputs
            checks.check_shape(f"{self.name}: norm.weight", self.norm.weight, (wanted,), "(width,)")

    @property
    def width(self) -> int:
        """Number of features that go in."""
        return self.ssm.batch[0] if self.ssm.batch else self.ssm.n_inputs

    @property
    def system_features(self) -> int:
        """Number of features that the system gives, before the mixing."""
        outputs = self.ssm.n_outputs if self.backward is None else self.ssm.n_outputs // 2
        return outputs * (self.ssm.batch[0] if self.ssm.batch else 1)

    @property
    def n_outputs(self) -> int:
        """Number of features that come out."""
        features = self.system_features if self.mixing is None else self.mixing.n_outputs
        return features // 2 if self.gate else features

    @property
    def state_size(self) -> int:
        """Number of real states that the slots of each system hold, two per slot."""
        return 2 * self.ssm.n_slots


def block_input(block: Block, x: np.ndarray) -> np.ndarray:
    """What the system of a block reads; `x` itself where no normalisation stands before it."""
    return normalise(block.norm, x) if block.norm is not None and block.prenorm else x


def block_output(block: Block, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The block after its system, whose output `y` belongs to the caller and is overwritten."""
    y = activate(block.activation, y)
    if block.mixing is not None:
        y = linear(block.mixing, y)
    if block.gate == "glu":
        signal_kernels.glu(y.reshape(y.shape[0], -1))
        y = y[: y.shape[0] // 2]
    if block.residual:
        y += x
    return normalise(block.norm, y) if block.norm is not None and not block.prenorm else y


def block_map(block: Block, steps: int) -> Map:
    """As `system_map` for the system of a block, of which some outputs may run backward in time."""
    apply = system_map(block.ssm, steps)
    if block.backward is None:
        return apply

    def both(x: np.ndarray) -> np.ndarray:
        ahead = apply(x)
        half = ahead.shape[0] // 2
        reverse = apply(np.ascontiguousarray(x[..., ::-1]))[half:, :, ::-1]
        if block.backward:
            ahead[:half, :, :-1] += reverse[:, :, 1:]
        else:
            ahead[:half] += reverse
        return np.ascontiguousarray(ahead[:half])

    return both
