"""Files and folders of other kinds that are known by name: why they cannot be read, and what to do instead."""

from __future__ import annotations

from pathlib import Path

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
