"""Files are complete under their name, or not there."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from caffecli.errors import FormatError
from caffecli.formats.atomic import alone, new_folder, read_bytes, replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replaces_the_old_file_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_text_mode_writes_utf8(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt", "w") as file:
        file.write("é")
    assert (tmp_path / "a.txt").read_bytes() == "é".encode()


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner: object = os if function == "fsync" else Path
    monkeypatch.setattr(owner, function, fail)
    with pytest.raises(FormatError) as caught, replacing(tmp_path / "a.bin") as file:
        file.write(b"new")
    assert str(caught.value) == (
        f"cannot write '{tmp_path}/a.bin': No space left on device; free some space, or write to another disk"
    )
    assert names(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FormatError, match=r"create the folder '.*/nowhere' first"),
        replacing(tmp_path / "nowhere" / "a.bin"),
    ):
        pass


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="Is a directory"), replacing(tmp_path):
        pass


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_devices_are_written_straight() -> None:
    with replacing("/dev/null") as file:
        file.write(b"x")
    assert not Path("/dev/null").is_file()


def test_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with replacing(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"
    with pytest.raises(FormatError, match="choose a shorter name"), replacing(tmp_path / ("n" * 256)):
        pass


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    script = """
        import sys, time
        from caffecli.formats.atomic import new_folder, replacing
        with replacing(sys.argv[1]) as file, new_folder(sys.argv[2]) as folder:
            file.write(b"half")
            (folder / "part").write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(60)
    """
    args = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a"), str(tmp_path / "b")]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        left = names(tmp_path)
        assert len(left) == 2
        assert all(name.startswith(".") and name.endswith(".tmp") for name in left)
        with replacing(tmp_path / "a") as file:  # a living writer's file is not touched
            file.write(b"x")
        assert set(left) < set(names(tmp_path))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with replacing(tmp_path / "a") as file, new_folder(tmp_path / "b"):
        file.write(b"whole")
    assert names(tmp_path) == ["a", "b"]


def test_a_path_for_one_alone(tmp_path: Path) -> None:
    """Until the block or its process ends, be it by SIGKILL."""
    script = """
        import sys, time
        from caffecli.formats.atomic import alone
        with alone(sys.argv[1], "run"):
            print("ready", flush=True)
            time.sleep(60)
    """
    args = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "run")]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        words = rf"the run: another run, process {process.pid}, writes there; wait until it ends, or name another"
        with pytest.raises(FormatError, match=words), alone(tmp_path / "run", "the run"):
            pass
        with alone(tmp_path / "runs", "another"):
            assert names(tmp_path) == [".run.lock", ".runs.lock"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with (
        alone(tmp_path / "run", "the run"),
        pytest.raises(FormatError, match="the run: another run"),
        alone(tmp_path / "run", "the run"),
    ):
        pass
    assert names(tmp_path) == []
    with alone(tmp_path / "no folder" / "run", "the run"):
        pass


def test_folders_come_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "db") as folder:
        (folder / "x").write_bytes(b"x")
        assert not (tmp_path / "db").exists()
    assert names(tmp_path) == ["db"]
    with pytest.raises(ValueError, match="mine"), new_folder(tmp_path / "other") as folder:
        (folder / "x").write_bytes(b"x")
        raise ValueError("mine")
    assert names(tmp_path) == ["db"]


def test_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with pytest.raises(FormatError, match="exists; remove it or choose another name"), new_folder(tmp_path / "db"):
        pass
    with pytest.raises(FormatError, match="has come to exist"), new_folder(tmp_path / "late"):
        (tmp_path / "late").mkdir()
    assert names(tmp_path) == ["db", "late"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cannot read '.*/none': No such file or directory"):
        read_bytes(tmp_path / "none")


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize(
    "write",
    [
        "caffemodel.write(path, net, {'ip': [np.zeros((500, 500))]})",
        "solverstate.write(path, solverstate.SolverState(1, 0, '', [np.zeros((500, 500))]))",
        "mean.write(path, np.zeros((3, 256, 256)))",
        "fill(db.open_writer(path, 'lmdb'))",
        "fill(db.open_writer(path, 'leveldb'))",
    ],
)
@pytest.mark.parametrize("name", ["out", "out.h5"])
def test_every_writer_fails_in_one_line(tmp_path: Path, write: str, name: str) -> None:
    """A limit on file sizes stands in for a full disk."""
    script = f"""
        import sys
        import numpy as np
        from caffecli.errors import FormatError
        from caffecli.formats import caffemodel, db, mean, solverstate
        from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
        net = NetParameter(layer=[LayerParameter(name="ip")])
        path = sys.argv[1]
        def fill(opening):
            with opening as writer:
                for i in range(5000):
                    writer.put(b"%08d" % i, bytes(3000))
        try:
            {write}
        except FormatError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / name)],
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"cannot write '{tmp_path / name}': ")
    assert done.stdout.count("\n") == 1
    assert "File too large" in done.stdout or "full disk" in done.stdout
    assert names(tmp_path) == []


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    """As it comes from a disk that was written in Latin-1."""
    for name in ("un\udce4.txt", "\udce4" * 100):
        with replacing(tmp_path / name) as file:
            file.write(b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
