"""The decoder of a reduced model, refitted in closed form."""

from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.compression.calibration.ridge import refitted_decoder, ridge_solve
from lqo_mor.network.layers import Linear
from tests.network.random_models import random_model

RNG = np.random.default_rng(0)


def pieces(features, wanted, cut=7):
    return [(features[:, i : i + cut], wanted[:, i : i + cut]) for i in range(0, features.shape[1], cut)]


def sequences(count, width=4, outputs=3, steps=1):
    return RNG.normal(size=(width, count, steps)) + np.arange(width)[:, None, None], RNG.normal(size=(outputs, count, steps))


@pytest.mark.parametrize("steps", [1, 5])
def test_a_decoder_that_was_moved_is_found_again(steps):
    features, _ = sequences(60, steps=steps)
    true, old = Linear(RNG.normal(size=(3, 4)), RNG.normal(size=3)), Linear(RNG.normal(size=(3, 4)), RNG.normal(size=3))
    wanted = np.tensordot(true.weight, features, axes=1) + true.bias[:, None, None]
    found, error = refitted_decoder(old, pieces(features, wanted))
    before = np.sum((wanted - np.tensordot(old.weight, features, axes=1) - old.bias[:, None, None]) ** 2)
    after = np.sum((wanted - np.tensordot(found.weight, features, axes=1) - found.bias[:, None, None]) ** 2)
    assert after < error < 1e-3 * before
    np.testing.assert_allclose(found.weight, true.weight, atol=0.1)


def test_noise_leaves_the_decoder_alone():
    features, noise = sequences(40, width=20)
    old = Linear(RNG.normal(size=(3, 20)), RNG.normal(size=3))
    wanted = np.tensordot(old.weight, features, axes=1) + old.bias[:, None, None] + noise - noise.mean(axis=(1, 2), keepdims=True)
    found, error = refitted_decoder(old, pieces(features, wanted))
    assert found is old
    np.testing.assert_allclose(error, np.sum((noise - noise.mean(axis=(1, 2), keepdims=True)) ** 2), rtol=1e-12)
    few, _ = refitted_decoder(old, pieces(features[:, :9], 2 * wanted[:, :9]))  # no folds of two sequences
    assert few is old


def test_the_error_is_that_of_a_plain_cross_validation():
    features, wanted = sequences(30)
    wanted = wanted * 0.3 + np.tensordot(RNG.normal(size=(3, 4)), features, axes=1)
    old = Linear(RNG.normal(size=(3, 4)), RNG.normal(size=3))
    _, error = refitted_decoder(old, pieces(features, wanted))
    z, rest = features[:, :, 0].T, (wanted[:, :, 0] - old.weight @ features[:, :, 0] - old.bias[:, None]).T
    totals = []
    for ridge in (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01):
        total = 0.0
        for fold in range(5):
            train, test = np.arange(30) % 5 != fold, np.arange(30) % 5 == fold
            mean, offset = z[train].mean(axis=0), rest[train].mean(axis=0)
            centred = z[train] - mean
            penalty = ridge * np.sum(centred**2) / 4
            stacked = np.concatenate([centred, np.sqrt(penalty) * np.eye(4)])
            change = np.linalg.lstsq(stacked, np.concatenate([rest[train] - offset, np.zeros((4, 3))]), rcond=None)[0]
            total += np.sum((rest[test] - (z[test] - mean) @ change - offset) ** 2)
        totals.append(total)
    np.testing.assert_allclose(error, min(totals), rtol=1e-9)


def test_a_decoder_without_bias_gets_none():
    features, _ = sequences(40)
    true = RNG.normal(size=(3, 4))
    found, _ = refitted_decoder(Linear(0.5 * true), pieces(features, np.tensordot(true, features, axes=1)))
    assert found.bias is None
    np.testing.assert_allclose(found.weight, true, atol=0.1)


@pytest.mark.parametrize("gram", [np.zeros((2, 2)), [[1.0, 2.0], [2.0, 1.0]], [[2.0, 1.0], [1.0, 2.0]]])
def test_equations_with_a_ridge(gram):
    """Also where nothing is left of the features but what rounding makes of it, which may be indefinite."""
    gram = np.array(gram)
    right = gram @ np.array([[1.0], [-2.0]])
    ridge = 0.1 * np.trace(gram) / 2
    np.testing.assert_allclose((gram + ridge * np.eye(2)) @ ridge_solve(gram, right, 0.1), right, atol=1e-14)


@pytest.mark.parametrize("pooling", ["mean", "last", None])
@pytest.mark.parametrize("prenorm", [True, False])
def test_the_bound_holds_for_a_changed_decoder(pooling, prenorm):
    rng = np.random.default_rng(3)
    model = replace(random_model(rng, prenorm=prenorm), pooling=pooling)
    small = lqo.compress(model, state_size=2).model
    decoder = Linear(
        small.decoder.weight + 0.3 * rng.normal(size=small.decoder.weight.shape),
        small.decoder.bias + 0.3 * rng.normal(size=len(small.decoder.bias)),
    )
    moved = replace(small, decoder=decoder)
    width = model.encoder.n_outputs if not hasattr(model.encoder, "n_inputs") else model.encoder.n_inputs
    u = rng.normal(size=(30, 12, width))
    bound = lqo.output_error_bound(model, moved, horizon=12, calibration=u)
    seen = np.linalg.norm(moved(u) - model(u), axis=-1)
    assert np.max(seen) <= bound.calibrated <= bound.bound
    unmoved = lqo.output_error_bound(model, small, horizon=12, calibration=u)
    assert np.all(bound.membership(u)) and unmoved.calibrated <= bound.calibrated
    same = lqo.output_error_bound(model, replace(model, decoder=decoder), horizon=12, calibration=u)
    change = np.linalg.norm(replace(model, decoder=decoder)(u) - model(u), axis=-1)
    np.testing.assert_allclose(same.calibrated, np.max(change), rtol=1e-6)  # nothing else differs
