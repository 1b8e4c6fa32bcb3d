"""Where the tensors are in the content of a file, and how they go back to their places.

Formats see a flat dictionary with keys of dots, ``encoder.layers_0.seq.B``. In a file the tensors may stand under an entry,
behind the prefixes of wrappers, in nested dictionaries (JAX), or under keys of another style: ``params/encoder/layers_0/seq/B``
or ``['params']['encoder'].layers[0].B``, as ``jax.tree_util.keystr`` writes paths.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lqo_mor.checkpoints.tensors import Tensors, Values, listing
from lqo_mor.errors import CheckpointError

_NESTINGS = ("state_dict", "model", "model_state_dict", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.", "params.")
_OPTIMISER = ("optim", "opt_state")  # the names of these entries start like that
# A path of JAX: .name, ['name'], [0] and [<flat index 0>].
_JAX_PART = re.compile(
    r"""\.(?P<name>\w+)|\['(?P<single>[^']+)'\]|\["(?P<double>[^"]+)"\]|\[(?:<flat index )?(?P<index>\d+)>?\]"""
)


Place: TypeAlias = str | tuple[str, ...]  # of a tensor in a file: its key, or its path through nested dictionaries
Placed: TypeAlias = dict[Place, np.ndarray]
Tree: TypeAlias = dict[Any, Any]  # nested dictionaries


@dataclass(frozen=True, eq=False)
class Layout:
    """How the tensors stood in a file."""

    nesting: str | None  # the entry that they were under
    places: dict[str, Place]  # by the keys that formats see: the key in the file, or its path through nested dictionaries

    def restored(self, state: Tensors) -> Placed:
        """The tensors by their places in the file; a new one gets a place like that of its nearest neighbour."""
        return {self._place(key): value for key, value in state.items()}

    def _place(self, key: str) -> Place:
        if key in self.places or not self.places:
            return self.places.get(key, key)
        names = key.split(".")
        near = max(self.places, key=lambda other: _shared(names, other.split(".")))
        place, shared = self.places[near], _shared(names, near.split("."))
        dropped = len(near.split(".")) - shared  # names at the end of the neighbour's key that are not in this one
        if isinstance(place, str):
            parts = _parts(place)
            above = "".join(text for _, text in parts[: len(parts) - dropped])
            new = "".join(_in_style(name, parts[-1][1], "/" if "/" in place else ".") for name in names[shared:])
            return above + (new if above or place[0] in "./[" else new.lstrip("./"))
        kept = list(place)
        while kept and dropped > 0:
            dropped -= len(_bare(kept.pop()).split("."))
        # A last element of several names was dropped as a whole, so `dropped` may be negative.
        rest = names[max(0, shared + dropped) :]
        return (*kept, ".".join(rest)) if "." in place[-1] else (*kept, *rest)


def is_optimiser(name: object, value: object) -> bool:
    """Whether an entry holds the state of an optimiser, which does not fit changed tensors."""
    return str(name).startswith(_OPTIMISER) or (isinstance(value, dict) and {"state", "param_groups"} <= value.keys())


def further_copies(state: Tensors, extras: Values) -> list[str]:
    """The entries that hold the tensors of `state` once more, for instance averaged over time."""
    key = next(iter(state))
    return [
        str(name)
        for name, value in extras.items()
        if isinstance(value, dict)
        and not is_optimiser(name, value)
        and any(isinstance(leaf, np.ndarray) and ".".join(map(str, path)).endswith(key) for path, leaf in _leaves(value))
    ]


def find_state(tree: Any, extras: Values) -> tuple[Tensors, Layout, Values]:
    """The tensors of a file by the keys that formats see, their layout in the file, and the entries beside them."""
    if not isinstance(tree, dict):
        raise CheckpointError(f"holds {_kind(tree)} instead of a dictionary of tensors; save model.state_dict() instead")
    nesting = next((name for name in _NESTINGS if _has_arrays(tree.get(name))), None)
    if nesting == "params" and _has_arrays(tree.get("batch_stats")):
        nesting = None  # the two trees of a model of Flax belong together
        inner, others = {name: tree[name] for name in ("params", "batch_stats")}, _without(tree, ("params", "batch_stats"))
    elif nesting is not None:
        inner, others = tree[nesting], _without(tree, (nesting,))
    else:
        wrapped = [name for name in _NESTINGS if name in tree and not isinstance(tree[name], (dict, np.ndarray))]
        if wrapped:
            raise CheckpointError(f"the entry {wrapped[0]!r} holds {_kind(tree[wrapped[0]])}, not a dictionary of tensors")
        inner, others = tree, {}
        if any(_has_arrays(value) for value in tree.values()):  # modules one by one, with other entries beside them
            inner = {name: value for name, value in tree.items() if _has_arrays(value) and not is_optimiser(name, value)}
            others = _without(tree, inner)
    places, arrays = _by_bare_key(inner)
    start = 0  # of the keys, behind what wrappers put before every one
    while found := next((p for p in _PREFIXES if all(key.startswith(p, start) for key in arrays)), ""):
        start += len(found)
    layout = Layout(nesting, {key[start:]: place for key, place in places.items()})
    return {key[start:]: value for key, value in arrays.items()}, layout, others | extras


def _without(tree: Tree, names: Collection[str]) -> Tree:
    return {key: value for key, value in tree.items() if key not in names}


def _has_arrays(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(leaf, np.ndarray) for _, leaf in _leaves(value))


def _leaves(tree: Tree, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _by_bare_key(tree: Tree) -> tuple[dict[str, Place], Tensors]:
    """The places of the tensors and the tensors themselves, by keys of dots."""
    leaves = list(_leaves(tree))
    if not leaves:
        raise CheckpointError("holds no tensors")
    odd = [
        "/".join(map(str, path))
        for path, value in leaves
        if not all(isinstance(name, str) for name in path) or not isinstance(value, np.ndarray)
    ]
    if odd:
        raise CheckpointError(f"the dictionary of tensors has other entries too: {listing(odd)}")
    nested = any(len(path) > 1 for path, _ in leaves)
    keys = [".".join(map(_bare, path)) for path, _ in leaves]
    if len(set(keys)) < len(keys):
        if nested:
            twice = sorted(key for key, count in Counter(keys).items() if count > 1)
            raise CheckpointError(f"several tensors have the same path: {listing(twice)}")
        keys = [path[0] for path, _ in leaves]
    places = {key: path if nested else path[0] for key, (path, _) in zip(keys, leaves, strict=True)}
    return places, {key: value for key, (_, value) in zip(keys, leaves, strict=True)}


def _parts(key: str) -> list[tuple[str, str]]:
    """The names in a key of a file, each with its text there, separator and brackets included."""
    first = re.match(r"\w+", key) if "[" in key else None  # a path of JAX without its first dot
    head = [] if first is None else [(first[0], first[0])]
    jax = head + [(match[match.lastgroup or 0], match[0]) for match in _JAX_PART.finditer(key, first.end() if first else 0)]
    if "".join(text for _, text in jax) == key:
        return jax
    plain = re.findall(r"[./]?[^./]+", key)
    return [(text.strip("./"), text) for text in plain] if "".join(plain) == key else [(key, key)]


def _bare(key: str) -> str:
    return ".".join(name for name, _ in _parts(key))


def _in_style(name: str, like: str, separator: str) -> str:
    """A name with the separator or brackets of another one."""
    if like.startswith("["):
        return f"['{name}']"
    return (like[0] if like[0] in "./" else separator) + name


def _shared(names: list[str], others: list[str]) -> int:
    """How many first names are equal, short of the last of `others`, which is a tensor."""
    count = 0
    while count < min(len(names), len(others)) - 1 and names[count] == others[count]:
        count += 1
    return count


def nested(state: Mapping[Any, np.ndarray]) -> Tree:
    """Nested dictionaries from tensors whose keys may be paths."""
    tree: Tree = {}
    for place, value in state.items():
        above: list[str]
        *above, last = (place,) if isinstance(place, str) else place
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def flat(state: Mapping[Any, np.ndarray]) -> Tensors:
    """The tensors with ``/`` between the names of a path."""
    return {place if isinstance(place, str) else "/".join(place): value for place, value in state.items()}


def by_names(state: Mapping[Any, np.ndarray]) -> Tree:
    """Nested dictionaries with one name a level, whatever the style of the keys was."""
    places = {(place,) if isinstance(place, str) else place: value for place, value in state.items()}
    return nested({tuple(name for key in place for name, _ in _parts(key)): value for place, value in places.items()})


def _kind(value: Any) -> str:
    name = getattr(value, "foreign_name", None)
    return f"an object of {name}" if name else f"a {type(value).__name__}"
