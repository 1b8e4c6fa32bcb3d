"""A deep state-space model as plain arrays: an encoder, a chain of blocks and a decoder.

The batch is cut into chunks on the way through, so that memory does not grow with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError, shown
from lqo_mor.files import FilePath
from lqo_mor.network.blocks import Block, block_input, block_map, block_output
from lqo_mor.network.layers import BatchNorm, Embedding, LayerNorm, Linear
from lqo_mor.network.signals import Encoder, encode, linear, normalise
from lqo_mor.systems import checks
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import Progress

_CHUNK_BYTES = 2**27  # of intermediate arrays: a few examples, enough to keep the cores busy
POOLINGS = ("mean", "last", None)
_SYSTEMS_ONLY = "only the systems of this model are known, not what is between them: it can be reduced and stored, but not run"


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
    >>> ssm = lqo.DiagonalLQOSystem(poles=[[0.5]], B=[[[1.0]]], C=[[[1.0]]], dt=1.0)  # a batch of one channel
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
        u, encoder = check_inputs(self.encoder, u), ends(self)[0]
        batch, steps = u.shape[:2]
        layers = [block_map(block, steps) for block in self.blocks]
        chunk = chunk_size(self, steps)
        outputs = []
        for start in range(0, batch, chunk):
            x = encode(encoder, u[start : start + chunk])
            for block, layer in zip(self.blocks, layers, strict=True):
                x = block_output(block, x, layer(block_input(block, x)))
            outputs.append(decode(self, x))
            if progress is not None:
                progress(min(start + chunk, batch), batch)
        return np.concatenate(outputs)

    def save(self, path: FilePath, *, overwrite: bool = False, format: str | None = None, same_size: bool | None = None) -> None:
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
        self.source.write(self, path, overwrite=overwrite, format=format, same_size=same_size)

    @property
    def layer_parameters(self) -> tuple[int, ...]:
        """How many real numbers are stored for the system of each block."""
        if self.source is not None:
            return self.source.layer_parameters(self)
        return tuple(real_numbers(block.ssm) for block in self.blocks)

    @property
    def n_parameters(self) -> int:
        """How many real numbers the model stores in all, as in its checkpoint."""
        if self.source is not None:
            return self.source.other_parameters + sum(self.layer_parameters)
        parts = [self.encoder, self.decoder, self.norm, *(part for block in self.blocks for part in (block.norm, block.mixing))]
        arrays = [array for part in parts if part is not None for array in vars(part).values() if isinstance(array, np.ndarray)]
        return sum(array.size for array in arrays) + sum(self.layer_parameters)

    def __repr__(self) -> str:
        kind = "" if self.source is None else f"{self.source.format}, "
        rest = "systems only" if self.decoder is None else f"outputs={self.decoder.n_outputs}, pooling={self.pooling}"
        head = f"DeepSSM({kind}{rest}, parameters={self.n_parameters})"
        lines = [f"  {shown(block.name)}: {_states(block)} states, {block.ssm!r}" for block in self.blocks]
        return "\n".join([head, *lines])


def _states(block: Block) -> str:
    """The states per system as text, from the fewest to the most where some channels have slots without input."""
    used = 2 * np.count_nonzero(np.any(block.ssm.B, axis=-1), axis=-1)
    low, high = int(np.min(used)), int(np.max(used))
    return str(block.state_size) if low == high else f"{low}..{high}"


def real_numbers(ssm: DiagonalLQOSystem) -> int:
    """Real numbers in the arrays of a system, a complex entry counting as two."""
    arrays = [ssm.poles, ssm.B, ssm.C, ssm.D]
    if ssm.M is not None:
        arrays += [ssm.M.U, ssm.M.V, ssm.M.W]
    return sum(a.size * (2 if np.iscomplexobj(a) else 1) for a in arrays)


def ends(model: DeepSSM) -> tuple[Encoder, Linear]:
    """Encoder and decoder of a model; raises where only its systems are known."""
    if model.encoder is None or model.decoder is None:
        raise InvalidInputError(_SYSTEMS_ONLY)
    return model.encoder, model.decoder


def check_inputs(encoder: Encoder | None, u: ArrayLike) -> np.ndarray:
    """The inputs as an array; raises unless they fit the encoder."""
    if encoder is None:
        raise InvalidInputError(_SYSTEMS_ONLY)
    u = np.asarray(u)
    if isinstance(encoder, Embedding):
        if u.ndim != 2 or 0 in u.shape:
            raise DimensionError(f"u has shape {u.shape}, expected (batch, steps) of tokens")
        if u.dtype.kind not in "iu":
            raise InvalidInputError(f"u holds {u.dtype}, but the model reads tokens: give integers")
        if u.min() < 0 or u.max() >= encoder.n_tokens:
            raise InvalidInputError(f"u has tokens from {u.min()} to {u.max()}, expected 0 to {encoder.n_tokens - 1}")
        return u
    if u.dtype.kind not in "biuf":
        raise InvalidInputError(f"u holds {u.dtype}, expected real numbers")
    if u.ndim != 3 or 0 in u.shape or u.shape[2] != encoder.n_inputs:
        raise DimensionError(f"u has shape {u.shape}, expected (batch, steps, features) with {encoder.n_inputs} features")
    if not np.all(np.isfinite(u)):
        raise InvalidInputError("u has entries that are not finite")
    return u


def chunk_size(model: DeepSSM, steps: int) -> int:
    """How many sequences go through the layers at once."""
    numbers = max((_numbers_per_step(block) for block in model.blocks), default=ends(model)[0].n_outputs)
    return max(1, _CHUNK_BYTES // (8 * steps * numbers))


def _numbers_per_step(block: Block) -> int:
    """Rough number of real numbers that one example needs for one time step inside a layer."""
    if block.ssm.batch:
        inside = (8 + 2 * block.ssm.n_outputs) * block.width  # transforms of padded signals
    else:
        rank = 0 if block.ssm.M is None else block.ssm.M.rank
        inside = block.state_size + 2 * block.ssm.n_outputs + 3 * rank
    mixed = 0 if block.mixing is None else 2 * block.mixing.n_outputs
    return 3 * block.width + inside + mixed


def pooled(model: DeepSSM, x: np.ndarray) -> np.ndarray:
    """What the decoder reads, (features, batch, steps), a single step after pooling, from the features of the last block."""
    if model.norm is not None:
        x = normalise(model.norm, x)
    if model.pooling == "mean":
        return x.mean(axis=2, keepdims=True)
    return x[:, :, -1:] if model.pooling == "last" else x


def decode(model: DeepSSM, x: np.ndarray) -> np.ndarray:
    """The outputs from the features of the last block."""
    y = linear(ends(model)[1], pooled(model, x)).transpose(1, 2, 0)
    return y if model.pooling is None else y[:, 0]


class ModelSource(Protocol):
    """What a model keeps of the file it came from: it knows what the format stores, and how to write it."""

    @property
    def format(self) -> str:
        """The name of the format."""

    @property
    def other_parameters(self) -> int:
        """How many numbers the file holds outside of the systems."""

    def layer_parameters(self, model: DeepSSM, format: str | None = None) -> tuple[int, ...]:
        """How many numbers the format, or another one, stores for the system of each block."""

    def reduce_in_class(self, model: DeepSSM, state_size: int, horizon: int | None) -> DeepSSM:
        """The model reduced so that the class of its checkpoint can hold it."""

    def write(
        self, model: DeepSSM, path: FilePath, *, overwrite: bool, format: str | None = None, same_size: bool | None = None
    ) -> None:
        """Store the model at `path`, in its own format or another one."""


def layer_norm(norm: LayerNorm | BatchNorm | None) -> LayerNorm | None:
    """The normalisation of a model that `check_supported` accepts."""
    return cast("LayerNorm | None", norm)


def check_models(model: object, reduced: object) -> None:
    """Raise `InvalidInputError` where one of a pair is no model."""
    for name, value in (("model", model), ("reduced", reduced)):
        if not isinstance(value, DeepSSM):
            raise InvalidInputError(f"{name} must be a DeepSSM, got {type(value).__name__}")


def check_supported(model: DeepSSM, what: str) -> None:
    """Raise `InvalidInputError` where `what` does not handle a part of the model."""
    if not model.runs:
        raise InvalidInputError(
            f"{what} needs the whole model, but only its systems are known; compress without it, or load a file whose structure "
            "is known"
        )
    for block in model.blocks:
        parts = {
            "systems that run backward in time": block.backward is not None,
            "channels with several outputs": bool(block.ssm.batch) and block.ssm.n_outputs > 1,
            "batch normalisation": isinstance(block.norm, BatchNorm),
        }
        for part, there in parts.items():
            if there:
                raise InvalidInputError(f"{block.name}: {what} does not handle {part}; compress without it")
    if isinstance(model.norm, BatchNorm):
        raise InvalidInputError(f"{what} does not handle batch normalisation; compress without it")
