import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import lqo_mor as lqo
from lqo_mor.errors import DimensionError, InvalidInputError, OutputError
from lqo_mor.io.system_files import load_system, save_system
from tests.cases import CASES
from tests.io.systems import random_system

SUFFIXES = pytest.mark.parametrize("suffix", [".npz", ".json"])
ARRAYS = ("A", "poles", "B", "C", "D")


def arrays(sys) -> dict:
    """Every array of a system by its name."""
    found = {name: getattr(sys, name) for name in ARRAYS if hasattr(sys, name)}
    quadratic = sys.M
    if isinstance(quadratic, lqo.QuadraticOutput):
        return found | {name: getattr(quadratic, name) for name in "UVW"}
    return found if quadratic is None else found | {"M": quadratic}


def assert_same_bits(a, b):
    assert type(a) is type(b)
    assert type(a.dt) is type(b.dt)
    assert a.dt == b.dt
    first, second = arrays(a), arrays(b)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert (array.dtype, array.shape) == (second[name].dtype, second[name].shape)
        assert array.tobytes() == second[name].tobytes()


@SUFFIXES
@pytest.mark.parametrize("sys", [case.sys for case in CASES], ids=[case.name for case in CASES])
def test_every_bit_comes_back(tmp_path, sys, suffix):
    save_system(tmp_path / f"sys{suffix}", sys)
    assert_same_bits(load_system(tmp_path / f"sys{suffix}"), sys)


@SUFFIXES
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_finite_numbers_come_back(tmp_path_factory, suffix, data):
    numbers = st.floats(allow_nan=False, allow_infinity=False)  # with -0.0, denormals and the largest

    def draw(*shape):
        if data.draw(st.booleans()):
            parts = [data.draw(st_numpy.arrays(float, shape, elements=numbers)) for _ in range(2)]
            array = np.empty(shape, complex)
            array.real, array.imag = parts
            return array
        return data.draw(st_numpy.arrays(float, shape, elements=numbers))

    dt = data.draw(st.one_of(st.just(True), st.floats(0, 1e300), st.just(5e-324)))
    M = lqo.QuadraticOutput(draw(2, 3), draw(2, 3), draw(2, 2)) if data.draw(st.booleans()) else None
    sys = lqo.LQOSystem(draw(3, 3), draw(3, 1), draw(2, 3), draw(2, 1), M, dt)
    path = tmp_path_factory.mktemp("bits") / f"sys{suffix}"
    save_system(path, sys)
    assert_same_bits(load_system(path), sys)


@SUFFIXES
def test_an_empty_factor_keeps_its_shape(tmp_path, suffix):
    empty = lqo.QuadraticOutput(np.zeros((0, 1)), np.zeros((0, 1)), np.zeros((1, 0)))
    save_system(tmp_path / f"sys{suffix}", lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], M=empty, dt=1.0))
    assert load_system(tmp_path / f"sys{suffix}").M.U.shape == (0, 1)


def test_the_formats_are_what_the_documentation_says(tmp_path):
    sys = lqo.LQOSystem([[0.5, -0.0], [1e-310, 0.1]], [[1j], [2.0]], [[1.0, 3.0]], dt=True)
    save_system(tmp_path / "sys.json", sys)
    assert json.loads((tmp_path / "sys.json").read_text()) == {
        "format": "lqo-mor system",
        "version": 1,
        "kind": "dense",
        "dt": True,
        "A": {"shape": [2, 2], "real": [0.5, -0.0, 1e-310, 0.1]},
        "B": {"shape": [2, 1], "real": [0.0, 2.0], "imag": [1.0, 0.0]},
        "C": {"shape": [1, 2], "real": [1.0, 3.0]},
        "D": {"shape": [1, 1], "real": [0.0]},
    }
    save_system(tmp_path / "sys.npz", sys)
    with np.load(tmp_path / "sys.npz", allow_pickle=False) as file:
        assert set(file.files) == {"format", "version", "kind", "dt", "A", "B", "C", "D"}
        assert file["format"] == "lqo-mor system"
        np.testing.assert_array_equal(file["B"], [[1j], [2.0]])


def test_the_content_decides_what_a_file_is(tmp_path):
    for suffix in (".npz", ".json"):
        save_system(tmp_path / f"sys{suffix}", random_system(0.1))
        (tmp_path / f"sys{suffix}").rename(tmp_path / "renamed.dat")
        assert_same_bits(load_system(tmp_path / "renamed.dat"), random_system(0.1))


GOOD = {
    "format": "lqo-mor system",
    "version": 1,
    "kind": "dense",
    "dt": 0.1,
    "A": {"shape": [2, 2], "real": [0.5, 0.0, 0.0, 0.25]},
    "B": {"shape": [2, 1], "real": [1, 2]},
    "C": {"shape": [1, 2], "real": [1.0, 3.0]},
    "D": {"shape": [1, 1], "real": [0.0]},
}


def test_a_file_written_by_hand(tmp_path):
    (tmp_path / "sys.json").write_text(json.dumps(GOOD))
    sys = lqo.LQOSystem(np.diag([0.5, 0.25]), [[1.0], [2.0]], [[1.0, 3.0]], dt=0.1)
    assert_same_bits(load_system(tmp_path / "sys.json"), sys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "'format' is not 'lqo-mor system'"),
        ({"format": None}, "'format' is not"),
        ({"version": 2}, "has version 2, but only version 1 is known"),
        ({"version": True}, "has version True"),
        ({"version": [1]}, "has version of type list"),
        ({"kind": "sparse"}, "'kind' is 'sparse', expected one of dense, diagonal"),
        ({"kind": "diagonal"}, "lacks 'poles'.*has unknown 'A'"),
        ({"kind": {}}, "shape of its field 'kind'"),
        ({"B": ...}, "lacks 'B'"),
        ({"dt": ...}, "lacks 'dt'"),
        ({"U": GOOD["A"]}, "lacks 'V', lacks 'W'"),
        ({"M": {"shape": [1, 2, 2], "real": [0.0] * 4}, "U": GOOD["A"]}, "has unknown 'U'"),
        ({"quadratic": GOOD["A"]}, "has unknown 'quadratic'"),
        ({"A": [[0.5, 0.0], [0.0, 0.25]]}, "field 'A' is of type list, expected an array"),
        ({"A": "text"}, "field 'A' is 'text', expected an array"),
        ({"A": {"shape": [2, 2], "real": [1.0, 2.0]}}, "'real' of its field 'A' is no flat list of 4 numbers"),
        ({"A": {"shape": [10**9, 10**9], "real": [1.0]}}, "field 'A' is no flat list"),
        ({"A": {"shape": [2, 2], "real": [[1.0, 2.0], [3.0, 4.0]]}}, "field 'A' is no flat list"),
        ({"A": {"shape": [2, 2], "real": [[1.0], 2.0, 3.0, 4.0]}}, "field 'A' is no flat list"),
        ({"A": {"shape": [2, 2], "real": ["1", "2", "3", "4"]}}, "field 'A' is no flat list"),
        ({"A": {"shape": [2, 2], "real": [1, 2, 3, 10**40]}}, "field 'A' is no flat list"),
        ({"A": {"shape": [2, 2], "real": [1, 2, 3, None]}}, "field 'A' is no flat list"),
        ({"A": {"shape": [2, 2]}}, "'real' of its field 'A'"),
        ({"A": {"shape": [2, 2], "real": [1, 2, 3, 4], "imag": [1]}}, "'imag' of its field 'A'"),
        ({"A": {"shape": [2, -2], "real": []}}, "shape of its field 'A' is no list of sizes"),
        ({"A": {"shape": [10**30, 0], "real": []}}, "shape of its field 'A' is no list of sizes"),
        ({"A": {"shape": 4, "real": []}}, "shape of its field 'A' is no list of sizes"),
        ({"A": {"shape": [1] * 99, "real": [1.0]}}, "shape of its field 'A' is no list of sizes"),
        ({"A": {"shape": [2, 2], "real": [1, 2, 3, float("nan")]}}, r"A has 1 entries that are not finite, first at \(1, 1\)"),
        ({"B": {"shape": [2, 1], "real": [1, float("inf")]}}, "B has 1 entries that are not finite"),
        ({"dt": float("nan")}, "dt must be"),
        ({"dt": "0"}, "dt must be"),
        ({"dt": -1}, "dt must be"),
        ({"dt": False}, "dt must be"),
        ({"dt": 10**400}, "dt must be"),
    ],
)
def test_json_that_is_no_system_is_refused_with_file_and_field(tmp_path, changes, message):
    fields = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    (tmp_path / "sys.json").write_text(json.dumps(fields))
    with pytest.raises(InvalidInputError, match=rf"^sys.json: .*{message}"):
        load_system(tmp_path / "sys.json")


def test_wrong_shapes_are_named(tmp_path):
    (tmp_path / "sys.json").write_text(json.dumps(GOOD | {"B": {"shape": [1, 2], "real": [1, 2]}}))
    with pytest.raises(DimensionError, match=r"^sys.json: B has shape \(1, 2\), expected \(n, m\)"):
        load_system(tmp_path / "sys.json")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"[1, 2]", b"3", b"[" * 100_000, b"\xff\xfe\x00", b'{"a": 1', b"PK\x03\x04rubbish"]
)
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "sys.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"^sys.json: is "):
        load_system(tmp_path / "sys.json")


class Executed:
    """A pickle that would raise when it is read."""

    def __reduce__(self):
        return (pytest.fail, ("code of the file was executed",))


def npz_fields(**changes):
    fields = {"format": "lqo-mor system", "version": 1, "kind": "dense", "dt": 0.1}
    fields |= {"A": np.eye(2) / 2, "B": np.ones((2, 1)), "C": np.ones((1, 2)), "D": np.zeros((1, 1))} | changes
    return {name: value for name, value in fields.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": np.array([Executed()])}, "field 'A' is damaged, or holds Python objects"),
        ({"dt": np.array(Executed())}, "field 'dt' is damaged, or holds Python objects"),
        ({"A": np.array([["a", "b"], ["c", "d"]])}, "A is not a numeric array"),
        ({"A": np.zeros((2, 2), dtype=[("x", float)])}, "A is not a numeric array"),
        ({"A": np.array([[np.nan, 0], [0, 0]])}, "A has 1 entries that are not finite"),
        ({"A": np.float64(1.0)}, "field 'A' is 1.0, expected an array"),
        ({"C": ...}, "lacks 'C'"),
        ({"version": np.array([1])}, "has version of type ndarray"),
        ({"version": np.array(1.0)}, "has version 1.0"),
        ({"format": np.eye(2)}, "'format' is not"),
        ({"dt": np.array([0.1])}, "dt must be"),
        ({"dt": np.datetime64("2020-01-01")}, "dt must be"),
    ],
)
def test_npz_that_is_no_system_is_refused_with_file_and_field(tmp_path, changes, message):
    np.savez(tmp_path / "sys.npz", **npz_fields(**changes))
    with pytest.raises(InvalidInputError, match=f"^sys.npz: .*{message}"):
        load_system(tmp_path / "sys.npz")


def test_arrays_of_other_number_formats_are_read(tmp_path):
    np.savez(tmp_path / "sys.npz", **npz_fields(A=np.eye(2, dtype=">f4") / 2, B=np.ones((2, 1), np.int8)))
    assert_same_bits(load_system(tmp_path / "sys.npz"), lqo.LQOSystem(np.eye(2) / 2, np.ones((2, 1)), np.ones((1, 2)), dt=0.1))


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lqo_mor.io.system_checks.MAX_BYTES", 2**20)
    np.savez_compressed(tmp_path / "sys.npz", **npz_fields(A=np.zeros((500, 500))))
    assert (tmp_path / "sys.npz").stat().st_size < 2**13
    with pytest.raises(InvalidInputError, match=r"sys.npz: unpacks to more than"):
        load_system(tmp_path / "sys.npz")


@SUFFIXES
def test_damage_ends_in_our_error(tmp_path, rng, suffix):
    path = tmp_path / f"sys{suffix}"
    save_system(path, random_system(0.1))
    content, failures = path.read_bytes(), 0
    for k in range(150):
        damaged = bytearray(content)
        if k % 3:
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        else:
            damaged = damaged[: rng.integers(len(content))]
        path.write_bytes(damaged)
        try:
            load_system(path)
        except InvalidInputError as err:
            failures += 1
            assert path.name in str(err)
    assert failures > 50


def test_paths_and_suffixes(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_system(tmp_path / "none.npz")
    with pytest.raises(OutputError, match=r"expected .npz or .json"):
        save_system(tmp_path / "sys.mat", random_system(0.1))
    with pytest.raises(InvalidInputError, match="got ndarray"):
        save_system(tmp_path / "sys.npz", np.eye(2))
    assert not list(tmp_path.iterdir())


@SUFFIXES
def test_an_existing_file_is_kept_unless_asked(tmp_path, suffix):
    path = tmp_path / f"sys{suffix}"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save_system(path, random_system(0.1))
    assert path.read_text() == "mine"
    save_system(path, random_system(0.1), overwrite=True)
    assert_same_bits(load_system(path), random_system(0.1))


def test_the_pickle_of_the_test_does_execute():
    with pytest.raises(pytest.fail.Exception):
        pickle.load(io.BytesIO(pickle.dumps(Executed())))
