"""A net run layer by layer, with every blob's data and diff in reach.

Slower than ``Net.run``, the same numbers: each layer's graph is built and differentiated by itself, as Caffe does. Used where one
looks inside: ``time``, ``debug_info``, the Python interface, the tests against recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from caffecli.layers.base import Layer
from caffecli.net.graph import Node
from caffecli.net.net import Net
from caffecli.net.params import Param


class Stepwise:
    """Runs the layers of ``net`` one at a time.

    ``data`` and ``diff`` hold the values and gradients of the last pass, one entry a slot (``net.slot_names`` gives the blobs).
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self.data: list[Tensor | None] = [None] * len(net.slot_names)
        self.diff: list[Tensor | None] = [None] * len(net.slot_names)
        self._graphs: dict[int, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}
        self._learned: dict[Layer, list[Param]] = {}
        for param in net.params:
            for layer, _ in param.places:
                self._learned.setdefault(layer, []).append(param)

    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> float:
        """All layers; returns the loss."""
        self.net.check_inputs(inputs or {})
        return sum(self.forward_layer(i, inputs) for i in range(len(self.net.nodes)))

    def backward(self, top_diffs: Mapping[str, Tensor] | None = None) -> None:
        """All layers, last first. ``top_diffs`` sets diffs of output blobs; losses start from their loss weight.

        Parameter diffs add up in ``.grad``.
        """
        self.diff = [None] * len(self.diff)
        for name, diff in (top_diffs or {}).items():
            self.diff[self.slot(name)] = diff
        for i in reversed(range(len(self.net.nodes))):
            self.backward_layer(i)

    def forward_layer(self, index: int, inputs: Mapping[str, Tensor] | None = None) -> float:
        """One layer; returns its part of the loss."""
        node = self.net.nodes[index]
        bottoms = []
        for slot, down in zip(node.inputs, node.down, strict=True):
            bottom: Tensor = self.data[slot]  # type: ignore[assignment]
            bottoms.append(bottom.detach().requires_grad_(down and bottom.is_floating_point() and torch.is_grad_enabled()))
        tops = self.net.run_layer(node, tuple(bottoms), inputs or {})
        self._graphs[index] = (tuple(bottoms), tops)
        for slot, top in zip(node.outputs, tops, strict=True):
            self.data[slot] = top.detach()
        return sum(w * float(t.detach().sum()) for t, w in zip(tops, node.loss_weights, strict=True) if w)

    def backward_layer(self, index: int) -> None:
        """One layer: its bottoms' diffs from its tops', and its parameters' added to ``.grad``."""
        node = self.net.nodes[index]
        if not node.backward or index not in self._graphs:
            return
        bottoms, tops = self._graphs.pop(index)
        outputs, seeds = self._seeds(node, tops)
        down = [i for i, b in enumerate(bottoms) if b.requires_grad]
        learned = [p.tensor for p in self._learned.get(node.layer, ()) if p.tensor.requires_grad]
        wanted = [bottoms[i] for i in down] + learned
        grads: Sequence[Tensor | None] = [None] * len(wanted)
        if outputs and wanted:
            grads = torch.autograd.grad(outputs, wanted, seeds, allow_unused=True)
        fresh: set[int] = set()
        for i, grad in zip(down, grads, strict=False):
            slot, grad = node.inputs[i], torch.zeros_like(bottoms[i]) if grad is None else grad
            before = self.diff[slot]
            self.diff[slot] = before + grad if before is not None and slot in fresh else grad
            fresh.add(slot)
        for blob, grad in zip(learned, grads[len(down) :], strict=True):
            if grad is not None:
                blob.grad = grad if blob.grad is None else blob.grad + grad

    def slot(self, blob: str) -> int:
        """The last slot of a blob; raises ValueError when there is none of that name."""
        names = self.net.slot_names
        return len(names) - 1 - names[::-1].index(blob)

    def first_slot(self, blob: str) -> int:
        """The first slot of a blob: where Caffe leaves the diff of one that later layers change in place."""
        return self.net.slot_names.index(blob)

    def _seeds(self, node: Node, tops: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        outputs, seeds = [], []
        for slot, top, weight in zip(node.outputs, tops, node.loss_weights, strict=True):
            seed = self.diff[slot]
            if weight:
                start = torch.full_like(top, weight)
                seed = start if seed is None else seed + start
                self.diff[slot] = seed
            if seed is not None and top.requires_grad:
                outputs.append(top)
                seeds.append(seed)
        return outputs, seeds
