"""The ``BoxData`` layer's records: pictures with boxes, for the first two versions of YOLO."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from caffecli.errors import DataError
from caffecli.formats import annotated, datum
from caffecli.formats.annotated import CORNERS, DIFFICULT, Boxes
from caffecli.proto.caffe_pb2 import TRAIN, Datum, LayerParameter
from caffecli.sources.base import Floats, Numbers, Pixels, Shape
from caffecli.sources.db import DbSource, name_of

#: how many boxes of a picture version 2 takes
LISTED = 30
#: how often a part of a picture without the centre of a box is drawn before the whole is taken
_TRIALS = 100


class _Record(NamedTuple):
    """A picture, and its boxes (count, 6): class, difficult, centre x, centre y, width, height as parts."""

    datum: Datum
    boxes: Floats


class BoxSource(DbSource):
    """Reads ``data_param`` as ``DbSource`` does, ``side`` (7), one for each further top, and of each record its boxes:
    six numbers of ``float_data`` each, or those of an AnnotatedDatum, whose classes count from 1 where these count
    from 0.

    Each further array is (batch_size, 7 side^2), for each of side x side cells: whether its box is difficult, whether
    it has one, the class, -1 without, and centre x, centre y, width, height one after another; of several boxes with
    their centre in a cell it has the last. With ``listed`` it is (batch_size, 150): 30 rows class, centre x, centre y,
    width, height, then zeros.

    In phase TRAIN a part of the picture is cut out, with sides 0.71 to 1 of its own, and brought back to its size; the
    boxes whose centre is in it move along, and one is. Raises what ``DbSource`` raises, and DataError for boxes that
    are none.
    """

    tells_turns = False

    def spread_labels(self, count: int) -> list[int]:
        return []

    def __init__(
        self,
        param: LayerParameter,
        phase: int,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        *,
        listed: bool = False,
    ) -> None:
        self._sides, self._listed = list(param.data_param.side) or [7], listed
        self._cuts = phase == TRAIN and len(param.top) > 1
        super().__init__(param, phase, seed, shard)

    def _begin(self, key: bytes, value: bytes) -> None:
        name = str(key, "utf-8", "replace")
        self._start(self._first_shape(self._record(key, value).datum, name))
        sizes = [LISTED * 5 if self._listed else 7 * side**2 for side in self._sides]
        if self._labels:
            self.shapes = (self.shapes[0], *((self._batch_size, size) for size in sizes))

    def _record(self, key: bytes, value: bytes) -> _Record:
        try:
            if datum.is_annotated(value):
                record = annotated.decode(value, key)
                boxes = _centred(annotated.boxes(record))
                boxes[:, 0] -= 1
                return self._checked(_Record(record.datum, boxes), key)
            plain = datum.decode(value, key)
            numbers = np.array(plain.float_data, np.float32)
            if len(numbers) % 6 or not np.isfinite(numbers).all() or not plain.data:
                raise DataError(
                    f"{name_of(str(key, 'utf-8', 'replace'))} is no picture with boxes: expected its data, and "
                    f"float_data of six numbers for each box (class, difficult, centre x, centre y, width, height), as "
                    f"convert_box_data writes it, got {len(numbers)} numbers"
                )
            return self._checked(_Record(plain, numbers.reshape(-1, 6)), key)
        except DataError as error:
            raise self._located(error) from error

    def _checked(self, record: _Record, key: bytes) -> _Record:
        if (record.boxes[:, 0] < 0).any():
            lowest = int(record.boxes[:, 0].min())
            raise DataError(
                f"{name_of(str(key, 'utf-8', 'replace'))} has a box of class {lowest}; YOLO's classes begin at 0, "
                "which is 1 in a database of convert_annoset: mend the label map, and convert the data again"
            )
        return record

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        with self._taken() as (records, keys):
            read = [self._record(key, value) for key, value in records]
            numbers = self._numbers()
            boxes = [record.boxes for record in read]

            def load(i: int) -> Pixels:
                picture, boxes[i] = self._made(read[i], i, keys[i], numbers)
                return picture

            data = self._fill(load, lambda i: name_of(keys[i]))
            if not self._labels:
                return (data,), keys
            labels = [
                np.stack([listed(each) if self._listed else cells(each, side) for each in boxes])
                for side in self._sides
            ]
            return (data, *labels), keys

    def _made(self, record: _Record, i: int, key: str, numbers: Numbers) -> tuple[Pixels, Floats]:
        """The picture and the boxes of record ``i`` of the batch; the transformer has still to do its part of these."""
        picture, boxes = self._picture(record.datum, key), record.boxes
        if self._cuts and len(boxes):
            # a draw of its own: the augmenter begins at the first number of the record's
            rng = np.random.default_rng(
                self._draws.generator(self._position + self._rank + i * self._ranks).integers(2**63)
            )
            picture, boxes = cut(picture, boxes, rng)
        if not (self._augmenter or self._transformer.moves_boxes):
            return picture, boxes
        centre, half = boxes[:, 2:4], boxes[:, 4:6] / 2
        rows = np.zeros((len(boxes), 7), np.float32)
        rows[:, 0], rows[:, DIFFICULT] = boxes[:, 0], boxes[:, 1]
        rows[:, CORNERS] = np.concatenate([centre - half, centre + half], 1)
        picture, rows = self._augmented(picture, i, name_of(key), rows)
        rows = self._transformer.boxes(rows, picture.shape, numbers[i])
        return picture, _centred(rows)


def _centred(rows: Boxes) -> Floats:
    """Boxes as ``formats.annotated`` has them, in rows class, difficult, centre x, centre y, width, height."""
    made = np.empty((len(rows), 6), np.float32)
    low, high = rows[:, 2:4], rows[:, 4:6]
    made[:, 0], made[:, 1] = rows[:, 0], rows[:, DIFFICULT]
    made[:, 2:4], made[:, 4:] = (low + high) / 2, high - low
    return made


def cells(boxes: Floats, side: int) -> Floats:
    """The boxes by cells, (7 side^2)."""
    count = side**2
    label = np.zeros((7, count), np.float32)
    label[2] = -1
    corners = label[3:].reshape(count, 4)
    for hard, box in zip(boxes[:, 1], boxes, strict=True):
        column, row = (int(min(max(np.floor(place * np.float32(side)), 0), side - 1)) for place in box[2:4])
        cell = side * row + column
        label[:3, cell] = hard, 1, box[0]
        corners[cell] = box[2:]
    return label.reshape(-1)


def listed(boxes: Floats) -> Floats:
    """The first boxes in rows class, centre x, centre y, width, height, (150)."""
    rows = np.zeros((LISTED, 5), np.float32)
    kept = boxes[:LISTED]
    rows[: len(kept)] = kept[:, [0, 2, 3, 4, 5]]
    return rows.reshape(-1)


def cut(picture: Pixels, boxes: Floats, rng: np.random.Generator) -> tuple[Pixels, Floats]:
    """A part of a (channels, height, width) picture, drawn until the centre of a box is in it, in the picture's size;
    and the boxes in it. Places are whole pixels.
    """
    size: Shape = picture.shape[:0:-1]  # width, height
    whole = np.array(size, np.float32)
    pixels = np.trunc(boxes[:, 2:] * np.tile(whole, 2))
    for _ in range(_TRIALS):
        scale = np.float32(1 - rng.integers(30) / 100)
        sides = (whole * scale).astype(int) - 1
        if min(sides) < 1:
            break
        corner = np.array([rng.integers(full - side) for full, side in zip(size, sides, strict=True)])
        inside = ((pixels[:, :2] >= corner) & (pixels[:, :2] < corner + sides)).all(1)
        if not inside.any():
            continue
        (x, y), (wide, high) = corner, sides
        part = np.ascontiguousarray(picture[:, y : y + high, x : x + wide].transpose(1, 2, 0))
        image = cv2.resize(part, size).reshape(size[1], size[0], -1).transpose(2, 0, 1)
        moved = np.concatenate([pixels[inside, :2] - corner, pixels[inside, 2:]], 1) / np.tile(sides, 2)
        return image, np.concatenate([boxes[inside, :2], moved], 1).astype(np.float32)
    return picture, boxes
