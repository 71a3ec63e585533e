"""Layers without bottoms, which bring data into a net: Data, ImageData, HDF5Data, MemoryData, WindowData, DummyData,
Input.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli import logs, sources
from caffecli.formats.datum import from_image, to_array
from caffecli.layers.base import Context, Layer, Shape
from caffecli.layers.fillers import fill
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import TRAIN, BlobShape, Datum, FillerParameter, LayerParameter
from caffecli.sources import Batch, MemorySource, Source
from caffecli.sources.base import Floats, State

T = TypeVar("T")


class SourceLayer(Layer):
    """A layer whose tops are the batches of a ``caffecli.sources`` source.

    The context's ``seed`` decides crops, mirrors, shuffles and skips. ``batch`` is the last batch given, with its
    records' keys.
    """

    stateful = True
    not_exported = "reads records; export the deploy net, whose inputs are Input layers"
    bottom_count = (0, 0)
    top_count: ClassVar[tuple[int, int | None]] = (1, 2)
    #: makes the source that it reads
    reads: ClassVar[sources.Open]
    #: the name of its settings in a LayerParameter; "": it has none
    settings_name: ClassVar[str] = ""
    #: the reference's line that tells the shape of a batch; "": it does not
    size_line: ClassVar[str] = ""

    @classmethod
    def source_of(cls, param: LayerParameter) -> str | None:
        """The path of what it reads; None where its settings have none."""
        return getattr(getattr(param, cls.settings_name), "source", None) if cls.settings_name else None

    @classmethod
    def label_shape(cls, param: LayerParameter, batch_size: int) -> tuple[int, ...]:
        """The shape of each top but the first, of a batch of pictures that are not there."""
        return (batch_size,)

    def __init__(self, param: LayerParameter, phase: int = TRAIN, context: Context | None = None) -> None:
        super().__init__(param, phase, context)
        self.source: Source | None = None
        self.batch: Batch | None = None

    def open_source(self) -> None:
        """Open the source, or open it anew."""
        self.close()
        seed = secrets.randbits(63) if self.context.seed is None else self.context.seed
        self.source = sources.create(type(self).reads, self.param, self.phase, seed, self.context.shard)

    def setup(self, bottoms: list[Shape]) -> None:
        if self.param.transform_param.HasField("mean_file"):
            logs.info("data_transformer.cpp:25", f"Loading mean file from: {self.param.transform_param.mean_file}")
        if self.source is None:
            self.open_source()
        if self.size_line:
            logs.info(self.size_line, "output data size: " + ",".join(map(str, self._opened().shapes[0])))

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return [torch.Size(shape) for shape in self._opened().shapes]

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        self.batch = self._opened().next()
        tops = tuple([self._tensor(array) for array in self.batch.arrays])
        return tops[0] if len(tops) == 1 else tops

    def _tensor(self, array: Floats) -> Tensor:
        tensor = torch.from_numpy(array)
        device = self.context.device
        if device.type == "cuda":  # a copy from pinned memory runs in parallel with the computation
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    @property
    def settings(self) -> Any:
        """The layer's own settings, ``settings_name`` of its LayerParameter; None where it has none."""
        return getattr(self.param, self.settings_name) if self.settings_name else None

    def count(self, quick: bool = False) -> int | None:
        """How many records its source has: see ``Source.count``."""
        return self._opened().count(quick)

    def label_counts(self) -> Counter[int] | None:
        """How many of its source's records have each label: see ``Source.label_counts``."""
        return self._opened().label_counts()

    def once(self, records: int) -> sources.Once:
        """Let the source give each of its ``records`` once; returns what does."""
        self.source = once = sources.Once(self._opened(), records)
        return once

    def record_count(self) -> int:
        """How many records its source has. Raises SpecError for a source without end, and for rand_skip."""
        count = self.count()
        if count is None:
            raise self.spec_error(f"{self.type} has no last record; give a number of batches in place of --all")
        if getattr(self.settings, "rand_skip", 0):
            raise self.spec_error("rand_skip leaves records out, --all wants each of them; take rand_skip out")
        return count

    def doubt(self) -> str:
        if self.phase != TRAIN or len(self.param.top) < 2 or not are_sorted(self._opened().spread_labels(64)):
            return ""
        return (
            f"reads records that are sorted by label, so that a batch has few of them: set {self.settings_name} "
            "{ shuffle: true }, or make the data anew in another order (convert_imageset --shuffle)"
        )

    def read_ahead(self) -> None:
        """Tell the source that now is a good moment to read ahead: the device has its work."""
        self._opened().read_ahead()

    def state(self) -> State:
        """Where the source stands after the last batch given, in numbers that fit into JSON."""
        return self._opened().state

    def restore(self, state: State) -> None:
        """Go on with the batches that followed when ``state`` was taken."""
        self._opened().restore(state)

    def close(self) -> None:
        """Stop reading and close the files; the layer can be set up again."""
        if self.source is not None:
            self.source.close()
        self.source = self.batch = None

    def _opened(self) -> Source:
        if self.source is None:
            raise RuntimeError(f"layer {self.name!r} has not been set up, or has been closed")
        return self.source


def are_sorted(labels: Sequence[int]) -> bool:
    """Whether a sample's labels rise, and cannot do so by chance: eight or more kinds, or of each at least three."""
    runs = [len(list(run)) for _, run in itertools.groupby(labels)]
    return len(labels) >= 32 and list(labels) == sorted(labels) and len(runs) > 1 and (len(runs) > 7 or min(runs) > 2)


@register("Data")
class Data(SourceLayer):
    """tops: pictures (batch_size, channels, height, width) and labels (batch_size,) of an LMDB or LevelDB,
    ordered by key.

    ``data_param`` { source, backend (LEVELDB), batch_size, rand_skip (0), prefetch (4), shuffle (false): the records,
    anew in each epoch }, and ``transform_param``, SSD's settings in it too: see AnnotatedData. The labels' top may be
    left out. Source: ``data_layer.cpp``; ``shuffle`` is NVIDIA's and others'.
    """

    reads = sources.DbSource
    settings_name = "data_param"
    size_line = "data_layer.cpp:45"

    def open(self) -> None:
        self.open_source()

    @classmethod
    def drawn_at_tops(cls, param: LayerParameter) -> str:
        return f"Batch {param.data_param.batch_size}"


@register("ImageData")
class ImageData(SourceLayer):
    """tops: pictures (batch_size, channels, height, width) and labels (batch_size,) of the files that a list names.

    ``image_data_param`` { source, root_folder (""), batch_size (1), shuffle (false), rand_skip (0), new_height,
    new_width (0: as the file), is_color (true) }, and ``transform_param``, SSD's settings in it too: see AnnotatedData.
    Source: ``image_data_layer.cpp``.
    """

    reads = sources.ImageListSource
    settings_name = "image_data_param"
    size_line = "image_data_layer.cpp:90"


@register("HDF5Data")
class HDF5Data(SourceLayer):
    """tops: each the dataset of its name in HDF5 files, (batch_size, ...): its first axis is the record's.

    ``hdf5_data_param`` { source: a text file that names the HDF5 files, batch_size, shuffle (false): the files, and the
    rows within each, anew in each epoch }. Source: ``hdf5_data_layer.cpp``.
    """

    reads = sources.Hdf5Source
    settings_name = "hdf5_data_param"
    top_count = (1, None)


@register("MemoryData")
class MemoryData(SourceLayer):
    """tops: records that a program hands over, (batch_size, channels, height, width), and labels (batch_size, 1, 1, 1).

    ``memory_data_param`` { batch_size, channels, height, width }. Give ``set_input_arrays`` data, or
    ``add_datum_vector`` and ``add_mat_vector`` pictures, before the first pass; they are served again and again. Until
    then, as in Caffe, the labels' shape is (batch_size,). A count of records that is no multiple of batch_size, or
    other shapes, raise DataError.
    Source: ``memory_data_layer.cpp``.
    """

    reads = sources.MemorySource
    settings_name = "memory_data_param"
    top_count = (2, 2)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        data, labels = super().forward(*bottoms)
        return data, labels.reshape(-1, 1, 1, 1)

    def set_input_arrays(self, data: NDArray[Any], labels: NDArray[Any]) -> None:
        """Serve ``data`` (count, channels, height, width) as it is, and ``labels`` (count,) or (count, 1, 1, 1)."""
        self._memory().set_arrays(data, labels)

    def add_datum_vector(self, datums: Sequence[Datum]) -> None:
        """Serve datums, transformed by ``transform_param``, once those added before have all been served."""
        memory = self._memory()
        pictures = [to_array(datum, memory.color, str(i)) for i, datum in enumerate(datums)]
        memory.add_pictures(pictures, [datum.label for datum in datums])

    def add_mat_vector(self, pictures: Sequence[NDArray[np.uint8]], labels: Sequence[int]) -> None:
        """Serve OpenCV's (height, width, channels) or (height, width) pictures, as ``add_datum_vector`` does datums."""
        self._memory().add_pictures([from_image(picture) for picture in pictures], labels)

    def _memory(self) -> MemorySource:
        source = self._opened()
        if not isinstance(source, MemorySource):
            raise TypeError(f"layer {self.name!r} reads from {type(source).__name__}")
        return source


@register("WindowData")
class WindowData(SourceLayer):
    """tops: windows of pictures (batch_size, 3, crop_size, crop_size), those beside objects first;
    their classes (batch_size,).

    ``window_data_param`` { source: a window file, root_folder (""), batch_size, fg_threshold (0.5): least overlap of a
    window on an object; bg_threshold (0.5): below it a window is beside, class 0; fg_fraction (0.25): part of a batch
    on objects; context_pad (0): pixels of the crop that show the surroundings; crop_mode ("warp"), or "square": as wide
    as high before it is resized; scale (1), cache_images (false) }, and ``transform_param`` { crop_size, mirror,
    mean_file or mean_value }. Source: ``window_data_layer.cpp``.
    """

    reads = sources.WindowSource
    settings_name = "window_data_param"
    top_count = (2, 2)
    size_line = "window_data_layer.cpp:180"


@register("DummyData")
class DummyData(Layer):
    """Tops of given shapes with a filler's values; constant ones (the default, 0) are filled once,
    others anew in each forward.

    ``dummy_data_param`` { data_filler: none, one, or one a top; shape: one, or one a top }; ``num``, ``channels``,
    ``height`` and ``width`` in place of ``shape`` spell shapes of four axes. Source: ``dummy_data_layer.cpp``.
    """

    not_exported = "makes its own values; put an Input layer in its place"
    bottom_count = (0, 0)
    top_count = (1, None)

    def __init__(self, param: LayerParameter, phase: int = TRAIN, context: Context | None = None) -> None:
        super().__init__(param, phase, context)
        self._kept: dict[int, Tensor] = {}

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.dummy_data_param
        tops = len(self.param.top)
        fillers = list(param.data_filler) or [FillerParameter(type="constant")]
        self._fillers = self._one_each("data_filler", fillers, tops)
        self._shapes = (
            self._legacy_shapes(tops)
            if _legacy(self.param)
            else _dims(self, self._one_each("shape", param.shape, tops))
        )
        self._kept.clear()
        with torch.random.fork_rng(devices=[]):
            for shape, filler in zip(self._shapes, self._fillers, strict=True):
                # only to raise its errors now; a first use of the meta device takes a second or two
                fill(torch.empty(shape, device="cpu" if math.prod(shape) < 2**24 else "meta"), filler, self.name)

    def fixed_tops(self) -> dict[int, float]:
        return {i: filler.value for i, filler in enumerate(self._fillers) if filler.type == "constant"}

    def _legacy_shapes(self, tops: int) -> list[torch.Size]:
        param = self.param.dummy_data_param
        if param.shape:
            raise self.spec_error("dummy_data_param has both shape and num, channels, height, width; keep shape")
        axes = [self._one_each(name, getattr(param, name), tops) for name in ("num", "channels", "height", "width")]
        return [torch.Size(dims) for dims in zip(*axes, strict=True)]

    def _one_each(self, what: str, values: Sequence[T], tops: int) -> list[T]:
        if len(values) not in (1, tops):
            raise self.spec_error(
                f"expected dummy_data_param to give {what} once, or once for each of the {tops} tops, got {len(values)}"
            )
        return list(values) * tops if len(values) == 1 else list(values)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return self._shapes

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        tops = tuple([self._top(i) for i in range(len(self._shapes))])
        return tops[0] if len(tops) == 1 else tops

    def _top(self, index: int) -> Tensor:
        constant = self._fillers[index].type == "constant"
        kept = self._kept.get(index)
        if constant and kept is not None and kept.device == self.context.device:
            return kept
        top = torch.empty(self._shapes[index], device=self.context.device)
        fill(top, self._fillers[index], self.name)
        if constant:
            self._kept[index] = top
        return top


@register("Input")
class Input(Layer):
    """Tops of given shapes, whose values the caller feeds by name; zeros when he does not.

    ``input_param`` { shape: one for all tops, or one a top }. Source: ``input_layer.cpp``.
    """

    read_by_opencv = True
    bottom_count = (0, 0)
    top_count = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        shapes = list(self.param.input_param.shape)
        tops = len(self.param.top)
        if len(shapes) not in (1, tops):
            raise self.spec_error(
                f"expected input_param to give a shape for all tops, or one for each of the {tops}, got {len(shapes)}; "
                "write input_param { shape { dim: 1 dim: 3 dim: 227 dim: 227 } }"
            )
        self._shapes = _dims(self, shapes * tops if len(shapes) == 1 else shapes)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return self._shapes

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        tops = tuple([torch.zeros(shape, device=self.context.device) for shape in self._shapes])
        return tops[0] if len(tops) == 1 else tops


def _dims(layer: Layer, shapes: Sequence[BlobShape]) -> list[torch.Size]:
    for shape in shapes:
        if any(dim < 0 for dim in shape.dim):
            raise layer.spec_error(f"expected dims of at least 0, got {list(shape.dim)}")
    return [torch.Size(shape.dim) for shape in shapes]


def _legacy(param: LayerParameter) -> bool:
    dummy = param.dummy_data_param
    return any(len(field) for field in (dummy.num, dummy.channels, dummy.height, dummy.width))
