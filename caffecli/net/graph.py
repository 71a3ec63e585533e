"""How the layers of a net are wired, found out once, before anything runs.

Every top gets a slot of its own; a layer run in place takes a new slot for the same blob name. So no value is ever
overwritten, and autograd and layer-by-layer runs see the same graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from caffecli.errors import SpecError
from caffecli.layers.base import Layer
from caffecli.layers.data import SourceLayer
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.wording import did_you_mean

#: the top of a loss layer whose top the net does not name; no other layer can use it
AUTOMATIC = "(automatic)"


@dataclass(eq=False)
class Node:
    """A layer of a net: the slots that it reads and fills, and which of its blobs take part in the backward pass."""

    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    loss_weights: tuple[float, ...]
    #: per bottom: whether a gradient flows down it (Caffe's bottom_need_backward)
    down: list[bool]
    backward: bool = True
    #: the bottoms to which ``propagate_down: false`` lets no gradient pass
    stops: tuple[int, ...] = ()
    #: whether a top is an output of the net, or counts in its loss
    reported: bool = False

    @property
    def name(self) -> str:
        return self.layer.name

    def cut(self, bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        """``bottoms``, those detached to which no gradient may pass."""
        if not self.stops:
            return bottoms
        return [bottom.detach() if i in self.stops else bottom for i, bottom in enumerate(bottoms)]


class Wiring:
    """Blob names to slots, filled layer by layer in file order.

    Raises SpecError for a bottom nobody produced, or one used up by an earlier in-place layer, and for a top made
    twice.
    """

    def __init__(self) -> None:
        self.slot_names: list[str] = []
        self.current: dict[str, int] = {}
        self.unused: set[str] = set()
        self.needs_backward: list[bool] = []

    def connect(self, layer: Layer, param: LayerParameter) -> Node:
        bottoms, tops = tuple(param.bottom), tuple(param.top)
        if layer.is_loss and not tops:
            tops = (AUTOMATIC,)
        layer.check_wiring(bottoms, tops)
        if param.propagate_down and len(param.propagate_down) != len(bottoms):
            raise layer.spec_error(
                f"propagate_down is given {len(param.propagate_down)} times for {len(bottoms)} bottom(s)"
            )
        if len(param.loss_weight) not in (0, len(tops)):
            raise layer.spec_error(f"loss_weight is given {len(param.loss_weight)} times for {len(tops)} top(s)")
        inputs = tuple(self._bottom(layer, name) for name in bottoms)
        down = [self.needs_backward[slot] for slot in inputs]
        if param.propagate_down:
            down = list(param.propagate_down)
        needs = any(self.needs_backward[slot] for slot in inputs)
        outputs = tuple(self._top(layer, name, i, bottoms, needs) for i, name in enumerate(tops))
        weights = tuple(param.loss_weight) or tuple(float(layer.is_loss and i == 0) for i in range(len(tops)))
        stops = tuple(i for i, flows in enumerate(param.propagate_down) if not flows)
        return Node(layer, bottoms, tops, inputs, outputs, weights, down, needs, stops)

    def learns(self, node: Node) -> None:
        """Mark the layer as one that learns: it runs backward, and its tops get gradients."""
        node.backward = True
        for slot in node.outputs:
            self.needs_backward[slot] = True

    def _bottom(self, layer: Layer, name: str) -> int:
        if name not in self.unused:
            hint = did_you_mean(name, self.current, f"blobs so far: {', '.join(self.current) or 'none'}")
            raise SpecError(f"layer {layer.name!r}: unknown bottom blob {name!r}{hint}")
        self.unused.discard(name)
        return self.current[name]

    def _top(self, layer: Layer, name: str, index: int, bottoms: Sequence[str], needs: bool) -> int:
        in_place = index < len(bottoms) and bottoms[index] == name
        if name in self.current and not in_place and name != AUTOMATIC:
            raise SpecError(
                f"layer {layer.name!r}: top blob {name!r} is already produced by another layer; give it another name"
            )
        slot = len(self.slot_names)
        self.slot_names.append(name)
        self.needs_backward.append(needs)
        if name != AUTOMATIC:
            self.current[name] = slot
            self.unused.add(name)
        return slot


def mark_backward(nodes: Sequence[Node]) -> None:
    """Settle which layers run backward: those that learn, or pass a gradient on, and stand under a loss."""
    under_loss: set[str] = set()
    stopped: set[str] = set()
    for node in reversed(nodes):
        contributes = any(node.loss_weights) or any(top in under_loss for top in node.tops)
        if node.backward and (not node.tops or all(top in stopped for top in node.tops)):
            node.backward = False
            node.down = [False] * len(node.down)
        if not contributes:
            node.backward = False
        for i, bottom in enumerate(node.bottoms):
            if contributes:
                under_loss.add(bottom)
            else:
                node.down[i] = False
            if not node.down[i]:
                stopped.add(bottom)


def last_read(nodes: Sequence[Node], keep: set[int]) -> list[tuple[int, ...]]:
    """Per layer, the slots that no later layer reads and that are not in ``keep``: their memory can be freed."""
    last: dict[int, int] = {}
    for i, node in enumerate(nodes):
        last |= dict.fromkeys((*node.inputs, *node.outputs), i)
    unread: list[list[int]] = [[] for _ in nodes]
    for slot, i in last.items():
        if slot not in keep:
            unread[i].append(slot)
    return [tuple(slots) for slots in unread]


def force_backward(nodes: Sequence[Node]) -> None:
    """The net's ``force_backward``: every layer runs backward, and every bottom that can have a gradient gets one."""
    for node in nodes:
        node.backward, node.stops = True, ()
        node.down = [d or i not in node.layer.no_gradient for i, d in enumerate(node.down)]


def check_names(nodes: Sequence[Node]) -> None:
    """Raise SpecError when two layers of one name hold weights or read records: files keep either under the name.

    Layers that keep nothing may share a name, as in Caffe, whose autoencoder has two losses called ``loss``.
    """
    seen: set[str] = set()
    for name in (node.name for node in nodes if node.layer.blob_names or isinstance(node.layer, SourceLayer)):
        if name in seen:
            raise SpecError(
                f"layer {name!r} is defined twice; weights are stored by layer name, so give one another name"
            )
        seen.add(name)


def by_name(nodes: Sequence[Node]) -> dict[str, Layer]:
    """The layers by name; of those that share one, the one that holds weights, else the first."""
    layers: dict[str, Layer] = {}
    for node in nodes:
        if node.name not in layers or node.layer.blob_names:
            layers[node.name] = node.layer
    return layers
