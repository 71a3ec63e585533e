"""Disks that fill, folders and databases that go while a run is on: nothing lost that was saved, and a clear end."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from caffecli import logs
from caffecli.errors import CaffeError, FormatError
from caffecli.formats import caffemodel
from caffecli.formats.leveldb_db import plyvel
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]
OPTIONS = TrainOptions(Path("solver.prototxt"))


@pytest.fixture
def when_shown() -> Iterator[Callable[[str, Callable[[], object]], None]]:
    """``when_shown("Iteration 5 (", act)``: call ``act`` the first time that the log says so."""
    handlers = []

    def watch(words: str, act: Callable[[], object]) -> None:
        left = [act]

        class Watcher(io.StringIO):
            def write(self, text: str) -> int:
                if words in text and left:
                    left.pop()()
                return super().write(text)

        handlers.append(logs.show(Watcher()))

    yield watch
    for handler in handlers:
        logs.hide(handler)


When = Callable[[str, Callable[[], object]], None]


def fingerprint(folder: Path = Path()) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if "_iter_" in path.name}


def whole(state: Path = Path("s_iter_10.solverstate")) -> None:
    """A run goes on from ``state`` to its end."""
    assert train(TrainOptions(Path("solver.prototxt"), state))
    assert caffemodel.read(state.with_name("s_iter_20.caffemodel"))


def test_a_limit_on_file_sizes(run_folder: Path, when_shown: When) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    when_shown("Iteration 15 (", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1])))
    try:
        with pytest.raises(
            FormatError, match=r"^cannot write 's_iter_20\.caffemodel': File too large; raise the limit on file sizes"
        ):
            train(OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(fingerprint()) == ["s_iter_10.caffemodel", "s_iter_10.solverstate", "s_iter_10.solverstate.json"]
    whole()


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_full_disk(run_folder: Path, when_shown: When, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """The disk is full after ``written`` of the three files of the second snapshot."""
    sync, left = os.fsync, [written]

    def full(file: int) -> None:
        if os.path.isfile(f"/proc/self/fd/{file}"):  # noqa: PTH113
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
        sync(file)

    when_shown("Iteration 15 (", lambda: monkeypatch.setattr(os, "fsync", full))
    with pytest.raises(
        FormatError, match=r"^cannot write 's_iter_20\..*': No space left on device; free some space"
    ) as error:
        train(OPTIONS)
    monkeypatch.setattr(os, "fsync", sync)
    files = fingerprint()
    assert len(files) == 3 + written
    assert not [path for path in Path().iterdir() if path.name.endswith(".tmp")]
    assert "s_iter_20.solverstate" not in files and "\n" not in str(error.value)
    whole()


def test_the_folder_of_snapshots_goes(run_folder: Path, edit: Edit, when_shown: When) -> None:
    edit("solver.prototxt", 'snapshot_prefix: "s"', 'snapshot_prefix: "out/s"')
    Path("out").mkdir()
    when_shown("Iteration 15 (", lambda: Path("out").rename("elsewhere"))
    with pytest.raises(
        FormatError, match=r"^cannot write 'out/s_iter_20\.caffemodel': No such file.*; create the folder 'out' first"
    ):
        train(OPTIONS)
    Path("out").mkdir()
    assert train(TrainOptions(Path("solver.prototxt"), Path("elsewhere/s_iter_10.solverstate")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_the_folder_of_snapshots_becomes_read_only(run_folder: Path, edit: Edit, when_shown: When) -> None:
    edit("solver.prototxt", 'snapshot_prefix: "s"', 'snapshot_prefix: "out/s"')
    Path("out").mkdir()
    when_shown("Iteration 15 (", lambda: Path("out").chmod(0o500))
    try:
        with pytest.raises(
            FormatError, match=r"^cannot write 'out/s_iter_20\.caffemodel': Permission denied; check the permissions"
        ):
            train(OPTIONS)
    finally:
        Path("out").chmod(0o700)
    whole(Path("out/s_iter_10.solverstate"))


def test_an_lmdb_removed_under_the_run_is_read_to_the_end(run_folder: Path, when_shown: When) -> None:
    assert train(OPTIONS)
    expected = caffemodel.read(Path("s_iter_20.caffemodel"))
    kept = fingerprint()
    when_shown("Iteration 5 (", lambda: shutil.rmtree("train_lmdb", ignore_errors=True))
    assert train(OPTIONS)
    for name, blobs in caffemodel.read(Path("s_iter_20.caffemodel")).items():
        for ours, theirs in zip(blobs, expected[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(CaffeError, match=r"train_lmdb"):
        train(TrainOptions(Path("solver.prototxt"), Path("s_iter_10.solverstate")))
    assert fingerprint().keys() == kept.keys()


def test_a_leveldb_removed_under_the_run(run_folder: Path, edit: Edit, when_shown: When) -> None:
    """It may be read to the end, or end the run with a line that names it; the snapshots stay."""
    with lmdb.open("train_lmdb", readonly=True) as records, records.begin() as reading:
        database = plyvel().DB("train_leveldb", create_if_missing=True, write_buffer_size=1 << 16)
        for key, value in reading.cursor():
            database.put(key, value)
        database.close()
    edit(
        "net.prototxt",
        'source: "train_lmdb" batch_size: 16 backend: LMDB',
        'source: "train_leveldb" batch_size: 16 backend: LEVELDB',
    )
    when_shown("Iteration 15 (", lambda: shutil.rmtree("train_leveldb"))
    try:
        assert train(OPTIONS)
    except CaffeError as error:
        assert "train_leveldb" in str(error) and "\n" not in str(error)
    with pytest.raises(CaffeError, match="train_leveldb"):
        train(OPTIONS)
    assert {f"s_iter_10.{kind}" for kind in ("caffemodel", "solverstate", "solverstate.json")} <= fingerprint().keys()


def test_pictures_removed_under_the_run(run_folder: Path, edit: Edit, when_shown: When) -> None:
    import cv2

    Path("pictures").mkdir()
    lines = []
    for i in range(60):
        cv2.imwrite(f"pictures/{i}.png", np.full((28, 28), i, np.uint8))
        lines.append(f"{i}.png {i % 10}")
    Path("list.txt").write_text("\n".join(lines) + "\n")
    labels = 'top: "data" top: "label" include { phase: TRAIN }'
    edit("net.prototxt", f'type: "Data" {labels}', f'type: "ImageData" {labels}')
    pictures = 'image_data_param { source: "list.txt" root_folder: "pictures/" batch_size: 16 is_color: false }'
    edit("net.prototxt", 'data_param { source: "train_lmdb" batch_size: 16 backend: LMDB }', pictures)
    edit("solver.prototxt", "max_iter: 20", "max_iter: 1000")
    when_shown("Iteration 15 (", lambda: shutil.rmtree("pictures"))
    with pytest.raises(CaffeError, match=r"layer 'data'.*pictures/\d+\.png.*") as error:
        train(OPTIONS)
    assert "\n" not in str(error.value)
    assert "s_iter_10.solverstate" in fingerprint()


def test_two_runs_of_one_prefix_or_csv(run_folder: Path, when_shown: When) -> None:
    """The second ends before it writes; the first goes on, and gives the names back."""
    ended: list[str] = []

    def second(**settings: Path) -> Callable[[], object]:
        def run() -> None:
            with pytest.raises(CaffeError) as caught:
                train(TrainOptions(Path("other.prototxt"), **settings))  # type: ignore[arg-type]
            ended.append(str(caught.value))

        return run

    Path("other.prototxt").write_text(Path("solver.prototxt").read_text())
    when_shown("Iteration 5 (", second())
    train(TrainOptions(Path("solver.prototxt"), csv=Path("a.csv")))
    Path("other.prototxt").write_text(Path("solver.prototxt").read_text().replace('"s"', '"t"'))
    when_shown("Iteration 5 (", second(csv=Path("a.csv")))
    train(TrainOptions(Path("solver.prototxt"), csv=Path("a.csv")))
    end = f"another run, process {os.getpid()}, writes there; wait until it ends, or name another"
    assert ended == [f"snapshot_prefix 's': {end}", f"'a.csv': {end}"]
    assert len(Path("a.csv").read_text().splitlines()) == 9 and not list(Path().glob(".*.lock"))
    train(TrainOptions(Path("solver.prototxt"), csv=Path("a.csv")))
