"""``caffecli test``: the mean of a trained net's outputs over some batches, and what it says of each record."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import PythonLayerError, ShapeError, SpecError
from caffecli.formats import atomic
from caffecli.layers.data import Input
from caffecli.logs import number
from caffecli.net import devices
from caffecli.net.net import Net
from caffecli.net.records import record_count, uneven
from caffecli.net.runners.base import Result
from caffecli.net.runners.whole import Whole
from caffecli.solver import progress
from caffecli.solver.detection import DetectionTest, log_precisions
from caffecli.tools import predictions, preprocessing
from caffecli.tools.blobs import run_and_observe
from caffecli.tools.open import open_net, split_names

#: the place in Caffe's source that lines about records name: where test starts
_SOURCE = "caffe.cpp:281"
#: how many batches the reference runs where it is not told
ITERATIONS = 50


@dataclass(frozen=True)
class TestOptions:
    """What ``caffecli test`` can be told. ``weights``: files separated by commas.

    ``iterations``: how many batches to run. None takes each record once for ``predictions`` and ``confusion``, where
    the net has an end of records, else 50 batches; ``each``: each record once, whatever is asked for.

    ``predictions`` and ``confusion`` are CSV files to write; ``blob`` and ``top`` are theirs: see
    ``predictions.writing``. ``layers``: modules of the user's own that register layers. ``ap_version``: how the average
    precisions of detections are made, see ``solver.detection``.
    """

    __test__ = False  # not a test class, whatever pytest thinks

    model: Path
    weights: str
    iterations: int | None = None
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
    each: bool = False
    ap_version: str = "Integral"


@torch.no_grad()
def test(options: TestOptions) -> dict[str, Tensor]:
    """Score the net; logs Caffe's lines and returns the mean of each output blob.

    Of DetectionEvaluate's top it is the mean average precision, and beside it ``NAME/classN`` that of each class.

    Raises SpecError for a net that has Input layers and no data.
    """
    for path in (options.predictions, options.confusion):
        if path is not None:
            atomic.refuse_existing(path, file=True)
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
    with contextlib.closing(runner.net) as net:
        _refuse_without_data(net, options.model)
        preprocessing.warn_of_other_pixels((node.layer.param for node in net.nodes), options.weights)
        batches, turn = _plan(options, net)
        with predictions.writing(net, *wanted) as writer:
            logs.info("caffe.cpp:281", f"Running for {batches} iterations.")
            detections = DetectionTest()
            loss, means = _run(runner, batches, writer, turn, detections)
    logs.info("caffe.cpp:309", f"Loss: {number(loss)}")
    for name, weight in zip(net.outputs, net.output_weights, strict=True):
        if name in detections.outputs:
            found = log_precisions(name, detections.outputs[name].precisions(options.ap_version), each=True)
            means |= {figure: torch.tensor(value) for figure, value in found.items()}
        for line in progress.output_lines((name, value, weight) for value in means[name].reshape(-1).tolist()):
            logs.info("caffe.cpp:321", line)
    return means


def _refuse_without_data(net: Net, model: Path) -> None:
    """The reference scores a deploy net on whatever its input's memory holds."""
    sources = [node.layer for node in net.nodes if not node.inputs and not node.layer.blobs]
    if sources and all(isinstance(layer, Input) for layer in sources):
        raise SpecError(
            f"{str(model)!r} has Input, no data: there is nothing to score; use classify or detect for pictures, or "
            "give the net with data layers, such as train_val.prototxt"
        )


class _Turn:
    """One turn over a net's records, each once: ``batches``, the last of which may be cut."""

    def __init__(self, net: Net) -> None:
        self.records = record_count(net)
        self.size = next(iter(net.source_layers.values())).reshape([])[0][0]
        self.batches = math.ceil(self.records / self.size)
        self._sources = [layer.once(self.records) for layer in net.source_layers.values()]
        self._net = net

    def rows(self, batch: int) -> int:
        """How many records a batch has."""
        return min(self.size, self.records - batch * self.size)

    def run(self, runner: Whole, batch: int, slots: Sequence[int]) -> tuple[Result, list[Tensor]]:
        """``run_and_observe`` of a batch. A net that cannot run the last one cut runs it whole: this is told."""
        try:
            return run_and_observe(runner, slots)
        except (ShapeError, PythonLayerError):
            if (rows := self.rows(batch)) == self.size:
                raise
            for source in self._sources:
                source.again()
            result, blobs = run_and_observe(runner, slots)
            logs.warning(
                _SOURCE,
                f"net {self._net.name!r} runs {self.size} records at a time, no fewer: the means count "
                f"{self.size - rows} of the {self.records} records twice",
            )
            return result, [blob[:rows] if blob.dim() and len(blob) == self.size else blob for blob in blobs]


def _plan(options: TestOptions, net: Net) -> tuple[int, _Turn | None]:
    """How many batches to run, and the turn over the records that they are, if they are one; logs how they count."""
    recorded = options.predictions is not None or options.confusion is not None
    by_itself = options.iterations is None and recorded and _has_an_end(net)
    if options.each or by_itself:
        turn = _Turn(net)
        logs.info(_SOURCE, f"Scoring {turn.records} records, each once: {turn.batches} batches of {turn.size}")
        return turn.batches, turn
    batches = options.iterations or ITERATIONS
    words = uneven(net, batches)
    if words is not None:
        logs.warning(_SOURCE, f"{words}; --all scores each record once")
    return batches, None


def _has_an_end(net: Net) -> bool:
    try:
        record_count(net)
    except SpecError:
        return False
    return True


def _run(
    runner: Whole,
    iterations: int,
    writer: predictions.PredictionWriter,
    turn: _Turn | None,
    detections: DetectionTest,
) -> tuple[float, dict[str, Tensor]]:
    """The means of the loss and of each output; a cut batch counts by its records.

    Outputs that tell of detections go to ``detections``.
    """
    makers = {top: node.layer for node in runner.net.nodes if node.layer.detection_classes for top in node.tops}
    scored = {name: makers[name] for name in runner.net.outputs if name in makers}
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    total = weights = 0.0
    with logs.Bar(iterations, unit="batch") as bar:
        for i in range(iterations):
            (loss, outputs), blobs = (
                turn.run(runner, i, writer.slots) if turn else run_and_observe(runner, writer.slots)
            )
            writer.take(blobs)
            weight = turn.rows(i) / turn.size if turn else 1.0
            total += float(loss) * weight
            weights += weight
            detections.add(outputs, scored)
            outputs = {name: blob for name, blob in outputs.items() if name not in scored}
            for name, blob in outputs.items():
                for value in blob.detach().float().reshape(-1).tolist():
                    logs.info("caffe.cpp:304", f"Batch {i}, {name} = {number(value)}")
            for name, blob in outputs.items():
                if name not in sums:
                    sums[name], counts[name] = torch.zeros_like(blob, dtype=torch.float32), torch.zeros_like(blob)
                whole = blob.shape == sums[name].shape
                there, count = (..., weight) if whole else (slice(len(blob)), 1.0)  # a cut batch's rows are whole ones
                sums[name][there] += blob * count
                counts[name][there] += count
            bar.advance()
    return total / weights, {name: blob / counts[name] for name, blob in sums.items()}
