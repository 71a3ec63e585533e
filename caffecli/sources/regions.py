"""Pictures for Faster R-CNN: one at a time, as large as they may be, with their objects in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffecli.formats import annotated
from caffecli.formats.annotated import CORNERS, Boxes
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.annotations import AnnotatedSource
from caffecli.sources.base import Floats, Pixels


class ObjectSource(AnnotatedSource):
    """Reads ``data_param`` with a batch_size of 1; its arrays are a picture (1, channels, height, width), its height,
    width and scale (1, 3), and its objects (count, 5): xmin, ymin, xmax, ymax, class.

    A picture is mirrored by chance where ``flipped``, ``means`` are taken off its channels, and its shorter side
    becomes one of ``sides``, drawn by chance, unless the longer one would be over ``most``: then that is. Objects'
    boxes are in pixels of the picture that comes out, both ends in it.
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
    ) -> None:
        self._sides, self._most, self._flipped, self._means = sides, most, flipped, means
        super().__init__(param, phase, seed, shard)

    def _begin(self, key: bytes, value: bytes) -> None:
        arrays = self._arrays(key, value)
        self._shape = arrays[0].shape[1:]
        self.shapes = tuple(array.shape for array in arrays)

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        with self._taken() as (records, keys):
            return self._arrays(*records[0]), keys

    def _arrays(self, key: bytes, value: bytes) -> tuple[Floats, ...]:
        record = self._record(key, value)
        draws = self._draws.generator(self._position + self._rank)
        side, mirrored = self._sides[int(draws.integers(len(self._sides)))], self._flipped and draws.random() < 0.5
        picture = self._picture(record.datum, str(key, "utf-8", "replace"))
        return self._made(picture, annotated.boxes(record), side, mirrored)

    def _made(self, picture: Pixels, boxes: Boxes, side: float, mirrored: bool) -> tuple[Floats, ...]:
        import cv2

        _, height, width = picture.shape
        scale = side / min(height, width)
        if round(scale * max(height, width)) > self._most:
            scale = self._most / max(height, width)
        pixels = picture.transpose(1, 2, 0)[:, :: -1 if mirrored else 1].astype(np.float32)
        pixels -= np.array(self._means, np.float32)
        large = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        large = large.reshape(*large.shape[:2], -1)
        corners = boxes[:, CORNERS] * np.array([width, height] * 2, np.float32)
        corners = np.minimum(corners, np.array([width, height] * 2, np.float32) - 1)
        if mirrored:
            corners[:, [0, 2]] = width - 1 - corners[:, [2, 0]]
        objects = np.concatenate([corners * np.float32(scale), boxes[:, :1]], 1)
        info = np.array([[*large.shape[:2], scale]], np.float32)
        return np.ascontiguousarray(large.transpose(2, 0, 1)[None]), info, objects
