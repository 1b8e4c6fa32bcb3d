"""A trained model from a file: find the tensors, recognise their format, read the layers and what is around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lqo_mor.checkpoints.containers.files import as_path, read_file
from lqo_mor.checkpoints.containers.trees import find_state
from lqo_mor.checkpoints.contracts import Family, Original
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.layered import read, recognises
from lqo_mor.checkpoints.refused import liquid, refusal
from lqo_mor.checkpoints.settings import Settings, check_given, read_sidecar, warn_of_assumptions
from lqo_mor.checkpoints.source import Source, family_of
from lqo_mor.checkpoints.tensors import Tensors, listing
from lqo_mor.errors import CheckpointError, InvalidInputError
from lqo_mor.files import FilePath
from lqo_mor.network.model import DeepSSM


def load_checkpoint(path: FilePath, format: str | None = None, *, settings: Mapping[str, Any] | None = None) -> DeepSSM:
    """Read a trained deep state-space model, ``x[k] = λ ∘ x[k-1] + B u[k]`` with maps of tokens between the layers.

    Nothing in the file is ever executed: a pickle is read with tensors and plain values only, and
    objects of other classes are replaced by inert placeholders.

    Parameters
    ----------
    path : path-like
        A .pth, .pt or .ckpt file of PyTorch (needs torch), a .msgpack or .flax file of Flax (needs msgpack), or a .safetensors
        or .npz file; the content decides, not the suffix.
    format : str, optional
        Overrules the recognition of the format; see the page on checkpoints for the names.
    settings : mapping, optional
        What the tensors of a format cannot tell, by name: ``prenorm`` (whether the normalisations stand before the layers),
        ``discretization``, ``dt_transform``, ... What is not given is read from the file ``<path>.json`` that `save` writes
        beside a checkpoint, and otherwise assumed as in the configurations of the original code, with an `AssumptionWarning`.
        `model.source.settings` has the values.

    Returns
    -------
    DeepSSM
        In double precision; `model.save` writes it back.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, unsafe, incomplete or of an unknown format.
    InvalidInputError
        If a setting is unknown or out of range.
    MissingDependencyError
        If the file is one of PyTorch or Flax, and torch or msgpack is not installed.

    Warns
    -----
    AssumptionWarning
        Of the settings that were neither given nor stored.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.load_checkpoint("missing.pth")
    Traceback (most recent call last):
    ...
    lqo_mor.errors.CheckpointError: missing.pth does not exist
    """
    path = as_path(path)
    content = read_file(path)
    try:
        given = check_given(settings)
        state, layout, extras = find_state(content.tree, content.extras)
        if (known := liquid(extras)) is not None:
            raise CheckpointError(known)
        family = _recognised(state) if format is None else family_of(format)
        asked = Settings(read_sidecar(path, (value.shape for value in state.values())) | given)
        model = read(family, state, extras, asked)
        asked.check_used()
    except InvalidInputError as err:
        raise CheckpointError(f"{path.name}: {err}") from None
    except Exception as err:  # the content is untrusted: whatever it breaks is the file's fault
        raise CheckpointError(f"{path.name}: its content cannot be understood, reading it ends in {type(err).__name__}") from err
    warn_of_assumptions(path.name, asked.assumed)
    original = Original(state, extras, model, asked.values)
    return replace(model, source=Source(family, path.resolve(), layout, original, content.foreign, asked.assumed))


def _recognised(state: Tensors) -> Family:
    """The family of the layers, by the keys."""
    family = next((family for family in FAMILIES if recognises(family, state)), None)
    if family is None:
        if (known := refusal(state)) is not None:
            raise CheckpointError(known)
        seen = listing([f"{key} {value.shape}" for key, value in state.items()])
        expected = " or ".join(family.looks_like for family in reversed(FAMILIES))
        raise CheckpointError(f"format not recognised; found {seen}; expected {expected}")
    return family
