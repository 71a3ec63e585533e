"""The blobs of a net that it learns: the user's arrays share the memory that is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from caffecli.layers.blob_array import BlobArray
from caffecli.layers.blobs import Blob
from caffecli.layers.memory import Floats, Memory
from caffecli.net.params import Param


class Weight:
    """A learnable blob, which several layers may share: the tensor that is trained, and its diff.

    On the CPU the user's arrays share the tensor's memory, which is in C order once an array has been taken. On another
    device they share ``host``, a copy that is brought to the device before each pass.
    """

    def __init__(self, param: Param) -> None:
        self.param = param
        self.host: torch.Tensor | None = None
        self.diff = Memory()

    def array(self, shape: tuple[int, ...]) -> Floats:
        tensor = self.param.tensor
        if tensor.is_cpu:
            self.lay_out(torch.contiguous_format)
            return tensor.detach().numpy().reshape(shape).view(BlobArray)
        if self.host is None:
            self.host = tensor.detach().cpu().contiguous()
        return self.host.numpy().reshape(shape).view(BlobArray)

    def lay_out(self, order: torch.memory_format) -> None:
        """Give the tensor this memory layout; does nothing where it has it."""
        tensor = self.param.tensor
        if tensor.dim() == 4 or order == torch.contiguous_format:
            tensor.data = tensor.data.contiguous(memory_format=order)

    def push(self) -> None:
        """Bring what the user may have written to the device."""
        if self.host is not None and not self.param.tensor.is_cpu:
            self.param.tensor.detach().copy_(self.host)

    def pull(self) -> None:
        """Bring what has been trained or loaded to the user's arrays."""
        if self.host is not None and not self.param.tensor.is_cpu:
            self.host.copy_(self.param.tensor.detach())

    def move(self, device: torch.device) -> None:
        """Move to ``device``; arrays taken before stay valid."""
        tensor = self.param.tensor
        if tensor.device.type == device.type and (device.index is None or tensor.device == device):
            return
        if tensor.is_cpu:
            self.host = tensor.data if tensor.is_contiguous() else None  # not contiguous: no array was taken
            tensor.data = tensor.data.to(device)
        elif device.type == "cpu" and self.host is not None:
            self.pull()
            tensor.data, self.host = self.host, None
        else:
            tensor.data = tensor.data.to(device)


class ParamBlob(Blob):
    """A learnable blob of one layer.

    ``data`` is the very memory that is trained; ``diff`` adds up over backward passes.
    """

    def __init__(self, weight: Weight, shape: Iterable[int]) -> None:
        super().__init__(shape)
        self.weight = weight
        self.diff_memory = weight.diff

    @property
    def data(self) -> Floats:
        return self.weight.array(self._shape)

    def take_shape(self, shape: tuple[int, ...]) -> None:
        tensor, count = self.weight.param.tensor, math.prod(shape)
        with torch.no_grad():
            flat = tensor.data.reshape(-1)[:count]
            tensor.data = torch.cat([flat, flat.new_zeros(count - flat.numel())]).reshape(shape)
        self.weight.host = None
        super().take_shape(shape)
