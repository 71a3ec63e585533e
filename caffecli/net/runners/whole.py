"""A net run as a whole: one graph, which autograd differentiates. For training and scoring."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from caffecli.net.graph import Node
from caffecli.net.runners.base import Result, Runner

Observer = Callable[[Node, tuple[Tensor, ...]], None]


class Whole(Runner):
    """Runs all layers of ``net`` in order; a blob that no later layer reads is freed on the way."""

    def forward(self, inputs: Mapping[str, Tensor] | None = None, observe: Observer | None = None) -> Result:
        """One pass through all layers. ``observe``, for those who look inside, gets each layer and its tops."""
        net, precision = self.net, self.precision
        slots: list[Tensor | None] = [None] * len(net.slot_names)
        fed = inputs or {}
        net.check_inputs(fed)
        for node, unused in zip(net.nodes, net.last_read, strict=True):
            tops = net.run_layer(node, [slots[i] for i in node.inputs], fed, precision)  # type: ignore[misc]
            for slot, top in zip(node.outputs, tops, strict=True):
                slots[slot] = top
            if observe is not None:
                observe(node, tops)
            for slot in unused:
                slots[slot] = None
        for source in net.sources:
            source.read_ahead()
        return self.result(slots)
