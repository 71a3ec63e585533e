"""What a program asks of its machine: settings, to be made before torch and OpenCV are imported; what is a file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys

_MMAP_THRESHOLD = "MALLOC_MMAP_THRESHOLD_", -3, 2**30
_TRIM_THRESHOLD = "MALLOC_TRIM_THRESHOLD_", -1, 2**31 - 1

#: the most pixels of a picture, and OpenCV's variable that says another number
PIXELS = 2**28
PIXELS_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"


def prepare() -> None:
    """Make all settings, for this process and those that it starts, except where the user has set them otherwise."""
    share_the_cores()
    keep_memory()
    bound_pictures()


def share_the_cores() -> None:
    """Let PyTorch's idle threads wait instead of spin, unless the user has said how OpenMP shall wait.

    By default they spin for milliseconds, and where other programs use the cores too, spin away the time of those they
    wait for: training beside two busy programs on two cores is five times as fast without. See docs/benchmarks.md.
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = "1000"


def keep_memory() -> None:
    """Let glibc keep the memory of blobs that are freed: the next iteration wants it again.

    By default it gives large pieces back to the system, which then clears them page by page for the next iteration. A
    fifth of the time of cifar10_quick goes there. See docs/benchmarks.md.
    """
    settings = (_MMAP_THRESHOLD, _TRIM_THRESHOLD)
    if not sys.platform.startswith("linux") or os.environ.keys() & {name for name, _, _ in settings}:
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for name, key, value in settings:
            mallopt(key, value)
            os.environ[name] = str(value)


def compute_alone_after_fork() -> None:
    """Let a child that this process forks compute on one thread.

    OpenMP's other threads stay in the parent, and the child's first parallel loop would wait for them for ever.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def bound_pictures() -> None:
    """Let OpenCV refuse pictures of more than ``PIXELS`` pixels, unless the user has named another number.

    A PNG of 100 KB may have a billion, which take 3 GB. OpenCV looks when it is imported; its own bound is 2**30.
    """
    os.environ.setdefault(PIXELS_VARIABLE, str(PIXELS))


def pixels() -> str:
    """The most pixels of a picture, as they are set."""
    return os.environ.get(PIXELS_VARIABLE, str(PIXELS))


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise OSError where there is no file, or something that is none: a folder, a pipe, a device.

    To open a pipe may wait for ever, and some devices have no end. A pipe that the shell has opened (``/dev/stdin``,
    ``/dev/fd/63``) is taken as a file.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - a Path would take longer, for each picture
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    opened = os.fspath(path).startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/"))
    if not (stat.S_ISFIFO(mode) and opened):
        what = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise OSError(errno.EINVAL, f"it is {what}, expected a file", os.fspath(path))
