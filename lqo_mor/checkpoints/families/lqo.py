"""The LQO format of this package: deep models whose layers have linear-quadratic outputs (`lqo_mor.torch.LQODeepSSM`).

Each layer is one system of width d with `n` slots: ``λ = exp(-exp(nu_log) + i theta)``, complex `B` (n, d),
`C` (d, n), `U`, `V` (c, n) as real views with a trailing 2, real `D` (d) and `W` (d, c). Every slot gives
``2 Re(·)``. A pole within 1e-12 of the unit circle is pulled inside, see `stable_poles`. A configuration beside the
tensors says how the blocks are built.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import (
    Format,
    Original,
    Shapes,
    Tensors,
    Values,
    check_tensors,
    layer_count,
    rounded,
    stable_poles,
)
from lqo_mor.errors import CheckpointError
from lqo_mor.network.blocks import ACTIVATIONS, Block
from lqo_mor.network.layers import Embedding, LayerNorm, Linear
from lqo_mor.network.model import POOLINGS, DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

FORMAT = "lqo-deep-ssm"
_PI32 = float(np.float32(np.pi))  # the angle of a negative real pole
_SMALLEST = 1e-30  # modulus that stands for a pole at zero
_NUDGE = 1e-12  # an angle far below float32 resolution; see `_system`


def check_config(extras: Values) -> Values:
    """The configuration beside the tensors of a file, as keyword arguments of `LQODeepSSM`.

    Parameters
    ----------
    extras : dict
        The other entries of the file.

    Returns
    -------
    dict
        Checked; a field of the wrong kind raises `CheckpointError`, as does a missing configuration.
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


def _recognises(keys: Collection[str]) -> bool:
    keys = set(keys)
    layers = {key.removesuffix("nu_log") for key in keys if key.startswith("blocks.") and key.endswith(".ssm.nu_log")}
    return any(layer + "theta_log" not in keys for layer in layers)  # an LRU layer has that name


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


def _read(state: Tensors, extras: Values, settings: Settings) -> DeepSSM:
    config = check_config(extras)
    if settings.given("prenorm") not in (None, config["prenorm"]):
        raise CheckpointError(f"the file says prenorm = {config['prenorm']}, which cannot be overruled")
    if layer_count(state, "blocks") != config["n_layers"]:
        raise CheckpointError(f"the configuration says {config['n_layers']} layers, found {layer_count(state, 'blocks')}")
    check_tensors(state, _shapes(config))

    def linear(key: str) -> Linear:
        return Linear(state[f"{key}.weight"], state[f"{key}.bias"])

    def norm(key: str) -> LayerNorm:
        return LayerNorm(state[f"{key}.weight"], state[f"{key}.bias"])

    blocks = tuple(
        Block(
            name=f"blocks.{i}",
            ssm=_system(f"blocks.{i}", state),
            mixing=linear(f"blocks.{i}.mixing"),
            norm=norm(f"blocks.{i}.norm"),
            prenorm=config["prenorm"],
            activation=config["activation"],
            gate=config["gate"],
        )
        for i in range(config["n_layers"])
    )
    encoder = linear("encoder") if config["vocabulary"] is None else Embedding(state["encoder.weight"])
    return DeepSSM(encoder, blocks, linear("decoder"), norm("norm") if config["prenorm"] else None, config["pooling"])


def _system(layer: str, state: Tensors) -> DiagonalLQOSystem:
    def tensor(name: str) -> np.ndarray:
        return state[f"{layer}.ssm.{name}"].astype(np.float64)

    def complex_tensor(name: str) -> np.ndarray:
        return tensor(name) @ np.array([1, 1j])

    B, C = complex_tensor("B"), complex_tensor("C")
    quadratic = f"{layer}.ssm.U" in state
    rows = [C, complex_tensor("U"), complex_tensor("V")] if quadratic else [C]
    with np.errstate(over="ignore"):  # exp(-exp(large)) is 0
        modulus, theta = np.exp(-np.exp(tensor("nu_log"))), tensor("theta")
    # A real pole is one state with real rows. Complex rows need two states: move the pole off the axis, too little to matter.
    real_rows = np.all(B.imag == 0, axis=1) & np.all(np.concatenate(rows).imag == 0, axis=0)
    on_axis = (theta == 0) | (np.abs(theta) == _PI32)
    theta = np.where(on_axis & ~real_rows, theta + _NUDGE, theta)
    poles = modulus * np.exp(1j * theta)
    poles = np.where(on_axis & real_rows, modulus * np.where(theta == 0, 1.0, -1.0), poles)
    # A pole that has underflowed to zero acts at lag 0 only, and is real whatever its angle was.
    poles = np.where((poles.imag == 0) & ~real_rows, _SMALLEST * np.exp(1j), poles)
    # The file counts a real pole twice, 2 Re(c b) λ^k, our half storage once.
    B = np.where((poles.imag == 0)[:, np.newaxis], 2 * B, B)
    factors = QuadraticOutput(rows[1], rows[2], tensor("W")) if quadratic else None
    poles = stable_poles(layer, poles)
    return DiagonalLQOSystem(poles, B, C, np.diag(tensor("D")), factors)


def _tensors(layer: str, ssm: DiagonalLQOSystem) -> dict[str, np.ndarray]:
    """The inverse of `_system`, with bare names."""
    if ssm.batch:
        raise CheckpointError(f"{layer} is a batch of channels, which the LQO format cannot store")
    modulus, real = np.abs(stable_poles(layer, ssm.poles)), ssm.is_real_pole
    if np.any(ssm.D - np.diag(np.diag(ssm.D))):
        raise CheckpointError(f"{layer} has a feedthrough that is not diagonal, so the LQO format cannot store it")

    def view(array: np.ndarray) -> np.ndarray:
        return np.stack([array.real, array.imag], axis=-1)

    values = {
        "nu_log": np.log(-np.log(np.maximum(modulus, _SMALLEST))),
        "theta": np.where(real, np.where(ssm.poles.real < 0, _PI32, 0.0), np.angle(ssm.poles)),
        "B": view(np.where(real[:, np.newaxis], 0.5, 1.0) * ssm.B),
        "C": view(ssm.C),
        "D": np.diag(ssm.D),
    }
    q = ssm.quadratic
    if q is not None and q.rank:
        values |= {"U": view(q.U), "V": view(q.V), "W": q.W}
    return values


def _write(model: DeepSSM, original: Original) -> tuple[Tensors, Values]:
    config = {**original.extras["config"]}
    systems = [block.ssm for block in model.blocks]
    for name, sizes in (
        ("n_slots", [ssm.n_slots for ssm in systems]),
        ("quadratic_rank", [0 if ssm.quadratic is None else ssm.quadratic.rank for ssm in systems]),
    ):
        config[name] = sizes if len(set(sizes)) > 1 else sizes[0]
    values = _outer_tensors(model)
    for i, block in enumerate(model.blocks):
        layer = f"blocks.{i}"
        if original.kept(i, model):
            values |= {key: value for key, value in original.state.items() if key.startswith(f"{layer}.ssm.")}
        else:
            values |= {f"{layer}.ssm.{key}": value for key, value in _tensors(layer, block.ssm).items()}
    extras = {**original.extras, "config": config}
    wanted = _shapes(check_config(extras))
    if {key: np.shape(value) for key, value in values.items()} != wanted:
        raise CheckpointError("the structure of the model was changed; the LQO format stores only changed numbers and sizes")
    dtype = next(iter(original.state.values())).dtype
    return {key: rounded(key, values[key], dtype) for key in wanted}, extras


def _outer_tensors(model: DeepSSM) -> dict[str, np.ndarray]:
    """The tensors around the systems."""
    parts = {"encoder": model.encoder, "decoder": model.decoder, "norm": model.norm}
    for i, block in enumerate(model.blocks):
        parts |= {f"blocks.{i}.norm": block.norm, f"blocks.{i}.mixing": block.mixing}
    tensors = {f"{key}.weight": part.weight for key, part in parts.items() if part is not None}
    biased = {key: part.bias for key, part in parts.items() if part is not None and not isinstance(part, Embedding)}
    return tensors | {f"{key}.bias": bias for key, bias in biased.items() if bias is not None}


def _layer_parameters(model: DeepSSM, original: Original) -> tuple[int, ...]:
    def count(ssm: DiagonalLQOSystem) -> int:
        n, d, c = ssm.n_slots, ssm.n_inputs, 0 if ssm.quadratic is None else ssm.quadratic.rank
        return 2 * n + 4 * n * d + d + 4 * c * n + c * d

    return tuple(count(block.ssm) for block in model.blocks)


LQO = Format(
    name="lqo",
    looks_like="an LQO deep model of this package (encoder, blocks.N.ssm.{nu_log, theta, B, C, D, U, V, W}, decoder, config)",
    recognises=_recognises,
    read=_read,
    write=_write,
    layer_parameters=_layer_parameters,
)
