"""Runs a net's layers as Caffe does: any stretch of them, from and to blobs that the user can read and write.

A layer's graph is kept for the backward pass where the net has one at all: a net with a loss that learns, or ``force_backward``.
A deploy net has none; its forward is the bare layers under ``no_grad``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caffe import building
from caffe.blob import Blob, Weight
from caffe.memory import Memory
from caffe.reshape import shape_again
from caffecli.layers.data import DummyData, Input, SourceLayer
from caffecli.layers.python import Python
from caffecli.net.graph import Node
from caffecli.net.net import Net, Observer, Result

#: layers that a backward pass never runs once more: they draw random numbers, or are the user's code
_RUN_ONCE = ("Dropout", "Python")

Callback = Callable[[int], Any]


class Graph(NamedTuple):
    """What a layer's forward leaves for its backward: its bottoms, which version of each blob they are, and its tops."""

    bottoms: tuple[Tensor, ...]
    versions: tuple[int, ...]
    tops: tuple[Tensor, ...]


class Engine:
    """The blobs of ``net`` and the passes over them. ``net`` keeps its weights in C order, so that arrays can share them."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.device = torch.device("cpu")
        #: in the order in which the layers make them
        self.blobs = building.blobs(net)
        self.weights = [Weight(param) for param in net.params]
        #: per layer, its learned blobs
        self.params = building.params(net, self.weights)
        self.before_forward: list[Callback] = []
        self.after_forward: list[Callback] = []
        self.before_backward: list[Callback] = []
        self.after_backward: list[Callback] = []
        self._learned = building.learned(self.weights)
        self._graphs: dict[int, Graph] = {}
        #: values made in the pass that runs, as their layers made them
        self._fresh: dict[Memory, Tensor] = {}
        #: per layer, the bottoms' shapes that it is set up for
        self._shapes = [tuple(net.shapes[slot] for slot in node.inputs) for node in net.nodes]
        #: per layer, the tops that keep what the user has written
        self._kept = [building.filled_once(net, node, self.blobs) for node in net.nodes]
        self._sources = [node.layer for node in net.nodes if isinstance(node.layer, SourceLayer)]

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(self, start: int = 0, end: int | None = None) -> Tensor:
        """Layers ``start`` to ``end``, inclusive; returns their part of the loss."""
        end = len(self.net.nodes) - 1 if end is None else end
        self.push()
        total = torch.zeros((), device=self.device)
        try:
            for index in range(start, end + 1):
                for callback in self.before_forward:
                    callback(index)
                loss = self._forward_layer(index)
                total = total if loss is None else total + loss
                for callback in self.after_forward:
                    callback(index)
                    self._fresh.clear()  # it may have written into blobs
        finally:
            self._fresh.clear()
        for source in self._sources:
            source.read_ahead()
        return total

    def run(self, inputs: Mapping[str, Tensor] | None = None, observe: Observer | None = None) -> Result:
        """A whole pass for a solver: its loss's ``backward`` is this engine's. With arguments, the net's own ``run``."""
        if inputs is not None or observe is not None:
            return Net.run(self.net, inputs, observe)
        loss = self.forward()
        if torch.is_grad_enabled() and any(node.backward for node in self.net.nodes):
            loss = _Pass.apply(loss.requires_grad_(), self)  # type: ignore[no-untyped-call]
        return Result(loss, {name: self._value(name) for name in self.net.outputs})

    def _forward_layer(self, index: int) -> Tensor | None:
        node = self.net.nodes[index]
        self._graphs.pop(index, None)
        if isinstance(node.layer, Input) or (self._kept[index] and len(self._kept[index]) == len(node.tops)):
            return None
        graph = self._run(index, node.backward and torch.is_grad_enabled())
        loss: Tensor | None = None
        for i, (name, top, weight) in enumerate(zip(node.tops, graph.tops, node.loss_weights, strict=True)):
            made = top.detach()
            if weight:
                part = made.sum() * weight
                loss = part if loss is None else loss + part
            if name not in self._kept[index]:
                self._put(node, i, made)
        if node.backward and graph.tops and any(top.requires_grad for top in graph.tops):
            self._graphs[index] = graph
        return loss

    def _put(self, node: Node, index: int, made: Tensor) -> None:
        blob = self.blobs[node.tops[index]]
        if node.loss_weights[index] and made.numel() != blob.count:
            blob.diff_memory.put(torch.full_like(made, node.loss_weights[index]))
        blob._take_shape(tuple(made.shape))
        if node.layer.type not in building.SHARES_DATA:
            blob.data_memory.put(made)
        self._fresh[blob.data_memory] = made

    def _run(self, index: int, graph: bool) -> Graph:
        """The layer on what its bottoms hold."""
        node = self.net.nodes[index]
        blobs = [self.blobs[name] for name in node.bottoms]
        shapes = tuple(torch.Size(blob.shape) for blob in blobs)
        if shapes != self._shapes[index]:
            self._reshape_layer(index, shapes)
        bottoms: list[Tensor] = []
        for blob, down in zip(blobs, node.down, strict=True):
            bottom = self._bottom(blob, in_place=graph and not set(node.bottoms).isdisjoint(node.tops))
            bottoms.append(bottom.detach().requires_grad_() if graph and down else bottom)
        fed = {name: self._value(name) for name in self._kept[index]}
        with torch.set_grad_enabled(graph and (bool(bottoms) or bool(node.layer.blobs))):
            tops = self.net.run_layer(node, tuple(bottoms), fed)
        return Graph(tuple(bottoms), tuple(blob.data_memory.version for blob in blobs), tops)

    def _bottom(self, blob: Blob, in_place: bool) -> Tensor:
        made = self._fresh.get(blob.data_memory)
        if made is not None:
            return made if made.shape == blob.shape else made.reshape(blob.shape)
        value = blob.data_memory.tensor(blob.shape, self.device)
        return value.clone() if in_place and blob.data_memory.exposed else value  # the layer's top goes where it stands

    def _value(self, name: str) -> Tensor:
        return self.blobs[name].data_memory.tensor(self.blobs[name].shape, self.device)

    # -- backward --------------------------------------------------------------------------------------------------

    def backward(self, start: int | None = None, end: int = 0) -> None:
        """Layers ``start`` down to ``end``, inclusive: diffs of bottoms from those of tops; diffs of parameters add up."""
        start = len(self.net.nodes) - 1 if start is None else start
        for index in range(start, end - 1, -1):
            if not self.net.nodes[index].backward:
                continue
            for callback in self.before_backward:
                callback(index)
            self._backward_layer(index)
            for callback in self.after_backward:
                callback(index)

    def _backward_layer(self, index: int) -> None:
        node, graph = self.net.nodes[index], self._graph(index)
        outputs, seeds = [], []
        for name, top in zip(node.tops, graph.tops, strict=True):
            if top.requires_grad:
                outputs.append(top)
                seeds.append(self.blobs[name].diff_memory.tensor(top.shape, self.device).to(top.dtype))
        down = [i for i, bottom in enumerate(graph.bottoms) if bottom.requires_grad]
        learned = [weight for weight in self._learned.get(node.layer, ()) if weight.param.tensor.requires_grad]
        wanted = [graph.bottoms[i] for i in down] + [weight.param.tensor for weight in learned]
        grads: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if outputs and wanted:
            grads = torch.autograd.grad(outputs, wanted, seeds, retain_graph=True, allow_unused=True)
        for i, grad in zip(down, grads, strict=False):
            self.blobs[node.bottoms[i]].diff_memory.put(torch.zeros_like(graph.bottoms[i]) if grad is None else grad)
        for weight, grad in zip(learned, grads[len(down) :], strict=True):
            if grad is not None:
                weight.diff.add(grad)
        if isinstance(node.layer, Python):
            building.tie_user(node.layer, self.params[node.layer])

    def _graph(self, index: int) -> Graph:
        """The one that forward has left, unless there is none or the user has changed a bottom since."""
        node, graph = self.net.nodes[index], self._graphs.get(index)
        if graph is not None:
            memories = [self.blobs[name].data_memory for name in node.bottoms]
            changed = any(m.written(b.detach(), v) for m, b, v in zip(memories, graph.bottoms, graph.versions, strict=True))
            if not changed or node.layer.type in _RUN_ONCE:
                return graph
        with torch.enable_grad():
            graph = self._graphs[index] = self._run(index, True)
        return graph

    # -- shapes and devices ----------------------------------------------------------------------------------------

    def reshape(self) -> None:
        """Let all blobs have the shapes that follow from those of the net's inputs."""
        for index, node in enumerate(self.net.nodes):
            if isinstance(node.layer, SourceLayer | Input | DummyData):
                continue
            shapes = tuple(torch.Size(self.blobs[name].shape) for name in node.bottoms)
            if shapes == self._shapes[index] and not isinstance(node.layer, Python):
                continue
            for name, shape, weight in zip(node.tops, self._reshape_layer(index, shapes), node.loss_weights, strict=True):
                if weight and shape.numel() != self.blobs[name].count:
                    self.blobs[name].diff_memory.put(torch.full(shape, weight))
                self.blobs[name]._take_shape(tuple(shape))

    def _reshape_layer(self, index: int, shapes: tuple[torch.Size, ...]) -> list[torch.Size]:
        self._shapes[index] = ()
        tops = shape_again(self.net.nodes[index].layer, shapes)
        self._shapes[index] = shapes
        return tops

    def to(self, device: torch.device) -> None:
        """Move to ``device``; all arrays stay valid."""
        if device == self.device:
            return
        for weight in self.weights:
            weight.move(device)
        self.net.to(device)
        for node in self.net.nodes:
            if isinstance(node.layer, SourceLayer | DummyData | Input):
                node.layer.device = device
        self._graphs.clear()
        self.device = device

    def push(self) -> None:
        """Bring what the user may have written into weights to the device."""
        for weight in self.weights:
            weight.push()

    def pull(self) -> None:
        """Bring new weights to the user's arrays."""
        for weight in self.weights:
            weight.pull()


class _Pass(torch.autograd.Function):
    """A loss whose backward is an engine's."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, engine: Engine) -> Tensor:
        ctx.engine = engine
        return loss.detach().clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None]:
        with torch.enable_grad():
            ctx.engine.backward()
        return None, None
