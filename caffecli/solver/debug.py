"""Looking inside a pass: Caffe's debug_info lines, and the search for the first bad blob."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from caffecli import logs
from caffecli.logs import number
from caffecli.net.net import Net
from caffecli.net.stepwise import Stepwise


def mean_abs(blob: Tensor | None) -> float:
    """The mean of the absolute values; 0 for a diff that never came."""
    return 0.0 if blob is None or blob.numel() == 0 else float(blob.detach().float().abs().mean())


class Debug:
    """``debug_info``: runs a net layer by layer and logs the mean absolute value of each blob and diff."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.steps = Stepwise(net)
        self._names = {(layer, i): p.display_name for p in net.params for layer, i in p.places}

    def forward(self) -> float:
        """One forward pass with its lines; returns the loss."""
        loss = 0.0
        for index, node in enumerate(self.net.nodes):
            loss += self.steps.forward_layer(index)
            where = f"    [Forward] Layer {node.name}"
            for slot, top in zip(node.outputs, node.tops, strict=True):
                logs.info("net.cpp:593", f"{where}, top blob {top} data: {number(mean_abs(self.steps.data[slot]))}")
            for i, blob in enumerate(node.layer.blobs):
                name = self._names.get((node.layer, i), str(i))
                logs.info("net.cpp:605", f"{where}, param blob {name} data: {number(mean_abs(blob))}")
        return loss

    def backward(self) -> None:
        """One backward pass with its lines; parameter diffs add up in ``.grad``."""
        self.steps.diff = [None] * len(self.steps.diff)
        for index in reversed(range(len(self.net.nodes))):
            node = self.net.nodes[index]
            if not node.backward:
                continue
            self.steps.backward_layer(index)
            where = f"    [Backward] Layer {node.name}"
            for slot, bottom, down in zip(node.inputs, node.bottoms, node.down, strict=True):
                if down:
                    logs.info("net.cpp:621", f"{where}, bottom blob {bottom} diff: {number(mean_abs(self.steps.diff[slot]))}")
            for i, blob in enumerate(node.layer.blobs):
                if self.net.param.force_backward or i >= len(node.layer.param.param) or node.layer.param.param[i].lr_mult != 0:
                    logs.info("net.cpp:632", f"{where}, param blob {i} diff: {number(mean_abs(blob.grad))}")
        self._totals()

    def outputs(self) -> dict[str, Tensor]:
        """The output blobs of the last forward pass."""
        return {name: self.steps.data[self.steps.slot(name)] for name in self.net.outputs}  # type: ignore[misc]

    def _totals(self) -> None:
        data = [p.tensor.detach().double() for p in self.net.params]
        diff = [p.tensor.grad.double() for p in self.net.params if p.tensor.grad is not None]
        sums = [number(sum(float(t.abs().sum()) for t in ts)) for ts in (data, diff)]
        norms = [number(sum(float(t.square().sum()) for t in ts) ** 0.5) for ts in (data, diff)]
        logs.error(
            "net.cpp:721",
            f"    [Backward] All net params (data, diff): L1 norm = ({sums[0]}, {sums[1]}); L2 norm = ({norms[0]}, {norms[1]})",
        )


def first_bad_blob(net: Net, inputs: Mapping[str, Tensor]) -> str:
    """Where NaN or Inf first appears: in a parameter, or in a top when ``inputs`` (the batch) goes through the net again."""
    for node in net.nodes:
        for i, blob in enumerate(node.layer.blobs):
            if not bool(torch.isfinite(blob).all()):
                return f"layer {node.name!r}, param blob {i}"
    found: list[str] = []

    def look(node, tops: tuple[Tensor, ...]) -> None:  # type: ignore[no-untyped-def]
        for name, top in zip(node.tops, tops, strict=True):
            if not found and not bool(torch.isfinite(top).all()):
                found.append(f"layer {node.name!r}, top blob {name!r}")

    with torch.no_grad():
        net.run(inputs, observe=look)
    return found[0] if found else "none on a second look at the same batch"
