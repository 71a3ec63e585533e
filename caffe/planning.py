"""The forward pass of a net that has no backward pass, planned once for given shapes and then run many times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caffe.building import Step
from caffecli.errors import CaffeError
from caffecli.layers.base import Layer, as_tuple
from caffecli.layers.blobs import Blob, shape_of
from caffecli.layers.memory import Memory
from caffecli.net.net import Net

#: ``Engine._take``: writes a layer's tops into its blobs; the last argument: addresses that the user can write into
Take = Callable[[Step, tuple[Tensor, ...], list[int]], Any]


class Stage(NamedTuple):
    """A layer, with the places of its bottoms and tops in the list of all values of the pass."""

    layer: Layer
    reads: tuple[int, ...]
    #: per top its place and its shape
    writes: tuple[tuple[int, torch.Size], ...]
    step: Step
    #: how many layers of the net have run when this one has
    done: int


class Put(NamedTuple):
    """A value that is written into a blob's memory at the end of the pass."""

    memory: Memory
    place: int
    #: whether it may be a view of one of the inputs
    may_be_input: bool


class Plan(NamedTuple):
    """A pass over blobs of certain shapes."""

    #: the blobs that no layer makes: their values come first in the list
    inputs: tuple[Blob, ...]
    stages: tuple[Stage, ...]
    puts: tuple[Put, ...]
    blobs: tuple[Blob, ...]
    shapes: tuple[tuple[int, ...], ...]
    #: how many layers the net has
    layers: int

    @classmethod
    def of(cls, net_steps: Sequence[Step]) -> Plan | None:
        """The plan for a net whose layers are all set up for their bottoms' shapes.

        None for a net that does more than run layers: adds up losses, reads or feeds data, lets a user's code work on
        its blobs, or has a blob that is read in two shapes.
        """
        steps = [step for step in net_steps if not step.constant]
        if any(step.own_memory or step.fed or not step.bottoms or any(step.node.loss_weights) for step in steps):
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
        """Run all layers, or those up to one whose tops have other shapes than planned; returns how many have run.

        Blobs get their values after the last layer: work between two layers would cost more, as each layer's data
        replaces this code's own in the processor's cache.
        """
        values = [value_of(blob) for blob in self.inputs]
        user_memory = [value.untyped_storage().data_ptr() for value in values]
        for layer, reads, writes, step, done in self.stages:
            for memory in step.makes:
                memory.release()
            bottoms = [values[place] for place in reads]
            try:
                tops = layer(*bottoms)
            except (Exception, SystemExit) as error:
                self._leave(done - 1, values, user_memory, take)
                if isinstance(error, CaffeError):
                    raise
                raise net.refusal(step.node, bottoms, error) from error
            values += as_tuple(tops)
            for place, shape in writes:
                if values[place].shape != shape:
                    self._leave(done, values, user_memory, take)
                    return done
        for memory, place, may_be_input in self.puts:
            value = values[place]
            if may_be_input and value.untyped_storage().data_ptr() in user_memory:
                value = value.clone()  # the memory is the user's to write into
            memory.put(value)
        return self.layers

    def _leave(self, done: int, values: list[Tensor], user_memory: list[int], take: Take) -> None:
        """Write what the net's first ``done`` layers made into the blobs, when the pass ends before its last layer."""
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
