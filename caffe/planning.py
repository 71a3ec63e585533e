"""A whole pass of a net without a backward one, laid out beforehand: what no pass changes is looked up once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caffe.blob import Blob, shape_of
from caffe.building import Step
from caffe.memory import Memory
from caffecli.layers.base import Layer, as_tuple
from caffecli.net.net import Net

#: gives a layer's tops to its blobs; the last argument has the addresses of inputs, which the user can write into
Take = Callable[[Step, tuple[Tensor, ...], list[int]], Any]


class Stage(NamedTuple):
    """A layer of the pass, by the places of its bottoms and tops among the values of the pass."""

    layer: Layer
    reads: tuple[int, ...]
    #: per top its place and its shape
    writes: tuple[tuple[int, torch.Size], ...]
    step: Step
    #: how many layers of the net are done after this one
    done: int


class Put(NamedTuple):
    """What is in the end put into a blob's memory."""

    memory: Memory
    place: int
    #: whether it may be a view of one of the inputs
    may_be_input: bool


class Plan(NamedTuple):
    """A pass over blobs of certain shapes."""

    #: what is read and not made: the first values
    inputs: tuple[Blob, ...]
    stages: tuple[Stage, ...]
    puts: tuple[Put, ...]
    blobs: tuple[Blob, ...]
    shapes: tuple[tuple[int, ...], ...]
    #: how many layers the net has
    layers: int

    @classmethod
    def of(cls, net_steps: Sequence[Step]) -> Plan | None:
        """The pass over all layers of a net, each set up for the shapes of its bottoms.

        None where there is more to do than to run layers: to add up losses, to read or feed data, to show values in two
        shapes.
        """
        steps = [step for step in net_steps if not step.constant]
        if any(step.fed or not step.bottoms or any(step.node.loss_weights) for step in steps):
            return None
        inputs = _inputs(steps)
        places = {blob.data_memory: place for place, blob in enumerate(inputs)}
        shapes = [blob.shape for blob in inputs]
        views = set(places.values())
        stages, puts = [], {}
        for step in steps:
            reads = tuple([places[blob.data_memory] for blob in step.bottoms])
            if any(shapes[place] != blob.shape for place, blob in zip(reads, step.bottoms, strict=True)):
                return None
            may_be_input = not views.isdisjoint(reads)
            writes = []
            for blob, put in zip(step.tops, step.puts, strict=True):
                place = places[blob.data_memory] = len(shapes)
                shapes.append(blob.shape)
                writes.append((place, torch.Size(blob.shape)))
                if put:
                    puts[blob.data_memory] = Put(blob.data_memory, place, may_be_input)
                elif may_be_input:
                    views.add(place)
            stages.append(Stage(step.node.layer, reads, tuple(writes), step, net_steps.index(step) + 1))
        blobs = tuple(dict.fromkeys([*inputs, *(blob for step in steps for blob in step.tops)]))
        return cls(inputs, tuple(stages), tuple(puts.values()), blobs, tuple(map(shape_of, blobs)), len(net_steps))

    def holds(self) -> bool:
        """Whether the blobs still have these shapes."""
        return tuple(map(shape_of, self.blobs)) == self.shapes

    def run(self, net: Net, value_of: Callable[[Blob], Tensor], take: Take) -> int:
        """All layers, or those up to one whose tops have other shapes than planned; returns how many layers are done.

        Nothing else is done between two layers, whose data would drive it out of the cache.
        """
        values = [value_of(blob) for blob in self.inputs]
        user_memory = [value.untyped_storage().data_ptr() for value in values]
        for layer, reads, writes, step, done in self.stages:
            for memory in step.makes:
                memory.release()
            bottoms = [values[place] for place in reads]
            try:
                tops = layer(*bottoms)
            except Exception as error:
                self._leave(done - 1, values, user_memory, take)
                if isinstance(error, RuntimeError):
                    raise net.refusal(step.node, bottoms, error) from error
                raise
            values += as_tuple(tops)
            for place, shape in writes:
                if values[place].shape != shape:
                    self._leave(done, values, user_memory, take)
                    return done
        for memory, place, may_be_input in self.puts:
            value = values[place]
            if may_be_input and value.untyped_storage().data_ptr() in user_memory:
                value = value.clone()  # the user may write there
            memory.put(value)
        return self.layers

    def _leave(self, done: int, values: list[Tensor], user_memory: list[int], take: Take) -> None:
        """Let the blobs have what the net's first ``done`` layers have made, in a pass that does not end as planned."""
        for stage in self.stages:
            if stage.done <= done:
                take(stage.step, tuple([values[place] for place, _ in stage.writes]), user_memory)


def _inputs(steps: Iterable[Step]) -> tuple[Blob, ...]:
    """The blobs that are read before a layer makes them."""
    made: set[Memory] = set()
    found: dict[Memory, Blob] = {}
    for step in steps:
        for blob in step.bottoms:
            if blob.data_memory not in made:
                found.setdefault(blob.data_memory, blob)
        made |= {blob.data_memory for blob in step.tops}
    return tuple(found.values())
