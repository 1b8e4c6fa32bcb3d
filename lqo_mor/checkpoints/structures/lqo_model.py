"""The deep model with linear-quadratic outputs of this package: how its blocks are built, and its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lqo_mor.checkpoints.contracts import Layer, Original, Structure
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures import parts
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, check_tensors, layer_count
from lqo_mor.errors import CheckpointError
from lqo_mor.network.blocks import ACTIVATIONS, Block
from lqo_mor.network.layers import Embedding
from lqo_mor.network.model import POOLINGS, DeepSSM

FORMAT = "lqo-deep-ssm"


def check_config(extras: Values) -> Values:
    """The configuration among the entries beside the tensors of a file, as keyword arguments of `LQODeepSSM`.

    Raises `CheckpointError` where it is missing or a field is of the wrong kind.
    """

    def size(value: Any, least: int = 1, most: int = 2**31) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    def sizes(least: int) -> Callable[[Any], bool]:
        return lambda value: all(size(v, least) for v in value) if isinstance(value, list) and value else size(value, least)

    def one_of(*names: str | None) -> Callable[[Any], bool]:
        # by type first: a file may hold an array here, which has no single truth value
        return lambda value: isinstance(value, (str, type(None))) and value in names

    fields: dict[str, Callable[[Any], bool]] = {
        "n_features": lambda v: v is None or size(v),
        "vocabulary": lambda v: v is None or size(v),
        "n_outputs": size,
        "width": size,
        "n_layers": lambda v: size(v, most=10_000),
        "n_slots": sizes(1),
        "quadratic_rank": sizes(0),
        "prenorm": lambda v: isinstance(v, bool),
        "activation": one_of(*ACTIVATIONS),
        "gate": one_of("glu", None),
        "pooling": one_of(*POOLINGS),
        "dropout": lambda v: isinstance(v, (int, float)) and 0 <= v < 1,
    }
    config = extras.get("config")
    if not isinstance(config, dict) or not one_of(FORMAT)(config.get("format")):
        raise CheckpointError(f"the entry 'config' with 'format': '{FORMAT}' is missing, which an LQO model needs")
    if not size(config.get("version"), most=1):
        raise CheckpointError(f"version {_short(config.get('version'))} of the LQO format is unknown, expected 1")
    wrong = [f"{name} = {_short(config.get(name))}" for name, fits in fields.items() if not fits(config.get(name))]
    if wrong:
        raise CheckpointError(f"the configuration has fields that are missing or out of range: {', '.join(wrong)[:300]}")
    if (config["n_features"] is None) == (config["vocabulary"] is None):
        raise CheckpointError("the configuration must give either n_features or vocabulary")
    for name in ("n_slots", "quadratic_rank"):
        if isinstance(config[name], list) and len(config[name]) != config["n_layers"]:
            raise CheckpointError(f"{name} has {len(config[name])} entries for {config['n_layers']} layers")
    return {name: config[name] for name in fields}


def _short(value: Any) -> str:
    """A value of a file for a message."""
    plain = value is None or isinstance(value, (bool, float, str, list)) or (isinstance(value, int) and abs(value) < 10**20)
    return repr(value)[:80] if plain else f"a value of type {type(value).__name__}"


def make_config(**fields: Any) -> Values:
    """The configuration as it is stored: the keyword arguments of `LQODeepSSM` with the mark of the format."""
    return {"format": FORMAT, "version": 1, **fields}


def _per_layer(value: Any, n_layers: int) -> list[int]:
    return value if isinstance(value, list) else [value] * n_layers


def _shapes(config: Values) -> Shapes:
    d, n_layers, gated = config["width"], config["n_layers"], config["gate"] == "glu"
    mixed = 2 * d if gated else d
    if config["vocabulary"] is None:
        shapes = {"encoder.weight": (d, config["n_features"]), "encoder.bias": (d,)}
    else:
        shapes = {"encoder.weight": (config["vocabulary"], d)}
    slots, ranks = _per_layer(config["n_slots"], n_layers), _per_layer(config["quadratic_rank"], n_layers)
    for i, (n, c) in enumerate(zip(slots, ranks, strict=True)):
        layer = f"blocks.{i}"
        ssm = {"nu_log": (n,), "theta": (n,), "B": (n, d, 2), "C": (d, n, 2), "D": (d,)}
        if c:
            ssm |= {"U": (c, n, 2), "V": (c, n, 2), "W": (d, c)}
        shapes |= {f"{layer}.ssm.{key}": shape for key, shape in ssm.items()}
        shapes |= {f"{layer}.norm.weight": (d,), f"{layer}.norm.bias": (d,)}
        shapes |= {f"{layer}.mixing.weight": (mixed, d), f"{layer}.mixing.bias": (mixed,)}
    if config["prenorm"]:
        shapes |= {"norm.weight": (d,), "norm.bias": (d,)}
    return shapes | {"decoder.weight": (config["n_outputs"], d), "decoder.bias": (config["n_outputs"],)}


def _check(state: Tensors, extras: Values, settings: Settings) -> None:
    config = check_config(extras)
    settings.check_stored("prenorm", config["prenorm"])
    if layer_count(state, "blocks") != config["n_layers"]:
        raise CheckpointError(f"the configuration says {config['n_layers']} layers, found {layer_count(state, 'blocks')}")
    check_tensors(state, _shapes(config))


def _read(state: Tensors, extras: Values, layers: dict[str, Layer], settings: Settings) -> DeepSSM:
    config = check_config(extras)
    width, prenorm = config["width"], config["prenorm"]
    blocks = []
    for prefix, layer in layers.items():
        maps = parts.linear(state, f"{prefix}.mixing"), parts.norm(state, f"{prefix}.norm", width)
        blocks.append(Block(prefix, layer.ssm, *maps, prenorm, config["activation"], config["gate"]))
    encoder = parts.linear(state, "encoder") if config["vocabulary"] is None else Embedding(state["encoder.weight"])
    norm = parts.norm(state, "norm", width) if prenorm else None
    return DeepSSM(encoder, tuple(blocks), parts.linear(state, "decoder"), norm, config["pooling"])


def _write(model: DeepSSM, state: Tensors) -> Tensors:
    places: dict[str, parts.Part] = {"encoder": model.encoder, "decoder": model.decoder, "norm": model.norm}
    for block in model.blocks:
        places |= {f"{block.name}.norm": block.norm, f"{block.name}.mixing": block.mixing}
    return parts.tensors_of(places, state)


def _finish(model: DeepSSM, tensors: Tensors, original: Original) -> tuple[Tensors, Values]:
    """The sizes of the layers in the configuration, and the tensors in its order."""
    config, systems = {**original.extras["config"]}, [block.ssm for block in model.blocks]
    for name, sizes in (
        ("n_slots", [ssm.n_slots for ssm in systems]),
        ("quadratic_rank", [0 if ssm.M is None else ssm.M.rank for ssm in systems]),
    ):
        config[name] = sizes if len(set(sizes)) > 1 else sizes[0]
    extras = {**original.extras, "config": config}
    return {key: tensors[key] for key in _shapes(check_config(extras))}, extras


LQO_MODEL = Structure(
    name="a deep model of this package with linear-quadratic outputs",
    recognises=lambda keys, layers: any(prefix.startswith("blocks.") for prefix in layers),
    read=_read,
    write=_write,
    check=_check,
    finish=_finish,
    sidecar=False,
)
