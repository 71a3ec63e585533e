"""Runs a net's layers as Caffe does: any stretch of them, from and to blobs that the user can read and write.

A layer's graph is kept for the backward pass where the net has one at all: a net with a loss that learns, or ``force_backward``.
A deploy net has none; its forward is the bare layers in inference mode. A bottom that the user has changed since is
differentiated as it is now. A changed top changes only what is read of it later, where Caffe's Sigmoid and TanH differentiate by
what stands in their top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from caffe import building
from caffe.blob import Blob, Weight, shape_of
from caffe.building import Graph, Step
from caffe.memory import Memory
from caffe.planning import Plan
from caffe.reshape import shape_again
from caffecli.layers.data import DummyData, Input, SourceLayer
from caffecli.layers.python import Python
from caffecli.net.net import Net, Observer, Result

_NOTHING: dict[str, Tensor] = {}

Callback = Callable[[int], Any]


class Engine:
    """The blobs of ``net`` and the passes over them.

    One that is trained, or shares weights with one (``c_order``), has its weights in C order, so that arrays can share them.
    Others have them channels-last, where convolutions run fastest, as long as nobody looks.
    """

    def __init__(self, net: Net, c_order: bool = False) -> None:
        self.net = net
        self.device = torch.device("cpu")
        #: whether the arrays are where the layers run
        self._at_home = True
        #: in the order in which the layers make them
        self.blobs, self.steps = building.steps(net)
        self.weights = [Weight(param) for param in net.params]
        #: per layer, its learned blobs
        self.params = building.params(net, self.weights)
        self.before_forward: list[Callback] = []
        self.after_forward: list[Callback] = []
        self.before_backward: list[Callback] = []
        self.after_backward: list[Callback] = []
        self._learned = building.learned(self.weights)
        self._has_backward = any(node.backward for node in net.nodes)
        users = any(isinstance(node.layer, Python) for node in net.nodes)
        self._mode = torch.no_grad if self._has_backward or users else torch.inference_mode
        self._c_order = c_order or self._has_backward
        building.lay_out(self.weights, self._c_order)
        self._plan: Plan | None = None
        self._graphs: dict[int, Graph] = {}
        #: values made in the pass that runs, as their layers made them
        self._fresh: dict[Memory, Tensor] = {}

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(self, start: int = 0, end: int | None = None) -> Tensor | None:
        """Layers ``start`` to ``end``, inclusive; returns their part of the loss, if they have one."""
        last = len(self.steps) - 1
        end = last if end is None else end
        keep = self._has_backward and torch.is_grad_enabled()
        plain = start == 0 and end == last and not (self._has_backward or self.before_forward or self.after_forward)
        planned = self._planned() if plain else None
        total: Tensor | None = None
        self.push()
        try:
            with self._mode():
                if planned is not None:
                    start = planned.run(self.net, self._value, self._take)
                for index in range(start, end + 1):
                    for callback in self.before_forward:
                        callback(index)
                    loss = self._forward_layer(index, keep)
                    if loss is not None:
                        total = loss if total is None else total + loss
                    for callback in self.after_forward:
                        callback(index)
                        self._fresh.clear()  # it may have written into blobs
        finally:
            self._fresh.clear()
        return total

    def _planned(self) -> Plan | None:
        """How a whole pass goes over the blobs as they are now; None where it is to be found out on the way."""
        if self._plan is None or not self._plan.holds():
            ready = all(step.still or step.shapes == tuple(map(shape_of, step.bottoms)) for step in self.steps)
            self._plan = Plan.of(self.steps) if ready else None
        return self._plan

    def run(self, inputs: Mapping[str, Tensor] | None = None, observe: Observer | None = None) -> Result:
        """A whole pass for a solver: its loss's ``backward`` is this engine's. With arguments, the net's own ``run``."""
        if inputs is not None or observe is not None:
            return Net.run(self.net, inputs, observe)
        loss = self.forward()
        loss = torch.zeros((), device=self.device) if loss is None else loss
        if torch.is_grad_enabled() and self._has_backward:
            loss = _Pass.apply(loss.requires_grad_(), self)  # type: ignore[no-untyped-call]
        return Result(loss, {name: self._value(self.blobs[name]) for name in self.net.outputs})

    def _forward_layer(self, index: int, keep: bool) -> Tensor | None:
        """One layer; returns its part of the loss, if it has one. With ``keep``, for a backward pass to come."""
        step = self.steps[index]
        if self._graphs:
            self._graphs.pop(index, None)
        if step.still:
            return None
        if keep and step.node.backward:
            graph, hosts = self._run(step)
            tops = graph.tops
            if any(top.requires_grad for top in tops):
                self._graphs[index] = graph
        else:
            bottoms, hosts = self._bottoms(step, False)
            for memory in step.makes:
                memory.release()
            tops = self.net.run_layer(step.node, bottoms, self._fed(step) if step.fed else _NOTHING)
        return self._take(step, tops, hosts)

    def _take(self, step: Step, tops: tuple[Tensor, ...], hosts: list[int]) -> Tensor | None:
        """Let a layer's tops be the values of its blobs; returns their part of the loss, if they have one."""
        loss: Tensor | None = None
        for blob, put, weight, top in zip(step.tops, step.puts, step.node.loss_weights, tops, strict=True):
            made = top.detach() if top.requires_grad else top
            if weight:
                part = made.sum() * weight
                loss = part if loss is None else loss + part
                if made.numel() != blob.count:
                    blob.diff_memory.put(torch.full_like(made, weight))
            if made.shape != blob.shape:
                blob.take_shape(tuple(made.shape))
            if put:
                if hosts and made.untyped_storage().data_ptr() in hosts:
                    made = made.clone()  # a view of what the user may write into
                blob.data_memory.put(made)
            self._fresh[blob.data_memory] = made
        return loss

    def _run(self, step: Step) -> tuple[Graph, list[int]]:
        """The layer on what its bottoms hold, as autograd sees it; with where those lie that the user can write into."""
        found, hosts = self._bottoms(step, True)
        bottoms = tuple([x.detach().requires_grad_(down) for x, down in zip(found, step.node.down, strict=True)])
        with torch.set_grad_enabled(bool(bottoms or step.node.layer.blob_names)):
            tops = self.net.run_layer(step.node, bottoms, self._fed(step))
        return Graph(bottoms, tuple([blob.data_memory.version for blob in step.bottoms]), tops), hosts

    def _bottoms(self, step: Step, keep: bool) -> tuple[list[Tensor], list[int]]:
        """What the bottoms hold, the layer set up for it; with where those lie that the user can write into."""
        shapes = tuple(map(shape_of, step.bottoms))
        if shapes != step.shapes:
            self._reshape_layer(step, shapes)
        bottoms: list[Tensor] = []
        hosts: list[int] = []
        for blob in step.bottoms:
            bottom = self._fresh.get(blob.data_memory)
            if bottom is None:
                bottom = self._value(blob)
                if keep and step.in_place and blob.data_memory.exposed:
                    bottom = bottom.clone()  # the top goes where it stands
                elif blob.data_memory.exposed:
                    hosts.append(bottom.untyped_storage().data_ptr())
            elif bottom.shape != blob.shape:  # another blob's that shares the memory
                bottom = bottom.reshape(blob.shape)
            bottoms.append(bottom)
        return bottoms, hosts

    def _fed(self, step: Step) -> Mapping[str, Tensor]:
        return {name: self._value(blob) for name, blob in step.fed} if step.fed else _NOTHING

    def _value(self, blob: Blob) -> Tensor:
        return blob.data_memory.tensor(blob.shape, self.device)

    # -- backward --------------------------------------------------------------------------------------------------

    def backward(self, start: int | None = None, end: int = 0) -> None:
        """Layers ``start`` down to ``end``, inclusive: diffs of bottoms from those of tops; diffs of parameters add up."""
        start = len(self.steps) - 1 if start is None else start
        for index in range(start, end - 1, -1):
            if not self.steps[index].node.backward:
                continue
            for callback in self.before_backward:
                callback(index)
            self._backward_layer(index)
            for callback in self.after_backward:
                callback(index)

    def _backward_layer(self, index: int) -> None:
        step, graph = self.steps[index], self._graph(index)
        outputs, seeds = [], []
        for blob, top in zip(step.tops, graph.tops, strict=True):
            if top.requires_grad:
                outputs.append(top)
                seeds.append(blob.diff_memory.tensor(top.shape, self.device).to(top.dtype))
        down = [i for i, bottom in enumerate(graph.bottoms) if bottom.requires_grad]
        learned = [weight for weight in self._learned.get(step.node.layer, ()) if weight.param.tensor.requires_grad]
        wanted = [graph.bottoms[i] for i in down] + [weight.param.tensor for weight in learned]
        grads: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if outputs and wanted:
            try:
                grads = torch.autograd.grad(outputs, wanted, seeds, retain_graph=True, allow_unused=True)
            except RuntimeError as error:
                raise step.node.layer.shape_error(f"cannot run backward: {str(error).strip().splitlines()[0]}") from error
        for i, grad in zip(down, grads, strict=False):
            step.bottoms[i].diff_memory.put(torch.zeros_like(graph.bottoms[i]) if grad is None else grad)
        for weight, grad in zip(learned, grads[len(down) :], strict=True):
            if grad is not None:
                weight.diff.add(grad)
        if isinstance(step.node.layer, Python):
            building.tie_user(step.node.layer, self.params[step.node.layer])  # its class has been lent others

    def _graph(self, index: int) -> Graph:
        """The one that forward has left, unless there is none or the user has changed a bottom since."""
        step, graph = self.steps[index], self._graphs.get(index)
        if graph is not None:
            read = zip(step.bottoms, graph.bottoms, graph.versions, strict=True)
            changed = any(blob.data_memory.written(bottom.detach(), version) for blob, bottom, version in read)
            if not changed or step.node.layer.random:
                return graph
        graph = self._graphs[index] = self._run(step)[0]
        return graph

    # -- shapes and devices ----------------------------------------------------------------------------------------

    def reshape(self) -> None:
        """Let all blobs have the shapes that follow from those of the net's inputs."""
        for step in self.steps:
            if isinstance(step.node.layer, SourceLayer | Input | DummyData):
                continue
            shapes = tuple(map(shape_of, step.bottoms))
            if shapes == step.shapes and not isinstance(step.node.layer, Python):
                continue
            for blob, shape, weight in zip(step.tops, self._reshape_layer(step, shapes), step.node.loss_weights, strict=True):
                if weight and shape.numel() != blob.count:
                    blob.diff_memory.put(torch.full(shape, weight))
                blob.take_shape(tuple(shape))

    def _reshape_layer(self, step: Step, shapes: tuple[tuple[int, ...], ...]) -> list[torch.Size]:
        step.shapes = ()
        tops = shape_again(step.node.layer, shapes)
        step.shapes = shapes
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
        self.device, self._at_home = device, device.type == "cpu"

    def shared(self) -> None:
        """Take up the weights that now are another net's too, blobs of Python layers among them."""
        if self._c_order:
            building.lay_out(self.weights, True)
        for layer, blobs in self.params.items():
            if isinstance(layer, Python):
                building.tie_user(layer, blobs)

    def push(self) -> None:
        """Bring what the user may have written into weights to the device."""
        if not self._at_home:
            for weight in self.weights:
                weight.push()

    def pull(self) -> None:
        """Bring new weights to the user's arrays."""
        if not self._at_home:
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
