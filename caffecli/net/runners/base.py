"""What runs a net: the interface, and the pieces that all runners share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from caffecli.errors import CaffeError, in_a_line
from caffecli.layers import outside
from caffecli.layers.base import Layer
from caffecli.net.graph import Node
from caffecli.net.precision import FULL, PrecisionPolicy

if TYPE_CHECKING:
    from caffecli.net.net import Net


class Result(NamedTuple):
    """What a pass through a net gives: the weighted sum of its losses, and its output blobs by name."""

    loss: Tensor
    outputs: dict[str, Tensor]


class Runner(ABC):
    """Runs ``net``, whose layers compute as ``precision`` says: one pass forward, and one backward over it."""

    def __init__(self, net: Net, precision: PrecisionPolicy = FULL) -> None:
        self.net = net
        self.precision = precision

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> Result:
        """One pass through all layers. ``inputs`` feeds ``Input`` layers, by blob name."""

    def backward(self, result: Result) -> None:
        """One backward pass, from the loss of the last forward pass; diffs of parameters add up in ``.grad``."""
        if result.loss.requires_grad:
            try:
                result.loss.backward()  # type: ignore[no-untyped-call]
            except (Exception, SystemExit) as error:
                own = None if isinstance(error, CaffeError) else outside.blamed(self._layers(), "backward", error)
                if own is None:
                    raise
                raise own from error

    def _layers(self) -> list[Layer]:
        return [node.layer for node in self.net.nodes]

    def result(self, slots: Sequence[Tensor | None] | Mapping[int, Tensor]) -> Result:
        """The loss and the outputs, of what the net's slots hold."""
        loss = weighted_sum((slots[slot], weight) for slot, weight in self.net.losses)  # type: ignore[misc]
        outputs = {name: slots[slot] for name, slot in zip(self.net.outputs, self.net.output_slots, strict=True)}
        return Result(torch.zeros(()) if loss is None else loss, outputs)  # type: ignore[arg-type]

    def to(self, device: torch.device) -> None:
        """Move the net to ``device``."""
        self.net.place(device)


def weighted_sum(tops: Iterable[tuple[Tensor, float]]) -> Tensor | None:
    """All values of each top times its weight, added up: a loss, or a part of it. None where there are no tops."""
    total: Tensor | None = None
    for top, weight in tops:
        part = top if top.dim() == 0 else top.sum()
        part = part if weight == 1 else part * weight
        total = part if total is None else total + part
    return total


def differentiate(
    node: Node,
    bottoms: Sequence[Tensor],
    tops: Sequence[Tensor],
    diffs: Sequence[Tensor | None],
    learned: Sequence[Tensor],
    again: bool = False,
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """A layer's backward pass: from the ``diffs`` of its ``tops`` those of its ``bottoms`` and ``learned`` blobs.

    A diff may be None, which counts as zeros. A bottom that needs no gradient gets None; one that needs one and has no
    influence on the tops gets zeros.
    ``again``: keep the layer's graph for another backward pass.
    """
    pairs = [(top, diff) for top, diff in zip(tops, diffs, strict=True) if diff is not None and top.requires_grad]
    wanted = [*(bottom for bottom in bottoms if bottom.requires_grad), *learned]
    grads: Sequence[Tensor | None] = [None] * len(wanted)
    if pairs and wanted:
        outputs, seeds = zip(*pairs, strict=True)
        try:
            grads = torch.autograd.grad(outputs, wanted, seeds, retain_graph=again, allow_unused=True)
        except CaffeError:
            raise
        except (Exception, SystemExit) as error:
            if own := outside.blamed([node.layer], "backward", error):
                raise own from error
            if not isinstance(error, RuntimeError):
                raise
            raise node.layer.shape_error(f"cannot run backward: {in_a_line(error)}") from error
    made = iter(grads)
    below = [_or_zeros(next(made), bottom) if bottom.requires_grad else None for bottom in bottoms]
    return below, list(made)


def _or_zeros(grad: Tensor | None, blob: Tensor) -> Tensor:
    return torch.zeros_like(blob) if grad is None else grad
