"""Several processes that train together, on the CPU by gloo."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.formats import caffemodel, log_file, solverstate
from caffecli.net import devices
from caffecli.proto.caffe_pb2 import Datum
from caffecli.solver.launch import launch
from caffecli.solver.monitor import WatchOptions
from caffecli.solver.parallel import World
from caffecli.spec import load
from caffecli.tools import train

Edit = Callable[[str, str, str], None]
CPU = torch.device("cpu")
at_once = pytest.mark.usefixtures("ranks_at_once")


@pytest.fixture
def no_dropout(run_folder: Path, edit: Edit) -> Path:
    """A run without what differs by process."""
    edit("net.prototxt", 'layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1" }\n', "")
    return run_folder


def train_on(count: int, options: train.TrainOptions | None = None) -> bool:
    """Train on ``count`` processes, as ``--gpu 0,1,...`` does."""
    options = options or train.TrainOptions(Path("solver.prototxt"))
    return launch(train.work, [CPU] * count, (options, load.load_solver(options.solver)))


def weights(path: str) -> list[np.ndarray]:
    return [blob for blobs in caffemodel.read(Path(path)).values() for blob in blobs]


def values(log: str) -> list[float]:
    """Losses and scores, in the order in which they are told."""
    return [float(v) for v in re.findall(r"(?:loss|accuracy) = ([-+.e\d]+)", log)]


def test_two_processes_equal_one_with_twice_the_batch(
    no_dropout: Path, edit: Edit, capfd: pytest.CaptureFixture[str]
) -> None:
    edit("net.prototxt", "batch_size: 16", "batch_size: 8")
    edit("solver.prototxt", "max_iter: 20", "max_iter: 20 clip_gradients: 0.5 iter_size: 2 average_loss: 3")
    handler = logs.show()
    try:
        assert train_on(2)
        two = capfd.readouterr().err
        many = weights("s_iter_20.caffemodel")
        where = json.loads(Path("s_iter_20.solverstate.json").read_text())
        edit("net.prototxt", "batch_size: 8", "batch_size: 16")
        assert train.train(train.TrainOptions(Path("solver.prototxt")))
        one = capfd.readouterr().err
    finally:
        logs.hide(handler)
    for ours, theirs in zip(many, weights("s_iter_20.caffemodel"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert len(values(one)) == 15
    np.testing.assert_allclose(values(two), values(one), rtol=1e-5)  # six digits are told
    alone = json.loads(Path("s_iter_20.solverstate.json").read_text())
    assert where["data"] == alone["data"]
    np.testing.assert_allclose(where["losses"]["smoothed"], alone["losses"]["smoothed"], atol=1e-5)
    pids = set(re.findall(r"^[IWE]\d{4} \S+ (\d+) ", two, re.MULTILINE))
    assert len(pids) == 1  # rank 0 alone logs
    assert two.count("Opened lmdb") == one.count("Opened lmdb") == 2


@at_once
def test_resume_on_another_number_of_processes(no_dropout: Path, edit: Edit) -> None:
    """One process, then two with half the batch each, then one again: the data's position counts the records of all."""
    edit("solver.prototxt", "max_iter: 20", "max_iter: 30")
    assert train.train(train.TrainOptions(Path("solver.prototxt")))
    expected, position = (
        weights("s_iter_30.caffemodel"),
        json.loads(Path("s_iter_30.solverstate.json").read_text())["data"],
    )
    for state in Path().glob("s_iter_[23]0.*"):
        state.unlink()
    edit("net.prototxt", "batch_size: 16", "batch_size: 8")
    edit("solver.prototxt", "max_iter: 30", "max_iter: 20")
    assert train_on(2, train.TrainOptions(Path("solver.prototxt"), Path("s_iter_10.solverstate")))
    edit("net.prototxt", "batch_size: 8", "batch_size: 16")
    edit("solver.prototxt", "max_iter: 20", "max_iter: 30")
    assert train.train(train.TrainOptions(Path("solver.prototxt"), Path("s_iter_20.solverstate")))
    assert json.loads(Path("s_iter_30.solverstate.json").read_text())["data"] == position
    for ours, theirs in zip(weights("s_iter_30.caffemodel"), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@at_once
def test_resume_goes_on_exactly_with_dropout(run_folder: Path, edit: Edit) -> None:
    assert train_on(2)
    whole = weights("s_iter_20.caffemodel")
    assert train_on(2, train.TrainOptions(Path("solver.prototxt"), Path("s_iter_10.solverstate")))
    for ours, theirs in zip(whole, weights("s_iter_20.caffemodel"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def when_training(act: Callable[[], None]) -> threading.Thread:
    """Call ``act`` once a snapshot is there."""

    def watch() -> None:
        end = time.monotonic() + 60
        while not list(Path().glob("s_iter_*.solverstate")) and time.monotonic() < end:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@at_once
@pytest.mark.parametrize("rank", [0, 1])
def test_all_end_when_one_is_killed(run_folder: Path, edit: Edit, rank: int) -> None:
    edit("solver.prototxt", "max_iter: 20", "max_iter: 1000000")

    def kill() -> None:
        (process,) = [p for p in multiprocessing.active_children() if p.name == f"rank {rank}"]
        process.kill()

    thread = when_training(kill)
    start = time.monotonic()
    with pytest.raises(SolverError, match=rf"^rank {rank} was ended by SIGKILL; resume from the last snapshot$"):
        train_on(2)
    thread.join()
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()
    last = max(Path().glob("s_iter_*.solverstate"), key=lambda p: p.stat().st_mtime)
    assert caffemodel.read(last.with_suffix(".caffemodel"))


@at_once
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_reaches_all(run_folder: Path, edit: Edit, name: str) -> None:
    edit("solver.prototxt", "max_iter: 20", "max_iter: 1000000")
    thread = when_training(lambda: os.kill(os.getpid(), signal.Signals[name]))
    assert train_on(2) is False
    thread.join()
    last = max(int(p.stem.split("_")[-1]) for p in Path().glob("s_iter_*.solverstate"))
    assert weights(f"s_iter_{last}.caffemodel")


def test_ctrl_c_before_the_processes_run(run_folder: Path) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        train_on(2)
    timer.join()
    assert not multiprocessing.active_children()


@at_once
def test_a_damaged_record_ends_all(run_folder: Path) -> None:
    with lmdb.open("train_lmdb") as environment, environment.begin(write=True) as records:
        key = [key for key, _ in records.cursor()][31]
        records.put(key, Datum(channels=1, height=28, width=28, data=b"xx").SerializeToString())
    with pytest.raises(
        SolverError, match=r"^rank 1: layer 'data', 'train_lmdb': record '00000031': expected 1 × 28 × 28"
    ):
        train_on(2)


@at_once
def test_output_files_are_refused(run_folder: Path, edit: Edit) -> None:
    output = """layer { name: "out" type: "HDF5Output" bottom: "ip1" bottom: "label" include { phase: TEST }
      hdf5_output_param { file_name: "o.h5" } }
    """
    edit("net.prototxt", 'layer { name: "accuracy"', output + 'layer { name: "accuracy"')
    with pytest.raises(
        SolverError, match=r"^rank [01]: layer 'out' \(HDF5Output\): writes one file, for one process: take it out"
    ):
        train_on(2)


@at_once
def test_statistics_of_rank_0_serve_all(run_folder: Path, edit: Edit) -> None:
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }\nlayer { name: "relu1"'
    edit("net.prototxt", 'layer { name: "relu1"', norm)
    edit("solver.prototxt", "display: 5", "display: 3")  # or a last look at a batch of training would change them
    with log_file.appending("trained"):
        assert train_on(2)
    with log_file.appending("resumed"):
        assert train.train(train.TrainOptions(Path("solver.prototxt"), Path("s_iter_20.solverstate")))  # only scores
    scores = [
        re.findall(r"Test net output #\d: .* = ([-+.e\d]+)", Path(name).read_text())[-2:]
        for name in ("trained", "resumed")
    ]
    np.testing.assert_allclose([float(v) for v in scores[0]], [float(v) for v in scores[1]], rtol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two CUDA devices")
def test_two_gpus_equal_one_with_twice_the_batch(no_dropout: Path, edit: Edit) -> None:
    edit("net.prototxt", "batch_size: 16", "batch_size: 8")
    assert train.train(train.TrainOptions(Path("solver.prototxt"), gpu="0,1"))
    two = weights("s_iter_20.caffemodel")
    edit("net.prototxt", "batch_size: 8", "batch_size: 16")
    assert train.train(train.TrainOptions(Path("solver.prototxt"), gpu="0"))
    for ours, theirs in zip(two, weights("s_iter_20.caffemodel"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@at_once
def test_an_error_names_its_rank(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_folder / "failing.py").write_text(
        "from caffecli.errors import SolverError\n"
        "from caffecli.solver.signals import Action\n"
        "def target(world, devices, job):\n"
        "    if world.rank == 1:\n"
        "        raise job('it is broken')\n"
        "    while True:\n"
        "        world.agreed(lambda: Action.NONE)()\n"
    )
    monkeypatch.syspath_prepend(str(run_folder))
    import failing  # type: ignore[import-not-found]

    with pytest.raises(SolverError, match=r"^rank 1: it is broken$"):
        launch(failing.target, [CPU, CPU], SolverError)
    with pytest.raises(SolverError, match=r"^rank 1: KeyError: 'it is broken'$"):
        launch(failing.target, [CPU, CPU], KeyError)


TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--standalone",
    "-m",
    "caffecli",
    "train",
]


def test_torchrun(no_dropout: Path, edit: Edit) -> None:
    edit("net.prototxt", "batch_size: 16", "batch_size: 8")
    done = subprocess.run(
        [*TORCHRUN, "--solver", "solver.prototxt"], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr.count("Optimization Done.") == 2  # solver.cpp's and caffe.cpp's, of rank 0 alone
    two = weights("s_iter_20.caffemodel")
    edit("net.prototxt", "batch_size: 8", "batch_size: 16")
    assert train.train(train.TrainOptions(Path("solver.prototxt")))
    for ours, theirs in zip(two, weights("s_iter_20.caffemodel"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_world_of_one_does_nothing() -> None:
    world = World()
    tensors = [torch.ones(2), torch.zeros(3)]
    world.average(tensors)
    world.share(tensors)
    assert tensors[0].tolist() == [1, 1] and world.gather("x") == ["x"] and world.portion(7) == (0, 7)
    assert world.agreed(len) is len  # type: ignore[arg-type,comparison-overlap]
    world.close()


@pytest.mark.parametrize(("count", "size"), [(7, 2), (1, 3), (6, 3), (2, 5)])
def test_portions_cover_a_test(count: int, size: int) -> None:
    portions = [World(rank, size).portion(count) for rank in range(size)]
    assert [i for first, end in portions for i in range(first, end)] == list(range(count))
    assert max(end - first for first, end in portions) <= -(-count // size)


def test_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [d.index for d in devices.choose_all("all", False)] == [0, 1, 2]
    assert [d.index for d in devices.choose_all("2,0", False)] == [2, 0]
    assert devices.choose_all("all", True) == devices.choose_all(None, False) == [CPU]
    with pytest.raises(SolverError, match="--gpu 1,1 names a GPU twice; name each once"):
        devices.choose_all("1,1", False)
    assert devices.choose("all", False).index == 0 and devices.choose("2,0", False).index == 2
    one = devices.choose_all("0", False)
    assert [devices.of_rank(one, rank).index for rank in range(3)] == [0, 1, 2]
    assert devices.of_rank(devices.choose_all("2,0", False), 1).index == 0
    with pytest.raises(
        SolverError, match="process 3 of this machine has no GPU: there are 3; lower --nproc-per-node, or --cpu"
    ):
        devices.of_rank(one, 3)


@at_once
def test_two_processes_decide_alike(no_dropout: Path, edit: Edit) -> None:
    edit("solver.prototxt", "test_interval: 10", "test_interval: 2")
    watch = WatchOptions("accuracy", early_stop=3, plateau=1, plateau_gamma=0.5, best=True)
    edit("solver.prototxt", "max_iter: 20", "max_iter: 400")
    with log_file.appending("log"):  # unlike decisions would hang, or fail
        assert not train_on(2, train.TrainOptions(Path("solver.prototxt"), watch=watch))
    stopped = re.findall(
        r"Iteration (\d+): accuracy was not better than \S+ of iteration (\d+) in 3 tests; stopping",
        Path("log").read_text(),
    )
    assert len(stopped) == 1
    end, best = stopped[0]
    assert solverstate.read(Path("s_best.solverstate")).iter == int(best) == int(end) - 6
    assert solverstate.read(Path(f"s_iter_{end}.solverstate")).iter == int(end)
