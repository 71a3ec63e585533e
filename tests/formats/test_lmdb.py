"""LMDB's files are read without its library: the library's own answers, programs that have it open too, damage."""

from __future__ import annotations

import itertools
import os
import random
import struct
from pathlib import Path
from typing import Any

import lmdb
import pytest

from caffecli.errors import FormatError
from caffecli.formats.db import open_reader, open_writer

PAGE = os.sysconf("SC_PAGE_SIZE")


def write(path: Path, records: dict[bytes, bytes], **settings: Any) -> None:
    with lmdb.open(str(path), map_size=2**26, **settings) as env, env.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)


def by_library(path: Path) -> list[tuple[bytes, bytes]]:
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        return list(transaction.cursor())


def some_records(count: int, largest: int, seed: int = 0) -> dict[bytes, bytes]:
    """Keys and values of all sizes, in no order."""
    chance = random.Random(seed)
    return {
        chance.randbytes(chance.randint(1, 511)): chance.randbytes(chance.randint(0, largest)) for _ in range(count)
    }


@pytest.mark.parametrize(("count", "largest"), [(0, 0), (1, 0), (1, 10**6), (7, 3000), (400, 9000), (3000, 40)])
def test_it_reads_what_the_library_reads(tmp_path: Path, count: int, largest: int) -> None:
    write(tmp_path, some_records(count, largest))
    write(tmp_path, some_records(count // 3, largest, seed=1))  # pages that are no longer in order
    wanted = by_library(tmp_path)
    with open_reader(tmp_path) as reader:
        assert len(reader) == len(wanted)
        for start in {0, 1, len(wanted) // 2, len(wanted) - 1, len(wanted), len(wanted) + 5} - {-1}:
            assert list(reader.items(start)) == wanted[start:]


def test_a_database_of_databases_is_what_the_library_says(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as env:
        env.open_db(b"inner")
    with open_reader(tmp_path) as reader:
        assert list(reader) == by_library(tmp_path)


def test_a_program_may_have_it_open_too(tmp_path: Path) -> None:
    """In either order, for writing too; closing one leaves the other, and what is added is seen in the next pass."""
    write(tmp_path, {b"a": b"1"})
    for first in ("program", "reader"):
        if first == "program":
            env = lmdb.open(str(tmp_path), map_size=2**26)
            reader = open_reader(tmp_path)
        else:
            reader = open_reader(tmp_path)
            env = lmdb.open(str(tmp_path), map_size=2**26)
        with env.begin(write=True) as transaction:
            transaction.put(first.encode(), b"2")
        assert (first.encode(), b"2") in list(reader)
        reader.close()
        with env.begin() as transaction:
            assert transaction.get(b"a") == b"1"
        env.close()


def test_a_file_cut_short_while_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, some_records(400, 9000))
    with open_reader(tmp_path) as reader:
        records = iter(reader)
        next(records)
        os.truncate(tmp_path / "data.mdb", 3 * PAGE)
        with pytest.raises(FormatError, match=rf"the LMDB is cut short, data.mdb has {3 * PAGE} of at least \d+ bytes"):
            list(records)


#: where in page 0 or 1 its fields are, and their form
FIELDS = {"version": (20, "I"), "size": (40, "I"), "flags": (92, "H"), "depth": (94, "H")}
FIELDS |= {"entries": (120, "Q"), "root": (128, "Q"), "last": (136, "Q"), "transaction": (144, "Q")}


def test_what_does_not_hold_together_is_named(tmp_path: Path) -> None:
    write(tmp_path, some_records(400, 9000))
    file = tmp_path / "data.mdb"
    sound = file.read_bytes()

    def field(page: int, name: str) -> int:
        at, form = FIELDS[name]
        return int(struct.unpack_from(f"<{form}", sound, page * PAGE + at)[0])

    newer = max((0, 1), key=lambda page: field(page, "transaction"))
    root = field(newer, "root")
    (node,) = struct.unpack_from("<H", sound, root * PAGE + 16)
    circle = [("depth", 60000), (root * PAGE + node, root)]
    lies: list[tuple[str, list[tuple[str | int, int]]]] = [
        ("more than its 1 records", [("entries", 1)]),
        ("400 of its 9999 records", [("entries", 9999)]),
        (r"a page 2000000, of \d+\)", [("root", 2_000_000)]),
        (r"a page 1, of \d+\)", [("root", 1)]),
        ("the LMDB is cut short", [("last", 2**40)]),
        (rf"\(page {root}\)", [(root * PAGE + 12, 0xFFFF_FFFF)]),
        (r"page \d+ is not of the tree of records", [("depth", field(newer, "depth") - 1)]),
        ("its pages form a circle", circle),
        ("format 7, not 1", [("version", 7)]),
        ("pages of 3 bytes", [("size", 3)]),
        ("several values for a key, which Caffe's databases have not", [("flags", 4)]),
    ]
    for words, changes in lies:
        data = bytearray(sound)
        for where, value in changes:
            at, form = FIELDS[where] if isinstance(where, str) else (where - newer * PAGE, "I")
            struct.pack_into(f"<{form}", data, newer * PAGE + at, value)
        file.write_bytes(data)
        with pytest.raises(FormatError, match=words), open_reader(tmp_path) as reader:
            list(reader)


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_is_more_than_an_error(tmp_path: Path, seed: int) -> None:
    """Whatever is in the pages: an error of one line, or records; no signal, and not more memory than the file has."""
    write(tmp_path, some_records(200, 3000))
    file = tmp_path / "data.mdb"
    sound = file.read_bytes()
    chance = random.Random(seed)
    for _ in range(80):
        data = bytearray(sound)
        for _ in range(chance.choice([1, 1, 3, 30])):
            at = chance.choice([0, chance.randrange(len(data) // PAGE) * PAGE]) + chance.choice([0, 16, 8]) * 2
            at = min(len(data) - 9, at + chance.randrange(64))
            data[at : at + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", chance.randbytes(4)])
        file.write_bytes(data)
        try:
            with open_reader(tmp_path) as reader:
                assert sum(len(value) for _, value in reader) <= 200 * len(sound)
        except FormatError as error:
            assert "\n" not in str(error)


def test_what_we_write_is_what_the_library_reads(tmp_path: Path) -> None:
    records = sorted(some_records(300, 9000).items())
    with open_writer(tmp_path / "x", "lmdb") as writer:
        for key, value in records:
            writer.put(key, value)
    assert by_library(tmp_path / "x") == records


@pytest.mark.parametrize(("count", "largest"), [(1, 0), (7, 3000), (400, 9000), (3000, 40)])
def test_records_at_even_distances(tmp_path: Path, count: int, largest: int) -> None:
    write(tmp_path / "db", some_records(count, largest))
    every = [key for key, _ in by_library(tmp_path / "db")]
    with open_reader(tmp_path / "db") as reader:
        found = list(reader.spread(40))
        assert all(dict(by_library(tmp_path / "db"))[key] == value for key, value in found)
    places = [every.index(key) for key, _ in found]
    assert places == sorted(places) and len(found) == min(40, count)
    assert all(b - a <= 0.15 * count + 1 for a, b in itertools.pairwise(places))
