"""What ``caffecli test`` can write beside its averages: the best classes of each record;
which classes are taken for which.
"""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import DataError, ShapeError, SpecError
from caffecli.formats.atomic import replacing
from caffecli.layers.data import SourceLayer
from caffecli.layers.labels import to_classes
from caffecli.layers.shape import Split
from caffecli.net.graph import Node
from caffecli.net.net import Net
from caffecli.tools.blobs import find_blob


@dataclass(frozen=True)
class Target:
    """The blob of scores and that of labels (None: there is none), as slots of the net.

    ``axis`` of the scores is that of the classes; ``ignore`` the label of what does not count. ``values``: there are no
    classes, the labels are the values that the scores should have.
    """

    name: str
    scores: int
    labels: int | None
    axis: int = 1
    ignore: int | None = None
    values: bool = False


def find_target(net: Net, blob: str | None = None) -> Target:
    """The blob that the last layer reads which holds classes' scores against labels (Accuracy, a loss),
    else the last Softmax; where there is none, that which the last loss of values reads (Euclidean, sigmoid).

    Or ``blob``. Its labels are those of that layer, else of the last one with labels, else the second top of a layer
    that reads records. Raises SpecError where there is no such blob.
    """
    readers = [node for node in net.nodes if node.layer.class_axis is not None]
    labelled = [node for node in readers if node.layer.label_bottoms]
    best = [node for node in readers if node not in labelled] + labelled
    if (values := _values(net, blob, best)) is not None:
        return values
    if blob is not None:
        scores = _origin(net, find_blob(net, blob))
        best = [node for node in best if _origin(net, node.inputs[0]) == scores]
    elif best:
        scores = _origin(net, best[-1].inputs[0])
    else:
        raise SpecError(
            f"net {net.name!r} has no Accuracy, loss or Softmax whose bottom scores the classes; "
            "name the blob that does with --blob"
        )
    reader = best[-1] if best else None
    name = net.slot_names[scores]
    axis = reader.layer.class_axis if reader else None
    axis, ignore = 1 if axis is None else axis, reader.layer.ignore_label if reader else None
    shape = net.shapes[scores]
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(
            f"blob {name!r} of shape {tuple(shape)} has no axis {axis} of classes; name another with --blob"
        )
    return Target(name, scores, _labels(net, reader, labelled), axis % len(shape), ignore)


def _values(net: Net, blob: str | None, readers: list[Node]) -> Target | None:
    """The blob that a loss of values reads, with its targets; None where a layer scores classes.

    Of the two bottoms, the targets are the one that a layer without bottoms makes, or the second.
    """
    given = {slot for node in net.nodes if not node.inputs for slot in node.outputs}
    for node in reversed([node for node in net.nodes if node.layer.compares_values and len(node.inputs) > 1]):
        scores, targets = (_origin(net, slot) for slot in node.inputs[:2])
        if scores in given and targets not in given:
            scores, targets = targets, scores
        if blob is not None and scores != _origin(net, find_blob(net, blob)):
            continue
        if any(blob is None or _origin(net, other.inputs[0]) == scores for other in readers):
            continue
        return Target(net.slot_names[scores], scores, targets, values=True)
    return None


def _labels(net: Net, reader: Node | None, labelled: list[Node]) -> int | None:
    if reader is None or reader not in labelled:
        reader = labelled[-1] if labelled else None
    if reader is not None:
        return _origin(net, reader.inputs[reader.layer.label_bottoms[0]])
    tops = [node.outputs[1] for node in net.nodes if isinstance(node.layer, SourceLayer) and len(node.outputs) > 1]
    return tops[0] if tops else None


def _origin(net: Net, slot: int) -> int:
    """The slot of which a split's top is a copy; any other slot itself."""
    for node in net.nodes:
        if slot in node.outputs and isinstance(node.layer, Split):
            return _origin(net, node.inputs[0])
    return slot


class PredictionWriter:
    """Takes the scores and labels of each batch, and writes what they say.

    ``slots`` are the blobs that it needs; none if there are no files. ``predictions`` and ``confusion`` are open text
    files, or None.
    """

    def __init__(self, net: Net, predictions: Any, confusion: Any, blob: str | None, top: int) -> None:
        self.slots: tuple[int, ...] = ()
        if predictions is None and confusion is None:
            return
        self._net, self._target = net, find_target(net, blob)
        self._confusion = confusion
        target, shape = self._target, net.shapes[self._target.scores]
        if target.values:
            self._begin_values(predictions, confusion, shape)
            return
        self._classes = shape[target.axis]
        self._rows = 0
        self._top = min(top, self._classes)
        self.slots = (target.scores,) if target.labels is None else (target.scores, target.labels)
        self._writer = csv.writer(predictions, lineterminator="\n") if predictions is not None else None
        if self._writer is not None:
            if math.prod(shape) != shape[0] * self._classes or target.axis == 0:
                raise ShapeError(
                    f"blob {target.name!r} of shape {tuple(shape)} does not hold one prediction a record; "
                    "--predictions wants (records, classes), name another with --blob"
                )
            columns = [f"{word}_{i + 1}" for i in range(self._top) for word in ("class", "score")]
            self._writer.writerow(["key", "label", *columns])
        if confusion is not None:
            if target.labels is None:
                raise SpecError(
                    f"net {net.name!r} has no labels to hold blob {target.name!r} against; leave --confusion"
                )
            self._counts = torch.zeros(self._classes, self._classes, dtype=torch.int64)

    def _begin_values(self, predictions: Any, confusion: Any, shape: Sequence[int]) -> None:
        target = self._target
        if confusion is not None:
            raise SpecError(
                f"blob {target.name!r} holds values, no scores of classes, to count; leave --confusion, or name "
                "another with --blob"
            )
        if not shape:
            raise ShapeError(f"blob {target.name!r} has no row for each record; name another with --blob")
        self._rows = 0
        self.slots = (target.scores, target.labels) if target.labels is not None else (target.scores,)
        self._writer = csv.writer(predictions, lineterminator="\n")
        count = math.prod(shape[1:])
        self._writer.writerow(["key", *(f"{word}_{i + 1}" for i in range(count) for word in ("target", "value"))])

    def _take_values(self, values: Tensor, targets: Tensor) -> None:
        count = len(values)
        pairs = torch.stack([part.detach().float().cpu().reshape(count, -1) for part in (targets, values)], dim=2)
        for key, row in zip(self._keys(count), pairs.reshape(count, -1).numpy(), strict=True):
            self._writer.writerow([key, *map(str, row)])  # type: ignore[union-attr]
        self._rows += count

    def take(self, blobs: Sequence[Tensor]) -> None:
        """Add a batch: the values of ``slots``."""
        if not self.slots:
            return
        if self._target.values:
            self._take_values(blobs[0], blobs[1])
            return
        scores = blobs[0].detach().float().cpu().movedim(self._target.axis, -1).reshape(-1, self._classes)
        labels = to_classes(blobs[1].detach().cpu()).flatten() if len(blobs) > 1 else None
        if labels is not None and len(labels) != len(scores):
            raise ShapeError(
                f"blob {self._target.name!r} holds {len(scores)} predictions, there are {len(labels)} labels; "
                "name another blob with --blob"
            )
        # of equal scores the first comes first, so that results are the same in every run
        best = scores.sort(dim=1, descending=True, stable=True)
        if self._writer is not None:
            self._write(best.values[:, : self._top], best.indices[:, : self._top], labels)
        if self._confusion is not None and labels is not None:
            self._count(best.indices[:, 0], labels)
        self._rows += len(scores)

    def _keys(self, count: int) -> Sequence[str]:
        """The records' keys; numbers where the net reads no records, or not one for each row."""
        batches = [layer.batch for layer in self._net.source_layers.values() if layer.batch is not None]
        if batches and len(batches[0].keys) == count:
            return batches[0].keys
        return [f"{self._rows + i:010d}" for i in range(count)]

    def _write(self, scores: Tensor, classes: Tensor, labels: Tensor | None) -> None:
        rows = zip(classes.tolist(), scores.numpy(), strict=True)
        keys = self._keys(len(scores))
        for i, (key, (names, values)) in enumerate(zip(keys, rows, strict=True)):
            pairs = [cell for pair in zip(names, map(str, values), strict=True) for cell in pair]
            self._writer.writerow([key, "" if labels is None else int(labels[i]), *pairs])  # type: ignore[union-attr]

    def _count(self, predicted: Tensor, labels: Tensor) -> None:
        if self._target.ignore is not None:
            kept = labels != self._target.ignore
            predicted, labels = predicted[kept], labels[kept]
        bad = (labels < 0) | (labels >= self._classes)
        if bad.any():
            raise DataError(
                f"label {int(labels[bad][0])} is none of the {self._classes} classes of blob {self._target.name!r}; "
                "name another with --blob, or mend the labels"
            )
        cells = torch.bincount(labels * self._classes + predicted, minlength=self._classes**2)
        self._counts += cells.reshape(self._classes, self._classes)

    def finish(self) -> None:
        """Write the confusion matrix, and log the accuracy of each class."""
        if not self.slots or self._confusion is None:
            return
        writer = csv.writer(self._confusion, lineterminator="\n")
        writer.writerow(["label", *range(self._classes)])
        for label, row in enumerate(self._counts.tolist()):
            writer.writerow([label, *row])
            right, count = row[label], sum(row)
            share = f"accuracy = {logs.number(right / count)} ({right} of {count})" if count else "no records"
            logs.info("confusion", f"Class {label}: {share}")


@contextlib.contextmanager
def writing(
    net: Net, predictions: Path | None = None, confusion: Path | None = None, blob: str | None = None, top: int = 5
) -> Iterator[PredictionWriter]:
    """A PredictionWriter for the batches of the block; its CSV files are there when the block ends without an error.

    ``predictions`` gets a row a record: key, label (empty where there are none), then class and score of the ``top``
    classes, the best first; where a net predicts values, no classes: key, then target and value of each. ``confusion``
    gets a row a true class, a column a predicted one: how many there were. The scores are those of
    ``blob``, or of the blob that ``find_target`` finds.
    """
    with ExitStack() as files:
        opened = [
            files.enter_context(replacing(path, "w")) if path is not None else None for path in (predictions, confusion)
        ]
        writer = PredictionWriter(net, opened[0], opened[1], blob, top)
        yield writer
        writer.finish()
