"""DbSource: order, wrapping, randomness, positions, and records that cannot be used."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffecli import logs, sources
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import datum
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import TEST, TRAIN, Datum
from caffecli.sources import DbSource
from caffecli.sources.base import Workers
from tests.sources.opening import opened


def labels(source: sources.Source, batches: int) -> list[int]:
    return [int(label) for _ in range(batches) for label in source.next().arrays[1]]


def equal(a: sources.Batch, b: sources.Batch) -> bool:
    return a.keys == b.keys and a.state == b.state and all(map(np.array_equal, a.arrays, b.arrays))


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_records_come_in_order_and_begin_anew(make: Any, pictures: list[np.ndarray], backend: str) -> None:
    source = DbSource(make.data(make.db("db", pictures, backend.lower()), backend=backend), TRAIN)
    assert source.shapes == ((4, 3, 8, 9), (4,))
    batches = [source.next() for _ in range(5)]
    assert [k for b in batches for k in b.keys] == [f"{i % 10:08d}" for i in range(20)]
    np.testing.assert_array_equal(
        np.concatenate([b.arrays[0] for b in batches]), np.stack(pictures * 2).astype(np.float32)
    )
    np.testing.assert_array_equal(np.concatenate([b.arrays[1] for b in batches]), np.arange(20) % 10)
    assert all(a.dtype == np.float32 for b in batches for a in b.arrays)
    source.close()
    source.close()


def test_one_top_has_no_labels(make: Any, small_db: str) -> None:
    source = DbSource(make.data(small_db, tops=1), TRAIN)
    assert source.shapes == ((4, 3, 8, 9),)
    assert len(source.next().arrays) == 1
    source.close()


def test_a_batch_larger_than_the_database(make: Any, small_db: str) -> None:
    source = DbSource(make.data(small_db, batch=23), TRAIN)
    assert labels(source, 1) == [i % 10 for i in range(23)]
    source.close()


def test_the_references_log_lines(make: Any, small_db: str, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.show()
    try:
        source = DbSource(make.data(small_db, batch=7), TRAIN)
        labels(source, 2)
        source.close()
    finally:
        logs.hide(handler)
    lines = [line.split(" ", 3)[3] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "db_lmdb.cpp:35] Opened lmdb small_lmdb",
        "data_layer.cpp:73] Restarting data prefetching from start.",
    ]


def test_ranks_share_the_records_round_robin(make: Any, small_db: str) -> None:
    transform = "crop_size: 5 mirror: true"
    alone = opened(make.data(small_db, batch=6, transform=transform), TRAIN, 3)
    ranks = [opened(make.data(small_db, batch=2, transform=transform), TRAIN, 3, (r, 3)) for r in range(3)]
    for _ in range(4):
        whole, parts = alone.next(), [rank.next() for rank in ranks]
        for r, part in enumerate(parts):
            assert part.keys == whole.keys[r::3]
            np.testing.assert_array_equal(part.arrays[0], whole.arrays[0][r::3])
            assert part.state == whole.state
    for source in (alone, *ranks):
        source.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 12),
    crop=st.sampled_from([0, 5]),
    mirror=st.booleans(),
    rand_skip=st.sampled_from([0, 7, 25]),
    prefetch=st.integers(0, 3),
    taken=st.integers(0, 5),
    wandered=st.integers(0, 3),
    backend=st.sampled_from(["LMDB", "LEVELDB"]),
    shard=st.sampled_from([(0, 1), (1, 2)]),
    seed=st.integers(0, 2**63 - 2),
)
def test_restored_goes_on_as_if_never_stopped(
    make: Any, pictures: list[np.ndarray], batch: int, crop: int, mirror: bool, rand_skip: int, prefetch: int,
    taken: int, wandered: int, backend: str, shard: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    if not Path(backend).exists():
        make.db(backend, pictures, backend.lower())
    text = f"crop_size: {crop} mirror: {str(mirror).lower()}"
    param = make.data(backend, batch, f"rand_skip: {rand_skip} prefetch: {prefetch}", text, backend=backend)
    first = opened(param, TRAIN, seed, shard)
    for _ in range(taken):
        first.next()
    state = first.state
    following = [first.next() for _ in range(3)]
    other = opened(param, TRAIN, seed + 1, shard)
    for _ in range(wandered):
        other.next()
    for source in (other, first):
        source.restore(state)
        assert source.state == state
        assert all(equal(a, source.next()) for a in following)
        source.close()


def test_the_seed_decides(make: Any, small_db: str) -> None:
    param = make.data(small_db, batch=10, transform="crop_size: 4 mirror: true", extra="rand_skip: 1000")

    def run(seed: int) -> list[sources.Batch]:
        source = opened(param, TRAIN, seed)
        batches = [source.next() for _ in range(3)]
        source.close()
        return batches

    assert all(map(equal, run(7), run(7)))
    assert not any(map(equal, run(7), run(8)))


def test_layers_of_one_seed_draw_different_numbers(make: Any, small_db: str) -> None:
    params = [make.data(small_db, batch=10, transform="crop_size: 4 mirror: true") for _ in range(2)]
    params[1].name = "other"
    found = [opened(param, TRAIN, 7) for param in params]
    first, second = (source.next().arrays[0] for source in found)
    assert not np.array_equal(first, second)
    for source in found:
        source.close()


def test_crops_and_mirrors_are_even(make: Any) -> None:
    picture = np.arange(42, dtype=np.uint8).reshape(1, 6, 7)  # each pixel tells where it was
    make.db("one", [picture])
    source = DbSource(make.data("one", batch=4000, transform="crop_size: 4 mirror: true"), TRAIN, seed=11)
    data = source.next().arrays[0][:, 0]
    source.close()
    mirrored = data[:, 0, 0] > data[:, 0, 1]
    corner = np.where(mirrored, data[:, 0, 3], data[:, 0, 0]).astype(int)
    places, counts = np.unique(np.stack([corner // 7, corner % 7, mirrored]), axis=1, return_counts=True)
    assert places.shape[1] == 3 * 4 * 2  # rows × columns × sides
    assert (abs(counts - 4000 / 24) < 5 * np.sqrt(4000 / 24)).all()


def test_test_phase_crops_the_middle_but_mirrors_by_chance(make: Any) -> None:
    picture = np.arange(42, dtype=np.uint8).reshape(1, 6, 7)
    make.db("one", [picture])
    source = DbSource(make.data("one", batch=400, transform="crop_size: 4 mirror: true"), TEST, seed=11)
    data = source.next().arrays[0]
    source.close()
    middle = picture[:, 1:5, 1:5].astype(np.float32)
    mirrored = (data == middle[..., ::-1]).all((1, 2, 3))
    assert ((data == middle).all((1, 2, 3)) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_rand_skip_leaves_out_some_at_the_start_only(make: Any, small_db: str) -> None:
    starts = set()
    for seed in range(40):
        source = DbSource(make.data(small_db, batch=10, extra="rand_skip: 4"), TRAIN, seed)
        came = labels(source, 2)
        source.close()
        starts.add(came[0])
        assert came == [(came[0] + i) % 10 for i in range(20)]
    assert starts == {0, 1, 2, 3}


def test_the_number_of_threads_changes_nothing(make: Any, pictures: list[np.ndarray]) -> None:
    with open_writer("encoded") as db:
        for i, picture in enumerate(pictures):
            db.put(b"%08d" % i, make.encoded(picture, i))
    batches = []
    for threads in (1, 2, 5):
        source = DbSource(make.data("encoded", batch=8, transform="crop_size: 5 mirror: true"), TRAIN, seed=2)
        source._workers = Workers(threads)
        batches.append([source.next() for _ in range(3)])
        source.close()
    assert all(equal(a, b) for other in batches[1:] for a, b in zip(batches[0], other, strict=True))


def test_two_cores_decode_at_the_same_time(
    make: Any, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_writer("encoded") as db:
        for i, picture in enumerate(pictures):
            db.put(b"%08d" % i, make.encoded(picture, i))
    source = DbSource(make.data("encoded", batch=2), TRAIN)
    source._workers = Workers(2)
    decode, both = datum.decode_image, threading.Barrier(2, timeout=10)
    monkeypatch.setattr(datum, "decode_image", lambda *args: (both.wait(), decode(*args))[1])
    np.testing.assert_array_equal(source.next().arrays[0], np.stack(pictures[:2]).astype(np.float32))
    source.close()


def test_encoded_raw_and_float_datums_may_be_mixed(make: Any, pictures: list[np.ndarray]) -> None:
    with open_writer("mixed") as db:
        db.put(b"0", from_array(pictures[0], 0).SerializeToString())
        db.put(b"1", make.encoded(pictures[1], 1))
        db.put(b"2", from_array(pictures[2].astype(np.float32) / 7, 2).SerializeToString())
    source = DbSource(make.data("mixed", batch=3, transform="scale: 0.5"), TRAIN)
    expected = [
        pictures[0] * np.float32(0.5),
        pictures[1] * np.float32(0.5),
        pictures[2].astype(np.float32) / 7 * np.float32(0.5),
    ]
    np.testing.assert_array_equal(source.next().arrays[0], np.stack(expected))
    source.close()


def test_large_raw_datums(make: Any) -> None:
    large = list(np.random.default_rng(1).integers(0, 256, (3, 3, 110, 120), dtype=np.uint8))
    source = DbSource(make.data(make.db("large", large), batch=3, transform="mean_value: 9 scale: 0.1"), TRAIN)
    expected = (np.stack(large).astype(np.float32) - np.float32(9)) * np.float32(0.1)
    np.testing.assert_array_equal(source.next().arrays[0], expected)
    source.close()


def test_single_records_may_vary_in_shape(make: Any, pictures: list[np.ndarray]) -> None:
    make.db("vary", [pictures[0], pictures[1][:, :5], pictures[2][:1]])
    source = DbSource(make.data("vary", batch=1), TRAIN)
    assert [source.next().arrays[0].shape for _ in range(4)] == [(1, 3, 8, 9), (1, 3, 5, 9), (1, 1, 8, 9), (1, 3, 8, 9)]
    source.close()


def test_a_crop_makes_varying_pictures_alike(make: Any, pictures: list[np.ndarray]) -> None:
    make.db("vary", [pictures[0], pictures[1][:, :5], pictures[2][:, :, 2:]])
    source = DbSource(make.data("vary", batch=3, transform="crop_size: 5"), TEST)
    expected = [pictures[0][:, 1:6, 2:7], pictures[1][:, 0:5, 2:7], pictures[2][:, 1:6, 3:8]]
    np.testing.assert_array_equal(source.next().arrays[0], np.stack(expected).astype(np.float32))
    source.close()


# -- wrong input -------------------------------------------------------------------------------------------------------


def failure(param: Any, kind: type[Exception], batches: int = 1) -> str:
    with pytest.raises(kind) as raised:
        source = opened(param, TRAIN, 0)
        try:
            for _ in range(batches):
                source.next()
        finally:
            source.close()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_record_of_another_shape(make: Any, pictures: list[np.ndarray]) -> None:
    make.db("vary", [pictures[0], pictures[1], pictures[2][:, :5]])
    assert failure(make.data("vary", batch=3), DataError) == (
        "layer 'data': expected 3 × 8 × 9 (channels × height × width) as record '00000000' has, record '00000002' has "
        "3 × 5 × 9; resize the pictures, set crop_size, or use batch_size: 1"
    )


def test_a_crop_larger_than_a_later_record(make: Any, pictures: list[np.ndarray]) -> None:
    make.db("vary", [pictures[0], pictures[1], pictures[2][:, :5]])
    text = failure(make.data("vary", batch=3, transform="crop_size: 6"), DataError)
    assert text.startswith(
        "layer 'data': crop_size 6 is larger than record '00000002', which is 5 × 9 (height × width)"
    )


@pytest.mark.parametrize("batch", ["0", ""])
def test_no_batch_size(make: Any, small_db: str, batch: str) -> None:
    param = make.data(small_db)
    param.data_param.ClearField("batch_size")
    assert failure(param, SpecError) == "layer 'data': expected batch_size of at least 1, got 0"


def test_no_source(make: Any) -> None:
    assert failure(make.data(""), SpecError) == "layer 'data': data_param names no database; set source: \"path/to/db\""


def test_a_source_that_does_not_exist(make: Any, in_tmp: Path) -> None:
    assert failure(make.data("examples/none"), FormatError) == (
        "layer 'data': source 'examples/none' does not exist; make the database first "
        f"(paths are relative to the working directory, {str(in_tmp)!r})"
    )


def test_a_database_of_the_other_kind(make: Any, small_db: str) -> None:
    text = failure(make.data(small_db, backend="LEVELDB"), FormatError)
    assert text.startswith("layer 'data': 'small_lmdb' holds LMDB data, not LevelDB;")
    assert "backend: LMDB" in text


@pytest.mark.parametrize("extra", ["", "rand_skip: 9"])
def test_an_empty_database(make: Any, extra: str) -> None:
    make.db("empty", [])
    assert failure(make.data("empty", extra=extra), DataError) == (
        "layer 'data': the database 'empty' holds no records; convert the data again"
    )


@pytest.mark.parametrize("where", [0, 3])
def test_a_value_that_is_no_datum(make: Any, pictures: list[np.ndarray], where: int) -> None:
    with open_writer("foreign") as db:
        for i, picture in enumerate(pictures):
            db.put(b"%08d" % i, b"\xff\xff\xff" if i == where else from_array(picture, i).SerializeToString())
    text = failure(make.data("foreign"), DataError)
    assert text.startswith(f"layer 'data', 'foreign': record '{where:08d}': the value is not a Datum")


def test_an_encoded_picture_that_does_not_decode(make: Any, pictures: list[np.ndarray]) -> None:
    with open_writer("broken") as db:
        for i, picture in enumerate(pictures):
            value = (
                Datum(data=b"nonsense", encoded=True).SerializeToString() if i in (5, 2) else make.encoded(picture, i)
            )
            db.put(b"%08d" % i, value)
    text = failure(make.data("broken", batch=10), DataError)
    assert text.startswith("layer 'data', 'broken': record '00000002': the encoded picture (8 bytes) is ")


def test_a_datum_whose_data_do_not_fill_its_shape(make: Any, pictures: list[np.ndarray]) -> None:
    with open_writer("short") as db:
        db.put(b"0", from_array(pictures[0], 0).SerializeToString())
        db.put(b"1", Datum(channels=3, height=8, width=9, data=b"12").SerializeToString())
    text = failure(make.data("short", batch=2), DataError)
    assert text.startswith("layer 'data', 'short': record '1': expected 3 × 8 × 9 = 216 numbers, the datum holds 2")


@pytest.mark.parametrize("batch", [1, 2])
def test_a_datum_without_a_picture(make: Any, pictures: list[np.ndarray], batch: int) -> None:
    with open_writer("none") as db:
        for i, picture in enumerate(pictures):
            db.put(
                b"%08d" % i,
                Datum(label=1).SerializeToString() if i == 4 else from_array(picture, i).SerializeToString(),
            )
    text = failure(make.data("none", batch), DataError, 5)
    assert text.startswith("layer 'data', 'none': record '00000004': expected 0 × 0 × 0 = 0 numbers, the datum holds 0")


def test_an_error_comes_again_at_the_same_record(make: Any, pictures: list[np.ndarray]) -> None:
    with open_writer("foreign") as db:
        for i, picture in enumerate(pictures):
            db.put(b"%08d" % i, b"\xff" if i == 5 else from_array(picture, i).SerializeToString())
    source = DbSource(make.data("foreign"), TRAIN)
    source.next()
    for _ in range(2):
        with pytest.raises(DataError, match="record '00000005'"):
            source.next()
    source.close()


# -- the database is only read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_a_read_only_folder_stays_as_it_is(make: Any, pictures: list[np.ndarray], backend: str) -> None:
    folder = Path(make.db("db", pictures, backend.lower()))
    (folder / "lock.mdb").unlink(missing_ok=True)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    folder.chmod(0o555)
    try:
        opened = [
            DbSource(make.data("db", backend=backend), TRAIN) for _ in range(2)
        ]  # a train and a test net on the same data
        for source in opened:
            assert labels(source, 3)[-2:] == [0, 1]
            source.close()
    finally:
        folder.chmod(0o755)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()} == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_closing_gives_back_the_files(make: Any, small_db: str) -> None:
    def held() -> list[str]:
        links = [str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if os.path.lexists(p)]
        return [link for link in links if "small_lmdb" in link]

    source = opened(make.data(small_db), TRAIN, 0)
    source.next()
    assert held()
    source.close()
    assert not held()


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_shuffled_records_come_once_an_epoch_in_new_orders(make: Any, pictures: list[np.ndarray], backend: str) -> None:
    source = make.db("db", pictures, backend)
    extra = "shuffle: true rand_skip: 4"
    epochs = make.data(source, 10, "shuffle: true", backend=backend.upper())
    with closing(DbSource(epochs, TRAIN, 3)) as one, closing(DbSource(epochs, TRAIN, 3)) as same:
        keys = [one.next().keys for _ in range(4)]
        assert keys == [same.next().keys for _ in range(4)]
    assert len(set(keys)) == 4
    assert all(sorted(epoch) == [f"{i:08d}" for i in range(10)] for epoch in keys)

    whole, *parts = (
        opened(make.data(source, n, extra, "crop_size: 4", backend=backend.upper()), TRAIN, 9, shard)
        for n, shard in ((6, (0, 1)), (3, (0, 2)), (3, (1, 2)))
    )
    other = opened(make.data(source, 6, extra, "crop_size: 4", backend=backend.upper()), TRAIN, 1)
    for _ in range(5):
        state = whole.state
        batch = whole.next()
        other.restore(state)
        again = other.next()
        assert (again.keys, again.state) == (batch.keys, batch.state)
        assert all(map(np.array_equal, again.arrays, batch.arrays))
        assert [part.next().keys for part in parts] == [batch.keys[0::2], batch.keys[1::2]]
    for each in (whole, other, *parts):
        each.close()
