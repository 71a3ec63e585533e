"""Files and folders that are complete under their name, or not there at all.

``replacing(path)`` writes beside the target, under a hidden name, syncs, and renames; ``new_folder(path)`` does the
same for a folder that must not exist yet. If anything fails, the target keeps its former content. The unfinished file
of a killed process is removed by the next process that writes the same target: a running writer holds a lock
(``flock``) on its own. ``alone(path)`` keeps a path, or all that begins so, to one process for longer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from caffecli.errors import FormatError
from caffecli.formats import locks
from caffecli.host import check_file
from caffecli.wording import unexpanded

_REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or write to another disk",
    errno.EISDIR: "name a file in it",
    errno.EACCES: "check the permissions of the folder",
    errno.EPERM: "check the permissions of the folder",
    errno.EROFS: "write to another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def cannot_write(path: str | os.PathLike[str], error: OSError) -> FormatError:
    """The one-line error for a file that cannot be written, with what the user can do about it."""
    why = os.strerror(error.errno) if error.errno else str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the path")
    folder = Path(path).parent
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not folder.is_dir():
        remedy = (
            f"{str(folder)!r} is no folder, name another"
            if folder.exists()
            else f"create the folder {str(folder)!r} first"
        )
    return FormatError(f"cannot write {str(path)!r}: {why}; {remedy}")


def cannot_read(path: str | os.PathLike[str], error: OSError) -> FormatError:
    """The one-line error for a file that cannot be read."""
    why = error.strerror or str(error)
    remedy = "name a file in it" if error.errno == errno.EISDIR else "check the path and its permissions"
    hint = unexpanded(path) if error.errno == errno.ENOENT else ""
    return FormatError(f"cannot read {str(path)!r}: {why}{hint or f'; {remedy}'}")


def read_file(path: str | os.PathLike[str], count: int = -1) -> bytes:
    """``read_bytes``, which raises OSError, as ``host.check_file`` does."""
    check_file(path)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path would take as long as reading a small file
        return file.read(count)


def read_bytes(path: str | os.PathLike[str], count: int = -1) -> bytes:
    """The content of a file, or its first ``count`` bytes. Raises FormatError."""
    try:
        return read_file(path, count)
    except OSError as error:
        raise cannot_read(path, error) from error


def refuse_existing(path: str | os.PathLike[str], file: bool = False) -> None:
    """Raise FormatError when something lies at ``path``. ``file``: where a file is to be, a folder is not to go."""
    if file and Path(path).is_dir():
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    if os.path.lexists(path):
        here = Path(path).resolve() in (Path.cwd(), *Path.cwd().parents)
        remedy = "the folder that you are in, or one above it; choose" if here else "exists; remove it or choose"
        raise FormatError(f"{os.fspath(path)!r} {'is ' if here else ''}{remedy} another name")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write, which takes the place of ``path`` when the block ends without an error.

    A path that is no ordinary file (``/dev/stdout``, a pipe) is written straight. ``mode`` is ``"wb"`` or ``"w"``
    (UTF-8).
    Raises FormatError when the file cannot be written: no space, no permission, no such folder.
    """
    target = Path(path)
    encoding = None if "b" in mode else "utf-8"
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():
            with target.open(mode, encoding=encoding) as file:
                yield file
            return
        real = target.resolve()  # a symbolic link stays: its target is replaced
        _sweep(real)
        hidden = _hidden_name(real)
        try:
            with hidden.open(mode.replace("w", "x"), encoding=encoding) as file:
                with contextlib.suppress(OSError):
                    locks.take(file)
                yield file
                file.flush()
                os.fsync(file.fileno())
                hidden.replace(real)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        sync(real.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` when the block ends without an error.

    Raises FormatError when ``path`` exists already, or cannot be written.
    """
    target = Path(path)
    refuse_existing(target)
    real = target.resolve()
    hidden = _hidden_name(real)
    try:
        _sweep(real)
        hidden.mkdir()
        try:
            lock = os.open(hidden, os.O_RDONLY)
            try:
                with contextlib.suppress(OSError):
                    locks.take(lock)
                yield hidden
                for part in hidden.iterdir():
                    sync(part)
                sync(hidden)
                if os.path.lexists(real):
                    raise FormatError(f"{str(path)!r} has come to exist meanwhile; remove it or choose another name")
                hidden.rename(real)
            finally:
                os.close(lock)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        sync(real.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def alone(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Keeps ``path``, or all names that begin so, to this block: until it ends, or its process, no other can enter.

    The sign is a lock (``flock``) on ``.NAME.lock`` beside ``path``, which holds the process's number. Raises
    FormatError, which calls the path ``what``, where another has the lock. Where there can be none, as in a folder
    that cannot be written, all are let in.
    """
    target = Path(path)
    sign = target.with_name(f"{_prefix(target)}lock")
    fd = _locked(sign, what)
    try:
        yield
    finally:
        if fd is not None:
            with contextlib.suppress(OSError):
                sign.unlink()  # while it is locked; whoever has opened it meanwhile sees that it is gone
            os.close(fd)


def _locked(sign: Path, what: str) -> int | None:
    """The file ``sign``, locked; None where it cannot be."""
    while True:
        try:
            fd = os.open(sign, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            locks.take(fd)
            if sign.exists() and os.path.samestat(os.fstat(fd), sign.stat()):
                os.ftruncate(fd, 0)
                os.write(fd, str(os.getpid()).encode())
                return fd
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace")
            os.close(fd)
            raise FormatError(
                f"{what}: another run, process {holder or 'unknown'}, writes there; wait until it ends, or name another"
            ) from None
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks
            os.close(fd)
            return None
        os.close(fd)


def _hidden_name(target: Path) -> Path:
    """``.NAME.PID-RANDOM.tmp`` beside the target: hidden from globs, and another one for each writer."""
    return target.with_name(f"{_prefix(target)}{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def _prefix(target: Path) -> str:
    name = target.name.encode(errors="surrogateescape")[:200].decode(errors="ignore")  # names end at 255 bytes
    return f".{name}."


def _sweep(target: Path) -> None:
    """Remove the unfinished files of killed writers of ``target``: those without a lock."""
    prefix = _prefix(target)
    with contextlib.suppress(OSError):
        for left in target.parent.iterdir():
            # only ".NAME.PID-RANDOM.tmp", never the unfinished file of a target whose name merely begins alike
            if not (
                left.name.startswith(prefix) and left.name.endswith(".tmp") and left.name[len(prefix) :].count(".") == 1
            ):
                continue
            with contextlib.suppress(OSError):
                fd = os.open(left, os.O_RDONLY)
                try:
                    locks.take(fd)
                    if stat.S_ISDIR(os.fstat(fd).st_mode):
                        shutil.rmtree(left)
                    else:
                        left.unlink()
                finally:
                    os.close(fd)


def sync(path: Path) -> None:
    """fsync a file or folder; file systems that cannot sync folders say EINVAL."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)
