"""A deep state-space model as plain arrays: an encoder, a chain of blocks and a decoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.files import FilePath
from lqo_mor.network.layers import BatchNorm, Embedding, LayerNorm, Linear
from lqo_mor.network.signals import forward
from lqo_mor.network.source import ModelSource
from lqo_mor.systems import checks
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import Progress

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "identity")
POOLINGS = ("mean", "last", None)


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
        if self.backward is not None and (ssm.n_outputs % 2 or ssm.quadratic is not None):
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


@dataclass(frozen=True, eq=False)
class DeepSSM:
    """Deep state-space model: encoder, blocks, optional final normalisation, pooling over time, decoder.

    Parameters
    ----------
    encoder : Linear, Embedding or None
        Map from the input features, or from integer tokens, to the width of the blocks. None together with the decoder:
        only the systems are known and not what is between them; such a model can be reduced and stored, not run.
    blocks : tuple of Block
        The blocks, first to last.
    decoder : Linear or None
        Map from the (pooled) features to the outputs.
    norm : LayerNorm, BatchNorm or None
        Final normalisation, before the pooling.
    pooling : {"mean", "last", None}
        Mean over time, last time step, or none: one output per time step.
    source : ModelSource, optional
        Where the model came from; `load_checkpoint` sets it and `save` needs it.

    Raises
    ------
    DimensionError
        If two neighbours do not fit together.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from lqo_mor.network import Block, Linear
    >>> ssm = lqo.DiagonalLQOSystem(poles=[[0.5]], B=[[[1.0]]], C=[[[1.0]]])  # a batch of one channel
    >>> model = lqo.DeepSSM(Linear([[1.0]]), (Block("layer", ssm, activation="identity", residual=False),), Linear([[2.0]]))
    >>> float(model(np.array([[[1.0], [0.0]]]))[0, 0])  # mean of the impulse response 1, 0.5, times 2
    1.5
    """

    encoder: Linear | Embedding | None
    blocks: tuple[Block, ...]
    decoder: Linear | None
    norm: LayerNorm | BatchNorm | None = None
    pooling: str | None = "mean"
    source: ModelSource | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if self.pooling not in POOLINGS:
            raise InvalidInputError(f"pooling {self.pooling!r} is none of {POOLINGS}")
        if (self.encoder is None) != (self.decoder is None):
            raise InvalidInputError("a model has both an encoder and a decoder, or none of them")
        if self.encoder is None or self.decoder is None:
            return
        features, before = self.encoder.n_outputs, "the encoder"
        for block in self.blocks:
            if block.width != features:
                raise DimensionError(f"{block.name} takes {block.width} features, but {before} gives {features}")
            features, before = block.n_outputs, block.name
        if self.norm is not None:
            checks.check_shape("norm.weight", self.norm.weight, (features,), "(width,)")
        if self.decoder.n_inputs != features:
            raise DimensionError(f"the decoder takes {self.decoder.n_inputs} features, but {before} gives {features}")

    @property
    def runs(self) -> bool:
        """Whether the whole model is known, not only its systems."""
        return self.encoder is not None

    def __call__(self, u: ArrayLike, progress: Progress | None = None) -> np.ndarray:
        """Run the model in NumPy and float64.

        Parameters
        ----------
        u : (batch, steps, features) array_like, or (batch, steps) of integers for an embedding
            Input sequences, all of one length.
        progress : callable, optional
            Called as ``progress(done, total)`` with numbers of sequences.

        Returns
        -------
        (batch, outputs) ndarray, or (batch, steps, outputs) without pooling

        Raises
        ------
        DimensionError
            If `u` has the wrong shape.
        InvalidInputError
            If an entry is not finite or a token is not in the vocabulary, or only the systems of the model are known.
        """
        return forward(self, u, progress)

    def save(self, path: FilePath, overwrite: bool = False, format: str | None = None, same_size: bool | None = None) -> None:
        """Write the model as a checkpoint, by default of the format that it was read from.

        Numbers are rounded to the precision of the original file (usually float32), so a model that is
        loaded again agrees to that precision. Everything but the reduced layers is kept as it was.

        Parameters
        ----------
        path : path-like
            New file; its suffix picks the container: .pth, .pt or .ckpt (needs torch), .msgpack or .flax
            (needs msgpack), .safetensors, .npz.
        overwrite : bool
            Whether another existing file may be replaced; the input file never is.
        format : {"s4d", "ragged", "native"}, optional
            Another format than that of the file. For a model that was read from an S4D or ragged file: "ragged" stores as
            many slots as each channel uses, "s4d" fills all channels up to the largest, for the original class. "native" stores
            any system, for layers of every format of the page on formats and for the S4D example.
        same_size : bool, optional
            Whether all layers get the size of the largest, filled up with slots of zero output, as classes with one state size
            for all layers need it. By default what the usual class of the format needs.

        Raises
        ------
        OutputError
            If `path` exists or cannot be written.
        InvalidInputError
            If the model was not read from a checkpoint, or it cannot be stored in the format.
        """
        if self.source is None:
            raise InvalidInputError("this model was not read from a checkpoint, so there is no format to store it in")
        self.source.write(self, path, overwrite, format, same_size)

    @property
    def layer_parameters(self) -> tuple[int, ...]:
        """How many real numbers are stored for the system of each block."""
        if self.source is not None:
            return self.source.layer_parameters(self)
        return tuple(real_numbers(block.ssm) for block in self.blocks)

    @property
    def n_parameters(self) -> int:
        """How many real numbers the model stores in all, as in its checkpoint."""
        others = None if self.source is None else self.source.other_parameters(self)
        if others is not None:
            return others + sum(self.layer_parameters)
        parts = [self.encoder, self.decoder, self.norm, *(part for block in self.blocks for part in (block.norm, block.mixing))]
        arrays = [array for part in parts if part is not None for array in vars(part).values() if isinstance(array, np.ndarray)]
        return sum(array.size for array in arrays) + sum(self.layer_parameters)

    def __repr__(self) -> str:
        kind = "" if self.source is None else f"{self.source.format}, "
        rest = "systems only" if self.decoder is None else f"outputs={self.decoder.n_outputs}, pooling={self.pooling}"
        head = f"DeepSSM({kind}{rest}, parameters={self.n_parameters})"
        lines = [f"  {block.name}: {_states(block)} states, {block.ssm!r}" for block in self.blocks]
        return "\n".join([head, *lines])


def _states(block: Block) -> str:
    """The states per system as text, from the fewest to the most where some channels have slots without input."""
    used = 2 * np.count_nonzero(np.any(block.ssm.B, axis=-1), axis=-1)
    low, high = int(np.min(used)), int(np.max(used))
    return str(block.state_size) if low == high else f"{low}..{high}"


def real_numbers(ssm: DiagonalLQOSystem) -> int:
    """Real numbers in the arrays of a system, a complex entry counting as two."""
    arrays = [ssm.poles, ssm.B, ssm.C, ssm.D]
    if ssm.quadratic is not None:
        arrays += [ssm.quadratic.U, ssm.quadratic.V, ssm.quadratic.W]
    return sum(a.size * (2 if np.iscomplexobj(a) else 1) for a in arrays)
