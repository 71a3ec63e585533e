"""``caffecli test``: the mean of a trained net's outputs over some batches, and what it says of each record."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from caffecli import logs
from caffecli.formats import atomic
from caffecli.logs import number
from caffecli.net import devices
from caffecli.net.runners.whole import Whole
from caffecli.solver import progress
from caffecli.tools import predictions
from caffecli.tools.blobs import run_and_observe
from caffecli.tools.open import open_net, split_names


@dataclass(frozen=True)
class TestOptions:
    """What ``caffecli test`` can be told. ``weights``: files separated by commas.

    ``predictions`` and ``confusion`` are CSV files to write; ``blob`` and ``top`` are theirs: see
    ``predictions.writing``. ``layers``: modules of the user's own that register layers.
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
    layers: tuple[str, ...] = ()


@torch.no_grad()
def test(options: TestOptions) -> dict[str, Tensor]:
    """Score the net; logs Caffe's lines and returns the mean of each output blob."""
    for path in (options.predictions, options.confusion):
        if path is not None:
            atomic.refuse_existing(path)
    device = devices.choose(options.gpu, options.cpu)
    devices.log_use(device, 275)
    runner = open_net(
        options.model,
        Whole,
        level=options.level,
        stages=options.stages,
        layers=options.layers,
        device=device,
        amp=options.amp,
        weights=split_names(options.weights),
    )
    wanted = options.predictions, options.confusion, options.blob, options.top
    with contextlib.closing(runner.net) as net, predictions.writing(net, *wanted) as writer:
        logs.info("caffe.cpp:281", f"Running for {options.iterations} iterations.")
        loss, means = _run(runner, options.iterations, writer)
    logs.info("caffe.cpp:309", f"Loss: {number(loss)}")
    for line in progress.output_lines(progress.flat(net, means)):
        logs.info("caffe.cpp:321", line)
    return means


def _run(runner: Whole, iterations: int, writer: predictions.PredictionWriter) -> tuple[float, dict[str, Tensor]]:
    sums: dict[str, Tensor] = {}
    total = 0.0
    with logs.Bar(iterations, unit="batch") as bar:
        for i in range(iterations):
            (loss, outputs), blobs = run_and_observe(runner, writer.slots)
            writer.take(blobs)
            total += float(loss)
            for name, value, _ in progress.flat(runner.net, outputs):
                logs.info("caffe.cpp:304", f"Batch {i}, {name} = {number(value)}")
            for name, blob in outputs.items():
                sums[name] = sums[name] + blob if name in sums else blob.clone()
            bar.advance()
    return total / iterations, {name: blob / iterations for name, blob in sums.items()}
