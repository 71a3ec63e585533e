"""``python -m scripts.model_times NAME``: how long a net of models/ takes, as a line of JSON;
for scripts/model_table.py.

Milliseconds of a forward pass of one picture, of the same by OpenCV's importer of Caffe nets where there is one, and of
an iteration of training.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli does, before torch is imported

import cv2
import torch

from caffecli import host, logs
from caffecli.formats import caffemodel
from caffecli.layers.forks.ssd.annotated import AnnotatedData
from caffecli.net import weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, LayerParameter, SolverParameter
from caffecli.solver.solver import Solver
from caffecli.spec import load
from scripts.zoo import made_up

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
#: of Caffe's nets; OpenCV 5 has none
IMPORTER: Any = getattr(cv2.dnn, "readNetFromCaffe", None)
THREADS, RUNS, SECONDS = 2, 5, 1.5
LONG, FEW = 2.0, 3  # runs that take so many seconds are few
#: tops of data layers that hold numbers of classes and of words, and markers
NUMBERS = ("label", "sim", "target_sentence", "cont_sentence", "input_sentence", "stage_indicator")
#: tops of data layers whose shapes are neither the picture's nor the label's
SHAPES: dict[str, tuple[int, ...]] = {"pair_data": (1, 2, 28, 28), "landmarks": (1, 10), "frame_fc7": (1, 1, 4096)}


def machine() -> str:
    """What the times hold for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    opencv = f", OpenCV {cv2.__version__}" if IMPORTER else ""
    return (
        f"{os.cpu_count()} cores of {(*models, platform.processor(), 'unknown make')[0]}, torch "
        f"{torch.__version__}{opencv}"
    )


def clock(run: Callable[[], object]) -> float:
    """The median of the milliseconds that a run takes, the first left out."""
    taken: list[float] = []
    while len(taken) <= _least(taken) or (sum(taken) < 1000 * SECONDS and len(taken) < 200):
        start = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[1:])


def _least(taken: list[float]) -> int:
    return FEW if taken and taken[-1] > 1000 * LONG else RUNS


def deploy(name: str) -> Net:
    """The deploy net, with made-up weights."""
    return made_up.weights(Net(load.prepare_net(load.load_net(MODELS / name / "deploy.prototxt"), TEST)))


def forward(net: Net, given: dict[str, torch.Tensor]) -> float:
    """Milliseconds of a forward pass, the weights laid out as ``caffecli test`` has them."""
    net.place("cpu")
    with torch.no_grad():
        return clock(lambda: net(given))


def opencv(net: Net, definition: Path, given: dict[str, torch.Tensor]) -> float | str:
    """Milliseconds of a forward pass by OpenCV's importer of Caffe nets, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.caffemodel"
        caffemodel.write(path, net.param, weights.export(net))
        try:
            theirs = IMPORTER(str(definition), str(path))
            for blob, values in given.items():
                theirs.setInput(values.numpy(), blob)
            return clock(lambda: theirs.forward(net.outputs))
        except cv2.error as error:
            return refusal(str(error), [node.layer.type for node in net.nodes])


def refusal(error: str, types: list[str]) -> str:
    """What OpenCV says of a net that it does not run."""
    unknown = [kind for kind in dict.fromkeys(types) if f'"{kind}"' in error]
    said = f"has no layer type {unknown[0]}" if unknown else f"says: {error.strip().splitlines()[-1]}"
    return f"OpenCV {said}."


def solver(name: str, picture: tuple[int, ...]) -> Solver:
    """The net's solver on made-up pictures of one shape; no tests, no snapshots."""
    param = SolverParameter()
    param.CopyFrom(load.load_solver(MODELS / name / "solver.prototxt"))
    net = load.load_net(ROOT / param.net)
    for layer in net.layer:
        if not layer.bottom:
            _made_up(layer, picture)
    for field in ("net", "iter_size", "test_iter", "test_interval", "test_state", "display", "snapshot"):
        param.ClearField(field)
    param.net_param.CopyFrom(net)
    param.snapshot_after_train = False
    param.base_lr = 1e-9  # the pictures are noise
    return Solver(param)


def training(name: str, picture: tuple[int, ...]) -> float:
    """Milliseconds of an iteration."""
    made = solver(name, picture)
    return clock(lambda: made.step(1))


def _made_up(layer: LayerParameter, picture: tuple[int, ...]) -> None:
    """Make a data layer one of random pictures, whose classes are 0, and without boxes. A label alone is one of each
    pixel.
    """
    boxes = AnnotatedData.label_shape(layer, 1) if layer.type == AnnotatedData.type else None
    layer.type = "DummyData"
    for top in layer.top:
        if boxes and top in NUMBERS:
            layer.dummy_data_param.shape.add(dim=boxes)
            layer.dummy_data_param.data_filler.add(type="constant", value=-1 if boxes[-1] == 8 else 0)
            continue
        numbers = (1, 1, *picture[2:]) if len(layer.top) == 1 else (1, 1) if len(picture) == 2 else (1,)
        layer.dummy_data_param.shape.add(dim=SHAPES.get(top, numbers if top in NUMBERS else picture))
        layer.dummy_data_param.data_filler.add(type="constant" if top in NUMBERS else "gaussian")


def main(name: str) -> dict[str, Any]:
    """What model_table.py writes down of a net."""
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    host.keep_memory()  # as caffecli does
    folder = MODELS / name
    found: dict[str, Any] = {}
    with logs.quiet():
        net = deploy(name)
        given = made_up.inputs(net)
        found["forward"] = forward(net, given)
        if IMPORTER:
            found["opencv"] = opencv(net, folder / "deploy.prototxt", given)
        picture = tuple(given[net.inputs[0]].shape)
        del net, given
        gc.collect()
        found["step"] = (
            training(name, picture) if (folder / "solver.prototxt").exists() else "It is no net for training."
        )
    return found


if __name__ == "__main__":
    print(json.dumps({"machine": machine(), "net": main(sys.argv[1])}))
