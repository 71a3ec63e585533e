"""Records on their way to blobs: read, decoded, transformed and gathered into batches of numpy arrays."""

from __future__ import annotations

import zlib

from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.annotations import YOLO_ROWS, AnnotatedSource
from caffecli.sources.base import Batch, Open, Source
from caffecli.sources.cells import BoxSource
from caffecli.sources.db import DbSource
from caffecli.sources.hdf5 import Hdf5Source
from caffecli.sources.image_list import ImageListSource
from caffecli.sources.memory import MemorySource
from caffecli.sources.once import Once
from caffecli.sources.prefetch import Prefetch
from caffecli.sources.regions import ObjectSource
from caffecli.sources.video import VideoEnd, VideoSource
from caffecli.sources.window import WindowSource

__all__ = [
    "YOLO_ROWS", "AnnotatedSource", "Batch", "BoxSource", "DbSource", "Hdf5Source", "ImageListSource", "MemorySource",
    "ObjectSource", "Once", "Open", "Prefetch", "Source", "VideoEnd", "VideoSource",
    "WindowSource", "create",
]  # fmt: skip


def create(reads: Open, param: LayerParameter, phase: int, seed: int, shard: tuple[int, int] = (0, 1)) -> Source:
    """The source, one of ``reads``, that a data layer describes.

    It is read ``data_param { prefetch }`` (4) batches ahead; 0 reads none ahead. ``seed`` decides all that is random in
    it; layers of different names get different numbers from the same seed.
    ``shard`` (rank, count) gives record i to rank i mod count, as several devices share their data.

    Raises SpecError, FormatError and DataError, naming the layer.
    """
    source = reads(param, phase, seed ^ zlib.crc32(param.name.encode()), shard)
    depth = (
        0 if isinstance(source, MemorySource) else param.data_param.prefetch
    )  # the program may not have set the next records yet
    return Prefetch(source, depth) if depth else source
