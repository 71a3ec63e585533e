"""The values inside a pass: Caffe's debug_info lines, and the search for the first NaN or Inf."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from caffecli import logs
from caffecli.logs import number
from caffecli.net.graph import Node
from caffecli.net.net import Net
from caffecli.net.precision import FULL, PrecisionPolicy
from caffecli.net.runners.base import Result
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole


def mean_abs(blob: Tensor | None) -> float:
    """The mean of the absolute values; 0 for a diff that was not computed."""
    return 0.0 if blob is None or blob.numel() == 0 else float(blob.detach().float().abs().mean())


class Debug(Stepwise):
    """``debug_info``: runs a net layer by layer and logs the mean absolute value of each blob and diff."""

    def __init__(self, net: Net, precision: PrecisionPolicy = FULL) -> None:
        super().__init__(net, precision)
        self._names = {(layer, i): p.display_name for p in net.params for layer, i in p.places}

    def forward_layer(self, index: int, inputs: Mapping[str, Tensor] | None = None) -> None:
        super().forward_layer(index, inputs)
        node = self.net.nodes[index]
        where = f"    [Forward] Layer {node.name}"
        for slot, top in zip(node.outputs, node.tops, strict=True):
            logs.info("net.cpp:593", f"{where}, top blob {top} data: {number(mean_abs(self.data[slot]))}")
        for i, blob in enumerate(node.layer.blobs):
            name = self._names.get((node.layer, i), str(i))
            logs.info("net.cpp:605", f"{where}, param blob {name} data: {number(mean_abs(blob))}")

    def backward(self, result: Result, top_diffs: Mapping[str, Tensor] | None = None) -> None:
        super().backward(result, top_diffs)
        self._totals()

    def backward_layer(self, index: int) -> None:
        super().backward_layer(index)
        node = self.net.nodes[index]
        if not node.backward:
            return
        where = f"    [Backward] Layer {node.name}"
        for slot, bottom, down in zip(node.inputs, node.bottoms, node.down, strict=True):
            if down:
                logs.info("net.cpp:621", f"{where}, bottom blob {bottom} diff: {number(mean_abs(self.diff[slot]))}")
        for i, blob in enumerate(node.layer.blobs):
            if (
                self.net.param.force_backward
                or i >= len(node.layer.param.param)
                or node.layer.param.param[i].lr_mult != 0
            ):
                logs.info("net.cpp:632", f"{where}, param blob {i} diff: {number(mean_abs(blob.grad))}")

    def _totals(self) -> None:
        data = [p.tensor.detach().double() for p in self.net.params]
        diff = [p.tensor.grad.double() for p in self.net.params if p.tensor.grad is not None]
        sums = [number(sum(float(t.abs().sum()) for t in ts)) for ts in (data, diff)]
        norms = [number(sum(float(t.square().sum()) for t in ts) ** 0.5) for ts in (data, diff)]
        logs.error(
            "net.cpp:721",
            f"    [Backward] All net params (data, diff): L1 norm = ({sums[0]}, {sums[1]}); "
            f"L2 norm = ({norms[0]}, {norms[1]})",
        )


def first_bad_blob(net: Net, inputs: Mapping[str, Tensor], precision: PrecisionPolicy = FULL) -> str:
    """Where NaN or Inf first appears: in a parameter, or in a top when the batch ``inputs`` is run once more."""
    for node in net.nodes:
        for i, blob in enumerate(node.layer.blobs):
            if not bool(torch.isfinite(blob).all()):
                return f"layer {node.name!r}, param blob {i}"
    found: list[str] = []

    def find(node: Node, tops: tuple[Tensor, ...]) -> None:
        for name, top in zip(node.tops, tops, strict=True):
            if not found and not bool(torch.isfinite(top).all()):
                found.append(f"layer {node.name!r}, top blob {name!r}")

    with torch.no_grad():
        Whole(net, precision).forward(inputs, observe=find)
    return found[0] if found else "none in a second pass over the same batch"
