"""The ``MemoryData`` layer's records: arrays and pictures that a program hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError, SpecError
from caffecli.formats import form
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.augment import Augmenter
from caffecli.sources.base import Buffers, Floats, Pixels, Shape, State
from caffecli.sources.records import NumberedSource
from caffecli.sources.transformer import Transformer
from caffecli.wording import dimensions


class MemorySource(NumberedSource):
    """Serves what ``set_arrays`` or ``add_pictures`` gave last, in its order, again and again.

    ``memory_data_param { batch_size channels height width }`` is the shape of a batch, after ``transform_param``. A
    ``state`` does not hold the records: a program that resumes hands them over before ``restore``. Raises SpecError for
    missing settings.
    """

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        settings = param.memory_data_param
        super().__init__(param, settings.batch_size, seed, shard)
        self._shape: Shape = (settings.channels, settings.height, settings.width)
        if 0 in self._shape:
            raise SpecError(
                f"{self.where}: expected memory_data_param to give batch_size, channels, height and width, all of at "
                f"least 1, got channels {self._shape[0]}, height {self._shape[1]}, width {self._shape[2]}"
            )
        self.shapes = ((self._batch_size, *self._shape), (self._batch_size,))
        self._transformer = Transformer(param.transform_param, phase, param.name)
        self._augmenter = Augmenter(param.transform_param, param.name)
        self._transforms = param.HasField("transform_param")
        self._buffers = Buffers()
        self._data: Floats | None = None
        self._labels = np.empty(0, np.float32)
        self._added = 0  # pictures transformed so far
        self._unread = False  # whether some of the pictures added last have not been served

    def set_arrays(self, data: NDArray[Any], labels: NDArray[Any]) -> None:
        """Serve ``data`` (count, channels, height, width), untransformed, and ``labels`` (count,) or (count, 1, 1, 1).

        The arrays are not copied when they are float32 and contiguous. Raises DataError for shapes that do not fit.
        """
        data, labels = np.asarray(data), np.asarray(labels)
        if data.shape[1:] != self._shape or data.ndim != 4:
            size = dimensions(self._shape)
            raise DataError(
                f"{self.where}: expected data of shape count × {size}, as memory_data_param says, got {data.shape}"
            )
        if labels.shape not in ((len(data),), (len(data), 1, 1, 1)):
            raise DataError(
                f"{self.where}: expected one label for each of the {len(data)} records, got shape {labels.shape}"
            )
        self._check_count(len(data))
        if self._transforms:
            logs.warning("memory_data_layer.cpp:90", "MemoryData does not transform array data on Reset()")
        self._serve(np.ascontiguousarray(data, np.float32), labels)

    def add_pictures(self, pictures: Sequence[Pixels], labels: Sequence[int]) -> None:
        """Serve transformed (channels, height, width) pictures. Raises DataError for shapes that do not fit, or before
        those given so the last time have all been served.
        """
        if self._unread:
            raise DataError(
                f"{self.where}: some of the pictures added before have not been served; add more after a whole round"
            )
        if len(labels) != len(pictures):
            raise DataError(
                f"{self.where}: expected one label for each of the {len(pictures)} pictures, got {len(labels)}"
            )
        self._check_count(len(pictures))
        data = np.empty((len(pictures), *self._shape), np.float32)
        draws = self._draws.transforms(self._added, len(pictures))
        for i, picture in enumerate(pictures):
            if self._augmenter:
                rng = self._draws.generator(self._added + i)
                picture, _ = self._augmenter.record(picture, f"picture {i}", rng)
            shape = self._transformer.shape(picture.shape, f"picture {i}")
            if shape != self._shape:
                raise DataError(
                    f"{self.where}: expected channels × height × width of {dimensions(self._shape)}, as "
                    f"memory_data_param says, picture {i} gives {dimensions(shape)}"
                )
            self._transformer.one(picture, draws[i], data[i])
        self._added += len(pictures)
        self._serve(data, np.asarray(labels))
        self._unread = True

    @property
    def color(self) -> bool | None:
        """How encoded datums are to be decoded."""
        return self._transformer.color

    def _check_count(self, count: int) -> None:
        if count == 0 or count % self._batch_size:
            raise DataError(
                f"{self.where}: expected a multiple of batch_size, {self._batch_size}, records, got {count}"
            )

    def _serve(self, data: Floats, labels: NDArray[Any]) -> None:
        self._data, self._labels = data, np.ascontiguousarray(labels.reshape(-1), np.float32)
        self._position, self._unread = 0, False

    @property
    def state(self) -> State:
        return {**super().state, "added": self._added}

    def restore(self, state: State) -> None:
        form.check(state, {"added": int})
        super().restore(state)
        self._added = state["added"]

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        if self._data is None:
            raise DataError(
                f"{self.where}: no data have been given; call its set_input_arrays(data, labels) before the first pass"
            )
        rows = (self._position + self._rank + np.arange(self._batch_size) * self._ranks) % len(self._data)
        data = self._buffers.take(self.shapes[0])
        np.take(self._data, rows, axis=0, out=data, mode="clip")
        if (self._position + self._batch_size * self._ranks) % len(self._data) == 0:
            self._unread = False
        return (data, self._labels[rows]), tuple(map(str, rows.tolist()))

    def close(self) -> None:
        self._data = None
