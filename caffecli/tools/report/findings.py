"""What a net makes of records: one pass of its TEST phase over some of them, with all that sections show of it."""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli import logs
from caffecli.errors import CaffeError, in_a_line
from caffecli.formats import mean
from caffecli.layers import user_modules
from caffecli.layers.data import SourceLayer
from caffecli.layers.forks.ssd.evaluate import DetectionEvaluate
from caffecli.layers.labels import to_classes
from caffecli.layers.shape import Split
from caffecli.net.graph import Node
from caffecli.net.net import Net
from caffecli.net.precision import FULL
from caffecli.net.records import record_count
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, NetParameter, TransformationParameter
from caffecli.solver.detection import Detections
from caffecli.tools.open import build_net, read_net
from caffecli.tools.predictions import Target, find_target
from caffecli.tools.report.material import Missing, ReportOptions, refuse_code
from caffecli.tools.report.objects import Found, Mistakes, Object
from caffecli.tools.report.runs import Run

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]

#: so many pictures are kept of each kind, and feature maps of so many layers
WRONG, SCENES, MAPPED = 24, 8, 3
#: of more classes no matrix of confusions is counted
_CLASSES = 1000


@dataclass(frozen=True, order=True)
class Wrong:
    """A record of which the net is sure and wrong; ``sure`` is the score, 0 to 1, of what it says."""

    sure: float
    key: str
    label: int = field(compare=False)
    said: int = field(compare=False)
    of_label: float = field(compare=False)
    pixels: Pixels = field(compare=False)


@dataclass(frozen=True)
class Scene:
    """A picture with its boxes (class, score, x1, y1, x2, y2), corners as parts of it; true ones have the score 1."""

    key: str
    pixels: Pixels
    found: list[tuple[float, ...]]
    true: list[tuple[float, ...]]


@dataclass(frozen=True)
class Overlay:
    """A picture, and for each of its points the class that is true and the one that is said."""

    key: str
    pixels: Pixels
    label: NDArray[np.int64]
    said: NDArray[np.int64]


@dataclass
class Findings:
    """Of ``records`` records, all that there are or not, what the net with these weights makes."""

    weights: Path
    records: int = 0
    all: bool = False
    #: rows are true classes, columns predicted ones; of points where the net says a class for each (``points``)
    confusion: NDArray[np.int64] | None = None
    points: bool = False
    wrong: list[Wrong] = field(default_factory=list)
    overlays: list[Overlay] = field(default_factory=list)
    detections: dict[str, Detections] = field(default_factory=dict)
    scenes: list[Scene] = field(default_factory=list)
    #: the worst that the first detector does; None where its boxes come in a form of their own, or have no pictures
    mistakes: Mistakes | None = None
    #: the first record's picture, and the tops of the first layers with filters for it, (channels, height, width)
    picture: Pixels | None = None
    maps: dict[str, Array] = field(default_factory=dict)
    #: of each layer, how many channels there are and which are 0 for all records
    dead: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    #: why there are no scores of classes, in words
    without: str = ""


@torch.no_grad()
def find(run: Run, options: ReportOptions) -> Findings:
    """Run the test net of a run, or ``options.model``, over ``options.records`` records.

    Raises Missing where there is no net, are no weights or no data, whatever the reason: they may be on another
    machine.
    """
    weights = options.weights or run.weights()
    if weights is None:
        raise Missing("there are no weights: no snapshot of the run is where its log says; give one")
    try:
        user_modules.load(options.layers)
        param, path = _definition(run, options)
        with logs.quiet(), contextlib.closing(_build(param, path, weights)) as net:
            return _Pass(net, weights, options.records).run()
    except Missing:
        raise
    except CaffeError as error:
        raise Missing(f"the test net does not run here: {error}") from error
    except Exception as error:  # of a user's layer, or of a library below
        raise Missing(f"the test net does not run here: {type(error).__name__}: {in_a_line(error)}") from error


def _definition(run: Run, options: ReportOptions) -> tuple[NetParameter, Path]:
    """The net to run, and its file, or one beside which its modules may lie."""
    if options.model is not None:
        return read_net(options.model, TEST, stages=("",)), options.model
    if run.test_nets:
        refuse_code(run.test_nets[0])
        param = NetParameter()
        param.CopyFrom(run.test_nets[0])
        return param, run.net_file or run.path
    raise Missing("no net to test is known; name its prototxt with --model")


def _without_writing(param: NetParameter) -> None:
    """Take out what writes files or opens windows: a page only looks."""
    kept = [layer for layer in param.layer if not layer.HasField("hdf5_output_param")]
    del param.layer[:]
    param.layer.extend(kept)
    for layer in param.layer:
        for name in ("save_output_param", "visualize", "save_file"):
            layer.detection_output_param.ClearField(name)


def _build(param: NetParameter, path: Path, weights: Path) -> Net:
    _without_writing(param)
    net = build_net(param, path, device=torch.device("cpu"), weights=[weights])
    if not net.source_layers:
        net.close()
        raise Missing("the net has no data to test it on; name one that has with --model")
    return net


class _Pass:
    """The net over the records, batch by batch."""

    def __init__(self, net: Net, weights: Path, records: int) -> None:
        self.net = net
        self.found = Findings(weights)
        self.source: SourceLayer = next(iter(net.source_layers.values()))
        self.made: Node = next(node for node in net.nodes if node.layer is self.source)
        self.size = int(net.shapes[self.made.outputs[0]][0])
        try:
            count = record_count(net)
        except CaffeError:
            count = None
        self.found.all = count is not None and count <= records
        self.most = records if count is None else min(records, count)
        self.mapped = [node for node in net.nodes if self._has_maps(node)][:MAPPED]
        self.alive: dict[int, Tensor] = {}
        self.judges = [node for node in net.nodes if node.layer.detection_classes]
        self.target = self._target()
        self.heap: list[Wrong] = []
        self.seen: dict[int, Tensor] = {}
        self.wanted = {self.made.outputs[0]}
        if self.target is not None:
            self.wanted |= {self.target.scores, self.target.labels}  # type: ignore[arg-type]
        for node in self.judges:
            self.wanted |= {node.inputs[0], node.inputs[1], node.outputs[0]}
        self.wanted |= {node.outputs[0] for node in self.mapped}

    def _has_maps(self, node: Node) -> bool:
        if not node.inputs or not node.outputs or len(self.net.shapes[node.outputs[0]]) != 4:
            return False
        weight = node.layer.filters(self.net.shapes[node.inputs[0]])
        return weight is not None and weight.dim() == 4 and max(self.net.shapes[node.outputs[0]][2:]) > 1

    def _target(self) -> Target | None:
        """The blob that scores classes, where there are labels for it."""
        if self.judges:
            return None
        try:
            target = find_target(self.net)
        except CaffeError as error:
            self.found.without = str(error)
            return None
        if target.values:
            self.found.without = f"the net says values, no classes: blob {target.name!r}"
            return None
        shape = self.net.shapes[target.scores]
        if target.labels is None:
            self.found.without = "the net has no labels"
        elif shape[target.axis] > _CLASSES:
            self.found.without = f"of {shape[target.axis]:,} classes no table is made, at most of {_CLASSES:,}"
        elif target.axis != 1 or len(shape) not in (2, 4):
            self.found.without = f"blob {target.name!r} of shape {tuple(shape)} is not (records, classes)"
        else:
            self.found.points = math.prod(shape[2:]) > 1
            self.found.confusion = np.zeros((shape[1], shape[1]), np.int64)
            return target
        return None

    def run(self) -> Findings:
        runner = Whole(self.net, FULL)
        done = 0
        layers = [node.layer for node in self.judges]
        while done < self.most:
            self.seen = {}
            runner.forward(observe=self._observe)
            rows = min(self.size, self.most - done)
            if (
                rows < self.size
                and done
                and any(isinstance(one, DetectionEvaluate) and one.originals for one in layers)
            ):
                self.found.all = False  # its place in the file of sizes would move: the rest is left out
                break
            self._take(rows)
            done += rows
        self.found.records = done
        self.found.wrong = sorted(self.heap, reverse=True)
        self._tell_dead()
        return self.found

    def _observe(self, node: Node, tops: tuple[Tensor, ...]) -> None:
        for slot, top in zip(node.outputs, tops, strict=True):
            if slot in self.wanted:
                self.seen[slot] = top
            shape = self.net.shapes[slot]
            if len(shape) < 2 or shape[0] != self.size or shape[1] < 2 or not self._can_die(node):
                continue
            now = (top != 0).flatten(2).any(2).any(0) if top.dim() > 2 else (top != 0).any(0)
            self.alive[slot] = now if slot not in self.alive else self.alive[slot] | now

    def _can_die(self, node: Node) -> bool:
        return bool(node.inputs) and not isinstance(node.layer, Split) and not node.layer.is_loss and not self.judges

    def _take(self, rows: int) -> None:
        data = self.seen[self.made.outputs[0]].float().numpy()
        keys = self.source.batch.keys if self.source.batch is not None else []
        keys = list(keys) if len(keys) == len(data) else [str(i) for i in range(len(data))]
        if self.found.picture is None and data.ndim == 4:
            self.found.picture = self._pixels(data[0])
            for node in self.mapped:
                self.found.maps[node.name] = self.seen[node.outputs[0]][0].float().numpy().copy()
        if self.target is not None:
            self._take_classes(data[:rows], keys[:rows])
        for node in self.judges:
            name = node.tops[0]
            rows_of = judged_rows(node, self.seen, rows, self.size)
            self.found.detections.setdefault(name, Detections()).add(rows_of.float().numpy())
        if self.judges and data.ndim == 4:
            self._take_boxes(data[:rows], keys)

    # -- classes -------------------------------------------------------------------------------------------------------

    def _take_classes(self, data: Array, keys: Sequence[str]) -> None:
        target, count = self.target, self.found.confusion
        scores = self.seen[target.scores][: len(data)].float()  # type: ignore[union-attr]
        labels = to_classes(self.seen[target.labels])  # type: ignore[union-attr,index]
        classes = scores.shape[1]
        said = scores.argmax(1).reshape(len(data), -1)
        labels = labels.flatten()[: said.numel()].reshape(said.shape)
        known = (labels >= 0) & (labels < classes)
        if target.ignore is not None:  # type: ignore[union-attr]
            known &= labels != target.ignore  # type: ignore[union-attr]
        cells = torch.bincount(labels[known] * classes + said[known], minlength=classes**2)
        count += cells.reshape(classes, classes).numpy()
        if not self.found.points:
            self._take_wrong(data, keys, scores.flatten(1), labels[:, 0], known[:, 0])
            return
        shape = scores.shape[2:]
        for i in range(min(len(data), SCENES - len(self.found.overlays)) if data.ndim == 4 else 0):
            shown = torch.where(known[i], labels[i], -1).reshape(shape).numpy(), said[i].reshape(shape).numpy()
            self.found.overlays.append(Overlay(keys[i], self._pixels(data[i]), *shown))

    def _take_wrong(self, data: Array, keys: Sequence[str], scores: Tensor, labels: Tensor, known: Tensor) -> None:
        shares = _shares(scores)
        sure, said = shares.max(1)
        for i in ((said != labels) & known).nonzero().flatten().tolist() if data.ndim == 4 else []:
            if len(self.heap) == WRONG and float(sure[i]) <= self.heap[0].sure:
                continue
            label = int(labels[i])
            one = Wrong(float(sure[i]), keys[i], label, int(said[i]), float(shares[i, label]), self._pixels(data[i]))
            heapq.heappush(self.heap, one)
            if len(self.heap) > WRONG:
                heapq.heappop(self.heap)

    # -- boxes ---------------------------------------------------------------------------------------------------------

    def _take_boxes(self, data: Array, keys: Sequence[str]) -> None:
        node = self.judges[0]
        if not isinstance(node.layer, DetectionEvaluate):
            return
        found, true = (self.seen[slot].float().numpy()[0, 0] for slot in node.inputs[:2])
        settings = node.layer.settings
        if self.found.mistakes is None and not node.layer.originals:  # these are judged in pixels of their own
            self.found.mistakes = Mistakes(settings.overlap_threshold)
        for i in range(len(data)):
            boxes = [(float(row[1]), float(row[2]), *map(float, row[3:7])) for row in found[found[:, 0] == i]]
            truth = [(float(row[1]), 1.0, *map(float, row[3:7])) for row in true[true[:, 0] == i]]
            if len(self.found.scenes) < SCENES:
                self.found.scenes.append(Scene(keys[i], self._pixels(data[i]), boxes, truth))
            if self.found.mistakes is not None:
                own = [Found(int(one[0]), one[1], (one[2], one[3], one[4], one[5])) for one in boxes if one[0] >= 0]
                skipped = (true[true[:, 0] == i, 7] != 0) & (not settings.evaluate_difficult_gt)
                objects = [
                    Object(int(one[0]), (one[2], one[3], one[4], one[5]), bool(skip))
                    for one, skip in zip(truth, skipped, strict=True)
                    if int(one[0]) in node.layer.detection_classes
                ]
                self.found.mistakes.take(keys[i], partial(self._pixels, data[i]), own, objects)

    # -- pictures and units --------------------------------------------------------------------------------------------

    def _pixels(self, data: Array) -> Pixels:
        """A picture as it was before ``transform_param``, as far as that can be told; else stretched to all shades."""
        planes = data if len(data) in (1, 3) else data[:1]
        undone = _undone(planes, self.source.param.transform_param)
        if undone.min() < -2 or undone.max() > 257 or undone.max() - undone.min() < 2:
            low, high = float(planes.min()), float(planes.max())
            undone = (planes - low) * (255 / (high - low if high > low else 1))
        return np.ascontiguousarray(undone.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))

    def _tell_dead(self) -> None:
        """Channels that are 0 for all records, at the layer where they first are so."""
        for node in self.net.nodes:
            for slot in node.outputs:
                if slot not in self.alive:
                    continue
                dead = (~self.alive[slot]).nonzero().flatten().tolist()
                came = [self.alive.get(_origin(self.net, one)) for one in node.inputs]
                inherited = any(one is not None and torch.equal(one, self.alive[slot]) for one in came)
                if dead and not inherited:
                    self.found.dead[node.name] = (len(self.alive[slot]), dead)


def judged_rows(node: Node, seen: Mapping[int, Tensor], rows: int, size: int) -> Tensor:
    """What a layer says of the detections in the first ``rows`` of ``size`` records: see ``solver.detection``."""
    layer, top = node.layer, seen[node.outputs[0]]
    if rows < size and isinstance(layer, DetectionEvaluate) and not layer.originals:
        found, true = (seen[slot] for slot in node.inputs[:2])
        top = layer.forward(*(part[:, :, part[0, 0, :, 0] < rows] for part in (found, true)))
    return layer.detection_rows(top[:rows] if len(top) == size else top)


def _origin(net: Net, slot: int) -> int:
    """The slot of which a split's top is a copy; any other slot itself."""
    for node in net.nodes:
        if slot in node.outputs and isinstance(node.layer, Split):
            return node.inputs[0]
    return slot


def _shares(scores: Tensor) -> Tensor:
    """Scores of classes as parts of 1: as they are where they are such, else their softmax."""
    sums = scores.sum(1)
    if bool((scores >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        return scores
    return scores.softmax(1)


def _undone(planes: Array, transform: TransformationParameter) -> Array:
    """The pixels whose scaled difference from the mean is ``planes``."""
    pixels = planes / (transform.scale or 1.0)
    taken: Any = 0.0
    if transform.mean_value:
        taken = np.array(transform.mean_value, np.float32).reshape(-1, 1, 1)
    elif transform.mean_file:
        try:
            image = mean.read(transform.mean_file)
        except CaffeError:
            return pixels
        if image.shape != planes.shape:
            y, x = ((have - want) // 2 for have, want in zip(image.shape[1:], planes.shape[1:], strict=True))
            image = image[:, max(y, 0) :, max(x, 0) :][:, : planes.shape[1], : planes.shape[2]]
        taken = image if image.shape == planes.shape else image.mean((1, 2), keepdims=True)
    return np.asarray(pixels + taken, np.float32)


def enlarged(pixels: Pixels, least: int = 96) -> int:
    """How wide a picture is shown."""
    width = pixels.shape[1]
    return width if width >= least else width * math.ceil(least / width)


def blended(pixels: Pixels, classes: NDArray[np.int64], colours: NDArray[np.uint8]) -> Pixels:
    """The picture, grey, under the colours of the classes of its points; -1 stays as it is."""
    size = classes.shape[1], classes.shape[0]
    bright = pixels if pixels.shape[2] == 3 else pixels.repeat(3, 2)
    small = cv2.resize(bright, size, interpolation=cv2.INTER_AREA).reshape(*classes.shape, 3)
    grey = small.mean(2, keepdims=True)
    painted = colours[classes.clip(0) % len(colours)]
    mixed = (0.45 * grey + 0.55 * painted).astype(np.uint8)
    return np.where((classes < 0)[..., None], small, mixed)
