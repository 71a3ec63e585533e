"""The ``AnnotatedData`` layer's records: pictures with boxes, of an LMDB or LevelDB."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from caffecli.errors import DataError
from caffecli.formats import annotated
from caffecli.formats.annotated import Boxes
from caffecli.proto.caffe_pb2 import AnnotatedDatum, LayerParameter
from caffecli.sources.augment import NO_BOXES
from caffecli.sources.base import Batch, Floats, Pixels, Shape
from caffecli.sources.db import DbSource, name_of


class AnnotatedSource(DbSource):
    """Reads ``data_param`` as ``DbSource`` does, and of each record its boxes too.

    Its second array is (1, 1, count, 8): a row for each box of the batch, the record's place in the batch, class,
    instance, xmin, ymin, xmax, ymax, difficult; one row of -1 where there is no box. Records without a type, as
    ``convert_annoset`` makes them for classification, give their labels (batch_size,) instead, unless
    ``annotated_data_param`` has an ``anno_type``.

    Raises what ``DbSource`` raises, and DataError for records that have a type among others that have none.
    """

    tells_turns = False

    def spread_labels(self, count: int) -> list[int]:
        return []

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        self._boxes = param.annotated_data_param.HasField("anno_type")
        self._any_type = self._boxes
        super().__init__(param, phase, seed, shard)

    def _begin(self, key: bytes, value: bytes) -> None:
        record = self._record(key, value)
        self._boxes = self._boxes or record.HasField("type")
        self._start(self._first_shape(record.datum, str(key, "utf-8", "replace")))
        if self._boxes and self._labels:
            self.shapes = (self.shapes[0], (1, 1, max(1, len(annotated.boxes(record))), 8))

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        with self._taken() as (records, keys):
            read = [self._record(key, value) for key, value in records]
            boxes = [annotated.boxes(record) if self._boxes else NO_BOXES for record in read]
            augmented = dict.fromkeys(range(len(read)), ((0, 0, 0), NO_BOXES))

            def load(i: int) -> Pixels:
                name = name_of(keys[i])
                picture, kept = self._augmented(self._picture(read[i].datum, keys[i]), i, name, boxes[i])
                augmented[i] = picture.shape, kept
                return picture

            data = self._fill(load, lambda i: name_of(keys[i]))
            if not self._labels:
                return (data,), keys
            if not self._boxes:
                return (data, np.array([record.datum.label for record in read], np.float32)), keys
            return (data, self._rows([augmented[i] for i in range(len(read))])), keys

    def _rows(self, augmented: list[tuple[Shape, Boxes]]) -> Floats:
        """The second array of the batch."""
        numbers = self._numbers()
        rows = []
        for i, (shape, boxes) in enumerate(augmented):
            seen = self._transformer.boxes(boxes, shape, numbers[i])
            rows.append(np.insert(seen, 0, i, axis=1))
        found = np.concatenate(rows)
        return found[None, None] if len(found) else np.full((1, 1, 1, 8), -1, np.float32)

    def cut(self, batch: Batch, records: int) -> Batch:
        if len(batch.arrays) < 2 or not self._boxes:
            return super().cut(batch, records)
        data, label = batch.arrays
        kept = label[:, :, label[0, 0, :, 0] < records]
        if not kept.size:
            kept = np.full((1, 1, 1, 8), -1, np.float32)
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
