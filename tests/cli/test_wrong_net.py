"""Nets and solvers that cannot work: one line that names the layer, blob or field, and nothing written."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from caffecli.formats import mean
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import Datum

from .conftest import GOLDEN

Edit = Callable[..., None]
Fails = Callable[..., str]
TRAIN = ("train", "--solver=solver.prototxt")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "base_lr",
            "base_lrr",
            "solver.prototxt:2:52: unknown field 'base_lrr' in SolverParameter; did you mean 'base_lr'?",
        ),
        ("base_lr: 0.05", "base_lr: 0.05x", "solver.prototxt:2:61: expected a number, got 0.05x"),
        ("base_lr: 0.05", "base_lr: nan", "base_lr must be a finite number, got nan"),
        ('"fixed"', '"fixd"', "lr_policy: unknown policy 'fixd'; did you mean 'fixed'?"),
        ('"fixed"', '"step" gamma: 0.1', "lr_policy 'step': stepsize must be positive, got 0"),
        ('"fixed"', '"fixed" type: "SDG"', "solver type 'SDG' is not known; did you mean 'SGD'?"),
        ('"fixed"', '"fixed" solver_type: SGDD', "unknown value 'SGDD' for SolverType; did you mean 'SGD'?"),
        ("CPU", "CPUU", "unknown value 'CPUU' for SolverMode; did you mean 'CPU'?"),
        ("CPU", "7", "unknown value '7' for SolverMode; expected one of CPU (0), GPU (1)"),
        ("max_iter: 2", "max_iter: 2.5", "expected a whole number, got 2.5"),
        ("max_iter: 2", "iter_size: 0", "iter_size must be at least 1, got 0"),
        ("max_iter: 2", "average_loss: 0", "average_loss must be at least 1, got 0"),
        ("max_iter: 2", 'regularization_type: "L3"', "regularization_type: expected 'L1' or 'L2', got 'L3'"),
        ("max_iter: 2", "snapshot_format: HDF6", "unknown value 'HDF6' for SnapshotFormat; did you mean 'HDF5'?"),
        ("test_interval: 10", "", "test_interval must be positive when there are test nets"),
        ('net: "net.prototxt"', "", "exactly one of net, net_param, train_net, train_net_param; none is given"),
        ('net: "net.prototxt"', 'net: "none"', "cannot read 'none': No such file"),
        ('"s"', '"no/s"', "snapshot_prefix 'no/s': the folder 'no' does not exist; make it, or name another"),
        (
            '"s"',
            '"net.prototxt/s"',
            "snapshot_prefix 'net.prototxt/s': the folder 'net.prototxt' is a file; name a folder",
        ),
        ('"s"', '"/proc/s"', "snapshot_prefix '/proc/s': cannot write in '/proc': "),
        ('"s"', r'"a\000b"', "zero byte"),
        ("max_iter: 2", 'weights: "none"', "cannot read 'none': No such file"),
    ],
)
def test_solvers(edit: Edit, fails: Fails, old: str, new: str, words: str) -> None:
    edit("solver.prototxt", old, new)
    assert words in fails(*TRAIN)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "num_output: 6",
            "num_outputt: 6",
            "net.prototxt:9:23: unknown field 'num_outputt' in ConvolutionParameter; did you mean",
        ),
        ("num_output: 6", "", "layer 'conv1' (Convolution): num_output is missing; expected at least 1"),
        ("num_output: 10", "", "layer 'ip1' (InnerProduct): num_output is missing; expected at least 1"),
        (
            "num_output: 10",
            "num_output: 2000000000",
            "layer 'ip1' (InnerProduct): top 'ip1' of shape (16, 2000000000) has",
        ),
        ("kernel_size: 5", "kernel_size: 50", "layer 'conv1' (Convolution): kernel of [50, 50] does not fit"),
        ("stride: 2", "stride: 0", "layer 'conv1' (Convolution): expected stride of at least 1, got 0"),
        ("stride: 2", "group: 4", "layer 'conv1' (Convolution): group 4 must divide"),
        ('"xavier"', '"xaveir"', "layer 'conv1': unknown filler 'xaveir'; did you mean 'xavier'?"),
        ('"Convolution"', '"Convolutoin"', "layer 'conv1': unknown type 'Convolutoin'; did you mean 'Convolution'?"),
        ('"ReLU"', '"LRN" lrn_param { local_size: 4 }', "layer 'relu1' (LRN): expected an odd local_size, got 4"),
        ('"ReLU"', '"Dropout" dropout_param { dropout_ratio: 1 }', "(Dropout): expected 0 <= dropout_ratio < 1, got 1"),
        (
            '"ReLU"',
            '"Pooling" pooling_param { pool: MAXX }',
            "unknown value 'MAXX' for PoolMethod; did you mean 'MAX'?",
        ),
        (
            'bottom: "conv1" top: "ip1"',
            'bottom: "conv2" top: "ip1"',
            "unknown bottom blob 'conv2'; did you mean 'conv1'?",
        ),
        ('top: "conv1" param', 'top: "ip1" param', "layer 'relu1': unknown bottom blob 'conv1'"),
        ('top: "ip1"', 'top: "ip1" top: "ip1"', "layer 'ip1' (InnerProduct): expected 1 top blob(s), got 2"),
        (
            '"relu1" type: "ReLU" bottom: "conv1"',
            '"relu1" type: "ReLU" bottom: "data"',
            "top blob 'conv1' is already produced",
        ),
        ('name: "ip1"', 'name: "conv1"', "layer 'conv1' is defined twice"),
        (
            'bottom: "ip1" bottom: "label" top: "loss"',
            'bottom: "ip1" top: "loss"',
            "expected 2 to 3 bottom blob(s), got 1",
        ),
        (
            'bottom: "ip1" bottom: "label" top: "loss"',
            'bottom: "ip1" bottom: "data" top: "loss"',
            "got 9216: 'ip1' (16, 10), 'data' (16",
        ),
        ('type: "SoftmaxWithLoss"', 'type: "EuclideanLoss"', "got 'ip1' (16, 10), 'label' (16,)"),
        ("backend: LMDB", "backend: LMBD", "unknown value 'LMBD' for DB; did you mean 'LMDB'?"),
        (
            "backend: LMDB",
            "",
            "'train_lmdb' holds LMDB data, not LevelDB; set --backend=lmdb, or backend: LMDB in data_param",
        ),
        ('source: "train_lmdb"', "", "layer 'data': data_param names no database"),
        ("batch_size: 16", "batch_size: 0", "layer 'data': expected batch_size of at least 1, got 0"),
        (
            "batch_size: 16",
            "batch_size: 2000000000",
            "layer 'data' (Data): top 'data' of shape (2000000000, 1, 24, 24) has",
        ),
        (
            "crop_size: 24",
            "crop_size: 40",
            "layer 'data': crop_size 40 is larger than record '00000000', which is 28 × 28",
        ),
        (
            "crop_size: 24",
            "mean_value: 1 mean_value: 2",
            "layer 'data': expected one mean_value, or one for each of the 1 channel(s)",
        ),
        (
            "include { phase: TRAIN }",
            "include { phase: TRAINN }",
            "unknown value 'TRAINN' for Phase; did you mean 'TRAIN'?",
        ),
        (
            "include { phase: TRAIN }",
            "include {} exclude {}",
            "layer 'data': give include rules or exclude rules, not both",
        ),
        ("param { lr_mult: 2 }", "param {} param {}", "layer 'conv1' (Convolution): 3 param settings for 2 blob(s)"),
    ],
)
def test_nets(edit: Edit, fails: Fails, old: str, new: str, words: str) -> None:
    edit("net.prototxt", old, new)
    assert words in fails(*TRAIN)


def test_each_blob_that_does_not_fit_is_listed(fails: Fails) -> None:
    error = fails(*TRAIN, f"--weights={GOLDEN}/lenet/lenet_iter_10000.caffemodel")
    for words in (
        "'conv1', blob 0: expected (6, 1, 5, 5)",
        "'conv1', blob 1",
        "'ip1', blob 0: expected (10, 600)",
        "'ip1', blob 1",
    ):
        assert words in error
    assert error.endswith("rename the layer to train it afresh")
    error = fails(*TRAIN, f"--snapshot={GOLDEN}/lenet/lenet_iter_10000.solverstate")
    assert "has 8 history blobs, the SGD solver of this net keeps 4; resume with the net" in error


def test_each_history_blob_that_does_not_fit_is_listed(
    edit: Edit, fails: Fails, command: Callable[..., tuple[int, str]], folder: Path
) -> None:
    assert command(*TRAIN)[0] == 0
    edit("net.prototxt", "num_output: 6", "num_output: 7")
    error = fails(*TRAIN, "--snapshot=s_iter_2.solverstate")
    for words in (
        "blob 0: expected (7, 1, 5, 5), it has (6, 1, 5, 5)",
        "blob 1: expected (7,), it has (6,)",
        "blob 2: expected",
    ):
        assert words in error


def test_means(edit: Edit, fails: Fails, folder: Path) -> None:
    shutil.copy(GOLDEN / "tools" / "plain_mean.binaryproto", folder / "m")
    edit("net.prototxt", "crop_size: 24", 'crop_size: 24 mean_file: "m"')
    assert "mean_file 'm' is 3 × 40 × 48, record '00000000' is 1 × 28 × 28; compute the mean of this data" in fails(
        *TRAIN
    )
    edit("net.prototxt", 'mean_file: "m"', 'mean_file: "m" mean_value: 3')
    assert fails(*TRAIN) == "layer 'data': transform_param has both mean_file and mean_value; keep one"
    assert mean.read(folder / "m").shape == (3, 40, 48)


@pytest.mark.parametrize(
    "args", [TRAIN, ("test", "--model=net.prototxt", "--weights=w"), ("time", "--model=net.prototxt")]
)
def test_a_stage_that_leaves_no_layer(folder: Path, fails: Fails, args: tuple[str, ...]) -> None:
    (folder / "net.prototxt").write_text('name: "n" layer { name: "d" type: "Input" top: "d" include { stage: "y" } }')
    (folder / "w").touch()  # weights that are not there are told first
    phase = "TEST" if args[0] == "test" else "TRAIN"
    error = fails(*args, "--stage=x")
    assert error.startswith(
        f"net 'n': no layer is left for phase {phase}, level 0, stages ['x']; check --level, --stage"
    )
    (folder / "net.prototxt").write_text('name: "n"')
    assert fails(*args) == "net 'n' has no layers"


def test_labels_in_the_test_net_and_in_test(
    folder: Path, fails: Fails, command: Callable[..., tuple[int, str]]
) -> None:
    assert command(*TRAIN)[0] == 0
    shutil.rmtree(folder / "test_lmdb")
    with open_writer(folder / "test_lmdb") as writer:
        for index in range(24):
            datum = Datum(channels=1, height=28, width=28, data=bytes(784), label=12 if index == 7 else 1)
            writer.put(b"%08d" % index, datum.SerializeToString())
    for args in (TRAIN, ("test", "--model=net.prototxt", "--weights=s_iter_2.caffemodel", "--iterations=1")):
        error = fails(*args)
        assert "layer 'accuracy': label 12 of item 7 is past the 10 classes of 'ip1'" in error
        assert error.endswith("record '00000007' of layer 'data'")


def test_a_loss_that_turns_nan(edit: Edit, command: Callable[..., tuple[int, str]], folder: Path) -> None:
    edit(
        "solver.prototxt", "base_lr: 0.05", "base_lr: 1e20", "max_iter: 2", "max_iter: 9", "snapshot: 2", "snapshot: 1"
    )
    edit("solver.prototxt", "test_iter: 1 test_interval: 10", "")
    edit("net.prototxt", "num_output: 10", "num_output: 1", "SoftmaxWithLoss", "EuclideanLoss")
    code, error = command(*TRAIN)
    assert code == 1
    line = error.splitlines()[-1]
    assert line.startswith("Error: iteration 1: the loss is inf; ")
    assert (
        "first bad blob: layer 'ip1', top blob 'ip1'; the last snapshot is s_iter_1.solverstate; lower base_lr" in line
    )
    assert {path.name for path in folder.glob("s_iter_*")} == {
        "s_iter_1.caffemodel",
        "s_iter_1.solverstate",
        "s_iter_1.solverstate.json",
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('type: "SoftmaxWithLoss"', 'type: "Silence"', "has no loss: nothing is learned"),
        ("", "", "has no parameter of lr_mult > 0"),
    ],
)
def test_a_net_that_learns_nothing_runs_with_a_warning(
    edit: Edit, command: Callable[..., tuple[int, str]], old: str, new: str, words: str
) -> None:
    """As in the reference, which is silent about it."""
    if old:
        edit("net.prototxt", old, new, 'bottom: "label" top: "loss"', 'bottom: "label"')
    else:
        frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
        edit(
            "net.prototxt",
            "param { lr_mult: 1 } param { lr_mult: 2 }",
            frozen,
            "inner_product_param",
            frozen + " inner_product_param",
        )
    code, error = command(*TRAIN)
    assert code == 0
    assert words in error


def test_a_database_cut_short_while_it_is_read(edit: Edit, folder: Path) -> None:
    """A cut that falls between the look at the file's length and the reading ends in SIGBUS,
    for which LMDB has no hook.
    """
    edit(
        "solver.prototxt",
        "max_iter: 2",
        "max_iter: 1000000",
        "snapshot: 2",
        "snapshot: 0",
        "test_iter: 1 test_interval: 10",
        "",
    )
    database = folder / "train_lmdb" / "data.mdb"
    whole = database.read_bytes()
    for _ in range(5):
        database.write_bytes(whole)
        with subprocess.Popen([sys.executable, "-m", "caffecli", *TRAIN], stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            while "Starting Optimization" not in run.stderr.readline():
                assert run.poll() is None
            time.sleep(0.5)
            with database.open("r+b") as file:
                file.truncate(len(whole) // 2)
            error = run.stderr.read()
        if run.returncode != -signal.SIGBUS:
            break
    assert run.returncode == 1, error
    assert "'train_lmdb': the LMDB is cut short, data.mdb has" in error.splitlines()[-1]


def test_paths_are_relative_to_the_working_directory(
    folder: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert fails("train", "--solver=../solver.prototxt").startswith(
        "cannot read 'net.prototxt': No such file or directory"
    )
