"""Tasks on workers of joblib: processes of this machine, and a Dask cluster of two."""

import contextlib
import os
import re
import signal
import threading
from importlib.resources import files

import joblib
import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor import parallel
from lqo_mor.compression.compress import compress
from lqo_mor.errors import AccuracyWarning, InvalidInputError, OutputError, StabilityWarning
from tests.network.random_models import random_model
from tests.parallel import work
from tests.parallel.test_pieces import assert_same, assert_same_models


@contextlib.contextmanager
def dask_workers():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module", params=["loky", "dask"])
def workers(request):
    """Options of `joblib.parallel_config` for two workers."""
    if request.param == "loky":
        yield {"backend": "loky", "n_jobs": 2}
    else:
        with dask_workers():
            yield {"backend": "dask"}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(parallel, "_PIECE", 3)


@pytest.mark.parametrize("config", [{}, {"backend": "threading", "n_jobs": 2}, {"backend": "loky", "n_jobs": 1}])
def test_without_workers_it_is_done_here(config, tmp_path):
    calls = []
    with joblib.parallel_config(**config):
        found = parallel.run(work.square, [(k, tmp_path) for k in range(3)], lambda *call: calls.append(call))
        assert parallel.pieces(1000) == [slice(0, 1000)]
    assert found == [0, 1, 4]
    assert {pid for _, pid in work.done_by(tmp_path)} == {os.getpid()}
    assert calls == [(50, 300), (100, 300), (150, 300), (200, 300), (250, 300), (300, 300)]


def test_results_in_order_and_progress_in_this_process(workers, tmp_path):
    calls = []
    with joblib.parallel_config(**workers):
        found = parallel.run(
            work.square,
            [(k, tmp_path, 0.05) for k in range(9)],
            lambda *call: calls.append((*call, threading.current_thread() is threading.main_thread())),
        )
    assert found == [k * k for k in range(9)]
    assert calls == [(100 * k, 900, True) for k in range(1, 10)]
    assert os.getpid() not in {pid for _, pid in work.done_by(tmp_path)}


def test_an_error_of_a_task_says_where(workers):
    with joblib.parallel_config(**workers), pytest.raises(InvalidInputError, match="task 1 is not possible") as caught:
        parallel.run(work.refused, [(k,) for k in range(4)])
    assert "in refused" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_pickled_is_told(workers):
    with joblib.parallel_config(**workers), pytest.raises(parallel.WorkerError, match=r"LostError: task [01] is lost"):
        parallel.run(work.lost, [(k,) for k in range(2)])


def test_backends_that_cannot_tell_of_a_death_are_refused(tmp_path):
    with joblib.parallel_config("multiprocessing", n_jobs=2), pytest.raises(InvalidInputError, match="take 'loky' or 'dask'"):
        parallel.run(work.square, [(1, tmp_path)])


def test_warnings_come_through_once(workers):
    with joblib.parallel_config(**workers), pytest.warns(AccuracyWarning, match="a digit is lost") as told:
        assert parallel.run(work.inaccurate, [(k,) for k in range(4)]) == [0, 1, 2, 3]
    assert len(told) == 1
    assert told[0].filename == __file__


def test_an_interrupt_stops_the_work(workers, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with joblib.parallel_config(**workers), pytest.raises(KeyboardInterrupt):
        parallel.run(work.square, [(k, tmp_path, 0.05) for k in range(200)], stop)
    assert len(work.done_by(tmp_path)) < 50


def test_workers_do_not_take_more_threads_than_cores(workers):
    with joblib.parallel_config(**workers):
        counts = parallel.run(work.threads, [()] * 4)
    assert max(counts) <= max(1, joblib.cpu_count() // 2)


@pytest.mark.parametrize("method", ["optimal", "projected_gradient"])
def test_reductions_are_the_same(method, workers):
    sys, options = lqo.examples.s4d(n_slots=8, channels=10), {"slots": 3, "method": method, "max_iterations": 20}
    calls = []
    with joblib.parallel_config(**workers):
        spread = lqo.reduce(sys, **options, progress=lambda *call: calls.append(call))
    here = lqo.reduce(sys, **options)
    if method == "optimal":
        assert_same(spread, here)
    else:  # BLAS rounds the last bit by its number of threads, which is another one in workers
        for name in ("poles", "B", "C", "D"):
            np.testing.assert_allclose(getattr(spread.system, name), getattr(here.system, name), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(spread.error, here.error, rtol=1e-9)
    assert calls == [(2, 10), (5, 10), (7, 10), (10, 10)]


@pytest.mark.parametrize(("mimo", "calibrated"), [(False, True), (True, False)])
def test_compressed_models_are_the_same(mimo, calibrated, workers, rng):
    model = random_model(rng, width=4, slots=6, layers=3, mimo=mimo)
    options = {"calibration": np.cumsum(rng.normal(size=(10, 40, 2)), axis=1) * 0.3} if calibrated else {}
    with joblib.parallel_config(**workers):
        spread = compress(model, state_size=4, **options)
    assert_same_models(spread, compress(model, state_size=4, **options))


def test_repairs_on_workers_are_told_once(workers):
    model = lqo.load_checkpoint(str(files("lqo_mor") / "data" / "demo_digits.safetensors"))
    with joblib.parallel_config(**workers), pytest.warns(StabilityWarning, match="of 144 reduced systems") as told:
        compress(model, state_size=8, method="balanced", horizon=64)
    assert len(told) == 1


def test_a_worker_that_dies_is_no_harm(workers, tmp_path):
    killed = []

    def kill(done, total):
        if not killed:
            killed.append(work.done_by(tmp_path)[-1][1])
            os.kill(killed[0], signal.SIGKILL)

    with joblib.parallel_config(**workers):
        found = parallel.run(work.square, [(k, tmp_path, 0.2) for k in range(8)], kill)
    assert found == [k * k for k in range(8)]
    assert len(work.done_by(tmp_path)) > 8  # what died was begun again


@pytest.mark.slow
def test_a_layer_survives_the_death_of_a_worker():
    sys = lqo.examples.s4d(n_slots=16, channels=30)
    with dask_workers() as client, joblib.parallel_config("dask"):
        pids = list(client.run(os.getpid).values())
        spread = lqo.reduce(sys, slots=6, progress=lambda done, total: pids and os.kill(pids.pop(), signal.SIGKILL))
    assert not pids  # both were killed, one after the other
    assert_same(spread, lqo.reduce(sys, slots=6))


@pytest.mark.slow
def test_a_task_that_kills_every_worker_ends_the_run_and_the_rest_is_kept(tmp_path):
    tasks = [(k, tmp_path) for k in range(6)]
    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(parallel.WorkerError, match="broke down") as caught:
        parallel.run(work.fatal, tasks)
    finished, total = map(int, re.search(r"(\d+) of (\d+) tasks", str(caught.value)).groups())
    assert 0 < finished < total == 6


@pytest.mark.parametrize("named", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_cluster_without_workers(named, tmp_path):
    begun, tasks = tmp_path / "begun", [(k, tmp_path / "begun", 0.1) for k in range(20)]
    begun.mkdir()
    calls = []
    with dask_workers() as client, joblib.parallel_config("dask", wait_for_workers_timeout=1):

        def shrink(done, total):
            calls.append(done)
            if done == 300:
                client.cluster.scale(0)

        keep = parallel.kept(tmp_path / "kept") if named else contextlib.nullcontext()
        with keep, pytest.raises(parallel.WorkerError, match="no worker for 1 seconds") as caught:
            parallel.run(work.square, tasks, shrink)
        with pytest.raises(parallel.WorkerError, match="0 of 1 tasks"):
            parallel.run(work.square, [(30, begun)])
    folder, finished = re.search(r"kept\('(.*)'\)", str(caught.value)).group(1), calls[-1] // 100
    assert (folder == str(tmp_path / "kept")) is named
    assert f"{finished} of 20 tasks are finished" in str(caught.value)
    before = len(work.done_by(begun))
    with parallel.kept(folder):  # in this process now
        assert parallel.run(work.square, tasks) == [k * k for k in range(20)]
    assert len(work.done_by(begun)) == before + 20 - finished


@pytest.mark.slow
def test_a_scheduler_that_goes(tmp_path):
    with dask_workers() as client, joblib.parallel_config("dask", wait_for_workers_timeout=1):

        def close(done, total):
            if done == 100:
                client.cluster.close()

        with pytest.raises(parallel.WorkerError, match="tasks are finished; run the same again"):
            parallel.run(work.square, [(k, tmp_path, 0.1) for k in range(20)], close)


def test_what_is_kept_is_not_done_again(tmp_path):
    tasks, begun = [(k, tmp_path / "begun") for k in range(5)], tmp_path / "begun"
    begun.mkdir()
    for tries in range(1, 3):
        with parallel.kept(tmp_path / "kept"):
            assert parallel.run(work.square, tasks[: 3 * tries]) == [k * k for k in range(5)][: 3 * tries]
        assert len(work.done_by(begun)) == [3, 5][tries - 1]
    assert parallel.run(work.square, tasks) == [k * k for k in range(5)]  # outside of the folder
    assert len(work.done_by(begun)) == 10


def test_a_damaged_result_is_done_again(tmp_path):
    tasks = ((k, tmp_path) for k in range(3))  # once only, as of a generator
    with parallel.kept(tmp_path / "kept"):
        assert parallel.run(work.square, tasks) == [0, 1, 4]
        for damage, file in zip((b"", b"no pickle"), (tmp_path / "kept").iterdir(), strict=False):
            file.write_bytes(damage)
        assert parallel.run(work.square, [(k, tmp_path) for k in range(3)]) == [0, 1, 4]
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_folder_that_is_gone(tmp_path):
    with parallel.kept(tmp_path / "kept"), pytest.raises(OutputError, match="cannot be kept in"):
        (tmp_path / "kept").rmdir()
        parallel.run(work.square, [(1, tmp_path)])


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="name another"), parallel.kept(tmp_path / "file"):
        pass
