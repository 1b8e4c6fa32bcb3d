import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import scipy.sparse.linalg

import lqo_mor as lqo
from lqo_mor.errors import DimensionError, InvalidInputError, OutputError, SymmetrisedWarning
from lqo_mor.io._mat5 import read_mat5
from lqo_mor.io.mat_files import load_mat, save_mat
from lqo_mor.systems.sparse import SparseLQOSystem
from tests.cases import get
from tests.io.systems import assert_close, assert_same_matrices, parametrize, random_system, response

SLICOT = Path(__file__).resolve().parents[3] / "shared" / "data" / "slicot"
A, B, C = np.diag([-1.0, -2.0]), np.ones((2, 1)), np.ones((1, 2))


@pytest.fixture
def write(tmp_path):
    """Write variables as a MATLAB file, return its path."""

    def _write(variables, **options):
        path = tmp_path / "file.mat"
        scipy.io.savemat(path, variables, **options)
        return path

    return _write


def stored(variables, **options) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables, **options)
    return file.getvalue()


@pytest.mark.skipif(not SLICOT.is_dir(), reason="the benchmark systems are not there: no folder shared/data/slicot")
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("CDplayer", (120, 2, 2)),
        ("build", (48, 1, 1)),
        ("heat-cont", (200, 1, 1)),
        ("iss1R", (270, 3, 3)),
        ("rail_1357", (1357, 7, 6)),
    ],
)
def test_slicot_benchmarks(name, shape):
    variables = scipy.io.loadmat(SLICOT / f"{name}.mat")
    sys = load_mat(SLICOT / f"{name}.mat")
    assert (sys.order, sys.n_inputs, sys.n_outputs) == shape
    assert sys.is_continuous
    if name == "rail_1357":
        np.testing.assert_array_equal(sys.A, sys.A.T)
    z = 1j
    E = variables.get("E", scipy.sparse.eye_array(sys.order))
    dense = {key: variables[key].toarray() if scipy.sparse.issparse(variables[key]) else variables[key] for key in "BC"}
    pencil = scipy.sparse.csc_array(z * E - variables["A"])
    wanted = dense["C"] @ scipy.sparse.linalg.spsolve(pencil, dense["B"].astype(complex)).reshape(sys.order, -1)
    assert_close(response(sys, [z])[..., 0], wanted, 1e-12)
    if "hsv" in variables:
        wanted = variables["hsv"].ravel()
        assert_close(lqo.hankel_singular_values(sys)[:10], wanted[:10], 1e-9)


@parametrize
def test_systems_come_back_with_every_bit(tmp_path, sys):
    save_mat(tmp_path / "sys.mat", sys)
    dense = lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys
    assert_same_matrices(load_mat(tmp_path / "sys.mat"), dense)


@pytest.mark.parametrize("name", ["advdiff200", "msd120p2"])
def test_lqo_benchmarks_as_matlab_files(lqo_data, write, name):
    with np.load(lqo_data / f"{name}.npz") as file:
        arrays = dict(file)
    sys = load_mat(write(arrays))
    np.testing.assert_array_equal(sys.M, np.moveaxis(arrays["M"], 2, 0))
    save_mat(write({}).with_name("again.mat"), sys)
    again = scipy.io.loadmat(write({}).with_name("again.mat"))
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key].reshape(array.shape), array)


@pytest.mark.parametrize("is_complex", [False, True])
def test_quadratic_outputs_are_stored_as_matrices(tmp_path, rng, is_complex):
    U, V = (rng.standard_normal((2, 3)) + 1j * is_complex for _ in "UV")
    W = rng.standard_normal((4, 2))
    A = np.diag([0.1, 0.2, 0.3])
    save_mat(tmp_path / "sys.mat", lqo.LQOSystem(A, np.ones((3, 1)), None, M=lqo.QuadraticOutput(U, V, W), dt=1.0))
    stored = scipy.io.loadmat(tmp_path / "sys.mat")["M"]
    assert stored.shape == (3, 3, 4)
    for x in rng.standard_normal((5, 3)):
        assert_close(np.einsum("a,abi,b->i", x, stored, x), W @ ((U @ x) * (V @ x)), 1e-13)
    np.testing.assert_array_equal(load_mat(tmp_path / "sys.mat").M, np.moveaxis(stored, 2, 0))


def test_a_diagonal_system_with_quadratic_output_is_stored(tmp_path):
    sys = get("diagonal discrete feedthrough")
    save_mat(tmp_path / "sys.mat", sys)
    u = np.random.default_rng(0).standard_normal((20, sys.n_inputs))
    assert_close(lqo.simulate(load_mat(tmp_path / "sys.mat"), u), lqo.simulate(sys, u), 1e-12)


@pytest.mark.parametrize("dt", [0, 0.1, True, 1])
def test_the_time_step(write, tmp_path, dt):
    path = write({"A": A, "B": B, "C": C})
    assert load_mat(path).dt == 0
    loaded = load_mat(path, dt=dt).dt
    assert loaded is True if dt is True else loaded == dt
    save_mat(tmp_path / "sys.mat", lqo.LQOSystem(A, B, C, dt=dt))
    loaded = load_mat(tmp_path / "sys.mat").dt
    assert loaded is True if dt is True else (loaded == dt and not isinstance(loaded, bool))
    assert scipy.io.loadmat(tmp_path / "sys.mat")["Ts"] == (-1 if dt is True else dt)


@pytest.mark.parametrize("name", ["Ts", "ts", "dt"])
def test_the_time_step_of_the_file(write, name):
    path = write({"A": A, "B": B, "C": C, name: 0.25})
    assert load_mat(path).dt == 0.25
    assert load_mat(path, dt=0).dt == 0
    path = write({"A": A, "B": B, "C": C, name: np.linspace(0, 1, 5)})
    with pytest.raises(InvalidInputError, match=rf"file.mat: {name} of the file is no time step.*argument dt"):
        load_mat(path)
    assert load_mat(path, dt=0.5).dt == 0.5


@pytest.mark.parametrize(
    "variables",
    [
        {"A": A, "B": B, "C": C},
        {"a": A, "b": B, "c": C, "m": 1.0, "n": 2, "M": A},
        {"A": scipy.sparse.csc_matrix(A), "B": scipy.sparse.csc_matrix(B), "C": scipy.sparse.csc_matrix(C)},
        {"A": A, "B": B, "C": C.astype(np.int8), "D": 0, "E": [], "m": "text", "x": np.array([1, "a"], dtype=object)},
        {"A": A, "B": B, "C": C, "E": np.eye(2), "D": np.zeros((0, 0))},
        {"A": 4 * A, "B": 2 * B, "C": 2 * C, "E": scipy.sparse.csc_matrix(4 * np.eye(2))},
        {"A": -2 * A, "B": -2 * B, "C": C, "E": -2 * np.eye(2)},
        {"sys": {"A": A, "B": B, "C": C, "name": "a name"}, "other": {"x": 1.0}},
        {"sys": {"a": scipy.sparse.csc_matrix(A), "b": B, "c": C, "Ts": 0.0}, "B": np.ones((5, 5))},
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_ways_to_write_one_system(write, variables, compressed):
    sys = load_mat(write(variables, do_compression=compressed))
    assert_same_matrices(sys, lqo.LQOSystem(A, B, C, dt=0))
    assert sys.M is None


def test_files_of_version_4_are_refused(write):
    with pytest.raises(InvalidInputError, match=r"file.mat: is no MATLAB file of version 5, 6 or 7"):
        load_mat(write({"A": A, "B": B, "C": C}, format="4"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16", "bool"])
def test_every_number_format_is_read_as_scipy_wrote_it(rng, dtype, compressed):
    shapes = {"x": (3, 5), "y": (2, 3, 4), "row": (1, 1), "long_name_of_a_variable": (4, 1)}
    variables = {name: (100 * rng.standard_normal(shape)).astype(float) for name, shape in shapes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        variables = {name: np.abs(array).astype(dtype) * (1 - 1j * dtype.startswith("c")) for name, array in variables.items()}
    read = read_mat5(stored(variables, do_compression=compressed), 2**20)
    assert read.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(read[name], array.real if not dtype.startswith("c") else array)
        assert read[name].shape == array.shape


def test_sparse_matrices_are_read_as_scipy_wrote_them(rng):
    real = scipy.sparse.random_array((7, 5), density=0.4, rng=rng, format="csc")
    variables = {"real": real, "complex": real * (1 + 2j), "empty": scipy.sparse.csc_array((3, 4)), "logical": real > 0.5}
    read = read_mat5(stored(variables), 2**20)
    for name, matrix in variables.items():
        np.testing.assert_array_equal(read[name].toarray(), matrix.toarray())


def test_a_big_endian_file_with_the_layout_of_the_specification():
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    flags = element(6, struct.pack(">II", 6, 0))  # class double
    name = struct.pack(">HH", 1, 1) + b"A\0\0\0"  # a small element
    matrix = flags + element(5, struct.pack(">ii", 2, 1)) + name + element(4, struct.pack(">HH", 7, 300))
    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, matrix)
    np.testing.assert_array_equal(read_mat5(content, 2**20)["A"], [[7.0], [300.0]])
    np.testing.assert_array_equal(scipy.io.loadmat(io.BytesIO(content))["A"], [[7.0], [300.0]])


def test_a_matlab_object_is_named_with_the_way_out(tmp_path):
    def element(kind, data):
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    opaque = element(6, struct.pack("<II", 17, 0)) + element(1, b"plant") + element(1, b"MCOS") + element(1, b"ss")
    path = tmp_path / "object.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element(14, opaque))
    with pytest.raises(InvalidInputError, match=r"object.mat: has no matrix A.*but plant; .*ssdata\(sys\)"):
        load_mat(path)


def test_one_quadratic_output_may_have_two_axes_and_then_c_may_be_missing(write):
    sys = load_mat(write({"A": A, "B": B, "M": np.diag([1.0, 3.0])}))
    np.testing.assert_array_equal(sys.M, [np.diag([1.0, 3.0])])
    np.testing.assert_array_equal(sys.C, np.zeros((1, 2)))
    with pytest.warns(SymmetrisedWarning):
        load_mat(write({"A": A, "B": B, "M": np.array([[0.0, 1.0], [0.0, 0.0]])}))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "has no matrix A.*but nothing"),
        ({"K": A, "B": B}, "has no matrix A.*but K, B"),
        ({"A": A, "C": C}, "has no matrix B"),
        ({"a": A, "B": B, "C": C}, "has no matrix b"),
        ({"A": A, "B": B}, "has no matrix C"),
        ({"A": np.zeros((0, 0)), "B": B, "C": C}, "has no matrix A, or an empty one"),
        ({"A": "text", "B": B, "C": C}, "A is text, expected a numeric matrix"),
        ({"A": np.array([[1, "a"]], dtype=object), "B": B, "C": C}, "A is a cell array, expected"),
        ({"A": {"x": 1}, "B": B, "C": C}, "A is a structure, expected"),
        ({"A": A, "B": B, "C": C, "D": {"x": 1}}, "D is a structure, expected"),
        ({"A": A, "B": [[np.nan], [1.0]], "C": C}, "B has 1 entries that are not finite"),
        ({"A": A, "B": B, "C": C, "E": [[np.inf, 0], [0, 1.0]]}, "E has 1 entries that are not finite"),
        ({"A": A, "B": B, "C": C, "E": np.diag([1.0, 0.0])}, "E is singular.*not supported"),
        ({"A": A, "B": B, "C": C, "Ts": -0.5}, "dt must be"),
        ({"A": A, "B": B, "C": C, "Ts": "x"}, "Ts of the file is no time step"),
        ({"s": {"A": A, "B": B, "C": C}, "t": {"A": A, "B": B, "C": C}}, "several systems, the structures s, t"),
        ({"s": {"A": A, "C": C}}, "has no matrix B"),
        ({"s": {"A": {"A": A}, "B": B, "C": C}}, "A is a structure, expected"),
    ],
)
def test_what_is_no_system_is_refused_with_the_name_of_the_file(write, variables, message):
    with pytest.raises(InvalidInputError, match=rf"^file.mat: .*{message}"):
        load_mat(write(variables))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"A": A, "B": B.T, "C": C}, r"B has shape \(1, 2\)"),
        ({"A": A, "B": B, "C": C, "E": np.eye(3)}, r"E has shape \(3, 3\)"),
        ({"A": A, "B": B, "C": C, "D": 1.0 * np.ones((2, 2))}, r"D has shape \(2, 2\)"),
        ({"A": A, "B": B, "C": C, "M": np.zeros((3, 2, 2))}, r"M has shape \(3, 2, 2\), expected \(n, n, p\)"),
        ({"A": A, "B": B, "C": C, "M": np.zeros((2, 2, 1, 2))}, r"M has shape \(2, 2, 1, 2\)"),
        ({"A": A, "B": B, "C": C, "M": np.zeros((2, 2, 3))}, r"M has shape \(3, 2, 2\)"),
    ],
)
def test_wrong_shapes_are_named(write, variables, message):
    with pytest.raises(DimensionError, match=f"^file.mat: {message}"):
        load_mat(write(variables))


def test_a_large_sparse_system_stays_sparse(write):
    n = 100_000
    A = -2.0 * scipy.sparse.eye_array(n, format="csc")
    path = write({"A": A, "B": scipy.sparse.csc_array(np.ones((n, 1))), "C": scipy.sparse.csc_array(np.ones((1, n)))})
    sys = load_mat(path)
    assert isinstance(sys, SparseLQOSystem) and sys.E is None and sys.M is None
    assert abs(sys.A - A).max() == 0 and sys.B.shape == (n, 1) and sys.C.shape == (1, n)
    energy = load_mat(write({"A": A, "B": np.ones((n, 1)), "E": 4 * A, "M": 3 * A, "Ts": 0.1}))
    assert abs(energy.E - 4 * A).max() == 0 and abs(energy.M[0] - 3 * A).max() == 0 and energy.dt == 0.1


def test_a_large_sparse_system_with_a_dense_quadratic_output(write):
    n = 4200
    row = scipy.sparse.csc_array(np.ones((1, n)))
    A, M = -scipy.sparse.eye_array(n, format="csc"), np.zeros((n, n))
    M[0, 0] = 2.0
    sys = load_mat(write({"A": A, "B": row.T, "C": row, "M": M}))
    assert (sys.M[0].nnz, sys.M[0][0, 0], sys.B.shape, sys.C.shape) == (1, 2.0, (n, 1), (1, n))
    with pytest.raises(DimensionError, match=r"M\[0\] has shape \(4200, 1\)"):
        load_mat(write({"A": A, "B": row.T, "C": row, "M": M[:, :1]}))


def test_files_of_version_73_are_refused_with_the_way_out(tmp_path):
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    for content in (header + bytes(384) + b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(1000)):
        path = tmp_path / "new.mat"
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"new.mat: is of version 7.3 \(HDF5\).*'-v7'"):
            load_mat(path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lqo_mor.io.system_checks.MAX_BYTES", 2**20)
    content = stored({"A": A, "B": B, "C": C})
    packed = zlib.compress(bytes(2**21))
    bomb = content + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    assert len(bomb) < 2**13
    (tmp_path / "bomb.mat").write_bytes(bomb)
    with pytest.raises(InvalidInputError, match=r"bomb.mat: unpacks to more than"):
        load_mat(tmp_path / "bomb.mat")
    (tmp_path / "large.mat").write_bytes(stored({"A": np.zeros((400, 400)), "B": B, "C": C}, do_compression=True))
    with pytest.raises(InvalidInputError, match=r"large.mat: unpacks to more than"):
        load_mat(tmp_path / "large.mat")


def test_a_sparse_matrix_with_indices_beyond_its_shape_is_refused(write):
    bad = scipy.sparse.csc_matrix(np.eye(2))
    bad.indices[1] = 1_000_000  # the conversion to an array would write there
    with pytest.raises(InvalidInputError, match=r"file.mat: is damaged.*sparse matrix 'A'"):
        load_mat(write({"A": bad, "B": B, "C": C}))


@pytest.mark.parametrize(
    ("starts", "rows"), [([0, 9, 1], [0]), ([0, 0, -1], [0]), ([1, 1, 1], [0]), ([0, 1], [0]), ([0, 1, 1], [-1])]
)
def test_a_sparse_matrix_with_wrong_columns_is_refused(starts, rows):
    def element(kind, numbers, form):
        data = struct.pack(f"<{len(numbers)}{form}", *numbers)
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = element(6, [5, 1], "I") + element(5, [2, 2], "i") + element(1, list(b"A"), "B")
    parts += element(5, rows, "i") + element(5, starts, "i") + element(9, [1.0] * len(rows), "d")
    matrix = struct.pack("<II", 14, len(parts)) + parts
    with pytest.raises(InvalidInputError, match="sparse matrix 'A'"):
        read_mat5(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + matrix, 2**20)


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_ends_in_our_error(tmp_path, rng, compressed):
    content = stored({"A": A, "B": scipy.sparse.csc_matrix(B), "C": C, "D": 0.0, "E": np.eye(2)}, do_compression=compressed)
    structure = stored({"s": {"A": A, "B": B, "C": C}}, do_compression=compressed)
    path = tmp_path / "damaged.mat"
    failures = 0
    for whole in (content, structure):
        for k in range(150):
            damaged = bytearray(whole)
            if k % 3:
                damaged[rng.integers(0 if k % 2 else 128, len(whole))] ^= 1 << rng.integers(8)
            else:
                damaged = damaged[: rng.integers(len(whole))]
            path.write_bytes(damaged)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load_mat(path)
            except InvalidInputError as err:
                failures += 1
                assert "damaged.mat" in str(err)
    assert failures > 100


def test_paths(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_mat(tmp_path / "none.mat")
    with pytest.raises(InvalidInputError, match="is not a file"):
        load_mat(tmp_path)
    with pytest.raises(InvalidInputError, match="got int"):
        load_mat(3)
    with pytest.raises(InvalidInputError, match=r"cannot be read|does not exist"):
        load_mat("a\0b")
    (tmp_path / "empty.mat").write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"empty.mat: is no MATLAB file"):
        load_mat(tmp_path / "empty.mat")


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    path = tmp_path / "sys.mat"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save_mat(path, random_system(0))
    assert path.read_text() == "mine"
    save_mat(path, random_system(0), overwrite=True)
    assert load_mat(path).order == 7
    with pytest.raises(InvalidInputError, match="got ndarray"):
        save_mat(tmp_path / "other.mat", np.eye(2))
    assert [p.name for p in tmp_path.iterdir()] == ["sys.mat"]
