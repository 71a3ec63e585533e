"""Keeps checkouts of Caffe that cannot be imported out of the way of ``import caffe``.

Caffe's scripts and notebooks put the folder ``python`` of their checkout first on Python's path, and many have it in
PYTHONPATH. Where that checkout was never built, or for another Python, its package can only fail to import. It is
passed over, and what comes after it on the path is found; modules that a fork's checkout has and that one has not are
still found in it, and so is ``caffe.model_libs``: the detectors that came after SSD have their own of that name, with
the bodies and heads that their scripts call. A checkout that was built for this Python is imported. And
``import caffe_pb2``, for which programs put a folder of the checkout on the path, gives ours where there is none.

The compiled modules of the folder ``lib`` of py-faster-rcnn and MNC give ours (``caffe/rcnn_helpers.py``,
``caffe/coco_masks.py``, ``caffe/mnc_helpers.py``) where they were not compiled.

``import caffecli`` does this, and the file ``caffecli.pth`` of an installation, which Python reads when it starts.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType


#: modules that others' packages compile, and the file of our package ``caffe`` that stands in for each
_COMPILED = {
    **dict.fromkeys(
        ("utils.cython_bbox", "utils.cython_nms", "utils.cpu_nms", "nms.cpu_nms", "nms.gpu_nms"), "rcnn_helpers.py"
    ),
    "nms.mv": "mnc_helpers.py",
    "pycocotools._mask": "coco_masks.py",
}


class _Finder:
    """Finds ``caffe`` where a checkout that cannot be imported is on the path, a ``caffe_pb2`` where none is, and what
    was not compiled.
    """

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "caffe_pb2":
            return PathFinder.find_spec(name) or _ours(name, "proto/caffe_pb2.py")
        if name == "caffe.model_libs":
            return _of_a_checkout(name, list(path or ())[1:])
        if name in _COMPILED:
            return PathFinder.find_spec(name, path, target) or _ours(name, _COMPILED[name])
        if name != "caffe":
            return None
        from pathlib import Path  # here, as this module is imported whenever Python starts

        searched = [place for place in sys.path if isinstance(place, str)]
        useless = [place for place in searched if _useless(Path(place, "caffe"))]
        if not useless:
            return None
        found = PathFinder.find_spec(name, [place for place in searched if place not in useless])
        for finder in sys.meta_path:  # those of editable installations
            if (found is None or found.loader is None) and finder not in (cls, PathFinder):
                found = finder.find_spec(name, None, target)
        if found is not None and found.submodule_search_locations is not None:
            packages = [Path(place, "caffe") for place in useless]
            found.submodule_search_locations += [str(each) for each in packages if (each / "__init__.py").is_file()]
        return found


def pass_over() -> None:
    """From now on ``import caffe`` passes over checkouts that cannot be imported."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def _ours(name: str, file: str) -> ModuleSpec | None:
    """The file of our package ``caffe`` as a module ``name``."""
    from importlib.util import spec_from_file_location
    from pathlib import Path

    place = Path(__file__).parents[1] / "caffe" / file
    return spec_from_file_location(name, place) if place.is_file() else None


class _OfPython2(SourceFileLoader):
    """Loads a ``model_libs.py`` with what 2to3 leaves in it, or nobody ran it: ``xrange``, and in ``UnpackVariable``
    ``len > 0`` of the function ``len``.
    """

    def exec_module(self, module: ModuleType) -> None:
        from importlib import import_module

        names = vars(module)
        names["xrange"] = range
        super().exec_module(module)
        if "UnpackVariable" in names:
            names["UnpackVariable"] = import_module("caffe.conv_bn").UnpackVariable


def _of_a_checkout(name: str, packages: Sequence[str]) -> ModuleSpec | None:
    """The module of the first package ``caffe`` of a checkout that has it, if Python 3 can read it."""
    from importlib.util import spec_from_file_location
    from pathlib import Path

    for file in (Path(package, f"{name.rpartition('.')[2]}.py") for package in packages):
        try:
            compile(file.read_bytes(), file, "exec")
        except (OSError, SyntaxError, ValueError):
            continue
        return spec_from_file_location(name, file, loader=_OfPython2(name, str(file)))
    return None


def _useless(folder: Path) -> bool:
    """Whether the folder is a package ``caffe`` of a checkout, or all of a checkout, that cannot be imported."""
    if not (folder / "__init__.py").is_file():
        return folder.is_dir()
    return (folder / "_caffe.cpp").is_file() and not any(
        _is_for_this_python(folder / f"_caffe{suffix}") for suffix in EXTENSION_SUFFIXES
    )


def _is_for_this_python(library: Path) -> bool:
    """Whether the file is there, and names the function that Python 3 calls, and the library of no other Python."""
    try:
        code = library.read_bytes()
    except OSError:
        return False
    own = b"libpython%d.%d" % sys.version_info[:2]
    return b"PyInit__caffe" in code and (b"libpython" not in code or own in code)
