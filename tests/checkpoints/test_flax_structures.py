"""Models of the S5 and minimal-LRU repositories and the deep LRU: the NumPy model equals the formulas of their layers."""

from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import CheckpointError
from lqo_mor.network.layers import Linear

H, P, L, LAYERS = 4, 3, 24, 2


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def scan(poles, B, u):
    """States of ``x[k] = λ ∘ x[k-1] + B u[k]``, (time, P)."""
    x, states = np.zeros(len(poles), complex), []
    for row in u:
        x = poles * x + B @ row
        states.append(x)
    return np.array(states)


def lru(seq, u):
    poles = np.exp(-np.exp(seq["nu_log"]) + 1j * np.exp(seq["theta_log"]))
    B = np.exp(seq["gamma_log"])[:, None] * (seq["B_re"] + 1j * seq["B_im"])
    return (scan(poles, B, u) @ (seq["C_re"] + 1j * seq["C_im"]).T).real + seq["D"] * u


def s5(seq, u):
    A, dt = seq["Lambda_re"] + 1j * seq["Lambda_im"], np.exp(seq["log_step"][:, 0])
    B, C = (seq[name][..., 0] + 1j * seq[name][..., 1] for name in ("B", "C"))
    poles = np.exp(dt * A)
    return 2 * (scan(poles, ((poles - 1) / A)[:, None] * B, u) @ C.T).real + seq["D"] * u


def lru_tensors(rng):
    return {
        "nu_log": np.log(-np.log(rng.uniform(0.5, 0.95, P))),
        "theta_log": np.log(rng.uniform(0.1, 3, P)),
        "gamma_log": rng.normal(size=P) * 0.1,
        **{name: rng.normal(size=(P, H)) for name in ("B_re", "B_im")},
        **{name: rng.normal(size=(H, P)) for name in ("C_re", "C_im")},
        "D": rng.normal(size=H),
    }


def s5_tensors(rng):
    return {
        "Lambda_re": -rng.uniform(0.3, 1, P),
        "Lambda_im": rng.uniform(0, 5, P),
        "B": rng.normal(size=(P, H, 2)),
        "C": rng.normal(size=(H, P, 2)),
        "D": rng.normal(size=H),
        "log_step": np.log(rng.uniform(0.05, 0.4, (P, 1))),
    }


def dense(rng, n, m):
    return {"kernel": rng.normal(size=(n, m)) * 0.5, "bias": rng.normal(size=m) * 0.5}


def flax_tree(rng, tensors, outs, norm, batch_norm):
    layers, statistics = {}, {}
    for i in range(LAYERS):
        layer = {"seq": tensors(rng), norm: {"scale": rng.normal(size=H), "bias": rng.normal(size=H)}}
        layers[f"layers_{i}"] = layer | {name: dense(rng, H, H) for name in outs}
        statistics[f"layers_{i}"] = {norm: {"mean": rng.normal(size=H), "var": rng.uniform(0.5, 2, H)}}
    params = {"encoder": {"encoder": dense(rng, 2, H)} | layers, "decoder": dense(rng, H, 3)}
    return {"params": params, "batch_stats": {"encoder": statistics}} if batch_norm else params


def apply(map_, x):
    return x @ map_["kernel"] + map_["bias"]


def flax_model(tree, system, u, norm, prenorm, gate):
    params, statistics = (tree["params"], tree["batch_stats"]["encoder"]) if "params" in tree else (tree, None)

    def normalised(i, x):
        part = params["encoder"][f"layers_{i}"][norm]
        if statistics is not None:
            stored = statistics[f"layers_{i}"][norm]
            return part["scale"] * (x - stored["mean"]) / np.sqrt(stored["var"] + 1e-5) + part["bias"]
        deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
        return part["scale"] * (x - x.mean(axis=1, keepdims=True)) / deviation + part["bias"]

    x = apply(params["encoder"]["encoder"], u)
    for i in range(LAYERS):
        layer = params["encoder"][f"layers_{i}"]
        y = gelu_tanh(system(layer["seq"], normalised(i, x) if prenorm else x))
        if gate == "full":
            y = apply(layer["out1"], y) * sigmoid(apply(layer["out2"], y))
        elif gate == "half":
            y = y * sigmoid(apply(layer["out2"], y))
        x = x + y if prenorm else normalised(i, x + y)
    return apply(params["decoder"], x.mean(axis=0))


def flat(tree, prefix=""):
    entries = {}
    for name, value in tree.items():
        entries |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return entries


CASES = {
    "minimal-LRU": (lru_tensors, lru, ("out1", "out2"), "normalization", False, True, "full"),
    "minimal-LRU, post-norm": (lru_tensors, lru, ("out1", "out2"), "normalization", False, False, "full"),
    "S5": (s5_tensors, s5, ("out2",), "norm", True, True, "half"),
    "S5, both maps": (s5_tensors, s5, ("out1", "out2"), "norm", False, True, "full"),
    "S5, no gate": (s5_tensors, s5, (), "norm", True, False, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_model_equals_the_formulas(case, tmp_path):
    tensors, system, outs, norm, batch_norm, prenorm, gate = CASES[case]
    rng = np.random.default_rng(3)
    tree = flax_tree(rng, tensors, outs, norm, batch_norm)
    np.savez(tmp_path / "model.npz", **flat(tree))
    model = lqo.load_checkpoint(tmp_path / "model.npz", settings={"prenorm": prenorm})
    u = rng.normal(size=(2, L, 2))
    expected = [flax_model(tree, system, sequence, norm, prenorm, gate) for sequence in u]
    np.testing.assert_allclose(model(u), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_a_smaller_model_is_read_again(case, tmp_path):
    tensors, system, outs, norm, batch_norm, prenorm, gate = CASES[case]
    rng = np.random.default_rng(4)
    np.savez(tmp_path / "model.npz", **flat(flax_tree(rng, tensors, outs, norm, batch_norm)))
    model = lqo.load_checkpoint(tmp_path / "model.npz", settings={"prenorm": prenorm})
    u = rng.normal(size=(2, L, 2))
    small = lqo.compress(model, state_size=4).model
    small.save(tmp_path / "small.npz")
    with np.load(tmp_path / "small.npz") as file:
        stored = {}
        for key in file.files:
            *path, last = key.split("/")
            node = stored
            for name in path:
                node = node.setdefault(name, {})
            node[last] = file[key]
    expected = [flax_model(stored, system, sequence, norm, prenorm, gate) for sequence in u]
    np.testing.assert_allclose(small(u), expected, rtol=1e-9, atol=1e-9)
    again = lqo.load_checkpoint(tmp_path / "small.npz")
    assert again.source.assumed == {}
    np.testing.assert_allclose(again(u), expected, rtol=1e-9, atol=1e-9)


def test_calibration_of_an_lru_model(tmp_path):
    tensors, _, outs, norm, batch_norm, prenorm, _ = CASES["minimal-LRU"]
    rng = np.random.default_rng(5)
    np.savez(tmp_path / "model.npz", **flat(flax_tree(rng, tensors, outs, norm, batch_norm)))
    model = lqo.load_checkpoint(tmp_path / "model.npz", settings={"prenorm": prenorm})
    u = np.cumsum(rng.normal(size=(40, L, 2)), axis=1)
    plain, calibrated = lqo.compress(model, state_size=4).model, lqo.compress(model, state_size=4, calibration=u[:32]).model
    wanted = model(u[32:])
    assert np.linalg.norm(calibrated(u[32:]) - wanted) < np.linalg.norm(plain(u[32:]) - wanted)


def test_half_a_gate_that_no_file_holds_stays(tmp_path):
    tensors, _, outs, norm, _, prenorm, _ = CASES["S5"]
    rng = np.random.default_rng(5)
    np.savez(tmp_path / "model.npz", **flat(flax_tree(rng, tensors, outs, norm, False)))
    model = lqo.load_checkpoint(tmp_path / "model.npz", settings={"prenorm": prenorm})
    u = 0.3 * np.cumsum(rng.normal(size=(120, L, 2)), axis=1)
    small = lqo.compress(model, state_size=4, calibration=u).model
    for block, old in zip(small.blocks, model.blocks, strict=True):
        np.testing.assert_array_equal(block.mixing.weight[:H], np.eye(H))
        assert np.any(block.mixing.weight[H:] != old.mixing.weight[H:])
    small.save(tmp_path / "small.npz")
    np.testing.assert_allclose(lqo.load_checkpoint(tmp_path / "small.npz")(u), small(u), rtol=1e-9, atol=1e-9)
    changed = replace(small.blocks[0], mixing=Linear(2 * small.blocks[0].mixing.weight, small.blocks[0].mixing.bias))
    with pytest.raises(CheckpointError, match="must stay"):
        replace(small, blocks=(changed, *small.blocks[1:])).save(tmp_path / "changed.npz")
    assert not (tmp_path / "changed.npz").exists()


def test_a_gate_of_the_systems_output_leaves_only_systems(tmp_path):
    rng = np.random.default_rng(6)
    np.savez(tmp_path / "model.npz", **flat(flax_tree(rng, s5_tensors, ("out2",), "norm", False)))
    assert lqo.load_checkpoint(tmp_path / "model.npz").runs
    assert not lqo.load_checkpoint(tmp_path / "model.npz", settings={"activation": "half_glu2"}).runs


def test_the_deep_lru(tmp_path):
    rng = np.random.default_rng(7)
    state = {"encoder.weight": rng.normal(size=(H, 2)), "encoder.bias": rng.normal(size=H)}
    state |= {"decoder.weight": rng.normal(size=(1, H)), "decoder.bias": rng.normal(size=1)}
    systems = []
    for i in range(LAYERS):
        seq = lru_tensors(rng)
        systems.append(seq | {"D": rng.normal(size=(H, H))})
        state |= {f"blocks.{i}.lru.{name}": seq[name] for name in ("nu_log", "theta_log", "gamma_log")}
        state |= {f"blocks.{i}.lru.{name}": (seq[f"{name}_re"] + 1j * seq[f"{name}_im"]).astype(np.complex64) for name in "BC"}
        state[f"blocks.{i}.lru.D"] = systems[i]["D"]
        state |= {f"blocks.{i}.ln.weight": rng.normal(size=H), f"blocks.{i}.ln.bias": rng.normal(size=H)}
        state[f"blocks.{i}.ff.output_linear.0.weight"] = rng.normal(size=(2 * H, H))
        state[f"blocks.{i}.ff.output_linear.0.bias"] = rng.normal(size=2 * H)
    np.savez(tmp_path / "dlru.npz", **state)
    model, u = lqo.load_checkpoint(tmp_path / "dlru.npz"), rng.normal(size=(L, 2))
    from scipy.special import erf

    x = u @ state["encoder.weight"].T + state["encoder.bias"]
    for i in range(LAYERS):
        centred = x - x.mean(axis=1, keepdims=True)
        v = state[f"blocks.{i}.ln.weight"] * centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5) + state[f"blocks.{i}.ln.bias"]
        rounded = {f"{n}_{part}": systems[i][f"{n}_{part}"].astype(np.float32) for n in "BC" for part in ("re", "im")}
        y = lru(systems[i] | rounded | {"D": 0.0}, v) + v @ systems[i]["D"].T
        y = 0.5 * y * (1 + erf(y / np.sqrt(2)))
        y = y @ state[f"blocks.{i}.ff.output_linear.0.weight"].T + state[f"blocks.{i}.ff.output_linear.0.bias"]
        x = x + y[:, :H] * sigmoid(y[:, H:])
    expected = x @ state["decoder.weight"].T + state["decoder.bias"]
    np.testing.assert_allclose(model(u[None])[0], expected, rtol=1e-10, atol=1e-10)
    assert model.pooling is None
