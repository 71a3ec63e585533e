"""Hdf5Source: files, rows, shuffling, positions, and files that cannot be used."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffecli import sources
from caffecli.errors import FormatError, SpecError
from caffecli.proto.caffe_pb2 import TRAIN, LayerParameter
from caffecli.sources import Hdf5Source
from tests.sources.opening import opened

LENGTHS = {"a.h5": 4, "b.h5": 1, "c.h5": 6}
TOTAL = sum(LENGTHS.values())


def param(
    extra: str = "", batch: int = 3, source: str = "list.txt", tops: tuple[str, ...] = ("data", "id"), more: str = ""
) -> LayerParameter:
    names = " ".join(f'top: "{name}"' for name in tops)
    text = (
        f'name: "h" type: "HDF5Data" {names} {more} hdf5_data_param '
        f'{{ source: "{source}" batch_size: {batch} {extra} }}'
    )
    return text_format.Parse(text, LayerParameter())


@pytest.fixture
def files(in_tmp: Path) -> dict[str, np.ndarray]:
    """Three files of 4, 1 and 6 rows; ``id`` counts the rows of all."""
    rng, first = np.random.default_rng(1), 0
    for name, length in LENGTHS.items():
        with h5py.File(name, "w") as file:
            file["data"] = rng.normal(size=(length, 2, 3, 2))
            file["id"] = np.arange(first, first + length)
            file["five"] = rng.normal(size=(length, 1, 2, 1, 2)).astype(np.float16)
            file["words"] = np.array([b"x"] * length)
            file["bits"] = np.ones(length, bool)
            file["one"] = 3.0
            file["more"] = np.zeros(length + 1)
            file.create_group("group")
        first += length
    Path("list.txt").write_text("a.h5\nb.h5  c.h5\n\n")
    contents = {}
    for key in ("data", "id", "five"):
        contents[key] = np.concatenate([h5py.File(name)[key][()] for name in LENGTHS]).astype(np.float32)
    return contents


def ids(source: sources.Source, batches: int) -> list[int]:
    return [int(n) for _ in range(batches) for n in source.next().arrays[1]]


def test_batches_cross_files_and_begin_anew(files: dict[str, np.ndarray]) -> None:
    source = Hdf5Source(param(batch=25, tops=("data", "id", "five")), TRAIN)
    assert source.shapes == ((25, 2, 3, 2), (25,), (25, 1, 2, 1, 2))
    first = source.next()
    again = np.arange(25) % TOTAL
    for name, array in zip(("data", "id", "five"), first.arrays, strict=True):
        np.testing.assert_array_equal(array, files[name][again], strict=True)
    assert first.keys[:6] == ("a.h5:0", "a.h5:1", "a.h5:2", "a.h5:3", "b.h5:0", "c.h5:0")
    assert first.state["record"] == 25
    np.testing.assert_array_equal(source.next().arrays[1], np.arange(25, 50) % TOTAL)
    source.close()


def test_batches_that_are_kept_stay_as_they_were(files: dict[str, np.ndarray]) -> None:
    source = opened(param(), TRAIN, 1)
    kept = [source.next().arrays[1] for _ in range(30)]
    source.close()
    assert np.concatenate(kept).tolist() == [i % TOTAL for i in range(90)]


def test_shuffle_mixes_files_and_rows_but_keeps_files_together(files: dict[str, np.ndarray]) -> None:
    source = Hdf5Source(param("shuffle: true", TOTAL), TRAIN, seed=3)
    orders = []
    for _ in range(60):
        batch = source.next()
        order = batch.arrays[1].astype(int).tolist()
        np.testing.assert_array_equal(batch.arrays[0], files["data"][order])
        assert sorted(order) == list(range(TOTAL))
        owners = [key[0] for key in batch.keys]
        assert sum(a != b for a, b in itertools.pairwise(owners)) == 2
        orders.append(order)
    source.close()
    assert len({tuple(order) for order in orders}) == 60
    firsts = [key for order in orders for key in order[:1]]
    assert {0, 1, 2, 3} & set(firsts)
    assert 4 in firsts
    assert set(range(5, 11)) & set(firsts)


def test_shuffles_are_even(files: dict[str, np.ndarray]) -> None:
    Path("list.txt").write_text("c.h5")
    source = Hdf5Source(param("shuffle: true", 6), TRAIN)
    places = np.array([ids(source, 1) for _ in range(900)]) - 5
    source.close()
    for place in range(6):
        assert (abs(np.bincount(places[:, place], minlength=6) - 150) < 5 * np.sqrt(150)).all()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 13),
    shuffle=st.booleans(),
    prefetch=st.integers(0, 2),
    taken=st.integers(0, 5),
    shard=st.sampled_from([(0, 1), (1, 3)]),
    seed=st.integers(0, 2**63 - 2),
)
def test_restored_goes_on_as_if_never_stopped(
    files: dict[str, np.ndarray],
    batch: int,
    shuffle: bool,
    prefetch: int,
    taken: int,
    shard: tuple[int, int],
    seed: int,
) -> None:
    settings = param(f"shuffle: {str(shuffle).lower()}", batch)
    settings.data_param.prefetch = prefetch
    first, other = (opened(settings, TRAIN, s, shard) for s in (seed, seed + 1))
    for _ in range(taken):
        first.next()
    state = json.loads(json.dumps(first.state))
    other.next()
    other.restore(state)
    for _ in range(4):
        expected, got = first.next(), other.next()
        assert (expected.keys, expected.state) == (got.keys, got.state)
        assert all(map(np.array_equal, expected.arrays, got.arrays))
    first.close()
    other.close()


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_ranks_share_the_records_out(files: dict[str, np.ndarray], shuffle: str) -> None:
    whole = Hdf5Source(param(f"shuffle: {shuffle}", 6), TRAIN, 5)
    expected = [whole.next() for _ in range(8)]
    for rank in range(3):
        part = Hdf5Source(param(f"shuffle: {shuffle}", 2), TRAIN, 5, (rank, 3))
        for batch in expected:
            got = part.next()
            assert got.keys == batch.keys[rank::3]
            assert all(np.array_equal(a, b[rank::3]) for a, b in zip(got.arrays, batch.arrays, strict=True))
            assert got.state == batch.state


def test_records_of_one_size_may_differ_in_shape(files: dict[str, np.ndarray]) -> None:
    with h5py.File("b.h5", "a") as file:
        del file["id"]
        file["id"] = np.array([[4]])
    source = Hdf5Source(param(batch=TOTAL), TRAIN)
    assert ids(source, 1) == list(range(TOTAL))


def test_values_are_rounded_to_float32(in_tmp: Path) -> None:
    values = {
        "f64": [1 / 3, 1e-50, -2e38],
        "i64": [2**53 + 1, -(2**62) + 7, 3],
        "u8": [0, 200, 255],
        "f16": [0.1, 1, 6e4],
    }
    kinds = {"f64": ">f8", "i64": "<i8", "u8": "u1", "f16": "<f2"}
    with h5py.File("v.h5", "w") as file:
        for name, kind in kinds.items():
            file[name] = np.array(values[name], kind)
    Path("list.txt").write_text("v.h5")
    batch = Hdf5Source(param(batch=3, tops=tuple(kinds)), TRAIN).next()
    for (name, kind), array in zip(kinds.items(), batch.arrays, strict=True):
        np.testing.assert_array_equal(array, np.array(values[name], kind).astype(np.float32))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (param(source="none.txt"), "source 'none.txt' does not exist"),
        (param(source="a.h5"), "source 'a.h5' is itself an HDF5 file; put its name into a text file"),
        (param(source="empty.txt"), "source 'empty.txt' names no files"),
        (param(source="binary"), "'binary' is not a list of HDF5 files"),
        (param(source="missing.txt"), "in 'missing.txt', 'gone.h5' does not exist"),
        (param(source="foreign.txt"), "'list.txt' is not an HDF5 file: it is text"),
        (param(source="void.txt"), "'void.h5' is not an HDF5 file: it is empty"),
        (param(source="cut.txt"), "cannot read HDF5 file 'cut.h5': it is damaged or truncated"),
        (param(tops=("data", "words")), "'a.h5', dataset 'words': expected integers or floats, it holds |S1"),
        (param(tops=("bits",)), "'a.h5', dataset 'bits': expected integers or floats, it holds bool"),
        (param(tops=("one",)), "'a.h5', dataset 'one': expected at least one axis"),
        (param(tops=("group",)), "'a.h5', dataset 'group': is not there, the file has 'bits', 'data', "),
        (param(tops=("data", "label")), "'a.h5', dataset 'label': is not there"),
        (param(tops=("data", "more")), "'a.h5', dataset 'more': has 5 rows, 'data' has 4"),
        (param(source="late.txt"), "'late.h5', dataset 'data': is not there, the file has 'id'"),
        (param(source="hollow.txt"), r"'hollow.h5', dataset 'data': is empty, its shape is (0, 2, 3, 2)"),
        (param(source="wide.txt"), r"'wide.h5', dataset 'data': has records of (7,), those of 'a.h5' are (2, 3, 2)"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(files: dict[str, np.ndarray], settings: LayerParameter, words: str) -> None:
    for name, shape in {"late": None, "hollow": (0, 2, 3, 2), "wide": (2, 7)}.items():
        with h5py.File(f"{name}.h5", "w") as file:
            file["id"] = np.arange(shape[0] if shape else 2)
            if shape:
                file["data"] = np.zeros(shape)
        Path(f"{name}.txt").write_text(f"a.h5\n{name}.h5\n")
    Path("empty.txt").write_text("\n")
    Path("binary").write_bytes(b"ab\0\1\2")
    Path("missing.txt").write_text("a.h5 gone.h5")
    Path("foreign.txt").write_text("list.txt")
    Path("void.h5").touch()
    Path("void.txt").write_text("void.h5")
    Path("cut.h5").write_bytes(Path("a.h5").read_bytes()[:3000])
    Path("cut.txt").write_text("cut.h5")
    with pytest.raises(FormatError) as caught:
        Hdf5Source(settings, TRAIN)
    assert str(caught.value).startswith("layer 'h': ")
    assert str(caught.value).count("layer 'h'") == 1
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (param(more="transform_param { scale: 2 }"), "HDF5Data does not transform its data; remove transform_param"),
        (param(batch=0), "expected batch_size of at least 1"),
        (param(source=""), "names no list of files"),
    ],
)
def test_settings_that_cannot_be_used(files: dict[str, np.ndarray], settings: LayerParameter, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Hdf5Source(settings, TRAIN)


def test_a_file_that_goes_while_it_is_read(files: dict[str, np.ndarray]) -> None:
    source = opened(param(), TRAIN, 1)
    Path("c.h5").unlink()
    with pytest.raises(FormatError, match=r"layer 'h': cannot read HDF5 file 'c\.h5'"):
        ids(source, 5)
    source.close()
