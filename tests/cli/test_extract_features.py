"""extract_features: the records are the reference's (its log: test_logs.py), and what is ours beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffecli.formats import db
from caffecli.proto.caffe_pb2 import Datum

GOLDEN = Path(__file__).parents[1] / "golden" / "tools"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def features(folder: Path) -> Path:
    """The working directory of the recorded runs."""
    for name in ("feat.prototxt", "feat.caffemodel"):
        shutil.copy(GOLDEN / name, folder)
    shutil.copytree(GOLDEN / "resized_lmdb", folder / "resized_lmdb")
    return folder


def extract(command: Command, *args: str, code: int = 0) -> str:
    came, err = command("extract_features", "feat.caffemodel", "feat.prototxt", *args)
    assert came == code, err
    return err


def records(path: Path | str) -> list[tuple[bytes, Datum]]:
    with db.open_reader(path) as reader:
        return [(key, Datum.FromString(value)) for key, value in reader]


def same_records(ours: Path | str, theirs: Path) -> None:
    mine, other = records(ours), records(theirs)
    assert [key for key, _ in mine] == [key for key, _ in other]
    for (_, a), (_, b) in zip(mine, other, strict=True):
        assert np.allclose(a.float_data, b.float_data, rtol=0, atol=1e-5)
        a.ClearField("float_data")
        b.ClearField("float_data")
        assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)


def test_records_of_two_blobs_are_the_references(features: Path, command: Command) -> None:
    extract(command, "conv,ip", "features_conv_lmdb,features_ip_lmdb", "3", "lmdb")
    for name in ("features_conv_lmdb", "features_ip_lmdb"):
        same_records(name, GOLDEN / name)


def test_records_on_a_named_cpu_are_the_references(features: Path, command: Command) -> None:
    extract(command, "ip", "features_ip_leveldb", "3", "leveldb", "CPU")
    same_records("features_ip_leveldb", GOLDEN / "features_ip_leveldb")


def test_a_thousand_records_are_told_of(features: Path, command: Command) -> None:
    err = extract(command, "label", "labels", "501", "lmdb")
    said = [line.partition("] ")[2] for line in err.splitlines() if "Extracted features" in line]
    numbers = (1000, 2000, 2004)
    assert said == [f"Extracted features of {n} query images for feature blob label" for n in numbers]
    found = records("labels")
    assert (found[-1][0], len(found)) == (b"0000002003", 2004)
    assert (found[0][1].channels, found[0][1].height, found[0][1].width) == (1, 1, 1)


def picture_keys() -> list[str]:
    return [key.decode() for key, _ in records(GOLDEN / "resized_lmdb")]


def test_all_takes_each_record_once(features: Path, command: Command) -> None:
    count = len(picture_keys())
    assert count % 4  # the last batch goes on with the first records
    extract(command, "--all", "conv,ip", "conv_db,ip_db", "lmdb")
    assert [len(records(name)) for name in ("conv_db", "ip_db")] == [count] * 2
    assert records("ip_db")[0][0] == b"0000000000"


@pytest.mark.parametrize("how", ["--all", "2"])
def test_hdf5_holds_the_rows_and_keys(features: Path, command: Command, how: str) -> None:
    extract(command, "conv,ip", "conv.h5,ip.h5", how, "hdf5")
    extract(command, "conv", "conv_db", how, "lmdb")
    keys = picture_keys()[: None if how == "--all" else 8]
    with h5py.File("ip.h5") as file:
        assert file["ip"].shape == (len(keys), 5)
    with h5py.File("conv.h5") as file:
        assert [key.decode() for key in file["key"]] == keys
        rows = np.array([row.float_data for _, row in records("conv_db")]).reshape(-1, 4, 6, 7)
        assert np.array_equal(file["conv"], rows)


@pytest.mark.parametrize("how", ["--all", "2"])
def test_npy_holds_the_rows_with_the_keys_beside(features: Path, command: Command, how: str) -> None:
    extract(command, "label,ip", "label.npy,ip", how, "npy")
    keys = picture_keys()[: None if how == "--all" else 8]
    assert np.load("ip").shape == (len(keys), 5)
    assert np.load("ip.keys.npy").tolist() == np.load("label.keys.npy").tolist() == keys
    with db.open_reader("resized_lmdb") as reader:
        labels = [Datum.FromString(value).label for _, value in reader]
    assert np.load("label.npy").tolist() == labels[: len(keys)]


IMAGES = """
layer { name: "data" type: "ImageData" top: "data" top: "label"
  image_data_param { source: "list.txt" root_folder: "images/" batch_size: 3
    shuffle: true new_height: 20 new_width: 20 } }
"""
ROWS = """
layer { name: "data" type: "HDF5Data" top: "data" hdf5_data_param { source: "rows.txt" batch_size: 3 } }
"""


def test_all_with_pictures_of_a_shuffled_list(features: Path, command: Command) -> None:
    Path("feat.prototxt").write_text(IMAGES)
    extract(command, "--all", "label", "label.npy", "npy")
    listed = dict(line.split() for line in Path("list.txt").read_text().splitlines())
    keys, labels = np.load("label.keys.npy").tolist(), np.load("label.npy").tolist()
    assert sorted(keys) == sorted(listed)
    assert labels == [float(listed[key]) for key in keys]


def test_all_with_rows_of_several_files(features: Path, command: Command) -> None:
    for name, start in (("a.h5", 0), ("b.h5", 5)):
        with h5py.File(name, "w") as file:
            file["data"] = np.arange(start, start + 5, dtype=np.float32)
    Path("rows.txt").write_text("a.h5\nb.h5\n")
    Path("feat.prototxt").write_text(ROWS)
    extract(command, "--all", "data", "data.npy", "npy")
    assert np.load("data.npy").tolist() == list(range(10))
    assert np.load("data.keys.npy")[[0, -1]].tolist() == ["a.h5:0", "b.h5:4"]


def test_a_blob_without_records_gets_numbers_for_keys(features: Path, command: Command) -> None:
    Path("feat.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 dim: 3 } } }'
    )
    extract(command, "d", "d.npy", "2", "npy")
    assert np.load("d.npy").shape == (4, 3)
    assert np.load("d.keys.npy").tolist() == [f"{i:010d}" for i in range(4)]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("conv,ip", "one", "3", "lmdb"), "2 blobs (conv,ip) and 1 outputs (one); give one for each"),
        (("conv,ip", "a,a", "3", "lmdb"), "no output come twice"),
        (("conv,", "a,b", "3", "lmdb"), "must say something"),
        (("ip", "out", "3", "sqlite"), "'sqlite' is none of lmdb, leveldb, hdf5, npy"),
        (("ip", "out", "three", "lmdb"), "'three' is no number of batches"),
        (("ip", "out", "0", "lmdb"), "'0' is no number of batches of at least 1; or say --all"),
        (("ip", "out"), "NUM_BATCHES '' is no number"),
        (("--all", "ip", "out", "3", "lmdb"), "--all takes the place of NUM_BATCHES"),
        (("ip", "out", "3", "lmdb", "TPU"), "'TPU' is neither CPU nor GPU"),
        (("ip", "out", "3", "lmdb", "GPU", "first"), "expected the number of a GPU last, got 'first'"),
        (("ip", "out", "3", "lmdb", "CPU", "0", "1"), "got '0 1'"),
    ],
)
def test_wrong_use_is_named(features: Path, fails: Callable[..., str], args: tuple[str, ...], words: str) -> None:
    assert words in fails("extract_features", "feat.caffemodel", "feat.prototxt", *args, code=2)


@pytest.mark.parametrize(
    ("net", "args", "words"),
    [
        ("", ("pi", "out", "3", "lmdb"), "net 'feat' has no blob 'pi'; did you mean 'ip'?"),
        ("", ("ip", "resized_lmdb", "3", "lmdb"), "'resized_lmdb' exists; remove it or choose another name"),
        ("", ("ip,conv", "out,list.txt", "3", "hdf5"), "'list.txt' exists"),
        ("", ("ip", "no/out", "3", "npy"), "cannot write 'no/out.keys.npy'"),
        ("", ("ip", "no/out", "3", "hdf5"), "cannot write 'no/out'"),
        (
            'layer { name: "r" type: "Reshape" bottom: "ip" top: "r" '
            "reshape_param { shape { dim: 1 dim: 1 dim: 1 dim: 1 dim: -1 } } }",
            ("r", "out", "1", "lmdb"),
            "blob 'r' has 5 axes, (1, 1, 1, 1, 20); a datum holds channels, height and width: write hdf5 or npy",
        ),
        (
            'layer { name: "s" type: "Reduction" bottom: "ip" top: "s" }',
            ("--all", "s", "out", "npy"),
            "blob 's' of shape () has no row for each of the 4 records of a batch; leave --all",
        ),
        (
            'layer { name: "key" type: "ReLU" bottom: "ip" top: "key" }',
            ("key", "out", "1", "hdf5"),
            "blob 'key' has the name",
        ),
        (
            'layer { name: "i" type: "ImageData" top: "i" top: "j" '
            'image_data_param { source: "one.txt" root_folder: "images/" } }',
            ("--all", "ip", "out", "npy"),
            "expects one count of records, and of those a batch, for all layers, got 'data' 10 by 4, 'i' 1 by 1",
        ),
    ],
)
def test_what_cannot_be_is_named(
    features: Path, fails: Callable[..., str], net: str, args: tuple[str, ...], words: str
) -> None:
    with Path("feat.prototxt").open("a") as file:
        file.write(net)
    Path("one.txt").write_text(Path("list.txt").read_text().splitlines()[0] + "\n")
    assert words in fails("extract_features", "feat.caffemodel", "feat.prototxt", *args)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (
            'layer { name: "d" type: "DummyData" top: "ip" dummy_data_param { shape { dim: 2 } } }',
            "has no layer that reads records",
        ),
        (IMAGES.replace("shuffle: true", "rand_skip: 3"), "rand_skip leaves records out"),
    ],
)
def test_all_wants_an_end(features: Path, fails: Callable[..., str], net: str, words: str) -> None:
    Path("feat.prototxt").write_text(net.replace('"label"', '"ip"'))
    assert words in fails("extract_features", "--all", "feat.caffemodel", "feat.prototxt", "ip", "out", "npy")


@pytest.mark.parametrize("kind", ["lmdb", "leveldb", "hdf5", "npy"])
def test_a_run_that_fails_leaves_nothing(features: Path, fails: Callable[..., str], kind: str) -> None:
    """Pictures of several sizes, one a batch: rows of another shape in the middle,
    or a picture that is none at the end.
    """
    Path("feat.prototxt").write_text(
        IMAGES.replace("shuffle: true new_height: 20 new_width: 20", "").replace("h_size: 3", "h_size: 1")
    )
    Path("images/none.jpg").write_text("none")
    with Path("list.txt").open("a") as file:
        file.write("none.jpg 0\n")
    words = {"hdf5": "expected rows of shape", "npy": "changes its shape"}.get(kind, "none.jpg")
    assert words in fails("extract_features", "--all", "feat.caffemodel", "feat.prototxt", "data", "out", kind)
