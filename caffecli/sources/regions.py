"""Pictures for Fast and Faster R-CNN, as large as they may be, with their objects, and regions, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from caffecli.errors import DataError
from caffecli.formats import annotated
from caffecli.formats.annotated import CORNERS
from caffecli.formats.db import Record
from caffecli.formats.proposals import Proposals
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.annotations import AnnotatedSource
from caffecli.sources.base import Floats


class _Picture(NamedTuple):
    """A picture (channels, height, width), its scale, its objects (count, 5) and its regions (count, 4)."""

    pixels: Floats
    scale: float
    objects: Floats
    regions: Floats


class ObjectSource(AnnotatedSource):
    """Reads ``data_param``. Its arrays are a picture (1, channels, height, width), its height, width and scale (1, 3),
    and its objects (count, 5): xmin, ymin, xmax, ymax, class; the batch_size is 1.

    With ``proposals`` they are pictures (batch_size, channels, height, width), 0 to the right of and below smaller
    ones; the regions (count, 5) that the file has of them: picture, xmin, ymin, xmax, ymax; and their objects
    (count, 6): picture, xmin, ymin, xmax, ymax, class.

    A picture is mirrored by chance where ``flipped``, ``means`` are taken off its channels, and its shorter side
    becomes one of ``sides``, drawn by chance, unless the longer one would be over ``most``: then that is. Objects and
    regions are in pixels of the picture that comes out, both ends in them.
    """

    def __init__(
        self,
        param: LayerParameter,
        phase: int,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        *,
        sides: Sequence[float] = (600,),
        most: float = 1000,
        flipped: bool = True,
        means: Sequence[float] = (0,),
        proposals: Proposals | None = None,
    ) -> None:
        self._sides, self._most, self._flipped, self._means = sides, most, flipped, means
        self._proposals = proposals
        super().__init__(param, phase, seed, shard)

    def _begin(self, key: bytes, value: bytes) -> None:
        arrays = self._arrays([(key, value)])
        self._shape = arrays[0].shape[1:]
        self.shapes = ((self._batch_size, *self._shape), *(array.shape for array in arrays[1:]))

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        with self._taken() as (records, keys):
            return self._arrays(records), keys

    def _arrays(self, records: Sequence[Record]) -> tuple[Floats, ...]:
        pictures = [self._made(i, *record) for i, record in enumerate(records)]
        if self._proposals is None:
            one = pictures[0]
            info = np.array([[*one.pixels.shape[1:], one.scale]], np.float32)
            return np.ascontiguousarray(one.pixels[None]), info, one.objects
        size = np.max([one.pixels.shape for one in pictures], axis=0)
        data = np.zeros((len(pictures), *size), np.float32)
        for place, one in zip(data, pictures, strict=True):
            place[:, : one.pixels.shape[1], : one.pixels.shape[2]] = one.pixels
        regions, objects = (
            np.concatenate([np.insert(getattr(one, what), 0, i, axis=1) for i, one in enumerate(pictures)])
            for what in ("regions", "objects")
        )
        return data, regions, objects

    def _made(self, index: int, key: bytes, value: bytes) -> _Picture:
        name = str(key, "utf-8", "replace")
        record = self._record(key, value)
        draws = self._draws.generator(self._position + self._rank + index * self._ranks)
        side, mirrored = self._sides[int(draws.integers(len(self._sides)))], self._flipped and draws.random() < 0.5
        picture = self._picture(record.datum, name)
        _, height, width = picture.shape
        pixels = picture.transpose(1, 2, 0)[:, :: -1 if mirrored else 1].astype(np.float32)
        pixels -= np.array(self._means, np.float32)
        large, scale = scaled(pixels, side, self._most)
        size = np.array([width, height] * 2, np.float32)
        boxes = annotated.boxes(record)
        corners = _mirrored(np.minimum(boxes[:, CORNERS] * size, size - 1), width, mirrored) * np.float32(scale)
        return _Picture(
            large,
            scale,
            np.concatenate([corners, boxes[:, :1]], 1),
            _mirrored(self._regions(name), width, mirrored) * np.float32(scale),
        )

    def _regions(self, key: str) -> Floats:
        if self._proposals is None:
            return np.zeros((0, 4), np.float32)
        try:
            return self._proposals.of(key)
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from error


def scaled(pixels: Floats, side: float, most: float) -> tuple[Floats, float]:
    """A picture (height, width, channels) as (channels, height, width), its shorter side ``side``, unless the longer
    one would be over ``most``: then that is; and its scale.
    """
    import cv2

    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    if round(scale * max(height, width)) > most:
        scale = most / max(height, width)
    large = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return large.reshape(*large.shape[:2], -1).transpose(2, 0, 1), scale


def _mirrored(boxes: Floats, width: int, mirrored: bool) -> Floats:
    return (
        np.stack([width - 1 - boxes[:, 2], boxes[:, 1], width - 1 - boxes[:, 0], boxes[:, 3]], 1) if mirrored else boxes
    )
