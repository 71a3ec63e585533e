"""The ``AnnotatedData`` layer's records: pictures with boxes, of an LMDB or LevelDB."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from caffecli.errors import DataError
from caffecli.formats import annotated
from caffecli.formats.annotated import DIFFICULT, Boxes
from caffecli.proto.caffe_pb2 import AnnotatedDatum, LayerParameter, ResizeParameter
from caffecli.sources.augment import NO_BOXES
from caffecli.sources.base import Batch, Floats, Pixels, Shape
from caffecli.sources.db import DbSource, name_of

#: how many boxes of a picture YOLO's layers take, and what each is
YOLO_ROWS = (300, 5)
#: for so many batches a resize_param holds
_BATCHES = 10


class AnnotatedSource(DbSource):
    """Reads ``data_param`` as ``DbSource`` does, and of each record its boxes too.

    Its second array is (1, 1, count, 8): a row for each box of the batch, the record's place in the batch, class,
    instance, xmin, ymin, xmax, ymax, difficult; one row of -1 where there is no box. From the first record on that has
    the corners of words, as TextBoxes++'s, it is (1, 1, count, 16), x1, y1, ..., x4, y4 behind the others. Records
    without a type, as ``convert_annoset`` makes them for classification, give their labels (batch_size,) instead,
    unless ``annotated_data_param`` has an ``anno_type``.

    With ``yolo_data_type: 1`` it is (batch_size, 1, 300, 5): for each record up to 300 rows class - 1, centre x, centre
    y, width, height, then zeros; without difficult boxes where ``train_diffcult`` is false. Of several
    ``resize_param`` each ten batches have one, drawn by its ``prob``.

    Raises what ``DbSource`` raises, and DataError for records that have a type among others that have none.
    """

    tells_turns = False

    def spread_labels(self, count: int) -> list[int]:
        return []

    def label_counts(self) -> Counter[int] | None:
        return None

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        self._boxes = param.annotated_data_param.HasField("anno_type")
        self._any_type = self._boxes
        self._polygons = False
        self._yolo = param.annotated_data_param.yolo_data_type == 1
        self._difficult = param.annotated_data_param.train_diffcult
        super().__init__(param, phase, seed, shard)

    def _begin(self, key: bytes, value: bytes) -> None:
        record = self._record(key, value)
        self._boxes = self._boxes or record.HasField("type")
        self._start(self._first_shape(record.datum, str(key, "utf-8", "replace")))
        if self._boxes and self._labels:
            self._polygons = annotated.has_polygons(record)
            count, columns = annotated.boxes(record, self._polygons).shape
            rows = (self._batch_size, 1, *YOLO_ROWS) if self._yolo else (1, 1, max(1, count), 1 + columns)
            self.shapes = (self.shapes[0], rows)

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        with self._taken() as (records, keys):
            read = [self._record(key, value) for key, value in records]
            self._polygons = self._polygons or (self._boxes and any(map(annotated.has_polygons, read)))
            boxes = [annotated.boxes(record, self._polygons) if self._boxes else NO_BOXES for record in read]
            augmented = {i: ((0, 0, 0), each[:0]) for i, each in enumerate(boxes)}
            size = self._size(name_of(keys[0]))

            def load(i: int) -> Pixels:
                name = name_of(keys[i])
                picture, kept = self._augmented(self._picture(read[i].datum, keys[i]), i, name, boxes[i], size)
                augmented[i] = picture.shape, kept
                return picture

            data = self._fill(load, lambda i: name_of(keys[i]))
            if not self._labels:
                return (data,), keys
            if not self._boxes:
                return (data, np.array([record.datum.label for record in read], np.float32)), keys
            rows = self._yolo_rows if self._yolo else self._rows
            return (data, rows([augmented[i] for i in range(len(read))])), keys

    def _size(self, name: str) -> int:
        """The resize_param of the batch, of several; the pictures' shape is by it, without one of them read."""
        if len(self._augmenter.resizes) < 2:
            return 0
        batch = self._position // (self._batch_size * self._ranks)
        size = self._augmenter.draw_size(self._draws.of_batches(batch // _BATCHES))
        resize = self._augmenter.resizes[size]
        if resize.resize_mode != ResizeParameter.FIT_SMALL_SIZE:
            self._shape = self._transformer.shape((self._shape[0], resize.height, resize.width), name)
        return size

    def _yolo_rows(self, augmented: list[tuple[Shape, Boxes]]) -> Floats:
        """The second array of the batch, with ``yolo_data_type: 1``."""
        numbers = self._numbers()
        rows = np.zeros((len(augmented), 1, *YOLO_ROWS), np.float32)
        for i, (shape, boxes) in enumerate(augmented):
            seen = self._transformer.boxes(boxes, shape, numbers[i])
            seen = seen[self._difficult | (seen[:, DIFFICULT] == 0)][: YOLO_ROWS[0]]
            low, high = seen[:, 2:4], seen[:, 4:6]
            rows[i, 0, : len(seen)] = np.concatenate([seen[:, :1] - 1, (low + high) / 2, high - low], 1)
        return rows

    def _rows(self, augmented: list[tuple[Shape, Boxes]]) -> Floats:
        """The second array of the batch."""
        numbers = self._numbers()
        rows = []
        for i, (shape, boxes) in enumerate(augmented):
            seen = self._transformer.boxes(boxes, shape, numbers[i])
            rows.append(np.insert(seen, 0, i, axis=1))
        found = np.concatenate(rows)
        return found[None, None] if len(found) else np.full((1, 1, 1, found.shape[1]), -1, np.float32)

    def cut(self, batch: Batch, records: int) -> Batch:
        if len(batch.arrays) < 2 or not self._boxes or self._yolo:
            return super().cut(batch, records)
        data, label = batch.arrays
        kept = label[:, :, label[0, 0, :, 0] < records]
        if not kept.size:
            kept = np.full((1, 1, 1, label.shape[3]), -1, np.float32)
        return replace(batch, arrays=(data[:records], kept), keys=batch.keys[:records])

    def _record(self, key: bytes, value: bytes) -> AnnotatedDatum:
        try:
            record = annotated.decode(value, key)
        except DataError as error:
            raise self._located(error) from error
        if self._boxes and not (self._any_type or record.HasField("type")):
            name = name_of(str(key, "utf-8", "replace"))
            raise self._located(
                DataError(
                    f"{name} has no type, and the first record has one; set annotated_data_param {{ anno_type: BBOX "
                    "}, or convert the data again"
                )
            )
        return record
