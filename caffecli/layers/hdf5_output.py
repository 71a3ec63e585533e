"""HDF5Output: bottoms written to a file, batch after batch."""

from __future__ import annotations

import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli import logs
from caffecli.errors import FormatError
from caffecli.formats.hdf5_rows import RowWriter
from caffecli.layers.base import Context, Layer, Shape
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import TRAIN, LayerParameter


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes two bottoms as the datasets ``data`` and ``label``, float32 of at least four axes,
    the missing ones of size 1.

    Each forward adds its batch's rows (Caffe's layer ends the program at the second). ``close``, the end of the layer
    or of the program puts the file under its name; a program that is killed leaves what was there before.

    ``hdf5_output_param`` { file_name }. Raises FormatError in ``setup`` for a place that cannot be written.
    Source: ``hdf5_output_layer.cpp``.
    """

    stateful = True
    compiles = False
    one_process = True
    not_exported = "writes a file"
    bottom_count = (2, 2)
    top_count = (0, 0)
    no_gradient = (0, 1)

    def __init__(self, param: LayerParameter, phase: int = TRAIN, context: Context | None = None) -> None:
        super().__init__(param, phase, context)
        self._writer: RowWriter | None = None

    def setup(self, bottoms: list[Shape]) -> None:
        name = self.param.hdf5_output_param.file_name
        if not name:
            raise self.spec_error('hdf5_output_param names no file; set file_name: "out.h5"')
        self.close()
        try:
            self._writer = RowWriter(name)
        except FormatError as error:
            raise FormatError(f"layer {self.name!r} ({self.type}): {error}") from error
        weakref.finalize(self, self._writer.close_quietly).atexit = False  # the writer itself sees to that

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        data, label = (shape[0] if shape else 1 for shape in bottoms)
        if data != label:
            raise self.shape_error(f"expected as many labels as rows of data, got {label} and {data}")
        return []

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if self._writer is None:
            raise RuntimeError(f"layer {self.name!r} has not been set up, or has been closed")
        logs.info("hdf5_output_layer.cpp:33", f"Saving HDF5 file {self._writer.path}")
        data, label = map(_rows, bottoms)
        try:
            self._writer.append({"data": data, "label": label})
        except FormatError as error:
            raise FormatError(f"layer {self.name!r} ({self.type}): {error}") from error
        logs.info("hdf5_output_layer.cpp:38", f"Successfully saved {len(data)} rows")
        return ()

    def close(self) -> None:
        """Put the file under its name; the layer can be set up again."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _rows(bottom: Tensor) -> NDArray[np.float32]:
    four = bottom.reshape(*bottom.shape, *[1] * (4 - bottom.dim()))
    return np.ascontiguousarray(four.detach().to("cpu", torch.float32).numpy())
