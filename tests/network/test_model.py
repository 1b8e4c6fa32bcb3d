from dataclasses import replace

import numpy as np
import pytest

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import Embedding, LayerNorm, Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from tests.network.random_models import random_model, random_system

RNG = np.random.default_rng(0)


def test_arrays_are_read_only_copies():
    weight = np.ones((2, 2))
    linear = Linear(weight)
    weight[0, 0] = 5
    assert linear.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        linear.weight[0, 0] = 3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Linear(np.ones(3)), "weight has shape (3,)"),
        (lambda: Linear(np.ones((2, 3)), np.ones(3)), "bias"),
        (lambda: Embedding(np.ones((0, 3))), "empty"),
        (lambda: LayerNorm(np.ones(3), np.ones(2)), "bias"),
        (lambda: LayerNorm(np.ones(3), np.ones(3), eps=-1), "eps"),
        (lambda: Linear([[np.inf]]), "finite"),
        (lambda: Linear(np.ones((2, 3)), fixed=3), "fixed"),
        (lambda: Block("b", random_system(RNG, (3,), 2, 1, 1, 0), Linear(np.ones((6, 4))), gate="glu"), "mixing takes 4"),
        (lambda: Block("b", random_system(RNG, (3,), 2, 1, 1, 0), gate="glu"), "halves"),
        (lambda: Block("b", random_system(RNG, (3,), 2, 1, 1, 0), Linear(np.ones((4, 3)))), "cannot be added"),
        (lambda: Block("b", random_system(RNG, (3,), 2, 2, 1, 0)), "one axis and one input"),
        (lambda: Block("b", random_system(RNG, (), 2, 2, 2, 0), activation="tanh"), "'tanh'"),
        (lambda: Block("b", random_system(RNG, (), 2, 2, 2, 0), gate="swish"), "'swish'"),
        (lambda: Block("b", random_system(RNG, (), 2, 2, 2, 0), norm=LayerNorm(np.ones(3), np.ones(3))), "norm.weight"),
        (lambda: Block("b", DiagonalLQOSystem([-1.0], [[1.0]], [[1.0]], dt=0)), "continuous"),
        (lambda: replace(random_model(RNG), decoder=Linear(np.ones((2, 4)))), "decoder takes 4"),
        (lambda: replace(random_model(RNG), encoder=Linear(np.ones((4, 2)))), "encoder gives 4"),
        (lambda: replace(random_model(RNG), pooling="max"), "'max'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(build, words):
    with pytest.raises(InvalidInputError) as caught:
        build()
    assert words in str(caught.value)


def test_sizes():
    model = random_model(RNG, width=3, slots=4)
    block = model.blocks[0]
    assert (block.width, block.n_outputs, block.state_size) == (3, 3, 8)
    assert model.layer_parameters == (3 * (3 * 8 + 1),) * 2  # poles, B and C complex, D real
    outside = (3 * 2 + 3) + 2 * (6 * 3 + 6 + 6) + (5 * 3 + 5)
    assert model.n_parameters == outside + sum(model.layer_parameters)
    assert "layer 1: 8 states" in repr(model)


def test_a_model_without_source_cannot_be_saved(tmp_path):
    with pytest.raises(InvalidInputError, match="not read from a checkpoint"):
        random_model(RNG).save(tmp_path / "x.pth")


def test_a_model_without_blocks_is_a_map_of_tokens():
    model = DeepSSM(Linear([[2.0]]), (), Linear([[3.0]], [1.0]))
    assert model(np.array([[[1.0], [3.0]]])) == pytest.approx(np.array([[13.0]]))
    with pytest.raises(DimensionError):
        DeepSSM(Linear([[2.0]]), (), Linear([[3.0, 1.0]]))
