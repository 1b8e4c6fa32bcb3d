from dataclasses import replace

import numpy as np
import pytest

from benchmarks._pruning import SCORES, chosen_slots, normalised, pruned, slot_scores
from lqo_mor import DiagonalLQOSystem, QuadraticOutput
from lqo_mor.errors import InvalidInputError, UnstableSystemError
from tests.network.random_models import random_model, random_system

# Slow and fast pairs, close to the real axis and to ±1, beside real poles of both signs.
POLES = np.array(
    [0.9 * np.exp(1j), 0.999 * np.exp(0.0005j), 0.999 * np.exp(1e-7j), 0.98 * np.exp(3.14j), 0.3 * np.exp(-2j), 1e-9j, 0.95, -0.7]
)


def single_slots(rng, poles=POLES, inputs=1, outputs=1, rank=0):
    """Every pole as a system of its own, with random rows."""
    real = (poles.imag == 0)[:, np.newaxis, np.newaxis]

    def random(*shape):
        array = rng.normal(size=(len(poles), *shape)) + 1j * rng.normal(size=(len(poles), *shape))
        return np.where(real, array.real, array)

    quadratic = QuadraticOutput(random(rank, 1), random(rank, 1), rng.normal(size=(len(poles), outputs, rank))) if rank else None
    return DiagonalLQOSystem(poles[:, np.newaxis], random(1, inputs), random(outputs, 1), M=quadratic, dt=1.0)


def responses(ssm, steps, whole=True):
    """Impulse responses (channels, steps, outputs, inputs) of single slots, real, or of one complex state each."""
    kernel = ssm.poles[:, :, np.newaxis, np.newaxis] ** np.arange(steps)[:, np.newaxis, np.newaxis]
    kernel = kernel * (ssm.C @ ssm.B)[:, np.newaxis]
    return np.where(ssm.is_real_pole[:, :, np.newaxis, np.newaxis], 1, 2) * kernel.real if whole else kernel


def frequencies(ssm):
    """A grid over the circle, finer around the angle of each pole."""
    grid = np.linspace(0, np.pi, 20001)
    for pole in ssm.poles.ravel():
        grid = np.append(grid, np.abs(np.angle(pole)) + (1 - np.abs(pole)) * np.linspace(-2, 2, 4001))
    return np.exp(-1j * grid)


@pytest.mark.parametrize("seed", range(5))
def test_last_is_the_peak_of_the_transfer_functions(seed):
    ssm = single_slots(np.random.default_rng(seed))
    z, poles, r = frequencies(ssm), ssm.poles, (ssm.C @ ssm.B)[:, 0]
    real = ssm.is_real_pole
    both = np.abs(r / (1 - poles * z) + np.where(real, 0, r.conj() / (1 - poles.conj() * z))).max(axis=1)
    full_circle = np.concatenate([z, z.conj()])
    state = np.abs(r / (1 - poles * full_circle)).max(axis=1)
    np.testing.assert_allclose(slot_scores(ssm, "last")[:, 0], np.where(real[:, 0], 1, 2) * state, rtol=1e-6)
    np.testing.assert_allclose(slot_scores(ssm, "last_squared"), slot_scores(ssm, "last") ** 2)
    exact = slot_scores(ssm, "last_pair")
    np.testing.assert_allclose(exact[:, 0], both, rtol=1e-6)
    assert np.all(exact[:, 0] >= both * (1 - 1e-9))
    assert np.all(exact <= slot_scores(ssm, "last") * (1 + 1e-9))


def test_the_norm_of_a_pair_whose_numerator_is_constant():
    poles = np.array([[0.5j], [0.8 * np.exp(0.3j)]])
    zero_slope = 1j * poles  # Re(r conj(λ)) = 0
    ssm = DiagonalLQOSystem(poles, np.ones((2, 1, 1)), zero_slope[:, np.newaxis], dt=1.0)
    z = frequencies(ssm)
    values = np.abs(zero_slope / (1 - poles * z) + zero_slope.conj() / (1 - poles.conj() * z)).max(axis=1)
    np.testing.assert_allclose(slot_scores(ssm, "last_pair")[:, 0], values, rtol=1e-6)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 2)])
def test_aire_is_the_energy_of_the_impulse_responses(inputs, outputs):
    ssm = single_slots(np.random.default_rng(1), inputs=inputs, outputs=outputs)
    state = np.sum(np.abs(responses(ssm, 20000, whole=False)) ** 2, axis=(1, 2, 3))
    whole = np.sum(responses(ssm, 20000) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(slot_scores(ssm, "aire")[:, 0], np.where(ssm.is_real_pole[:, 0], 1, 2) * state, rtol=1e-9)
    np.testing.assert_allclose(slot_scores(ssm, "aire_pair")[:, 0], whole, rtol=1e-9)


def test_last_with_several_inputs_and_outputs_is_the_largest_singular_value():
    ssm = single_slots(np.random.default_rng(2), inputs=3, outputs=2)
    peak = np.linalg.norm(ssm.C @ ssm.B, ord=2, axis=(1, 2)) / (1 - np.abs(ssm.poles[:, 0]))
    np.testing.assert_allclose(slot_scores(ssm, "last")[:, 0], np.where(ssm.is_real_pole[:, 0], 1, 2) * peak)


def test_rows_of_a_quadratic_output_count_as_outputs():
    rng = np.random.default_rng(3)
    ssm = single_slots(rng, inputs=2, outputs=2, rank=3)
    q = ssm.M
    weight = np.sqrt(np.linalg.norm(q.W, axis=1))[..., np.newaxis]
    linear = DiagonalLQOSystem(ssm.poles, ssm.B, np.concatenate([ssm.C, weight * q.U, weight * q.V], axis=1), dt=1.0)
    silent = replace(ssm, M=QuadraticOutput(q.U, q.V, 0 * q.W))
    for score in ("last", "last_squared", "aire", "aire_pair"):
        np.testing.assert_allclose(slot_scores(ssm, score), slot_scores(linear, score))
        np.testing.assert_allclose(slot_scores(silent, score), slot_scores(replace(ssm, M=None), score))
    with pytest.raises(InvalidInputError, match="one input"):
        slot_scores(ssm, "last_pair")


@pytest.mark.parametrize("score", SCORES)
def test_a_factor_between_input_and_output_and_the_conjugate_pole_change_nothing(score):
    ssm = single_slots(np.random.default_rng(4))
    factor = np.where(ssm.is_real_pole, -2.0, 3 * np.exp(1j))[..., np.newaxis]
    scaled = DiagonalLQOSystem(ssm.poles, ssm.B * factor, ssm.C / factor, dt=1.0)
    conjugate = DiagonalLQOSystem(ssm.poles.conj(), ssm.B.conj(), ssm.C.conj(), dt=1.0)
    np.testing.assert_allclose(slot_scores(scaled, score), slot_scores(ssm, score), rtol=1e-9)
    np.testing.assert_allclose(slot_scores(conjugate, score), slot_scores(ssm, score), rtol=1e-9)


def test_scores_are_divided_by_the_sum_of_those_at_least_as_large():
    scores = np.random.default_rng(5).exponential(size=(3, 4))
    expected = [[value / scores[scores >= value].sum() for value in row] for row in scores]
    np.testing.assert_allclose(normalised(scores), expected)
    np.testing.assert_array_equal(normalised(np.array([0.0, 2.0, 0.0])), [0, 1, 0])
    np.testing.assert_array_equal(normalised(np.zeros(2)), [0, 0])


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_one_threshold_for_all_layers(kept):
    rng = np.random.default_rng(6)
    scores = [rng.exponential(size=(5, 8)), 1e6 * rng.exponential(size=(5, 4)) ** 3, rng.exponential(size=7)]
    scores[0][:, 0] = 0  # slots that only fill up
    masks = chosen_slots(scores, kept)
    values = [normalised(layer) for layer in scores]
    stay = np.concatenate([value[mask] for value, mask in zip(values, masks, strict=True)])
    go = np.concatenate([value[~mask] for value, mask in zip(values, masks, strict=True)])
    assert stay.size == round(kept * (40 - 5 + 20 + 7))
    assert stay.min() >= go.max()
    assert [mask.shape for mask in masks] == [layer.shape for layer in scores]
    for mask in masks:  # the first of each layer has the largest value there is, 1
        assert stay.size < 3 or np.any(mask)


def test_equal_scores_are_split_to_reach_the_number():
    masks = chosen_slots([np.array([1.0]), np.array([2.0]), np.array([3.0])], 0.67)
    assert [bool(mask[0]) for mask in masks] == [True, True, False]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kept", [0.1, 0.4, 1.0])
def test_the_pruned_model_is_the_one_with_silenced_slots(score, kept):
    model = random_model(np.random.default_rng(7), width=4, slots=6, layers=3)
    small = pruned(model, kept, score)
    masks = chosen_slots([slot_scores(block.ssm, score) for block in model.blocks], kept)
    blocks = []
    for block, mask in zip(model.blocks, masks, strict=True):
        ssm = block.ssm
        blocks.append(
            replace(block, ssm=DiagonalLQOSystem(ssm.poles, ssm.B * mask[..., None], ssm.C * mask[:, None], ssm.D, dt=1.0))
        )
    u = np.random.default_rng(8).normal(size=(2, 30, 2))
    np.testing.assert_allclose(small(u), replace(model, blocks=tuple(blocks))(u), rtol=1e-9, atol=1e-12)
    used = [np.any(block.ssm.B, axis=-1) for block in small.blocks]
    assert sum(map(np.count_nonzero, used)) == round(kept * 3 * 4 * 6)
    for block, count, mask in zip(small.blocks, used, masks, strict=True):
        assert block.ssm.n_slots == max(1, mask.sum(axis=1).max())
        np.testing.assert_array_equal(np.any(block.ssm.C, axis=1), count)
        np.testing.assert_array_equal(count.sum(axis=1), mask.sum(axis=1))
    assert small.blocks[0].mixing is model.blocks[0].mixing
    if kept == 1:
        np.testing.assert_array_equal(small.blocks[0].ssm.poles, model.blocks[0].ssm.poles)


def test_one_system_with_many_inputs_and_a_quadratic_output():
    model = random_model(np.random.default_rng(9), mimo=True, rank=2, width=3, slots=8)
    small = pruned(model, 0.5, "aire")
    assert sum(block.ssm.n_slots for block in small.blocks) == 8
    for block, old in zip(small.blocks, model.blocks, strict=True):
        where = [int(np.flatnonzero(old.ssm.poles == pole)[0]) for pole in block.ssm.poles]
        assert where == sorted(where)
        np.testing.assert_array_equal(block.ssm.M.U, old.ssm.M.U[:, where])
        np.testing.assert_array_equal(block.ssm.M.V, old.ssm.M.V[:, where])
        np.testing.assert_array_equal(block.ssm.B, old.ssm.B[where])


def test_pruning_what_was_pruned_does_not_count_the_filling():
    model = pruned(random_model(np.random.default_rng(10), width=4, slots=6), 0.5)
    again = pruned(model, 0.5)
    assert sum(np.count_nonzero(block.ssm.B) for block in again.blocks) == 12


@pytest.mark.parametrize("kept", [0, -0.5, 1.1, float("nan")])
def test_impossible_fractions_are_refused(kept):
    with pytest.raises(InvalidInputError, match="kept"):
        pruned(random_model(np.random.default_rng(11)), kept)


def test_unknown_scores_and_unstable_systems_are_refused():
    ssm = random_system(np.random.default_rng(12), (2,), 3, 1, 1, 0)
    with pytest.raises(InvalidInputError, match="score"):
        slot_scores(ssm, "magnitude")
    with pytest.raises(UnstableSystemError, match="unit circle"):
        slot_scores(DiagonalLQOSystem(ssm.poles / 0.5, ssm.B, ssm.C, dt=1.0), "last")
