"""Base classes: sources of numbered records, and those whose records are a picture with a label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from caffecli.errors import DataError, SpecError
from caffecli.formats import form
from caffecli.formats.annotated import Boxes
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.augment import NO_BOXES, Augmenter
from caffecli.sources.base import Batch, Buffers, Draws, Floats, Numbers, Pixels, Shape, Source, State, Workers
from caffecli.sources.transformer import Transformer
from caffecli.wording import dimensions

#: the picture of a record of the batch: (channels, height, width)
Load = Callable[[int], Pixels]


class NumberedSource(Source):
    """Batches of ``batch_size`` records of an endless sequence: record i is a function of the seed and i.

    ``shard`` (rank, count) divides the records among several readers: record i goes to rank i mod count.
    """

    #: the shape of a record in the first top
    _shape: Shape

    def __init__(self, param: LayerParameter, batch_size: int, seed: int, shard: tuple[int, int]) -> None:
        self.where = f"layer {param.name!r}"
        if batch_size < 1:
            raise SpecError(f"{self.where}: expected batch_size of at least 1, got {batch_size}")
        self._batch_size = batch_size
        self._draws = Draws(seed)
        self._rank, self._ranks = shard
        self._position = 0  # records read by all ranks together

    @property
    def state(self) -> State:
        return {"seed": self._draws.seed, "record": self._position}

    def restore(self, state: State) -> None:
        form.check(state, {"seed": int, "record": int})
        self._draws = Draws(state["seed"])
        self._position = state["record"] - state["record"] % self._ranks

    def next(self) -> Batch:
        try:
            arrays, keys = self._batch()
        except MemoryError as error:
            size = dimensions((self._batch_size, *self._shape))
            raise DataError(f"{self.where}: out of memory for a batch of {size} numbers; lower batch_size") from error
        self._position += self._batch_size * self._ranks
        return Batch(arrays, keys, self.state)

    @abstractmethod
    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        """The arrays and keys of the batch at ``_position``."""

    def _numbers(self) -> Numbers:
        """Three random numbers for each record of the batch."""
        numbers = self._draws.transforms(self._position, self._batch_size * self._ranks)
        return numbers[self._rank :: self._ranks]


class RecordSource(NumberedSource):
    """Batches of transformed pictures and, where the layer has a second top, their labels."""

    def __init__(
        self, param: LayerParameter, phase: int, batch_size: int, rand_skip: int, seed: int, shard: tuple[int, int]
    ) -> None:
        super().__init__(param, batch_size, seed, shard)
        self._labels = len(param.top) > 1
        self._transformer = Transformer(param.transform_param, phase, param.name)
        self._augmenter = Augmenter(param.transform_param, param.name, param.annotated_data_param)
        self._rand_skip = rand_skip
        self._skip = self._draws.skip(rand_skip)
        self._buffers = Buffers()
        self._workers = Workers()

    def _start(self, shape: Shape) -> None:
        """To be called at the end of ``__init__`` with the first picture's shape, transformed."""
        self._shape = shape
        data = (self._batch_size, *shape)
        self.shapes = (data, (self._batch_size,)) if self._labels else (data,)

    def restore(self, state: State) -> None:
        super().restore(state)
        self._skip = self._draws.skip(self._rand_skip)

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        data, labels, keys = self._read()
        return (data, np.array(labels, np.float32)) if self._labels else (data,), keys

    def close(self) -> None:
        self._workers.close()

    @abstractmethod
    def _read(self) -> tuple[Floats, list[int], tuple[str, ...]]:
        """The transformed pictures, labels and keys of the batch at ``_position``."""

    def _numbers(self) -> Numbers:
        return super()._numbers() if self._transformer.random else _zeros(self._batch_size)

    def _fill(self, load: Load, name: Callable[[int], str]) -> Floats:
        """Load and transform each record of the batch, several at a time. ``name`` names a record in errors.

        As in Caffe, a batch's first record decides the shape, so that batches of one may vary. Raises DataError when
        another record's shape differs.
        """
        first: list[Pixels] = [load(0)] if self._batch_size == 1 else []
        if first:
            self._shape = self._transformer.shape(first[0].shape, name(0))
        numbers = self._numbers()
        while True:
            shape = self._shape
            data = self._buffers.take((self._batch_size, *shape))
            unlike: dict[int, Shape] = {}

            def task(i: int, data: Floats = data, shape: Shape = shape, unlike: dict[int, Shape] = unlike) -> None:
                picture = first[0] if first else load(i)
                came = self._transformer.shape(picture.shape, name(i))
                if came == shape:
                    self._transformer.one(picture, numbers[i], data[i])
                else:
                    unlike[i] = came

            self._workers.run(task, self._batch_size)
            if not unlike:
                return data
            if 0 in unlike:
                self._shape = unlike[0]
                del data, task
                continue
            raise self.shape_mismatch(shape, name(0), unlike[min(unlike)], name(min(unlike)))

    def _augmented(
        self, picture: Pixels, index: int, name: str, boxes: Boxes = NO_BOXES, size: int = 0
    ) -> tuple[Pixels, Boxes]:
        """A (channels, height, width) picture and its boxes, augmented with the numbers of record ``index`` of the
        batch and the resize_param ``size``. Raises DataError, naming it.
        """
        if not self._augmenter:
            return picture, boxes
        rng = self._draws.generator(self._position + self._rank + index * self._ranks)
        return self._augmenter.record(picture, name, rng, boxes, size)

    def shape_mismatch(self, expected: Shape, first: str, came: Shape, other: str) -> DataError:
        """The error for a batch whose records have different shapes."""
        sizes = [dimensions(shape) for shape in (expected, came)]
        return DataError(
            f"{self.where}: expected {sizes[0]} (channels × height × width) as {first} has, {other} has {sizes[1]}; "
            "resize the pictures, set crop_size, or use batch_size: 1"
        )


def _zeros(count: int) -> Numbers:
    return np.zeros((count, 3), np.uint32)
