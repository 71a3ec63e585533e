"""Wrong files and flags, as users give them: one line that names the culprit and the remedy, and nothing written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import Datum

from .conftest import GOLDEN, HTML, foreign, put

Fails = Callable[..., str]
TRAIN = ("train", "--solver=solver.prototxt")
FOREIGN = [
    *("missing", "empty", "folder", "png", "html", "zip", "text", "zeros"),
    *("prototxt", "caffemodel", "solverstate", "mean", "hdf5"),
]
#: what reads a file -> the file, the command line, what it takes besides its own kind
READERS = {
    "solver": ("solver.prototxt", TRAIN, ()),
    "net": ("net.prototxt", TRAIN, ("prototxt",)),
    "weights": ("w", (*TRAIN, "--weights=w"), ("caffemodel",)),
    "snapshot": ("w", (*TRAIN, "--snapshot=w"), ("solverstate",)),
    "test model": ("n", ("test", "--model=n", "--weights=w"), ("prototxt",)),
    "test weights": ("w", ("test", "--model=net.prototxt", "--weights=w"), ("caffemodel",)),
    "time": ("n", ("time", "--model=n"), ("prototxt",)),
    "pictures": ("test-images", ("convert_mnist_data", "test-images", "test-labels", "out"), ()),
    "labels": ("test-labels", ("convert_mnist_data", "test-images", "test-labels", "out"), ()),
    "list": ("list.txt", ("convert_imageset", "images/", "list.txt", "out"), ()),
    "database": ("train_lmdb", ("compute_image_mean", "train_lmdb", "out"), ()),
    "train database": ("train_lmdb", TRAIN, ()),
    "test database": ("test_lmdb", TRAIN, ()),
    "upgrade net": ("n", ("upgrade_net_proto_text", "n", "out"), ("prototxt",)),
    "upgrade weights": ("w", ("upgrade_net_proto_binary", "w", "out"), ("caffemodel",)),
    "upgrade solver": ("n", ("upgrade_solver_proto_text", "n", "out"), ()),
}


@pytest.mark.parametrize(
    ("reader", "kind"), [(r, k) for r, (_, _, takes) in READERS.items() for k in FOREIGN if k not in takes]
)
def test_a_foreign_file_is_named(folder: Path, fails: Fails, reader: str, kind: str) -> None:
    name, args, _ = READERS[reader]
    put(folder / name, foreign(folder)[kind])
    assert name in fails(*args)


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "folder", "png", "html", "text", "caffemodel", "solverstate", "hdf5"]
)
def test_a_foreign_mean_file_is_named(folder: Path, edit: Callable[..., None], fails: Fails, kind: str) -> None:
    put(folder / "m", foreign(folder)[kind])
    edit("net.prototxt", "crop_size: 24", 'crop_size: 24 mean_file: "m"')
    error = fails(*TRAIN)
    assert error.startswith("layer 'data', mean_file: ")
    assert "'m'" in error


@pytest.mark.parametrize(
    ("source", "name", "args"),
    [
        ("lenet/lenet_iter_10000.caffemodel", "w", (*TRAIN, "--weights=w")),
        ("lenet/lenet_iter_10000.solverstate", "w", (*TRAIN, "--snapshot=w")),
        ("tools/plain_mean.binaryproto", "m", TRAIN),
        ("mnist_tools/test-images", "test-images", READERS["pictures"][1]),
        ("mnist_tools/test-labels", "test-labels", READERS["labels"][1]),
        ("solvers/train_lmdb/data.mdb", "train_lmdb/data.mdb", TRAIN),
        ("solvers/train_lmdb/data.mdb", "train_lmdb/data.mdb", READERS["database"][1]),
    ],
)
@pytest.mark.parametrize("part", [0.002, 0.3, 0.95])
def test_a_truncated_file_is_named(
    folder: Path, edit: Callable[..., None], fails: Fails, source: str, name: str, args: tuple[str, ...], part: float
) -> None:
    if name == "m":
        edit("net.prototxt", "crop_size: 24", 'crop_size: 24 mean_file: "m"')
    data = (GOLDEN / source).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * part)])
    assert name.split("/")[0] in fails(*args)


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST*", "*.log"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_leveldb_that_lacks_something_is_named(folder: Path, fails: Fails, pattern: str, cut: bool) -> None:
    shutil.copytree(GOLDEN / "mnist_tools" / "train_leveldb", folder / "level")
    for path in (folder / "level").glob(pattern):
        data = path.read_bytes()
        path.unlink()
        if cut:
            path.write_bytes(data[: len(data) // 2])
    assert "'level'" in fails("compute_image_mean", "level", "out")


def picture(**fields: object) -> bytes:
    given: dict[str, Any] = {"channels": 1, "height": 28, "width": 28, "data": bytes(784), "label": 3, **fields}
    return Datum(**given).SerializeToString()


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\xff\xfe garbage", "the value is not a Datum"),
        (HTML, "the value is not a Datum"),
        (b"", "the datum holds 0"),
        (picture(data=bytes(700)), "expected 1 × 28 × 28 = 784 numbers, the datum holds 700"),
        (picture(height=-28, width=-28), "expected 1 × -28 × -28"),
        (picture(height=10**5, width=10**5), "the datum holds 784"),
        (picture(data=b"\x89PNG\r\n", encoded=True), "the encoded picture (6 bytes) is a broken PNG"),
        (picture(height=20, width=20, data=bytes(400)), "crop_size 24 is larger than record"),
        (picture(label=10), "label 10 of item {place} is past the 10 classes of 'ip1'; labels run from 0 to 9"),
        (picture(label=-1), "label -1 of item {place} is negative; labels run from 0 to 9"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_by_its_key(
    folder: Path, fails: Fails, place: int, value: bytes, words: str
) -> None:
    shutil.rmtree(folder / "train_lmdb")
    with open_writer(folder / "train_lmdb") as writer:
        for index in range(16):
            writer.put(b"%08d" % index, value if index == place else picture())
    error = fails(*TRAIN)
    assert words.format(place=place) in error
    assert f"record '{place:08d}'" in error
    assert "'data'" in error


def test_an_empty_database(folder: Path, fails: Fails) -> None:
    shutil.rmtree(folder / "train_lmdb")
    with open_writer(folder / "train_lmdb"):
        pass
    assert fails(*TRAIN) == "layer 'data': the database 'train_lmdb' holds no records; convert the data again"
    assert fails("compute_image_mean", "train_lmdb", "out").startswith("'train_lmdb': there are no records")


@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "html"])
def test_a_picture_of_a_list_is_named(folder: Path, fails: Fails, kind: str) -> None:
    (folder / "net.prototxt").write_text(
        """layer { name: "data" type: "ImageData" top: "data" top: "label"
             image_data_param { source: "list.txt" root_folder: "images/" batch_size: 4 new_height: 28 new_width: 28 } }
           layer { name: "loss" type: "EuclideanLoss" bottom: "label" bottom: "label" }"""
    )
    put(folder / "images/cat/02.png", foreign(folder)[kind])
    assert "'cat/02.png' ('list.txt', line 3), 'images/cat/02.png'" in fails(*TRAIN)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ("convert_imageset", "images/", "list.txt", "test_lmdb"),
            "'test_lmdb' exists; remove it or choose another name",
        ),
        (("convert_imageset", "images/", "list.txt", "net.prototxt"), "'net.prototxt' exists; remove it"),
        (
            ("convert_imageset", "images/", "list.txt", "no/db"),
            "cannot write 'no/db': No such file or directory; create the folder",
        ),
        (
            ("convert_imageset", "nope/", "list.txt", "db"),
            "none of the 10 pictures of 'list.txt' could be read below 'nope/'",
        ),
        (("convert_imageset", "--check_size", "images/", "list.txt", "db"), "list.txt:7: 'cat/06.png' has 35 × 56 × 3"),
        (
            ("convert_imageset", "--encode_type=jqg", "images/", "list.txt", "db"),
            "'cat/00.png' (line 1): cannot encode as 'jqg'",
        ),
        (
            (
                "convert_imageset",
                "--resize_width=2000000000",
                "--resize_height=2000000000",
                "images/",
                "list.txt",
                "db",
            ),
            "(line 1): no memory for 2000000000 × 2000000000 pixels; lower --resize_height",
        ),
        (("convert_mnist_data", "test-images", "test-labels", "test_lmdb"), "'test_lmdb' exists"),
        (("convert_mnist_data", "test-labels", "test-images", "db"), "'test-labels': expected an idx file of pictures"),
        (
            ("convert_mnist_data", "test-images", "test-labels", "net.prototxt/db"),
            "'net.prototxt' is no folder, name another",
        ),
        (("convert_mnist_data", "test-images", "test-labels", "/proc/db"), "cannot write '/proc/db': "),
        (("convert_cifar_data", "images", ".", "lmdb"), "'images/data_batch_1.bin': no such file; unpack"),
        (
            ("compute_image_mean", "train_lmdb", "no/mean"),
            "cannot write 'no/mean': No such file or directory; create the folder 'no'",
        ),
        (("compute_image_mean", "train_lmdb", "test_lmdb"), "cannot write 'test_lmdb': Is a directory"),
        (
            ("compute_image_mean", "--backend=leveldb", "train_lmdb"),
            "'train_lmdb' holds LMDB data, not LevelDB; set --backend=lmdb",
        ),
        (("upgrade_net_proto_text", "net.prototxt", "no/out"), "cannot write 'no/out'"),
    ],
)
def test_converters(fails: Fails, args: tuple[str, ...], words: str) -> None:
    assert words in fails(*args)


@pytest.mark.parametrize("name", ["cifar10_train_lmdb", "cifar10_test_lmdb"])
def test_cifar_databases_that_exist(folder: Path, fails: Fails, name: str) -> None:
    for batch in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        with (folder / batch).open("wb") as file:
            file.truncate(10000 * 3073)
    (folder / name).mkdir()
    assert fails("convert_cifar_data", ".", ".", "lmdb") == f"'{name}' exists; remove it or choose another folder"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("train",), "Missing option '--solver'"),
        ((*TRAIN, "--wieghts=w"), "No such option '--wieghts'. (Did you mean one of: '--class-weights', '--weights'?)"),
        ((*TRAIN, "--weights"), "Option '--weights' requires an argument"),
        (
            (*TRAIN, "--snapshot=a", "--weights=b"),
            "give --snapshot to resume training or --weights to start from, not both",
        ),
        ((*TRAIN, "--gpu=x"), "'x' is neither 'all' nor device numbers"),
        ((*TRAIN, "--gpu=0,,1"), "'0,,1' is neither 'all' nor device numbers"),
        ((*TRAIN, "--sigint_effect=halt"), "'halt' is not one of 'stop', 'snapshot', 'none'"),
        ((*TRAIN, "--level=high"), "'high' is not a valid integer"),
        ((*TRAIN, "more"), "unexpected extra argument (more)"),
        (("test", "--model=net.prototxt"), "Missing option '--weights'"),
        (("test", "--model=net.prototxt", "--weights=w", "--iterations=0"), "0 is not in the range x>=1"),
        (("time", "--model=net.prototxt", "--iterations=0"), "0 is not in the range x>=1"),
        (("time", "--model=net.prototxt", "--phase=FOO"), "'FOO' is not one of 'TRAIN', 'TEST'"),
        (
            ("convert_imageset", "--backend=sqlite", "images/", "list.txt", "db"),
            "'sqlite' is not one of 'lmdb', 'leveldb'",
        ),
        (("convert_imageset", "images/", "list.txt"), "Missing argument 'DB_NAME'"),
        (("compute_image_mean",), "Missing argument"),
    ],
)
def test_wrong_use(fails: Fails, args: tuple[str, ...], words: str) -> None:
    assert words in fails(*args, code=2)


@pytest.mark.parametrize("flag", ["--gpu=0", "--gpu=all"])
def test_a_gpu_where_there_is_none(fails: Fails, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = flag.replace("=", " ")
    assert fails(*TRAIN, flag) == f"{asked} asks for a GPU and there is none that PyTorch can use; run with --cpu"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ["solver.prototxt", "net.prototxt", "list.txt", "test-images"])
def test_files_without_permission(folder: Path, command: Callable[..., tuple[int, str]], name: str) -> None:
    args = next(args for file, args, _ in READERS.values() if file == name)
    (folder / name).chmod(0)
    code, error = command(*args)
    assert (code, error.splitlines()[-1].startswith(f"Error: cannot read {name!r}: Permission denied")) == (1, True)


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (("compute_image_mean", "train_lmdb", "out"), 2000),
        (("convert_mnist_data", "test-images", "test-labels", "out"), 60000),
        (("convert_mnist_data", "--backend=leveldb", "test-images", "test-labels", "out"), 60000),
        (("convert_imageset", "images/", "list.txt", "out"), 40000),
        (TRAIN, 4000),
    ],
)
def test_no_room_for_the_output(fails: Fails, args: tuple[str, ...], left: int) -> None:
    """A limit on file sizes does what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[0][1]))
    try:
        error = fails(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert error.startswith(f"cannot write '{'s_iter_2.caffemodel' if args is TRAIN else 'out'}': ")
