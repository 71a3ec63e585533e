"""``--compile``: stretches of a net's layers, each compiled by torch.compile into one piece of code."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from caffecli.errors import SolverError
from caffecli.net.graph import Node
from caffecli.net.net import Net, Result

#: layers left as they are, beside losses and layers without bottoms: they look at values, on which compiled code does not branch,
#: run what is not torch's, or average over windows, whose gradient at the border comes out wrong (pytorch/pytorch#198119); the
#: maximum over windows is right, but slower on CPUs than torch's own
EAGER = frozenset(
    (
        *("Accuracy", "BatchReindex", "DetectionOutput", "Embed", "Filter", "HDF5Output", "LSTM", "Pooling", "Python", "RNN"),
        *("ROIPooling", "SPP", "Silence"),
    )
)

Stretch = Callable[..., tuple[Tensor, ...]]


def check(device: torch.device) -> None:
    """Raise SolverError where there is nothing to compile with."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise SolverError("--compile needs Triton, which is not installed or cannot use this GPU; leave --compile out")
    elif shutil.which(name := os.environ.get("CXX", "g++")) is None:
        raise SolverError(f"--compile needs a C++ compiler, and there is no {name!r}; install it, or leave --compile out")


class Compiled:
    """Runs ``net`` as ``Net.run`` does. The first pass compiles, which takes from seconds to minutes."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self._steps: list[tuple[Stretch, tuple[int, ...], tuple[int, ...]]] = []
        parts = list(_parts(net))
        # torch counts how often it compiles the same function; ours is another one for each stretch
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(parts) + 8)
        kept = {slot for node in net.nodes for slot, weight in zip(node.outputs, node.loss_weights, strict=True) if weight}
        self._outputs = {name: len(net.slot_names) - 1 - net.slot_names[::-1].index(name) for name in net.outputs}
        kept.update(self._outputs.values())
        for i, (nodes, whole) in enumerate(parts):
            made = {slot for node in nodes for slot in node.outputs}
            read = tuple(dict.fromkeys(slot for node in nodes for slot in node.inputs if slot not in made))
            later = kept.union(slot for rest, _ in parts[i + 1 :] for node in rest for slot in node.inputs)
            given = tuple(sorted(made & later))
            self._steps.append((_stretch(net, nodes, read, given, whole), read, given))

    def run(self) -> Result:
        """One pass through all layers."""
        slots: dict[int, Tensor] = {}
        for run, read, given in self._steps:
            try:
                with _quiet():
                    tops = run(*[slots[slot] for slot in read])
            except torch._dynamo.exc.TorchDynamoException as error:
                words = next(line for line in str(error).splitlines() if line.strip())
                raise SolverError(f"--compile: PyTorch cannot compile this net ({words}); leave --compile out") from error
            slots.update(zip(given, tops, strict=True))
        loss = torch.zeros(())
        for node in self.net.nodes:
            for slot, weight in zip(node.outputs, node.loss_weights, strict=True):
                if weight:
                    loss = loss + slots[slot].sum() * weight
        return Result(loss, {name: slots[slot] for name, slot in self._outputs.items()})


def compilable(node: Node) -> bool:
    """Whether a layer goes into compiled code."""
    return bool(node.inputs) and not node.layer.is_loss and node.layer.type not in EAGER


def _parts(net: Net) -> Iterator[tuple[list[Node], bool]]:
    """The layers in their order, in stretches to be compiled (True) and single ones that run as they are: alone, none gains."""
    stretch: list[Node] = []
    for node in net.nodes:
        if compilable(node):
            stretch.append(node)
            continue
        if stretch:
            yield stretch, len(stretch) > 1
        stretch = []
        yield [node], False
    if stretch:
        yield stretch, len(stretch) > 1


def _stretch(net: Net, nodes: list[Node], read: tuple[int, ...], given: tuple[int, ...], whole: bool) -> Stretch:
    """``nodes`` as a function of the slots ``read``, which returns the slots ``given``."""
    if not whole:
        (node,) = nodes

        def single(*bottoms: Tensor) -> tuple[Tensor, ...]:
            blobs = dict(zip(read, bottoms, strict=True))
            tops = dict(zip(node.outputs, net.run_layer(node, tuple(blobs[i] for i in node.inputs), {}), strict=True))
            return tuple(tops[slot] for slot in given)

        return single

    def several(*bottoms: Tensor) -> tuple[Tensor, ...]:
        blobs = dict(zip(read, bottoms, strict=True))
        for node in nodes:
            tops: Any = node.layer(*[blobs[s].detach() if i in node.stops else blobs[s] for i, s in enumerate(node.inputs)])
            blobs.update(zip(node.outputs, tops if isinstance(tops, tuple) else (tops,), strict=True))
        return tuple([blobs[slot] for slot in given])

    with _quiet():  # dropout draws the numbers that it draws when it is not compiled
        return torch.compile(several, dynamic=False, options={"fallback_random": True})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's warnings of itself from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
