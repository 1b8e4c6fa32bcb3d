import numpy as np
import pytest

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network import signal_kernels
from tests.network.random_models import complex_normal, naive_forward, random_model, random_poles


@pytest.mark.parametrize("mimo", [False, True], ids=["channels", "mimo"])
@pytest.mark.parametrize("rank", [0, 2], ids=["linear", "quadratic"])
@pytest.mark.parametrize("prenorm", [False, True], ids=["postnorm", "prenorm"])
def test_model_equals_naive_loops(mimo, rank, prenorm):
    rng = np.random.default_rng(1)
    model = random_model(rng, mimo=mimo, rank=rank, prenorm=prenorm)
    u = rng.normal(size=(3, 17, 2))
    expected = np.stack([naive_forward(model, one) for one in u])
    np.testing.assert_allclose(model(u), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("activation", ["gelu_tanh", "relu", "identity"])
@pytest.mark.parametrize("pooling", ["last", None])
def test_activations_poolings_and_plain_mixing(activation, pooling):
    rng = np.random.default_rng(2)
    model = random_model(rng, activation=activation, pooling=pooling, gate=None)
    u = rng.normal(size=(2, 9, 2))
    expected = np.stack([naive_forward(model, one) for one in u])
    assert model(u).shape == expected.shape
    np.testing.assert_allclose(model(u), expected, rtol=1e-10, atol=1e-11)


def test_embedding_encoder():
    rng = np.random.default_rng(3)
    model = random_model(rng, tokens=7, mimo=True, rank=1)
    u = rng.integers(0, 7, (2, 11))
    np.testing.assert_allclose(model(u), np.stack([naive_forward(model, one) for one in u]), rtol=1e-10)


@pytest.mark.parametrize("mimo", [False, True])
def test_result_does_not_depend_on_the_batch_or_its_chunks(monkeypatch, mimo):
    rng = np.random.default_rng(4)
    model = random_model(rng, mimo=mimo, rank=1)
    u = rng.normal(size=(5, 12, 2))
    whole = model(u)
    np.testing.assert_allclose(np.concatenate([model(u[i : i + 1]) for i in range(5)]), whole, rtol=1e-10)
    calls = []
    monkeypatch.setattr("lqo_mor.network.model._CHUNK_BYTES", 1)
    np.testing.assert_allclose(model(u, progress=lambda done, total: calls.append((done, total))), whole, rtol=1e-10)
    assert calls == [(i, 5) for i in range(1, 6)]


def test_inputs_are_not_modified_and_may_be_single_precision_or_one_step():
    rng = np.random.default_rng(5)
    model = random_model(rng)
    u = rng.normal(size=(2, 8, 2)).astype(np.float32)
    copy = u.copy()
    np.testing.assert_allclose(model(u), model(u.astype(float)), rtol=1e-12)
    assert np.array_equal(u, copy)
    np.testing.assert_allclose(model(u[:1, :1])[0], naive_forward(model, u[0, :1]), rtol=1e-10)


@pytest.mark.parametrize(
    ("u", "error", "words"),
    [
        (np.zeros((2, 8)), DimensionError, "2 features"),
        (np.zeros((2, 8, 3)), DimensionError, "(2, 8, 3)"),
        (np.zeros((0, 8, 2)), DimensionError, "(0, 8, 2)"),
        (np.zeros((1, 0, 2)), DimensionError, "(1, 0, 2)"),
        (np.full((1, 8, 2), np.nan), InvalidInputError, "finite"),
        (np.zeros((1, 8, 2), complex), InvalidInputError, "real"),
        ([[["a", "b"]]], InvalidInputError, "real"),
    ],
)
def test_bad_signals_are_refused(u, error, words):
    with pytest.raises(error, match="u ") as caught:
        random_model(np.random.default_rng(0))(u)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("u", "words"), [([[0, 7]], "0 to 6"), ([[-1, 0]], "0 to 6"), ([[0.0]], "integers"), ([0, 1], "(batch, steps)")]
)
def test_bad_tokens_are_refused(u, words):
    with pytest.raises(InvalidInputError) as caught:
        random_model(np.random.default_rng(0), tokens=7)(np.array(u))
    assert words in str(caught.value)


def test_impulse_response_kernel_equals_its_twin():
    rng = np.random.default_rng(6)
    poles, residues = random_poles(rng, (3, 4)), complex_normal(rng, (3, 2, 4))
    poles[2, 3] = 0.0
    ours, twin = np.empty((3, 2, 400)), np.empty((3, 2, 400))
    signal_kernels.impulse_responses(poles, residues, ours)
    signal_kernels.impulse_responses_numpy(poles, residues, twin)
    np.testing.assert_allclose(ours, twin, rtol=0, atol=1e-13 * np.abs(twin).max())


def test_scan_kernel_equals_its_twin():
    rng = np.random.default_rng(7)
    poles, ours = random_poles(rng, (4,)), rng.normal(size=(8, 3, 50))
    twin = ours.copy()
    signal_kernels.scan(poles, ours)
    signal_kernels.scan_numpy(poles, twin)
    np.testing.assert_allclose(ours, twin, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["gelu", "glu"])
def test_pointwise_kernels_equal_their_twins(name):
    ours = np.random.default_rng(8).normal(size=(6, 20)) * 10
    ours[3:, 0] = -800, 800, 0
    twin = ours.copy()
    with np.errstate(over="ignore"):
        getattr(signal_kernels, name)(ours)
    getattr(signal_kernels, f"{name}_numpy")(twin)
    np.testing.assert_allclose(ours, twin, rtol=1e-12, atol=1e-300)
