"""Where the tensors are in the content of a file, and how they go back to their places.

Formats see a flat dictionary with keys of dots, ``encoder.layers_0.seq.B``. In a file the tensors may stand under an entry,
behind the prefixes of wrappers, in nested dictionaries (JAX), or under keys of another style: ``params/encoder/layers_0/seq/B``
or ``['params']['encoder'].layers[0].B``, as ``jax.tree_util.keystr`` writes paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lqo_mor.checkpoints.contract import listing
from lqo_mor.errors import CheckpointError

_NESTINGS = ("state_dict", "model", "model_state_dict", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.", "params.")
_OPTIMISER = ("optim", "opt_state")  # the names of these entries start like that
# A path of JAX: .name, ['name'], [0] and [<flat index 0>].
_JAX_PART = re.compile(
    r"""\.(?P<name>\w+)|\['(?P<single>[^']+)'\]|\["(?P<double>[^"]+)"\]|\[(?:<flat index )?(?P<index>\d+)>?\]"""
)


@dataclass(frozen=True, eq=False)
class Layout:
    """How the tensors stood in a file.

    Attributes
    ----------
    nesting : str or None
        The entry that they were under.
    places : dict
        By the keys that formats see, the key in the file, a text, or its path through nested dictionaries, a tuple of texts.
    """

    nesting: str | None
    places: dict[str, str | tuple[str, ...]]

    def restored(self, state: dict) -> dict:
        """The tensors by their places in the file; a new one gets a place like that of its nearest neighbour."""
        return {self._place(key): value for key, value in state.items()}

    def _place(self, key: str) -> str | tuple[str, ...]:
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
        rest = names[
            max(0, shared + dropped) :
        ]  # a last element of several names was dropped as a whole, so `dropped` may be negative
        return (*kept, ".".join(rest)) if "." in place[-1] else (*kept, *rest)


def is_optimiser(name) -> bool:
    """Whether an entry of that name holds the state of an optimiser, which does not fit changed tensors."""
    return str(name).startswith(_OPTIMISER)


def find_state(tree, extras: dict) -> tuple[dict[str, np.ndarray], Layout, dict]:
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
            inner = {name: value for name, value in tree.items() if _has_arrays(value) and not is_optimiser(name)}
            others = _without(tree, inner)
    places, arrays = _by_bare_key(inner)
    prefix = _prefix(arrays)
    layout = Layout(nesting, {key[len(prefix) :]: place for key, place in places.items()})
    return {key[len(prefix) :]: value for key, value in arrays.items()}, layout, others | extras


def _without(tree: dict, names) -> dict:
    return {key: value for key, value in tree.items() if key not in names}


def _has_arrays(value) -> bool:
    return isinstance(value, dict) and any(isinstance(leaf, np.ndarray) for _, leaf in _leaves(value))


def _leaves(tree: dict, path: tuple = ()) -> Iterator[tuple]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _by_bare_key(tree: dict) -> tuple[dict, dict[str, np.ndarray]]:
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
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise CheckpointError(f"several tensors have the same path: {listing(twice)}")
        keys = [path[0] for path, _ in leaves]
    places = {key: path if nested else path[0] for key, (path, _) in zip(keys, leaves, strict=True)}
    return places, {key: value for key, (_, value) in zip(keys, leaves, strict=True)}


def _parts(key: str) -> list[tuple[str, str]]:
    """The names in a key of a file, each with its text there, separator and brackets included."""
    first = re.match(r"\w+", key) if "[" in key else None  # a path of JAX without its first dot
    head = [] if first is None else [(first[0], first[0])]
    jax = head + [(match[match.lastgroup], match[0]) for match in _JAX_PART.finditer(key, first.end() if first else 0)]
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


def _prefix(keys) -> str:
    """What wrappers put before every key."""
    prefix, found = "", True
    while found:
        found = next((p for p in _PREFIXES if all(key.startswith(prefix + p) for key in keys)), "")
        prefix += found
    return prefix


def nested(state: dict) -> dict:
    """Nested dictionaries from tensors whose keys may be paths."""
    tree: dict = {}
    for place, value in state.items():
        *above, last = (place,) if isinstance(place, str) else place
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def flat(state: dict) -> dict:
    """The tensors with ``/`` between the names of a path."""
    return {place if isinstance(place, str) else "/".join(place): value for place, value in state.items()}


def by_names(state: dict) -> dict:
    """Nested dictionaries with one name a level, whatever the style of the keys was."""
    paths = {}
    for place, value in state.items():
        names = [name for key in ((place,) if isinstance(place, str) else place) for name, _ in _parts(key)]
        paths[tuple(names)] = value
    return nested(paths)


def _kind(value) -> str:
    name = getattr(value, "foreign_name", None)
    return f"an object of {name}" if name else f"a {type(value).__name__}"
