"""A net run layer by layer, with every blob's data and diff in reach.

Slower than ``Whole``, the same numbers: each layer's graph is built and differentiated by itself, as Caffe does. For
those who look inside: ``time``, ``debug_info``, ``visualize``, the tests against recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caffecli.layers.base import Layer
from caffecli.net.params import Param
from caffecli.net.precision import FULL, PrecisionPolicy
from caffecli.net.runners.base import Result, Runner, differentiate

if TYPE_CHECKING:
    from caffecli.net.net import Net


class Stepwise(Runner):
    """Runs the layers of ``net`` one at a time.

    ``data`` and ``diff`` hold the values and gradients of the last pass, one entry a slot (``net.slot_names`` gives the
    blobs).
    """

    def __init__(self, net: Net, precision: PrecisionPolicy = FULL) -> None:
        super().__init__(net, precision)
        self.data: list[Tensor | None] = [None] * len(net.slot_names)
        self.diff: list[Tensor | None] = [None] * len(net.slot_names)
        self._graphs: dict[int, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}
        self._learned: dict[Layer, list[Param]] = {}
        for param in net.params:
            for layer in dict.fromkeys(layer for layer, _ in param.places):
                self._learned.setdefault(layer, []).append(param)

    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> Result:
        self.net.check_inputs(inputs or {})
        for i in range(len(self.net.nodes)):
            self.forward_layer(i, inputs)
        return self.result(self.data)

    def backward(self, result: Result, top_diffs: Mapping[str, Tensor] | None = None) -> None:
        """All layers, last first: losses start from their loss weight. ``top_diffs`` sets diffs of output blobs."""
        self.diff = [None] * len(self.diff)
        for name, diff in (top_diffs or {}).items():
            self.diff[self.slot(name)] = diff
        for i in reversed(range(len(self.net.nodes))):
            self.backward_layer(i)

    def forward_layer(self, index: int, inputs: Mapping[str, Tensor] | None = None) -> None:
        """One layer, on what its bottoms hold."""
        node = self.net.nodes[index]
        bottoms = []
        for slot, down in zip(node.inputs, node.down, strict=True):
            bottom: Tensor = self.data[slot]  # type: ignore[assignment]
            down = down and bottom.is_floating_point() and torch.is_grad_enabled()
            bottoms.append(bottom.detach().requires_grad_(down))
        tops = self.net.run_layer(node, bottoms, inputs or {}, self.precision)
        self._graphs[index] = (tuple(bottoms), tops)
        for slot, top in zip(node.outputs, tops, strict=True):
            self.data[slot] = top.detach()

    def backward_layer(self, index: int) -> None:
        """One layer: its bottoms' diffs from its tops', and its parameters' added to ``.grad``."""
        node = self.net.nodes[index]
        if not node.backward or index not in self._graphs:
            return
        bottoms, tops = self._graphs.pop(index)
        for slot, top, weight in zip(node.outputs, tops, node.loss_weights, strict=True):
            if weight:
                start, seed = torch.full_like(top, weight), self.diff[slot]
                self.diff[slot] = start if seed is None else seed + start
        learned = [p.tensor for p in self._learned.get(node.layer, ()) if p.tensor.requires_grad]
        below, grads = differentiate(node, bottoms, tops, [self.diff[slot] for slot in node.outputs], learned)
        fresh: set[int] = set()
        for slot, diff in zip(node.inputs, below, strict=True):
            if diff is not None:
                before = self.diff[slot]
                self.diff[slot] = before + diff if before is not None and slot in fresh else diff
                fresh.add(slot)
        for blob, grad in zip(learned, grads, strict=True):
            if grad is not None:
                blob.grad = grad if blob.grad is None else blob.grad + grad

    def slot(self, blob: str) -> int:
        """The last slot of a blob; raises ValueError when there is none of that name."""
        names = self.net.slot_names
        return len(names) - 1 - names[::-1].index(blob)

    def first_slot(self, blob: str) -> int:
        """The first slot of a blob: where Caffe leaves the diff of one that later layers change in place."""
        return self.net.slot_names.index(blob)
