"""The scripts of Caffe's tutorials, on small data: from files to databases, to a trained net, to a resumed one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.formats import datum, db, mean

IDX = {
    "train-images-idx3": "train-images",
    "train-labels-idx1": "train-labels",
    "t10k-images-idx3": "test-images",
    "t10k-labels-idx1": "test-labels",
}


def records(path: Path) -> list[tuple[bytes, bytes]]:
    reader = db.open_reader(path, None)
    try:
        return list(reader)
    finally:
        reader.close()


def set_solver(path: Path, **settings: object) -> None:
    """Change settings in a solver file of the copy."""
    text = path.read_text()
    for key, value in settings.items():
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.MULTILINE)
    path.write_text(text)


def shrink_batches(path: Path) -> None:
    """Give a net of the copy batches of four."""
    path.write_text(re.sub(r"batch_size: \d+", "batch_size: 4", path.read_text()))


def draw(folder: Path, names: list[str], size: tuple[int, int] = (32, 32)) -> None:
    """Pictures of noise under the given names."""
    rng = np.random.default_rng(len(names))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def mnist(repository, golden) -> Path:
    """The idx files of the recorded answers, under MNIST's names."""
    folder = repository / "data/mnist"
    for name, recorded in IDX.items():
        shutil.copy(golden / "mnist_tools" / recorded, folder / f"{name}-ubyte")
    return folder


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_create_mnist_makes_the_databases_that_caffe_makes(mnist, script, golden, backend):
    for _ in range(2):  # the second time over the first one's databases
        done = script("scripts/create_mnist.sh", BACKEND=backend)
        assert done.returncode == 0, done.stderr
    for part in ("train", "test"):
        assert records(mnist / f"mnist_{part}_{backend}") == records(golden / "mnist_tools" / f"{part}_{backend}")
    assert "Next: scripts/train_lenet.sh" in done.stdout


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        (
            "create_mnist",
            (),
            "data/mnist/train-images-idx3-ubyte is missing or empty; run data/mnist/get_mnist.sh first",
        ),
        (
            "create_cifar10",
            (),
            "data/cifar10/data_batch_1.bin is missing or empty; run data/cifar10/get_cifar10.sh first",
        ),
        ("create_cifar10", (".",), ". has no folders train and test"),
        ("create_imagenet", (), "expected the folders of the pictures"),
        (
            "create_imagenet",
            ("absent", "."),
            "absent is not a folder; expected the one that holds the training pictures",
        ),
        (
            "create_imagenet",
            (".", "."),
            "data/ilsvrc12/train.txt is missing or empty; run data/ilsvrc12/get_ilsvrc_aux.sh first",
        ),
        ("make_imagenet_mean", (), "ilsvrc12_train_lmdb is missing or empty; run scripts/create_imagenet.sh first"),
        (
            "train_lenet",
            (),
            "mnist_train_lmdb is missing or empty; run data/mnist/get_mnist.sh and scripts/create_mnist.sh first",
        ),
        (
            "train_quick",
            (),
            "cifar10_train_lmdb is missing or empty; run data/cifar10/get_cifar10.sh and scripts/create_cifar10.sh",
        ),
        (
            "train_full",
            (),
            "cifar10_train_lmdb is missing or empty; run data/cifar10/get_cifar10.sh and scripts/create_cifar10.sh",
        ),
        ("train_caffenet", (), "ilsvrc12_train_lmdb is missing or empty; run scripts/create_imagenet.sh first"),
        (
            "resume_training",
            (),
            "no snapshot models/bvlc_reference_caffenet/caffenet_train_iter_N.solverstate is there; start with",
        ),
        ("resume_training", ("absent.prototxt",), "absent.prototxt is missing or empty; expected a solver file"),
    ],
)
def test_what_is_missing_is_named_with_the_remedy(script, name, args, said):
    done = script(f"scripts/{name}.sh", *args)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}.sh: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_caffecli_that_cannot_be_run_is_named(script):
    done = script("scripts/create_mnist.sh", CAFFECLI="absent-caffecli")
    assert done.returncode == 1
    assert "CAFFECLI=absent-caffecli cannot be run" in done.stderr


def test_scripts_find_the_caffecli_of_their_own_environment(repository, script, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("basename", "bash", "dirname", "rm"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = script("scripts/create_mnist.sh", CAFFECLI="", PATH=str(tools))
    assert "caffecli is not installed; run 'make -C " in done.stderr

    own = repository / ".venv/bin/caffecli"
    own.parent.mkdir(parents=True)
    own.write_text('#!/usr/bin/env bash\necho "own: $*"\n')
    own.chmod(0o755)
    for name in IDX:
        (repository / f"data/mnist/{name}-ubyte").write_text("x")
    done = script("scripts/create_mnist.sh", CAFFECLI="", PATH=str(tools))
    assert done.returncode == 0, done.stderr
    assert "own: convert_mnist_data data/mnist/train-images-idx3-ubyte" in done.stdout


@pytest.fixture
def cifar10(repository, script, tmp_path) -> Path:
    """Databases and mean of a few pictures in ten folders, made by create_cifar10.sh."""
    pictures = tmp_path / "my pictures"
    draw(pictures / "train", [f"class {i}/{j}.png" for i in range(10) for j in range(4)])
    draw(pictures / "test", [f"class {i}/{j}.png" for i in range(10) for j in range(2)])
    done = script("scripts/create_cifar10.sh", "../my pictures")
    assert done.returncode == 0, done.stderr
    return repository / "data/cifar10"


def test_create_cifar10_takes_folders_of_pictures(cifar10, script, tmp_path):
    listed = (cifar10 / "train.txt").read_text().splitlines()
    assert listed == [f"class {i}/{j}.png {i}" for i in range(10) for j in range(4)]
    stored = records(cifar10 / "cifar10_train_lmdb")
    names = [key.decode().partition("_")[2] for key, _ in stored]
    assert sorted(names) == sorted(line.rpartition(" ")[0] for line in listed)
    assert names != sorted(names), "the training pictures are shuffled"
    arrays = [datum.to_array(datum.decode(value)) for _, value in stored]
    np.testing.assert_allclose(mean.read(cifar10 / "mean.binaryproto"), np.mean(arrays, axis=0), rtol=1e-5)
    tested = records(cifar10 / "cifar10_test_lmdb")
    assert [datum.decode(value).label for _, value in tested] == [i for i in range(10) for _ in range(2)]

    again = script("scripts/create_cifar10.sh", tmp_path / "my pictures", "--gray")
    assert again.returncode == 0, again.stderr
    assert mean.read(cifar10 / "mean.binaryproto").shape == (1, 32, 32)


@pytest.mark.slow
def test_create_cifar10_takes_the_binary_files(repository, script):
    folder = repository / "data/cifar10"
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for name in names:
        batch = rng.integers(0, 10, (10000, 3073), dtype=np.uint8)
        batch.tofile(folder / name)
    done = script("scripts/create_cifar10.sh")
    assert done.returncode == 0, done.stderr
    stored = records(folder / "cifar10_test_lmdb")
    assert len(stored) == 10000
    assert len(records(folder / "cifar10_train_lmdb")) == 50000
    last = datum.decode(stored[-1][1])
    assert (last.label, last.data) == (int(batch[-1, 0]), batch[-1, 1:].tobytes())
    assert mean.read(folder / "mean.binaryproto").shape == (3, 32, 32)


def test_create_imagenet_makes_databases_once(repository, script, tmp_path):
    folder = repository / "data/ilsvrc12"
    names = [f"n0{i}/n0{i}_{j}.JPEG" for i in range(2) for j in range(3)]
    draw(tmp_path / "train", names, (20, 30))
    draw(tmp_path / "val", ["val_1.JPEG", "val_2.JPEG"], (30, 20))
    (folder / "train.txt").write_text("".join(f"{name} {name[2]}\n" for name in names))
    (folder / "val.txt").write_text("val_1.JPEG 0\nval_2.JPEG 1\n")
    done = script("scripts/create_imagenet.sh", "../train", tmp_path / "val", "--encoded", "--encode_type=jpg")
    assert done.returncode == 0, done.stderr
    stored = [datum.decode(value) for _, value in records(folder / "ilsvrc12_train_lmdb")]
    assert sorted(d.label for d in stored) == [0, 0, 0, 1, 1, 1]
    assert {datum.to_array(d).shape for d in stored} == {(3, 256, 256)}
    assert len(records(folder / "ilsvrc12_val_lmdb")) == 2

    again = script("scripts/create_imagenet.sh", "../train", tmp_path / "val")
    assert again.returncode == 1
    assert "data/ilsvrc12/ilsvrc12_train_lmdb is there already; remove it to make it anew" in again.stderr

    done = script("scripts/make_imagenet_mean.sh")
    assert done.returncode == 0, done.stderr
    assert mean.read(folder / "imagenet_mean.binaryproto").shape == (3, 256, 256)


def test_lenet_is_trained_and_resumed_from_its_newest_snapshot(mnist, repository, script):
    model = repository / "models/lenet"
    assert script("scripts/create_mnist.sh").returncode == 0
    shrink_batches(model / "train_val.prototxt")
    set_solver(model / "solver.prototxt", max_iter=4, snapshot=2, test_iter=1, display=1)
    done = script("scripts/train_lenet.sh", "--cpu")
    assert done.returncode == 0, done.stderr
    assert "Optimization Done." in done.stderr
    assert (model / "lenet_iter_4.caffemodel").is_file()

    set_solver(model / "solver.prototxt", max_iter=6)
    done = script("scripts/resume_training.sh", "models/lenet/solver.prototxt", "--cpu")
    assert done.returncode == 0, done.stderr
    assert "--snapshot=models/lenet/lenet_iter_4.solverstate" in done.stdout
    assert (model / "lenet_iter_6.caffemodel").is_file()


def test_cifar10_quick_goes_through_its_two_stages(cifar10, repository, script):
    model = repository / "models/cifar10_quick"
    shrink_batches(model / "train_val.prototxt")
    set_solver(model / "solver.prototxt", max_iter=2, snapshot=2, test_iter=1, display=1)
    set_solver(model / "solver_lr1.prototxt", max_iter=3, snapshot=3, test_iter=1, display=1)
    path = repository / "scripts/train_quick.sh"
    path.write_text(path.read_text().replace("_iter_4000", "_iter_2"))
    done = script("scripts/train_quick.sh")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"Iteration (\d+), lr = (\S+)", done.stderr) == [("0", "0.001"), ("1", "0.001"), ("2", "0.0001")]
    assert (model / "cifar10_quick_iter_3.caffemodel.h5").is_file()

    # a first stage that was stopped does not go on from an earlier run's snapshot
    set_solver(model / "solver.prototxt", max_iter=1)
    done = script("scripts/train_quick.sh")
    assert done.returncode == 1
    assert "cifar10_quick_iter_2.solverstate is of an earlier run; the first stage was stopped" in done.stderr
