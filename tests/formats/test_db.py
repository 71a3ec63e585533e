"""LMDB and LevelDB: the reference's databases, ours, damaged ones."""

from __future__ import annotations

import gc
import itertools
import os
import random
import re
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffecli.errors import FormatError
from caffecli.formats import db
from caffecli.formats.db import Backend, open_reader, open_writer
from caffecli.formats.leveldb_db import plyvel

BACKENDS: tuple[Backend, ...] = ("lmdb", "leveldb")
both = pytest.mark.parametrize("backend", BACKENDS)


def fill(path: Path, backend: Backend, count: int = 2500, size: int = 100) -> list[db.Record]:
    records = [(b"%08d" % i, b"%d" % i * size) for i in range(count)]
    with open_writer(path, backend) as writer:
        for key, value in records:
            writer.put(key, value)
    return records


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir()}


@both
def test_reads_the_reference_and_leaves_it_untouched(golden: Path, backend: Backend) -> None:
    path = golden / "mnist_tools" / f"train_{backend}"
    before = state_of(path)
    with open_reader(path) as reader:
        assert reader.backend == backend
        assert len(reader) == 256
        assert [key for key, _ in reader] == [b"%08d" % i for i in range(256)]
    assert state_of(path) == before


def test_lmdb_and_leveldb_hold_the_same(golden: Path) -> None:
    with (
        open_reader(golden / "mnist_tools" / "test_lmdb") as a,
        open_reader(golden / "mnist_tools" / "test_leveldb") as b,
    ):
        assert list(a) == list(b)


@both
def test_round_trip_in_batches(tmp_path: Path, backend: Backend) -> None:
    records = fill(tmp_path / "x", backend)
    with open_reader(tmp_path / "x", backend) as reader:
        assert len(reader) == 2500
        assert list(reader) == records
        assert list(reader.items(2498)) == records[2498:]
        assert list(reader.items(2500)) == []
        assert next(reader.items(1)) == records[1]


@both
def test_files_are_what_caffes_tools_leave(tmp_path: Path, backend: Backend) -> None:
    fill(tmp_path / "x", backend, 3)
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert names >= ({"data.mdb", "lock.mdb"} if backend == "lmdb" else {"CURRENT", "LOCK"})
    mode = stat.S_IMODE((tmp_path / "x").stat().st_mode)
    assert mode & 0o700 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@both
@given(records=st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=50)), max_size=30))
@settings(max_examples=15)
def test_any_keys_in_any_order(
    backend: Backend, records: list[db.Record], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("db") / "x"
    with open_writer(path, backend) as writer:
        for key, value in records:
            writer.put(key, value)
            writer.commit()
    with open_reader(path) as reader:
        assert list(reader) == sorted(dict(records).items())


def test_the_map_grows(tmp_path: Path) -> None:
    """More than the 64 MB that it begins with."""
    fill(tmp_path / "x", "lmdb", 1200, 30000)
    with open_reader(tmp_path / "x") as reader:
        assert len(reader) == 1200
        assert sum(len(value) for _, value in reader) > 2**26


def test_large_records_are_written_before_a_thousand_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "BATCH_BYTES", 1000)
    with open_writer(tmp_path / "x", "lmdb") as writer:
        writer.put(b"a", bytes(1001))
        assert writer._records == []


@both
def test_one_database_may_be_open_several_times(tmp_path: Path, backend: Backend) -> None:
    records = fill(tmp_path / "x", backend, 5)
    first, second = open_reader(tmp_path / "x"), open_reader(tmp_path / "x")
    a, b = iter(first), iter(second)
    assert next(a) == next(b) == records[0]
    first.close()
    first.close()
    assert next(b) == records[1]
    second.close()
    with open_reader(tmp_path / "x") as third:
        assert list(third) == records
    for closed in (first, b):
        with pytest.raises(FormatError, match="has been closed"):
            list(closed)


@both
def test_existing_outputs_are_refused(tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "x").mkdir()
    with (
        pytest.raises(FormatError, match="/x' exists; remove it or choose another name"),
        open_writer(tmp_path / "x", backend),
    ):
        pass
    with pytest.raises(FormatError, match=r"create the folder .* first"), open_writer(tmp_path / "no" / "x", backend):
        pass


@both
def test_a_failure_leaves_nothing(tmp_path: Path, backend: Backend) -> None:
    with pytest.raises(ValueError, match="mine"), open_writer(tmp_path / "x", backend) as writer:
        for i in range(1500):
            writer.put(b"%d" % i, b"v")
        raise ValueError("mine")
    assert list(tmp_path.iterdir()) == []


@both
def test_a_kill_leaves_nothing_under_the_name(tmp_path: Path, backend: Backend) -> None:
    script = """
        import sys, time
        from caffecli.formats.db import open_writer
        with open_writer(sys.argv[1], sys.argv[2]) as writer:
            for i in range(1500):
                writer.put(b"%d" % i, b"v")
            print("ready", flush=True)
            time.sleep(60)
    """
    args = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "x"), backend]
    with subprocess.Popen(args, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "x").exists()
    fill(tmp_path / "x", backend, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_leveldb_readers_leave_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "x", "leveldb", 3)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    reader = open_reader(tmp_path / "x")
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    del reader
    gc.collect()
    assert list((tmp_path / "tmp").iterdir()) == []
    (tmp_path / "x" / "CURRENT").write_text("MANIFEST-9\n")
    with pytest.raises(FormatError):
        open_reader(tmp_path / "x")
    gc.collect()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_missing_plyvel_is_explained(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plyvel", "plyvel_next"):
        monkeypatch.setitem(sys.modules, name, None)
    for version, package in (((3, 12), "plyvel"), ((3, 13), "plyvel-next")):
        monkeypatch.setattr(sys, "version_info", version)
        with pytest.raises(
            FormatError, match=f"LevelDB needs the package {package}: pip install {package}; or use LMDB"
        ):
            open_reader(golden / "mnist_tools" / "train_leveldb")
    with pytest.raises(FormatError, match="needs the package plyvel"), open_writer(tmp_path / "x", "leveldb"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_either_plyvel_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = plyvel()
    for name, other in (("plyvel", "plyvel_next"), ("plyvel_next", "plyvel")):
        monkeypatch.setitem(sys.modules, name, installed)
        monkeypatch.setitem(sys.modules, other, None)
        records = fill(tmp_path / name, "leveldb", 3)
        with open_reader(tmp_path / name) as reader:
            assert list(reader) == records


def test_a_plyvel_that_does_not_load_is_named(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plyvel.py").write_text("raise ImportError('undefined symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plyvel", raising=False)
    with pytest.raises(FormatError, match=r"package plyvel does not load \(undefined symbol\); install it anew"):
        open_reader(golden / "mnist_tools" / "train_leveldb")


def test_the_wrong_kind_is_named(golden: Path) -> None:
    with pytest.raises(
        FormatError, match=r"train_lmdb' holds LMDB data, not LevelDB; set --backend=lmdb, or backend: LMDB"
    ):
        open_reader(golden / "mnist_tools" / "train_lmdb", "leveldb")
    with pytest.raises(FormatError, match=r"train_leveldb' holds LevelDB data, not LMDB; set --backend=leveldb"):
        open_reader(golden / "mnist_tools" / "train_leveldb", "lmdb")
    with pytest.raises(FormatError, match="unknown database backend 'mysql'"), open_writer("x", "mysql"):  # type: ignore[arg-type]
        pass


def test_what_is_no_database_is_named(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="/none': no such database; check the path"):
        open_reader(tmp_path / "none")
    with pytest.raises(
        FormatError, match=r"is no database: it holds neither data.mdb \(LMDB\) nor CURRENT \(LevelDB\)"
    ):
        open_reader(tmp_path)
    with pytest.raises(FormatError, match=r"data.mdb' is a file; .* give its folder, '.*/train_lmdb'"):
        open_reader(golden / "mnist_tools" / "train_lmdb" / "data.mdb")


@pytest.mark.parametrize("length", [0, 100, 8192, 100_000, -1])
def test_lmdbs_cut_short_are_named(tmp_path: Path, length: int) -> None:
    fill(tmp_path / "x", "lmdb")
    file = tmp_path / "x" / "data.mdb"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(FormatError, match=r"/x': the LMDB is (cut short, data.mdb has|damaged or incomplete)"):
        open_reader(tmp_path / "x")


def test_foreign_lmdbs_are_named(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"version https://git-lfs.github.com\n" * 300)
    with pytest.raises(FormatError, match=r"the LMDB is damaged or incomplete .*is not an LMDB file"):
        open_reader(tmp_path)


def test_any_damage_of_an_lmdb_is_an_error(tmp_path: Path) -> None:
    """Of hundreds of mutated files, each gives the records, others, or one line; none a signal or an endless tree."""
    draw = random.Random(0)
    with open_writer(tmp_path / "x", "lmdb") as writer:
        for i in range(150):
            writer.put(b"%08d_%s" % (i, b"name" * 20), os.urandom(20) * draw.choice((1, 2, 500)))
    file = tmp_path / "x" / "data.mdb"
    whole, page, failures = file.read_bytes(), 4096, 0
    with open_reader(tmp_path / "x") as reader:
        records = list(reader)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 4, 64))):
            # where a damage does most: the heads of pages, and the meta pages
            at = draw.choice((draw.randrange(len(data)), draw.randrange(len(data) // page) * page + draw.randrange(32)))
            at = draw.choice((at, at, draw.randrange(170), page + draw.randrange(170)))
            size = draw.choice((1, 1, 2, 4, 8))
            data[at : at + size] = draw.choice((draw.randbytes(size), bytes(size), b"\xff" * size))
        file.write_bytes(data)
        try:
            with open_reader(tmp_path / "x") as reader:
                got = list(itertools.islice(reader, 151))
                assert len(got) == len(reader)
                if got:
                    assert reader.record(len(got) - 1) == got[-1]
        except FormatError as error:
            failures += 1
            assert re.search(r"/x': the LMDB is (cut short|damaged or incomplete)", str(error))
            assert "\n" not in str(error)
    assert failures > 150
    file.write_bytes(whole)
    with open_reader(tmp_path / "x") as reader:
        assert list(reader) == records


@both
def test_records_by_position(tmp_path: Path, backend: Backend) -> None:
    records = fill(tmp_path / "x", backend, 500, 1000)
    with open_reader(tmp_path / "x") as reader:
        for position in (499, 0, 3, 2, 250):
            assert reader.record(position) == records[position]
        assert list(reader.items(498)) == records[498:]
        with pytest.raises(IndexError):
            reader.record(500)


@pytest.mark.parametrize(
    "damage", ["log cut", "log gone", "log changed", "manifest gone", "manifest cut", "table gone", "table changed"]
)
def test_damaged_leveldbs_are_named(tmp_path: Path, damage: str) -> None:
    fill(tmp_path / "x", "leveldb")
    kind, what = damage.split()
    if kind == "table":  # opening it for writing turns the log into a table
        plyvel().DB(str(tmp_path / "x")).close()
    file = next((tmp_path / "x").glob({"log": "*.log", "manifest": "MANIFEST-*", "table": "*.ldb"}[kind]))
    data = file.read_bytes()
    if what == "gone":
        file.unlink()
    elif what == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        file.write_bytes(data[:5000] + os.urandom(100) + data[5100:])
    with pytest.raises(FormatError, match=r"/x': the LevelDB('s log)? is (missing or cut short|damaged or incomplete)"):
        list(open_reader(tmp_path / "x"))


@pytest.mark.parametrize("size", [1, 100, 2**15 - 50, 2**15, 10**5])
def test_leveldb_logs_cut_anywhere_are_noticed(tmp_path: Path, size: int) -> None:
    """The last batch is lost by LevelDB's own account; the sizes lay the cut into whole, first,
    middle and last fragments.
    """
    with open_writer(tmp_path / "x", "leveldb") as writer:
        writer.put(b"a", os.urandom(size))
        writer.commit()
        writer.put(b"b", os.urandom(size))
    (log,) = (tmp_path / "x").glob("*.log")
    data = log.read_bytes()
    with open_reader(tmp_path / "x") as reader:
        assert len(reader) == 2
    for cut in {1, 5, size // 2, size, size + 10} - {0}:
        log.write_bytes(data[:-cut])
        with pytest.raises(FormatError, match="log is missing or cut short"):
            open_reader(tmp_path / "x")


def test_a_leveldb_collected_with_its_iterators(tmp_path: Path) -> None:
    """An iterator that is deleted after its database ends the process; it did so on Python 3.12, of damaged ones."""
    fill(tmp_path / "x", "leveldb")
    plyvel().DB(str(tmp_path / "x")).close()
    whole = open_reader(tmp_path / "x")
    records = iter(whole)
    next(records)
    circle: list[object] = [whole, records]
    circle.append(circle)
    (table,) = (tmp_path / "x").glob("*.ldb")
    data = table.read_bytes()
    table.unlink()  # `whole` keeps its own
    table.write_bytes(data[:5000] + os.urandom(100) + data[5100:])
    for use in (list, len, lambda reader: reader.record(5), lambda reader: list(reader.items(5))):
        errors: list[object] = []
        try:
            use(open_reader(tmp_path / "x"))
        except FormatError as error:
            errors += [error, errors]
        assert errors
        del errors
    del whole, records, circle
    gc.collect()


def test_long_lmdb_keys_are_explained(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="keys have 1 to 511 bytes"), open_writer(tmp_path / "x") as writer:
        writer.put(b"k" * 600, b"")
    assert list(tmp_path.iterdir()) == []
