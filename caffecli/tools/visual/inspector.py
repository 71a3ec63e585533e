"""A net whose layers can be inspected: any layer's values for pictures,
and what goes back from there to the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli import logs
from caffecli.errors import ShapeError, SpecError
from caffecli.formats import caffemodel
from caffecli.layers.data import Input
from caffecli.layers.shape import Split
from caffecli.net import weights as net_weights
from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.spec.filter import filter_net
from caffecli.tools.open import build_net, read_net
from caffecli.wording import did_you_mean

Array = NDArray[np.float32]
Path_ = str | os.PathLike[str]


class Inspector:
    """A deploy net whose layers all pass gradients back, run one by one.

    Pictures are (num, channels, height, width), in the units of the net's input; channels are in its order, blue first
    in most.
    """

    def __init__(self, net: Net) -> None:
        if not net.inputs:
            raise SpecError(f"net {net.name!r} has no Input layer to give a picture to; take the deploy net")
        self.net = net
        self.input = net.inputs[0]
        for blob in net.parameters():
            blob.requires_grad_(False)  # only diffs of blobs are needed

    @classmethod
    def open(cls, definition: Path_, weights: Path_ | None, layers: Iterable[str] = ()) -> Inspector:
        """The net of a deploy prototxt with its weights, else the fillers' values. Raises CaffeError.

        ``layers``: modules of the user's own that register layers.
        """
        param = read_net(definition, layers=layers)
        param.force_backward = True
        if not any(layer.type == "Input" for layer in filter_net(param, param.state).layer):
            raise SpecError(f"{str(definition)!r} has no Input layer to give a picture to; take the deploy net")
        with logs.quiet():
            net = build_net(param, definition)
            if weights is None:
                logs.warning("inspector.py", "No weights given: looking at what the fillers made")
            else:
                _load(net, weights)
        return cls(net)

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a picture. Raises SpecError where the input is none."""
        shape = tuple(self.net.shape(self.input))
        if len(shape) != 4:
            raise SpecError(f"net {self.net.name!r}: input {self.input!r} of shape {shape} is no batch of pictures")
        return shape[1:]

    def index(self, layer: str) -> int:
        """The place of the layer called ``layer``. Raises SpecError."""
        names = [node.name for node in self.net.nodes]
        if layer not in names:
            known = [node.name for node in self.net.nodes if node.tops and not isinstance(node.layer, Split | Input)]
            hint = did_you_mean(layer, names, f"layers: {', '.join(known)}")
            raise SpecError(f"net {self.net.name!r} has no layer {layer!r}{hint}")
        if not self.net.nodes[names.index(layer)].tops:
            raise SpecError(f"layer {layer!r} has no top to look at")
        return names.index(layer)

    def run(self, pictures: Array, layer: str) -> Stepwise:
        """All layers up to ``layer`` on pictures; ``top`` then gives the layer's values."""
        step = Stepwise(self.net)
        inputs = {name: torch.zeros(tuple(self.net.shape(name))) for name in self.net.inputs[1:]}
        inputs[self.input] = torch.from_numpy(np.ascontiguousarray(pictures, np.float32))
        with torch.enable_grad():
            for index in range(self.index(layer) + 1):
                step.forward_layer(index, inputs)
        return step

    def top(self, step: Stepwise, layer: str) -> Tensor:
        """The layer's first top: one row for each picture. Raises ShapeError where it has none."""
        top: Tensor = step.data[self.net.nodes[self.index(layer)].outputs[0]]  # type: ignore[assignment]
        pictures = len(step.data[step.first_slot(self.input)])  # type: ignore[arg-type]
        if top.dim() == 0 or len(top) != pictures:
            raise ShapeError(
                f"layer {layer!r}: its top, of shape {tuple(top.shape)}, has no row for each picture; choose another"
            )
        return top

    def back(self, step: Stepwise, layer: str, diff: Tensor, deconv: bool = False) -> Array:
        """From the layer's top, whose diff is given, down to the pictures; the net must have been ``run`` up to it.

        ``deconv``: by the rules of Zeiler and Fergus, see ``Layer.deconvolved``. Else the gradient.
        """
        step.diff = [None] * len(step.diff)
        last = self.index(layer)
        step.diff[self.net.nodes[last].outputs[0]] = diff
        for index in reversed(range(last + 1)):
            node = self.net.nodes[index]
            came = step.diff[node.outputs[0]] if deconv and node.outputs else None
            down = None if came is None else node.layer.deconvolved(came)
            if down is not None:
                step.diff[node.inputs[0]] = down
            else:
                step.backward_layer(index)
        found = step.diff[step.first_slot(self.input)]
        if found is None:
            raise SpecError(f"layer {layer!r} does not depend on input {self.input!r}; choose another")
        return found.detach().numpy()


def _load(net: Net, path: Path_) -> None:
    """Load the weights, and log the layers for which there are none."""
    there = {name for name, arrays in caffemodel.read(path).items() if arrays}
    learned = [node for node in net.nodes if node.layer.blobs]
    lacking = [
        node.name
        for node in learned
        if node.name not in there and not any(spec.name for spec in node.layer.param.param)
    ]
    if lacking and not there & {node.name for node in learned}:
        raise SpecError(
            f"{str(path)!r} has no weights for any layer of net {net.name!r}, such as {lacking[0]!r}; give its own"
        )
    net_weights.load(net, os.fspath(path))
    if lacking:
        logs.warning(
            "inspector.py", f"{str(path)!r} has no weights for {', '.join(lacking)}: they keep what the fillers made"
        )
