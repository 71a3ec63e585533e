"""Average precisions of detections: what a test of ``eval_type: "detection"`` is scored by.

What is found comes in rows of five numbers, as DetectionEvaluate's top has them: first (-1, class, objects, ...) for
each class, then (image, class, score, hit, miss) for each detection: hit 1 where it found an object, miss 1 where it
did not, both 0 where it does not count. Source: SSD's ``solver.cpp``, ``bbox_util.cpp``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.layers.base import Layer
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import SolverParameter

Array = NDArray[np.float32]

#: how the precisions at all recalls become one number
VERSIONS = ("Integral", "11point", "MaxIntegral")


def average_precision(scores: Array, hits: Array, objects: int, version: str = "Integral") -> float:
    """The average precision of a class's detections, of which ``hits`` says whether they found one of its objects.

    By falling score, equal ones in their order: precision is the part of the detections so far that are hits, recall
    the part of the objects that they found. ``version``: Integral, the precisions by their steps of recall; 11point,
    the mean, over the recalls 0, 0.1, ... 1, of the best precision at that recall or above (VOC2007); MaxIntegral, the
    same best precisions by the steps of recall (VOC2012, ILSVRC). 0 without objects or detections.
    """
    if not len(scores) or not objects:
        return 0.0
    precision, recall = precision_and_recall(scores, hits, objects)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if version == "11point":
        enough = np.searchsorted(recall.astype(np.float64), np.arange(11) / 10)  # float32's 0.7 is below 0.7, as in SSD
        return float(np.append(best, np.float32(0))[enough].mean())
    steps = np.diff(recall, prepend=np.float32(0))
    return float(((best if version == "MaxIntegral" else precision) * steps).sum())


def precision_and_recall(scores: Array, hits: Array, objects: int) -> tuple[Array, Array]:
    """Both after each of the detections, by falling score, equal ones in their order: see ``average_precision``."""
    found = np.cumsum(hits[np.argsort(-scores, kind="stable")] > 0)
    precision = (found / np.arange(1, len(found) + 1)).astype(np.float32)
    return precision, (found / np.float32(objects)).astype(np.float32)


@dataclass
class Detections:
    """What the tops of a DetectionEvaluate say of several batches."""

    #: how many objects of each class there are
    objects: dict[int, int] = field(default_factory=dict)
    #: rows (class, score, hit) of the detections that count
    _rows: list[Array] = field(default_factory=list)

    def add(self, top: Array) -> None:
        """Take the rows of a batch."""
        rows = top.reshape(-1, 5)
        counts = rows[:, 0] == -1
        for label, count in rows[counts, 1:3].astype(int).tolist():
            self.objects[label] = self.objects.get(label, 0) + count
        self._rows.append(rows[~counts & (rows[:, 3:] != 0).any(1), 1:4])

    def join(self, other: Detections) -> None:
        """Take what another has, after one's own."""
        for label, count in other.objects.items():
            self.objects[label] = self.objects.get(label, 0) + count
        self._rows += other._rows

    def precisions(self, version: str) -> dict[int, float | None]:
        """The average precision of each class; None of one without a detection."""
        found: dict[int, float | None] = {}
        for label, (scores, hits) in self.by_class().items():
            there = len(scores) > 0
            found[label] = average_precision(scores, hits, self.objects[label], version) if there else None
        return found

    def by_class(self) -> dict[int, tuple[Array, Array]]:
        """Scores and hits of each class's detections that count."""
        rows = np.concatenate(self._rows) if self._rows else np.empty((0, 3), np.float32)
        own = {label: rows[rows[:, 0] == label] for label in sorted(self.objects)}
        return {label: (part[:, 1], part[:, 2]) for label, part in own.items()}


class DetectionTest:
    """A test of ``eval_type: "detection"``: each output's detections, over all batches."""

    def __init__(self) -> None:
        self.outputs: dict[str, Detections] = {}

    def add(self, outputs: Mapping[str, Tensor], makers: Mapping[str, Layer]) -> None:
        """Take of a batch's outputs those that layers of ``scored`` make."""
        for name, layer in makers.items():
            rows = layer.detection_rows(outputs[name].detach())
            self.outputs.setdefault(name, Detections()).add(rows.float().cpu().numpy())

    def join(self, others: Iterable[DetectionTest]) -> None:
        """Take what the other ranks have, in their order."""
        for other in others:
            for name, detections in other.outputs.items():
                self.outputs.setdefault(name, Detections()).join(detections)


def log_precisions(name: str, precisions: Mapping[int, float | None], each: bool) -> dict[str, float]:
    """The figures of an output: its mean average precision, by its name, and with ``each`` that of each class,
    ``NAME/classN``; the log has a line for each of those.
    """
    figures = {}
    for label, precision in precisions.items():
        if precision is None:
            logs.warning("solver.cpp:524", f"Missing true_pos for label: {label}")
        elif each:
            logs.info("solver.cpp:540", f"class{label}: {logs.number(precision)}")
        if each:
            figures[_of_class(name, label)] = precision or 0.0
    mean = float(np.mean([precision or 0.0 for precision in precisions.values()])) if precisions else 0.0
    return {name: mean, **figures}


def _of_class(name: str, label: int) -> str:
    return f"{name}/class{label}"


def is_asked(param: SolverParameter) -> bool:
    """Whether tests are scored by average precision."""
    return param.eval_type == "detection"


def check(param: SolverParameter) -> None:
    """Raise SolverError for settings of tests that there are not."""
    for name, known in (("eval_type", ("classification", "detection")), ("ap_version", VERSIONS)):
        if getattr(param, name) not in known:
            raise SolverError(f"{name}: expected {' or '.join(map(repr, known))}, got {getattr(param, name)!r}")


def scored(net: Net) -> dict[str, Layer]:
    """The outputs of a test net that tell of detections, each with its layer: those of more than one number.

    A single number, as a loss, has its mean told.
    """
    makers = {output: [node.layer for node in net.nodes if output in node.tops][-1] for output in net.outputs}
    return {name: maker for name, maker in makers.items() if maker.detection_classes or math.prod(net.shape(name)) > 1}


def check_net(net: Net, index: int) -> None:
    """Raise SolverError where an output of a test net is neither a number nor of detections."""
    for name, maker in scored(net).items():
        shape = net.shape(name)
        if not maker.detection_classes and shape[-1] != 5:
            raise SolverError(
                f"eval_type 'detection': test net #{index} has the output {name!r} of shape {tuple(shape)}; expected "
                "rows of 5 numbers, as DetectionEvaluate gives, or one number; let a Silence layer take it, or set "
                'eval_type: "classification"'
            )


def figures(net: Net, each: bool) -> list[str]:
    """The names of the figures that a test of ``eval_type: "detection"`` gives."""
    makers, names = scored(net), []
    for output in net.outputs:
        names.append(output)
        if each and output in makers:
            names += [_of_class(output, label) for label in makers[output].detection_classes]
    return names
