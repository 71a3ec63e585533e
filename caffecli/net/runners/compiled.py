"""``--compile``: stretches of a net's layers, each compiled by torch.compile into one piece of code."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caffecli.errors import SolverError
from caffecli.layers.base import as_tuple
from caffecli.net.graph import Node
from caffecli.net.precision import FULL, PrecisionPolicy
from caffecli.net.runners.base import Result, Runner

if TYPE_CHECKING:
    from caffecli.net.net import Net

Code = Callable[..., tuple[Tensor, ...]]


def check(device: torch.device) -> None:
    """Raise SolverError where there is nothing to compile with."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise SolverError(
                "--compile needs Triton, which is not installed or cannot use this GPU; leave --compile out"
            )
    elif shutil.which(name := os.environ.get("CXX", "g++")) is None:
        raise SolverError(
            f"--compile needs a C++ compiler, and there is no {name!r}; install it, or leave --compile out"
        )


@dataclass
class Stretch:
    """Consecutive layers, compiled into one function ``code`` from the slots ``read`` to the slots ``given``."""

    nodes: tuple[Node, ...]
    read: tuple[int, ...]
    given: tuple[int, ...]
    code: Code


class Compiled(Runner):
    """Runs ``net`` as ``Whole`` does. The first pass each way compiles, which takes from seconds to minutes."""

    def __init__(self, net: Net, precision: PrecisionPolicy = FULL) -> None:
        super().__init__(net, precision)
        self._ran_forward = self._ran_backward = False
        self._steps: list[Node | Stretch] = []
        needed = {*net.output_slots, *(slot for slot, _ in net.losses)}
        for nodes in reversed(_stretches(net)):
            made = {slot for node in nodes for slot in node.outputs}
            read = tuple(dict.fromkeys(slot for node in nodes for slot in node.inputs if slot not in made))
            if len(nodes) > 1:
                given = tuple(sorted(made & needed))
                name = f"stretch{len(self._steps)}"
                self._steps.append(Stretch(tuple(nodes), read, given, _code(name, nodes, read, given, precision)))
            else:
                self._steps += nodes  # a single layer is not faster when compiled
            needed.update(read)
        self._steps.reverse()

    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> Result:
        if self._ran_forward:
            return self._forward(inputs)
        with _signals_wait():
            result = self._forward(inputs)
        self._ran_forward = True
        return result

    def backward(self, result: Result) -> None:
        try:
            with contextlib.nullcontext() if self._ran_backward else _signals_wait():
                super().backward(result)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise _cannot_compile(error) from error
        self._ran_backward = True

    def _forward(self, inputs: Mapping[str, Tensor] | None) -> Result:
        net, fed = self.net, inputs or {}
        net.check_inputs(fed)
        slots: dict[int, Tensor] = {}
        for step in self._steps:
            if isinstance(step, Node):
                tops = net.run_layer(step, [slots[slot] for slot in step.inputs], fed, self.precision)
                slots.update(zip(step.outputs, tops, strict=True))
            else:
                slots.update(zip(step.given, self._run(step, slots), strict=True))
        for source in net.sources:
            source.read_ahead()
        return self.result(slots)

    def _run(self, step: Stretch, slots: dict[int, Tensor]) -> tuple[Tensor, ...]:
        try:
            return _run(step.code, [slots[slot] for slot in step.read])
        except (Exception, SystemExit) as error:
            failed = error
        for node in step.nodes:  # a layer that fails without torch.compile too is named
            tops = self.net.run_layer(node, [slots[slot] for slot in node.inputs], {}, self.precision)
            slots.update(zip(node.outputs, tops, strict=True))
        raise failed


def _stretches(net: Net) -> list[list[Node]]:
    """The layers in order: those that compile in stretches, each of the others by itself."""
    found: list[list[Node]] = []
    before = False
    for node in net.nodes:
        compiles = bool(node.inputs) and node.layer.compiles
        if compiles and before:
            found[-1].append(node)
        else:
            found.append([node])
        before = compiles
    return found


def _code(
    name: str, nodes: Sequence[Node], read: tuple[int, ...], given: tuple[int, ...], precision: PrecisionPolicy
) -> Code:
    """``nodes`` as a compiled function of the slots ``read``, which returns the slots ``given``."""

    def run(*bottoms: Tensor) -> tuple[Tensor, ...]:
        blobs = dict(zip(read, bottoms, strict=True))
        for node in nodes:
            tops = as_tuple(precision.run(node, node.cut([blobs[slot] for slot in node.inputs])))
            blobs.update(zip(node.outputs, tops, strict=True))
        return tuple([blobs[slot] for slot in given])

    # torch counts how often it compiles a code object, and gives up after a few times: each stretch gets its own
    run.__code__ = run.__code__.replace(co_name=name)
    with _quiet():  # with torch's own random numbers, so that dropout draws the same as without --compile
        return torch.compile(run, dynamic=False, options={"fallback_random": True})


def _run(code: Code, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    try:
        with _quiet():
            return code(*bottoms)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise _cannot_compile(error) from error


def _cannot_compile(error: Exception) -> SolverError:
    words = next(line for line in str(error).splitlines() if line.strip())
    return SolverError(f"--compile: PyTorch cannot compile this net ({words}); leave --compile out")


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold back the signals that this program answers itself: what it starts meanwhile, as a compiler, inherits that.

    Ctrl-C and batch systems signal all processes of a group; a compiler that dies of it is no fault of the net.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [n for n in numbers if callable(how := signal.getsignal(n)) and how is not signal.default_int_handler]
    if not ours or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of torch.compile about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
