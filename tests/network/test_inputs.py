import numpy as np
import pytest

from lqo_mor.cli.tables import comparison_table
from lqo_mor.errors import DimensionError, InvalidInputError, LQOWarning
from lqo_mor.network.inputs import random_inputs, read_inputs
from tests.network.random_models import random_model

RNG = np.random.default_rng(0)


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_round_trip(tmp_path):
    x, labels = RNG.normal(size=(3, 4, 1)), np.arange(3)
    np.savez(tmp_path / "x.npz", inputs=x, labels=labels, others=np.ones(2))
    read = read_inputs(tmp_path / "x.npz")
    assert np.array_equal(read[0], x)
    assert np.array_equal(read[1], labels)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_refused(tmp_path, save):
    path = tmp_path / "x.npz"
    save(path, inputs=RNG.normal(size=(3, 40, 1)), labels=np.arange(3))
    data = path.read_bytes()
    refused = 0
    for _ in range(100):
        damaged = bytearray(data)
        for position in RNG.integers(0, len(data), 8):
            damaged[position] ^= int(RNG.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_inputs(path)
        except InvalidInputError as err:
            assert "x.npz" in str(err)
            refused += 1
    assert refused > 50
    for part in (0, 10, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:part])
        with pytest.raises(InvalidInputError, match="it is damaged"):
            read_inputs(path)


def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 3, 1)))
    with pytest.raises(InvalidInputError, match=r"x\.npy: it holds a single array; save it under its name with np\.savez"):
        read_inputs(tmp_path / "x.npy")
    with pytest.raises(InvalidInputError, match="No such file"):
        read_inputs(tmp_path / "none.npz")
    np.savez(tmp_path / "o.npz", inputs=np.array([None]))
    with pytest.raises(InvalidInputError, match="plain arrays"):
        read_inputs(tmp_path / "o.npz")
    np.savez(tmp_path / "t.npz", inputs=np.ones((2, 3, 1)), labels=np.array(["cat", "dog"]))
    with pytest.raises(InvalidInputError, match="labels hold <U3"):
        read_inputs(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("steps", "seed", "words"),
    [(0, 0, "steps"), (5, -1, "the seed must not be negative, got -1"), (10**20, 0, "take fewer steps")],
)
def test_impossible_random_inputs_are_refused(steps, seed, words):
    with pytest.raises(InvalidInputError, match=words):
        random_inputs(random_model(RNG), 2, steps, seed)


def test_labels_give_accuracies_of_classes():
    a, b = np.eye(3), np.eye(3)[[0, 1, 1]]
    names, values = cells(comparison_table(a, b, np.arange(3)))
    table = dict(zip(names, values, strict=True))
    assert (table["accuracy of the first"], table["accuracy of the second"]) == ("100.00%", "66.67%")


@pytest.mark.parametrize("shape", [(3, 7, 4), (3, 1), (5, 4)])
def test_labels_that_do_not_fit_the_outputs_are_not_used(shape):
    outputs = RNG.normal(size=shape)
    with pytest.warns(LQOWarning, match="the labels, of shape \\(3,\\), are not used"):
        table = comparison_table(outputs, outputs, np.arange(3))
    assert not any("accuracy" in name for name in cells(table)[0])


def test_outputs_of_different_shapes_are_refused():
    with pytest.raises(DimensionError, match="different shapes"):
        comparison_table(np.ones((3, 4)), np.ones((3, 5, 4)), None)
