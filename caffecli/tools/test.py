"""``caffecli test``: the mean of a trained net's outputs over some batches, and what it says of each record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from caffecli import logs
from caffecli.logs import number
from caffecli.net import devices, weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.solver import mixed, progress
from caffecli.spec import load
from caffecli.tools import extract_features as features
from caffecli.tools import predictions


@dataclass(frozen=True)
class TestOptions:
    """What ``caffecli test`` can be told. ``weights``: files separated by commas.

    ``predictions`` and ``confusion`` are CSV files to write; ``blob`` and ``top`` are theirs: see ``predictions.recording``.
    """

    __test__ = False  # not a test class, whatever pytest thinks

    model: Path
    weights: str
    iterations: int = 50
    gpu: str | None = None
    cpu: bool = False
    level: int = 0
    stages: tuple[str, ...] = ("",)
    predictions: Path | None = None
    confusion: Path | None = None
    blob: str | None = None
    top: int = 5
    amp: bool = False


@torch.no_grad()
def test(options: TestOptions) -> dict[str, Tensor]:
    """Score the net; logs Caffe's lines and returns the mean of each output blob."""
    for path in (options.predictions, options.confusion):
        if path is not None:
            features.refuse_existing(path)
    device = devices.choose(options.gpu, options.cpu)
    devices.log_use(device, 275)
    param = load.load_net(options.model)
    param.state.phase = TEST
    param.state.level = options.level
    param.state.stage.extend(options.stages)
    net = Net(param, folders=(options.model.parent,))
    try:
        net.place(device)
        if options.amp:
            mixed.check(device)
            mixed.mix(net)
        for name in options.weights.split(","):
            weights.load(net, name.strip())
        with predictions.recording(net, options.predictions, options.confusion, options.blob, options.top) as recorder:
            logs.info("caffe.cpp:281", f"Running for {options.iterations} iterations.")
            loss, means = _run(net, options.iterations, recorder)
    finally:
        net.close()
    logs.info("caffe.cpp:309", f"Loss: {number(loss)}")
    for line in progress.output_lines(progress.flat(net, means)):
        logs.info("caffe.cpp:321", line)
    return means


def _run(net: Net, iterations: int, recorder: predictions.Recorder) -> tuple[float, dict[str, Tensor]]:
    sums: dict[str, Tensor] = {}
    total = 0.0
    with logs.Bar(iterations, unit="batch") as bar:
        for i in range(iterations):
            (loss, outputs), blobs = features.look(net, recorder.slots)
            recorder.take(blobs)
            total += float(loss)
            for name, value, _ in progress.flat(net, outputs):
                logs.info("caffe.cpp:304", f"Batch {i}, {name} = {number(value)}")
            for name, blob in outputs.items():
                sums[name] = sums[name] + blob if name in sums else blob.clone()
            bar.advance()
    return total / iterations, {name: blob / iterations for name, blob in sums.items()}
