"""Runs a net's layers as Caffe does: any stretch of them, from and to blobs that the user can read and write.

A layer's graph is kept for the backward pass where the net has one at all: a net with a loss that learns, or
``force_backward``. A deploy net has none; its forward is the bare layers in inference mode. A bottom that the user has
changed since is differentiated as it is now. A top that the user has changed counts for the layers that read it later,
not for the derivative of its own layer, which Caffe's Sigmoid and TanH compute from their top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from caffe import building
from caffe.blob import Weight
from caffe.building import Graph, Step
from caffe.planning import Plan
from caffecli.layers.blobs import Blob, shape_of
from caffecli.layers.memory import Memory
from caffecli.layers.python import Python
from caffecli.net.net import Net, top_shapes
from caffecli.net.runners.base import Result, Runner, differentiate, weighted_sum

_NOTHING: dict[str, Tensor] = {}

Callback = Callable[[int], Any]


class Engine(Runner):
    """The blobs of ``net`` and the passes over them: whole ones, as other runners do them, or any stretch of layers.

    ``c_order``: the weights are in C order, so that NumPy arrays can share their memory: for nets that are trained or
    share weights with one. Without, they are channels-last, which is fastest for convolutions, until an array is taken.
    """

    def __init__(self, net: Net, c_order: bool = False) -> None:
        super().__init__(net)
        self.device = torch.device("cpu")
        #: whether the layers run on the CPU, where the arrays are
        self._on_cpu = True
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
        differentiate_inside = any(node.layer.needs_autograd for node in net.nodes)
        self._mode = torch.no_grad if self._has_backward or differentiate_inside else torch.inference_mode
        self._c_order = c_order or self._has_backward
        building.lay_out(self.weights, self._c_order)
        self._plan: Plan | None = None
        self._graphs: dict[int, Graph] = {}
        #: the values that layers have made so far in the pass that is running
        self._fresh: dict[Memory, Tensor] = {}

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> Result:
        self.net.check_inputs(inputs or {})
        for name, value in (inputs or {}).items():
            self.blobs[name].take_shape(tuple(value.shape))
            self.blobs[name].data_memory.put(value)
        loss = self.forward_layers()
        outputs = {name: self._value(self.blobs[name]) for name in self.net.outputs}
        return Result(torch.zeros((), device=self.device) if loss is None else loss, outputs)

    def forward_layers(self, start: int = 0, end: int | None = None) -> Tensor | None:
        """Layers ``start`` to ``end``, inclusive; returns their part of the loss, if they have one."""
        last = len(self.steps) - 1
        end = last if end is None else end
        keep = self._has_backward and torch.is_grad_enabled()
        plain = start == 0 and end == last and not (self._has_backward or self.before_forward or self.after_forward)
        planned = self._planned() if plain else None
        losses: list[tuple[Tensor, float]] = []
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
                        losses.append((loss, 1.0))
                    for callback in self.after_forward:
                        callback(index)
                        self._fresh.clear()  # the callback may have written into blobs
        finally:
            self._fresh.clear()
        return weighted_sum(losses)

    def _planned(self) -> Plan | None:
        """The plan of a pass over the blobs' present shapes; None where layers have to be run one by one."""
        if self._plan is None or not self._plan.holds():
            ready = all(step.constant or step.shapes == tuple(map(shape_of, step.bottoms)) for step in self.steps)
            self._plan = Plan.of(self.steps) if ready else None
        return self._plan

    def _forward_layer(self, index: int, keep: bool) -> Tensor | None:
        """One layer; returns its part of the loss, if it has one. With ``keep``, for a backward pass to come."""
        step = self.steps[index]
        if self._graphs:
            self._graphs.pop(index, None)
        if step.constant:
            return None
        if isinstance(step.node.layer, Python):
            return self._forward_python(step, step.node.layer)
        if keep and step.node.backward:
            graph, user_memory = self._run(step)
            tops = graph.tops
            if any(top.requires_grad for top in tops):
                self._graphs[index] = graph
        else:
            bottoms, user_memory = self._bottoms(step, False)
            for memory in step.makes:
                memory.release()
            tops = self.net.run_layer(step.node, bottoms, self._fed(step) if step.fed else _NOTHING)
        return self._take(step, tops, user_memory)

    def _forward_python(self, step: Step, layer: Python) -> Tensor | None:
        """A user's layer, on the blobs' own memory; returns its part of the loss, if it has one."""
        before = [blob.count for blob in step.tops]
        for theirs, blob in zip(layer.bottoms, step.bottoms, strict=True):
            theirs.take_shape(blob.shape)
            self._fresh.pop(blob.data_memory, None)  # the layer may write into it
        layer.run_forward()
        losses: list[tuple[Tensor, float]] = []
        for theirs, blob, count, weight in zip(layer.tops, step.tops, before, step.node.loss_weights, strict=True):
            blob.take_shape(theirs.shape)
            blob.data_memory.touched()
            self._fresh.pop(blob.data_memory, None)
            if weight:
                losses.append((self._value(blob), weight))
                if count != blob.count:
                    blob.diff_memory.put(torch.full(blob.shape, weight))
        return weighted_sum(losses)

    def _take(self, step: Step, tops: tuple[Tensor, ...], user_memory: list[int]) -> Tensor | None:
        """Write a layer's tops into its blobs; returns their part of the loss, if they have one.

        ``user_memory``: the addresses of bottoms that the user can write into. A top that shares such memory is copied.
        """
        losses: list[tuple[Tensor, float]] = []
        for blob, put, weight, top in zip(step.tops, step.puts, step.node.loss_weights, tops, strict=True):
            made = top.detach() if top.requires_grad else top
            if weight:
                losses.append((made, weight))
                if made.numel() != blob.count:
                    blob.diff_memory.put(torch.full_like(made, weight))
            if made.shape != blob.shape:
                blob.take_shape(tuple(made.shape))
            if put:
                if user_memory and made.untyped_storage().data_ptr() in user_memory:
                    made = made.clone()
                blob.data_memory.put(made)
            self._fresh[blob.data_memory] = made
        return weighted_sum(losses)

    def _run(self, step: Step) -> tuple[Graph, list[int]]:
        """Run the layer under autograd; returns its graph, and ``user_memory``, see ``_take``."""
        found, user_memory = self._bottoms(step, True)
        bottoms = tuple([x.detach().requires_grad_(down) for x, down in zip(found, step.node.down, strict=True)])
        with torch.set_grad_enabled(bool(bottoms or step.node.layer.blob_names)):
            tops = self.net.run_layer(step.node, bottoms, self._fed(step))
        return Graph(bottoms, tuple([blob.data_memory.version for blob in step.bottoms]), tops), user_memory

    def _bottoms(self, step: Step, keep: bool) -> tuple[list[Tensor], list[int]]:
        """The bottoms' values, the layer reshaped for them; and ``user_memory``, see ``_take``."""
        shapes = tuple(map(shape_of, step.bottoms))
        if shapes != step.shapes:
            self._reshape_layer(step, shapes)
        bottoms: list[Tensor] = []
        user_memory: list[int] = []
        for blob in step.bottoms:
            bottom = self._fresh.get(blob.data_memory)
            if bottom is None:
                bottom = self._value(blob)
                if keep and step.in_place and blob.data_memory.exposed:
                    bottom = bottom.clone()  # the top will overwrite it
                elif blob.data_memory.exposed:
                    user_memory.append(bottom.untyped_storage().data_ptr())
            elif bottom.shape != blob.shape:  # made for another blob that shares the memory
                bottom = bottom.reshape(blob.shape)
            bottoms.append(bottom)
        return bottoms, user_memory

    def _fed(self, step: Step) -> Mapping[str, Tensor]:
        return {name: self._value(blob) for name, blob in step.fed} if step.fed else _NOTHING

    def _value(self, blob: Blob) -> Tensor:
        return blob.data_memory.tensor(blob.shape, self.device)

    # -- backward --------------------------------------------------------------------------------------------------

    def backward(self, result: Result) -> None:
        self.backward_layers()

    def backward_layers(self, start: int | None = None, end: int = 0) -> None:
        """Layers ``start`` down to ``end``, inclusive: diffs of bottoms from those of tops.

        Diffs of parameters add up.
        """
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
        step = self.steps[index]
        if not step.bottoms and not self._learned.get(step.node.layer):
            return
        if isinstance(step.node.layer, Python):
            step.node.layer.run_backward(step.node.down)
            for blob in step.bottoms:
                blob.diff_memory.touched()
            return
        graph = self._graph(index)
        tops = zip(step.tops, graph.tops, strict=True)
        diffs = [self._diff(blob, top) if top.requires_grad else None for blob, top in tops]
        learned = [weight for weight in self._learned.get(step.node.layer, ()) if weight.param.tensor.requires_grad]
        tensors = [weight.param.tensor for weight in learned]
        below, grads = differentiate(step.node, graph.bottoms, graph.tops, diffs, tensors, again=True)
        for blob, diff in zip(step.bottoms, below, strict=True):
            if diff is not None:
                blob.diff_memory.put(diff)
        for weight, grad in zip(learned, grads, strict=True):
            if grad is not None:
                weight.diff.add(grad)

    def _diff(self, blob: Blob, top: Tensor) -> Tensor:
        return blob.diff_memory.tensor(top.shape, self.device).to(top.dtype)

    def _graph(self, index: int) -> Graph:
        """The graph that forward left; a new one where there is none, or the user has changed a bottom since."""
        step, graph = self.steps[index], self._graphs.get(index)
        if graph is not None:
            read = zip(step.bottoms, graph.bottoms, graph.versions, strict=True)
            changed = any(blob.data_memory.written(bottom.detach(), version) for blob, bottom, version in read)
            if not changed or step.node.layer.random or step.node.layer.stateful:
                return graph
        graph = self._graphs[index] = self._run(step)[0]
        return graph

    # -- shapes and devices ----------------------------------------------------------------------------------------

    def reshape(self) -> None:
        """Give all blobs the shapes that follow from those of the net's inputs."""
        for step in self.steps:
            if not step.bottoms:
                continue
            shapes = tuple(map(shape_of, step.bottoms))
            if shapes == step.shapes and not isinstance(step.node.layer, Python):
                continue
            for blob, shape, weight in zip(
                step.tops, self._reshape_layer(step, shapes), step.node.loss_weights, strict=True
            ):
                if weight and shape.numel() != blob.count:
                    blob.diff_memory.put(torch.full(shape, weight))
                blob.take_shape(tuple(shape))

    def _reshape_layer(self, step: Step, shapes: tuple[tuple[int, ...], ...]) -> list[torch.Size]:
        step.shapes = ()
        tops = top_shapes(step.node.layer, list(shapes))
        step.shapes = shapes
        return tops

    def to(self, device: torch.device) -> None:
        """Move to ``device``; all arrays stay valid."""
        if device == self.device:
            return
        for weight in self.weights:
            weight.move(device)
        self.net.to(device)
        self.net.context.device = device
        self._graphs.clear()
        self.device, self._on_cpu = device, device.type == "cpu"

    def shared(self) -> None:
        """Adapt to weights that have just become shared with another net:
        their layout, and the blobs of Python layers.
        """
        if self._c_order:
            building.lay_out(self.weights, True)
        for layer, blobs in self.params.items():
            if isinstance(layer, Python):
                building.tie_python_blobs(layer, blobs)

    def push(self) -> None:
        """Bring what the user may have written into weights to the device."""
        if not self._on_cpu:
            for weight in self.weights:
                weight.push()

    def pull(self) -> None:
        """Bring new weights to the user's arrays."""
        if not self._on_cpu:
            for weight in self.weights:
                weight.pull()
