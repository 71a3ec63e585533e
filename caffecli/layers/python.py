"""Python: a layer whose class the user writes, and what that class derives from, as in Caffe's Python interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from caffecli.layers import registry, user_modules
from caffecli.layers.base import Context, Layer, Shape
from caffecli.layers.blobs import Blob, BlobVec
from caffecli.layers.outside import failure
from caffecli.layers.registry import register
from caffecli.layers.user_modules import import_module, is_there, on_path
from caffecli.proto.caffe_pb2 import TRAIN, LayerParameter
from caffecli.spec.phase import Phase


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
        layer.blobs = BlobVec()  # not in __init__: a user's class may have its own, without a call of super's
        return layer

    blobs: BlobVec

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read ``param_str``, check the bottoms, add ``blobs``."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Fill ``top[i].data``."""
        raise NotImplementedError("a Python layer needs a method forward(self, bottom, top)")

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Fill ``bottom[i].diff``."""
        raise NotImplementedError(
            "a Python layer that is trained through needs a method backward(self, top, propagate_down, bottom)"
        )


@register("Python")
class Python(Layer):
    """The layer that the class ``python_param { layer }`` of the module ``module`` computes, in NumPy on the CPU.

    Any bottoms and tops. ``python_param``: module, layer; param_str (""), for the class to read; ``share_in_parallel``
    has no effect. The module is looked for on Python's path (PYTHONPATH), in ``folders`` and in the working directory.
    Where it is not there, and the class is one of py-faster-rcnn's or its kin's that is here
    (``rpn.proposal_layer.ProposalLayer``), ours is taken. The class derives from ``caffe.Layer``; blobs that its
    ``setup`` adds are learned. A top named as a bottom is the same blob. Errors of the class are PythonLayerErrors,
    which name the layer. Raises SpecError where module or class are not found.
    Source: ``python_layer.hpp``.
    """

    compiles = False
    needs_autograd = True
    not_exported = "runs Python code; export the net without it"
    bottom_count = (0, None)
    top_count = (0, None)

    def __init__(self, param: LayerParameter, phase: int = TRAIN, context: Context | None = None) -> None:
        super().__init__(param, phase, context)
        #: where else modules are looked for
        self.folders = _folders(self.context)
        self.user = PythonLayerBase()

    @classmethod
    def that_computes(cls, param: LayerParameter, context: Context) -> type[Layer]:
        """The class registered under the full name of the user's, where his module is not to be found."""
        setting = param.python_param
        ours = registry.layer_class(f"{setting.module}.{setting.layer}")
        return cls if ours is None or is_there(setting.module, _folders(context)) else ours

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
        by_name: dict[str, Blob] = {}
        self.bottoms = [by_name.setdefault(name, Blob(())) for name in self.param.bottom]
        self.tops = [by_name.setdefault(name, Blob(())) for name in self.param.top]
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
                    blob.copy_(torch.from_numpy(np.asarray(own.data)))

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if any(tuple(shape) != blob.shape for shape, blob in zip(bottoms, self.bottoms, strict=True)):
            self._shape_bottoms(bottoms)
            self.call("reshape", self.user.reshape, self.bottoms, self.tops)
        return [torch.Size(top.shape) for top in self.tops]

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        tops: tuple[Tensor, ...] = _Call.apply(self, len(bottoms), *bottoms, *self.blobs) or ()  # type: ignore[no-untyped-call]
        return tops[0] if len(tops) == 1 else tops

    def take_type(self, dtype: torch.dtype) -> None:
        """Let the blobs hold numbers of this type: float32, but where gradients are checked."""
        for blob in (*self.bottoms, *self.tops, *self.user.blobs):
            blob.data_memory.take_type(dtype)
            blob.diff_memory.take_type(dtype)

    def run_forward(self) -> None:
        """The user's reshape and forward, from the memory of the bottoms to that of the tops."""
        self.call("reshape", self.user.reshape, self.bottoms, self.tops)
        self.call("forward", self.user.forward, self.bottoms, self.tops)

    def run_backward(self, down: list[bool]) -> None:
        """The user's backward, from the tops' diffs to the bottoms' (where ``down``), and to those of its blobs."""
        self.call("backward", self.user.backward, self.tops, down, self.bottoms)

    def call(self, what: str, method: Callable[..., Any], *args: Any) -> Any:
        """Call the user's code, which finds the modules beside the net. Its errors become PythonLayerErrors."""
        try:
            with on_path(self.folders):
                return method(*args)
        except (Exception, SystemExit) as error:
            where = f"layer {self.name!r} (Python, {self.where}): {what}"
            raise failure(error, where, (__file__, user_modules.__file__, contextlib.__file__)) from error

    def _shape_bottoms(self, shapes: Sequence[Shape]) -> None:
        for blob, shape in zip(self.bottoms, shapes, strict=True):
            blob.take_shape(tuple(shape))

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


def _folders(context: Context) -> list[str]:
    return [str(folder) for folder in (*map(Path.absolute, context.folders), Path.cwd())]


class _Call(torch.autograd.Function):
    """A Python layer's forward and backward: bottoms, then blobs, to tops.

    As in Caffe, the layer works on memory that stays: arrays that it keeps, and diffs that it writes in forward, are
    there in the next call, and a bottom that forward changes is changed for all that reads it.
    """

    @staticmethod
    def forward(ctx: Any, layer: Python, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.layer, ctx.count = layer, count
        ctx.kinds = [(tensor.device, tensor.dtype) for tensor in tensors]
        bottoms, own = tensors[:count], tensors[count:]
        layer.take_type(torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32)
        for blob, tensor in zip(layer.bottoms, bottoms, strict=True):
            blob.take_shape(tuple(tensor.shape))
            blob.data_memory.write(tensor)
        for blob, tensor in zip(layer.user.blobs, own, strict=True):
            blob.data_memory.write(tensor)
        layer.run_forward()
        for blob, tensor in (*zip(layer.bottoms, bottoms, strict=True), *zip(layer.user.blobs, own, strict=True)):
            if blob not in layer.tops:
                _write_back(blob, tensor)
        device = ctx.kinds[0][0] if tensors else layer.context.device
        return tuple(torch.from_numpy(np.array(top.data)).to(device) for top in layer.tops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layer, own = ctx.layer, ctx.layer.user.blobs
        for blob, grad in zip(layer.tops, grads, strict=True):
            blob.diff_memory.write(grad)
        for blob in own:
            blob.diff_memory.clear()
        down = list(ctx.needs_input_grad[2 : 2 + ctx.count])
        layer.run_backward(down)
        diffs = [blob.diff for blob in (*layer.bottoms, *own)]
        made = zip(diffs, ctx.kinds, ctx.needs_input_grad[2:], strict=True)
        return None, None, *(torch.from_numpy(np.array(d)).to(*kind) if needed else None for d, kind, needed in made)


def _write_back(blob: Blob, tensor: Tensor) -> None:
    """Bring what the user's code has written into a blob's memory to the tensor that it was copied from.

    By ``data``, of which autograd takes no note: as in Caffe, other layers' derivatives use the new values.
    """
    now = blob.data_memory.tensor(blob.shape, torch.device("cpu"))
    if not torch.equal(now, tensor.detach().to("cpu", now.dtype)):
        tensor.data.copy_(now)
