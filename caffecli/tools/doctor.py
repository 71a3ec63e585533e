"""``caffecli doctor``: what is installed, what is missing for what, what the machine has, and how fast it trains."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from caffecli import __version__, logs

#: what caffecli does not run without: module -> its package
NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "google.protobuf": "protobuf",
    "lmdb": "lmdb",
    "h5py": "h5py",
    "cv2": "opencv-python-headless",
    "click": "click",
    "tqdm": "tqdm",
}
#: what some things want beside: module -> its package, the extra that brings it, and what for
OPTIONAL = {
    "matplotlib": ("matplotlib", "plot", "curves, histograms, and the pictures of reports"),
    "plotly": ("plotly", "report", "report's curves"),
    "onnx": ("onnx", "onnx", "export to ONNX"),
    "onnxscript": ("onnxscript", "onnx", "export to ONNX"),
    "onnxruntime": ("onnxruntime", "onnx", "running ONNX files beside"),
    "tensorboard": ("tensorboard", "tensorboard", "train --tensorboard"),
    "pycocotools": ("pycocotools", "coco", "score_detections --ap_version COCO"),
    "sklearn": ("scikit-learn", "demo", "make demo, and the tutorials' digits"),
}
#: programs -> what for, and how to get them
PROGRAMS = {"dot": ("draw_net's .svg, .png and .pdf", "graphviz of the system's packages")}
_LEVELDB = ("plyvel", "plyvel-ci", "plyvel-next")
_CODECS = (".jpg", ".png", ".bmp", ".tiff", ".webp")
_VARIABLES = ("CAFFECLI_", "GLOG_", "OMP_", "MKL_", "CUDA_VISIBLE_DEVICES")
#: LeNet, on random pictures
_LENET = """
name: "LeNet"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 64 dim: 1 dim: 28 dim: 28 } shape { dim: 64 }
  data_filler { type: "uniform" min: 0 max: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 50 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1"
  inner_product_param { num_output: 500 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""

Facts = dict[str, Any]


def doctor(seconds: float = 1.0) -> Facts:
    """What ``caffecli doctor`` tells, by section; what could not be found out says why. Trains for ``seconds``."""
    return {
        "caffecli": {
            "version": __version__,
            "place": str(Path(__file__).parents[1]),
            "python": platform.python_version(),
            "program": sys.executable,
            "system": platform.platform(),
        },
        "installed": {package: _version(module, package) for module, package in NEEDED.items()},
        "optional": {package: _installed(module, package) for module, (package, _, _) in OPTIONAL.items()},
        "missing": _missing(),
        "data": _attempt(_data),
        "machine": _attempt(_machine),
        "places": {name: _place(path) for name, path in _folders().items()},
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        "training": _attempt(lambda: _training(seconds)),
    }


def _attempt(find: Callable[[], Facts]) -> Facts:
    """What is found out, or why it cannot be: a broken library must not end the command that is to tell of it."""
    try:
        return find()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _version(module: str, package: str) -> str | None:
    """The version of a package; None: it is not there; "broken: ..." where it cannot be imported."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return None if (error.name or "") in module else f"broken: {error}"
    except Exception as error:
        return f"broken: {type(error).__name__}: {' '.join(str(error).split())}"
    return _installed(module, package)


def _installed(module: str, package: str) -> str | None:
    """The version of a package, which is not imported: some take seconds; None: it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # or another package brings the module, such as opencv-python
        return None if importlib.util.find_spec(module) is None else "of another package"


def _missing() -> list[Facts]:
    """What is not there, what it is for, and how to get it."""
    lacking: list[Facts] = []
    for module, (package, extra, use) in OPTIONAL.items():
        if _installed(module, package) is None:
            lacking.append({"what": package, "for": use, "get": f"pip install 'caffecli[{extra}]'"})
    if _leveldb() is None:
        name = "plyvel-next" if sys.version_info >= (3, 13) else "plyvel"
        lacking.append({"what": "plyvel", "for": "LevelDB", "get": f"pip install {name}"})
    for program, (use, get) in PROGRAMS.items():
        if shutil.which(program) is None:
            lacking.append({"what": program, "for": use, "get": get})
    return lacking


def _leveldb() -> str | None:
    if (_version("plyvel", "plyvel") or "broken").startswith("broken"):
        return None
    for package in _LEVELDB:
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return "plyvel"


def _data() -> Facts:
    import cv2
    import h5py
    import lmdb
    import numpy as np

    picture = np.zeros((8, 8, 3), np.uint8)
    codecs = {ending[1:]: _codec(cv2, ending, picture) for ending in _CODECS}
    built = [line.split(":")[1].split() for line in cv2.getBuildInformation().splitlines() if "FFMPEG:" in line]
    return {
        "LMDB": ".".join(map(str, lmdb.version())),
        "LevelDB": _leveldb(),
        "HDF5": h5py.version.hdf5_version,
        "pictures": [name for name, there in codecs.items() if there],
        "no pictures": [name for name, there in codecs.items() if not there],
        "videos": bool(built) and built[0][:1] == ["YES"],
    }


def _codec(cv2: Any, ending: str, picture: Any) -> bool:
    try:
        return cv2.imdecode(cv2.imencode(ending, picture)[1], cv2.IMREAD_COLOR) is not None
    except cv2.error:
        return False


def _machine() -> Facts:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        of = torch.cuda.get_device_properties(index)
        gpus.append(f"{of.name}, {of.total_memory / 2**30:.0f} GB")
    return {
        "cores": cores,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory GB": _memory(),
        "GPUs": gpus,
        "PyTorch's CUDA": torch.version.cuda,
    }


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _folders() -> dict[str, str]:
    """The folders that commands write to unless told otherwise."""
    folders = {"temporary": tempfile.gettempdir()}
    try:
        return {"working": str(Path.cwd()), **folders}
    except OSError:
        return folders


def _place(path: str) -> Facts:
    """Whether a file can be written to a folder, and how much room there is."""
    try:
        with tempfile.NamedTemporaryFile(dir=path):
            writable = True
    except OSError:
        writable = False
    return {"path": path, "writable": writable, "free GB": round(shutil.disk_usage(path).free / 2**30, 1)}


def _training(seconds: float) -> Facts:
    """Iterations a second of LeNet, 64 pictures at a time, on the CPU, and on the first GPU if there is one."""
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {f"{device} iterations/s": round(_rate(device, seconds), 1) for device in devices}


def _rate(device: str, seconds: float) -> float:
    import torch

    from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
    from caffecli.solver.solver import Solver
    from caffecli.spec import text

    param = SolverParameter(base_lr=0.01, momentum=0.9, lr_policy="fixed", max_iter=10**9, random_seed=1)
    param.train_net_param.CopyFrom(text.parse(_LENET, NetParameter()))
    with logs.quiet():
        solver = Solver(param, device)
        try:
            solver.step(3)
            start, before = time.perf_counter(), solver.iter
            while (spent := time.perf_counter() - start) < seconds or solver.iter == before:
                solver.step(1)
                if device != "cpu":
                    torch.cuda.synchronize()
            return (solver.iter - before) / max(spent, time.perf_counter() - start)
        finally:
            solver.close()


def to_text(facts: Facts) -> str:
    """What ``doctor`` found out, for people."""
    own, data, machine = facts["caffecli"], facts["data"], facts["machine"]
    lines = [f"caffecli {own['version']} on Python {own['python']}, {own['system']}", f"  in {own['place']}", ""]
    lines += [
        "Installed",
        *_wrapped(f"{name} {version or 'is missing'}" for name, version in facts["installed"].items()),
    ]
    lines += _wrapped(f"{name} {version}" for name, version in facts["optional"].items() if version)
    lines += ["", "Missing" if facts["missing"] else "Nothing is missing"]
    width = max((len(one["what"]) for one in facts["missing"]), default=0)
    lines += [f"  {one['what']:<{width}}  for {one['for']}: {one['get']}" for one in facts["missing"]]
    lines += ["", "Data"]
    if "error" in data:
        lines.append(f"  {data['error']}")
    else:
        lines.append(f"  LMDB {data['LMDB']}, LevelDB {data['LevelDB'] or 'is missing'}, HDF5 {data['HDF5']}")
        lacking = f"; not {', '.join(data['no pictures'])}" if data["no pictures"] else ""
        videos = "videos" if data["videos"] else "no videos: OpenCV has no FFmpeg"
        lines.append(f"  pictures: {', '.join(data['pictures'])}{lacking}; {videos}")
    lines += ["", "Machine"]
    if "error" in machine:
        lines.append(f"  {machine['error']}")
    else:
        memory = "" if machine["memory GB"] is None else f", {machine['memory GB']} GB of memory"
        lines.append(f"  {machine['cores']} cores, {machine['threads']} threads, {machine['instructions']}{memory}")
        built = (
            f"PyTorch is built for CUDA {machine['PyTorch' + chr(39) + 's CUDA']}" if machine["PyTorch's CUDA"] else ""
        )
        lines.append(
            f"  GPU: {'; '.join(machine['GPUs']) or 'none that PyTorch can use'}{', ' + built if built else ''}"
        )
    lines += [f"  {name}={value}" for name, value in facts["variables"].items()]
    lines += ["", "Places"]
    for name, place in facts["places"].items():
        state = "can be written" if place["writable"] else "CANNOT be written"
        lines.append(f"  {name} folder {place['path']}: {state}, {place['free GB']} GB free")
    lines += ["", "Training, LeNet with batches of 64"]
    lines += [f"  {name}: {value}" for name, value in facts["training"].items()]
    return "\n".join(lines)


def _wrapped(words: Iterable[str], width: int = 88) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines[-1] += ","
            lines.append("")
        lines[-1] += f", {word}" if lines[-1] else f"  {word}"
    return lines
