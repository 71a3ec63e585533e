"""Python: a layer whose class the user writes, and what that class and its blobs look like,
as in Caffe's Python interface.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from caffecli.errors import ShapeError
from caffecli.layers import user_modules
from caffecli.layers.base import Context, Layer, Shape
from caffecli.layers.registry import register
from caffecli.layers.user_modules import failure, import_module, on_path
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter

Floats = NDArray[Any]


class FourAxes:
    """Caffe's older names for the shape of a blob of up to four axes; an axis that the blob lacks is 1 long.

    They raise ShapeError for a blob of more.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        shape = self.shape
        if len(shape) > 4:
            raise ShapeError(
                f"num, channels, height and width are of blobs of at most 4 axes, this one is {shape}; use shape"
            )
        return shape[axis] if axis < len(shape) else 1


class PythonBlob(FourAxes):
    """A blob as a Python layer sees it: ``data`` and ``diff``, NumPy arrays that can be written into, and its shape."""

    def __init__(self, *dims: int) -> None:
        self.data: Floats = np.zeros(dims, np.float32)
        self.diff: Floats = np.zeros(dims, np.float32)

    def reshape(self, *dims: int) -> None:
        """Give the blob another shape; the values stay where it has as many as before."""
        shape = tuple(int(dim) for dim in dims)
        if shape != self.data.shape:
            same = math.prod(shape) == self.data.size
            self.data = self.data.reshape(shape) if same else np.zeros(shape, self.data.dtype)
            self.diff = self.diff.reshape(shape) if same else np.zeros(shape, self.diff.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape


class PythonBlobs(list[PythonBlob]):
    """A layer's own parameters."""

    def add_blob(self, *dims: int) -> None:
        """Append a blob of that shape, filled with zeros."""
        self.append(PythonBlob(*map(int, dims)))


class Phase(enum.IntEnum):
    """A phase: a number, as in Caffe, that reads as its name, as in Faster R-CNN's fork."""

    TRAIN = TRAIN
    TEST = TEST

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def __format__(self, form: str) -> str:
        return format(int(self) if form[-1:] in "bcdoxX" and form else self.name, form)


class PythonLayerBase:
    """What a user's layer derives from; ``caffe.Layer``.

    ``setup`` runs once, ``reshape`` before each ``forward``, to shape the tops. ``backward`` writes ``bottom[i].diff``
    where ``propagate_down[i]``, from ``top[i].diff``, and adds to ``self.blobs[i].diff``. ``param_str`` is the net's
    setting, ``param_str_`` its name until 2015; ``phase`` is 0 for TRAIN and 1 for TEST, and reads as that name.
    """

    type = "Python"
    param_str: str = ""
    param_str_: str = ""
    phase: int = Phase.TRAIN

    def __init__(self, param: LayerParameter | None = None) -> None:
        pass

    def __new__(cls, *args: Any, **settings: Any) -> PythonLayerBase:
        layer = super().__new__(cls)
        layer.blobs = PythonBlobs()  # not in __init__: a user's class may have its own, without a call of super's
        return layer

    blobs: PythonBlobs

    def setup(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Read ``param_str``, check the bottoms, add ``blobs``."""

    def reshape(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Shape the tops."""

    def forward(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Fill ``top[i].data``."""
        raise NotImplementedError("a Python layer needs a method forward(self, bottom, top)")

    def backward(self, top: Sequence[PythonBlob], propagate_down: Sequence[bool], bottom: Sequence[PythonBlob]) -> None:
        """Fill ``bottom[i].diff``."""
        raise NotImplementedError(
            "a Python layer that is trained through needs a method backward(self, top, propagate_down, bottom)"
        )


@register("Python")
class Python(Layer):
    """The layer that the class ``python_param { layer }`` of the module ``module`` computes, in NumPy on the CPU.

    Any bottoms and tops. ``python_param``: module, layer; param_str (""), for the class to read; ``share_in_parallel``
    has no effect. The module is looked for on Python's path (PYTHONPATH), in ``folders`` and in the working directory.
    The class derives from ``caffe.Layer``; blobs that its ``setup`` adds are learned. A top named as a bottom is the
    same blob. Errors of the class are PythonLayerErrors, which name the layer. Raises SpecError where module or class
    are not found.
    Source: ``python_layer.hpp``.
    """

    compiles = False
    needs_autograd = True
    not_exported = "runs Python code of your own"
    bottom_count = (0, None)
    top_count = (0, None)

    def __init__(self, param: LayerParameter, phase: int = TRAIN, context: Context | None = None) -> None:
        super().__init__(param, phase, context)
        #: where else modules are looked for
        self.folders = [str(folder) for folder in (*map(Path.absolute, self.context.folders), Path.cwd())]
        self.user = PythonLayerBase()

    @property
    def random(self) -> bool:
        return True

    @classmethod
    def names_of_blobs(cls, param: LayerParameter, count: int) -> tuple[str, ...]:
        return tuple(f"blob{i}" for i in range(count))

    def setup(self, bottoms: list[Shape]) -> None:
        setting = self.param.python_param
        self.where = f"{setting.module}.{setting.layer}"
        cls = self._find(setting.module, setting.layer)
        self.user = self.call("__init__", cls, self.param)
        self.user.param_str = self.user.param_str_ = setting.param_str
        self.user.phase = Phase(self.phase)
        by_name: dict[str, PythonBlob] = {}
        self.bottoms = [by_name.setdefault(name, PythonBlob()) for name in self.param.bottom]
        self.tops = [by_name.setdefault(name, PythonBlob()) for name in self.param.top]
        self._shape_bottoms(bottoms)
        self.call("setup", self.user.setup, self.bottoms, self.tops)
        self.call("reshape", self.user.reshape, self.bottoms, self.tops)
        for i, blob in enumerate(self.user.blobs):
            self.add_blob(f"blob{i}", blob.shape)

    def materialize(self) -> None:
        fresh = [blob.is_meta for blob in self.blobs]
        super().materialize()
        with torch.no_grad():
            for blob, own, new in zip(self.blobs, self.user.blobs, fresh, strict=True):
                if new:
                    blob.copy_(torch.from_numpy(own.data))

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if any(tuple(shape) != blob.shape for shape, blob in zip(bottoms, self.bottoms, strict=True)):
            self._shape_bottoms(bottoms)
            self.call("reshape", self.user.reshape, self.bottoms, self.tops)
        return [torch.Size(top.shape) for top in self.tops]

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        tops: tuple[Tensor, ...] = _Call.apply(self, len(bottoms), *bottoms, *self.blobs) or ()  # type: ignore[no-untyped-call]
        return tops[0] if len(tops) == 1 else tops

    def call(self, what: str, method: Callable[..., Any], *args: Any) -> Any:
        """Call the user's code, which finds the modules beside the net. Its errors become PythonLayerErrors."""
        try:
            with on_path(self.folders):
                return method(*args)
        except Exception as error:
            where = f"layer {self.name!r} (Python, {self.where}): {what}"
            raise failure(error, where, (__file__, user_modules.__file__, contextlib.__file__)) from error

    def _shape_bottoms(self, shapes: Sequence[Shape]) -> None:
        for blob, shape in zip(self.bottoms, shapes, strict=True):
            blob.reshape(*shape)

    def _find(self, module: str, name: str) -> type[PythonLayerBase]:
        if not module or not name:
            raise self.spec_error("expected python_param { module: ... layer: ... }, the class and the module it is in")
        found = import_module(module, self.folders, f"layer {self.name!r} (Python)")
        cls = getattr(found, name, None)
        if cls is None:
            has = [
                key
                for key, value in vars(found).items()
                if isinstance(value, type) and issubclass(value, PythonLayerBase)
            ]
            raise self.spec_error(
                f"module {module!r} ({found.__file__}) has no {name!r}; its layers: {', '.join(has) or 'none'}"
            )
        if not (isinstance(cls, type) and issubclass(cls, PythonLayerBase)):
            raise self.spec_error(f"{self.where} ({found.__file__}) is not a layer; write class {name}(caffe.Layer)")
        return cls


class _Call(torch.autograd.Function):
    """A Python layer's forward and backward: bottoms, then blobs, to tops."""

    @staticmethod
    def forward(ctx: Any, layer: Python, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.layer, ctx.count = layer, count
        ctx.kinds = [(tensor.device, tensor.dtype) for tensor in tensors]
        ctx.dtype = dtype = _dtype(tensors)
        layer._shape_bottoms([tensor.shape for tensor in tensors[:count]])
        for blob, tensor in zip(layer.bottoms, tensors, strict=False):
            blob.data = _copy(tensor, dtype)
            blob.diff = np.zeros_like(blob.data)
        _lend(layer, tensors[count:])
        layer.call("reshape", layer.user.reshape, layer.bottoms, layer.tops)
        for top in layer.tops:
            top.data = np.asarray(top.data, np.float64 if dtype == torch.float64 else np.float32)
        layer.call("forward", layer.user.forward, layer.bottoms, layer.tops)
        _take_back(layer, tensors[count:])
        device = ctx.kinds[0][0] if tensors else layer.context.device
        return tuple(torch.from_numpy(top.data.copy()).to(device) for top in layer.tops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layer, own = ctx.layer, ctx.layer.user.blobs
        for blob in layer.bottoms:
            blob.diff = np.zeros_like(blob.data)
        for blob, grad in zip(layer.tops, grads, strict=True):
            blob.diff = _copy(grad, ctx.dtype)
        for blob in own:
            blob.diff = np.zeros_like(blob.data)
        down = list(ctx.needs_input_grad[2 : 2 + ctx.count])
        layer.call("backward", layer.user.backward, layer.tops, down, layer.bottoms)
        diffs = [blob.diff for blob in (*layer.bottoms, *own)]
        made = zip(diffs, ctx.kinds, ctx.needs_input_grad[2:], strict=True)
        return None, None, *(torch.from_numpy(d.copy()).to(*kind) if needed else None for d, kind, needed in made)


def _dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _copy(tensor: Tensor, dtype: torch.dtype) -> Floats:
    """The tensor's values in an array of their own, in C order."""
    return tensor.detach().to("cpu", dtype, copy=True).contiguous().numpy()


def _lend(layer: Python, tensors: Sequence[Tensor]) -> None:
    """Make the user's blobs show the parameters: their own memory on a CPU, else copies."""
    for blob, tensor in zip(layer.user.blobs, tensors, strict=True):
        blob.data = tensor.detach().cpu().numpy()
        blob.diff = np.zeros_like(blob.data)


def _take_back(layer: Python, tensors: Sequence[Tensor]) -> None:
    """Copy what the user's code wrote into copies of the parameters back into them."""
    for blob, tensor in zip(layer.user.blobs, tensors, strict=True):
        if not tensor.is_cpu and not np.array_equal(blob.data, tensor.detach().cpu().numpy()):
            tensor.detach().copy_(torch.from_numpy(blob.data))
