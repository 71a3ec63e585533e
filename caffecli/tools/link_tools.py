"""The programs of a built Caffe checkout, ``build/tools/caffe`` and so on, as small launchers of caffecli.

A launcher is a shell script that starts the Python and the caffecli that wrote it, whatever ``PATH`` and the working
directory are; if that Python is gone, it says so.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from caffecli.errors import CaffeError, FormatError

_MAIN, _OLD = "caffecli.cli.main", "caffecli.cli.old_tools"

#: path in the build folder -> the program's function; each also gets a copy whose name ends in .bin, as Caffe's
#: makefile does
PROGRAMS = {
    "tools/caffe": f"{_MAIN}:main",
    "tools/convert_imageset": f"{_MAIN}:convert_imageset",
    "tools/convert_annoset": f"{_MAIN}:convert_annoset",
    "tools/create_label_map": f"{_MAIN}:create_label_map",
    "tools/get_image_size": f"{_MAIN}:get_image_size",
    "tools/compute_image_mean": f"{_MAIN}:compute_image_mean",
    "tools/extract_features": f"{_MAIN}:extract_features",
    "tools/upgrade_net_proto_text": f"{_MAIN}:upgrade_net_proto_text",
    "tools/upgrade_net_proto_binary": f"{_MAIN}:upgrade_net_proto_binary",
    "tools/upgrade_solver_proto_text": f"{_MAIN}:upgrade_solver_proto_text",
    "tools/train_net": f"{_OLD}:train_net",
    "tools/finetune_net": f"{_OLD}:finetune_net",
    "tools/test_net": f"{_OLD}:test_net",
    "tools/device_query": f"{_OLD}:device_query",
    "tools/net_speed_benchmark": f"{_OLD}:net_speed_benchmark",
    "examples/mnist/convert_mnist_data": f"{_MAIN}:convert_mnist_data",
    "examples/cifar10/convert_cifar_data": f"{_MAIN}:convert_cifar_data",
    "examples/siamese/convert_mnist_siamese_data": f"{_MAIN}:convert_mnist_siamese_data",
}

#: the second line of each launcher, by which we recognize it
_MARK = "# made by caffecli link-tools"

_SCRIPT = """\
#!/bin/sh
{mark}
python={python}
if [ ! -x "$python" ]; then
  echo "Error: $0: there is no $python any more; make this file anew with caffecli link-tools" >&2
  exit 127
fi
exec "$python" -c 'import sys
sys.argv[:3], home = sys.argv[1:2], sys.argv[2]
sys.path = [folder for folder in sys.path if folder] + [home]
from {module} import {function}
{function}()' "$0" {home} "$@"
"""


def link_tools(build: Path, force: bool = False) -> list[Path]:
    """Write the launchers of ``PROGRAMS``, and their .bin copies, in ``build``; returns their paths.

    Launchers of an earlier call are made anew. Raises FormatError, before anything is written, when other files have
    their names, unless ``force``; and when something cannot be written.
    """
    if os.name != "posix":
        raise CaffeError("link-tools makes shell scripts, which this system does not run; call caffecli itself")
    launchers = {build / f"{name}{end}": target for name, target in PROGRAMS.items() for end in ("", ".bin")}
    taken = [path for path in launchers if os.path.lexists(path) and (path.is_dir() or not (force or _is_ours(path)))]
    if taken:
        which = f"and {len(taken) - 1} more exist and were" if len(taken) > 1 else "exists and was"
        remedy = "remove them" if any(path.is_dir() for path in taken) else "remove them, or replace them with --force"
        raise FormatError(f"{str(taken[0])!r} {which} not made by link-tools; {remedy}")
    for path, target in launchers.items():
        _write(path, *target.split(":"))
    return list(launchers)


def _is_ours(path: Path) -> bool:
    from caffecli.formats import atomic

    return path.is_file() and not path.is_symlink() and _MARK.encode() in atomic.read_bytes(path, 200)


def _write(path: Path, module: str, function: str) -> None:
    from caffecli.formats import atomic

    home = str(Path(__file__).resolve().parents[2])  # the package's folder, for a caffecli that is not installed
    text = _SCRIPT.format(
        mark=_MARK, python=shlex.quote(sys.executable), module=module, function=function, home=shlex.quote(home)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()  # a symbolic link itself, not its target: Caffe's own tools/caffe is a link to caffe.bin
        with atomic.replacing(path) as file:
            file.write(text.encode(errors="surrogateescape"))
            os.fchmod(file.fileno(), 0o777 & ~_umask())
    except OSError as error:
        raise atomic.cannot_write(path, error) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
