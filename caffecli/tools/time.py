"""``caffecli time``: how long each layer takes, forward and backward."""

from __future__ import annotations

import contextlib
import time as clock
from dataclasses import dataclass
from pathlib import Path

import torch

from caffecli import logs
from caffecli.logs import number
from caffecli.net import devices
from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.proto.caffe_pb2 import TRAIN, Phase
from caffecli.tools.open import open_net


@dataclass(frozen=True)
class TimeOptions:
    """What ``caffecli time`` can be told. ``layers``: modules of the user's own that register layers."""

    model: Path
    iterations: int = 50
    phase: Phase = TRAIN
    gpu: str | None = None
    cpu: bool = False
    level: int = 0
    stages: tuple[str, ...] = ("",)
    amp: bool = False
    layers: tuple[str, ...] = ()


class _Timer:
    """Milliseconds since it was made, with the device's work done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        devices.synchronize(device)
        self._start = clock.perf_counter()

    def ms(self) -> float:
        devices.synchronize(self.device)
        return (clock.perf_counter() - self._start) * 1e3


def time(options: TimeOptions) -> dict[str, tuple[float, float]]:
    """Time the net; logs Caffe's lines and returns milliseconds (forward, backward) by layer."""
    device = devices.choose(options.gpu, options.cpu)
    devices.log_use(device, 343)
    steps = open_net(
        options.model,
        Stepwise,
        options.phase,
        options.level,
        options.stages,
        layers=options.layers,
        device=device,
        amp=options.amp,
    )
    with contextlib.closing(steps.net) as net:
        logs.info("caffe.cpp:351", "Performing Forward")
        logs.info("caffe.cpp:356", f"Initial loss: {number(float(steps.forward().loss))}")
        logs.info("caffe.cpp:357", "Performing Backward")
        for index in reversed(range(len(net.nodes))):
            _prepare_backward(steps, index)
            steps.backward_layer(index)
        return _measure(net, steps, options.iterations, device)


def _prepare_backward(steps: Stepwise, index: int) -> None:
    """Let every layer run backward, as Caffe's ``time`` does, also where no loss is above it, as in a deploy net."""
    node = steps.net.nodes[index]
    node.backward = True
    for slot in node.outputs:
        top = steps.data[slot]
        if steps.diff[slot] is None and top is not None:
            steps.diff[slot] = torch.zeros_like(top)


def _measure(net: Net, steps: Stepwise, iterations: int, device: torch.device) -> dict[str, tuple[float, float]]:
    logs.info("caffe.cpp:365", "*** Benchmark begins ***")
    logs.info("caffe.cpp:366", f"Testing for {iterations} iterations.")
    forward, backward = [0.0] * len(net.nodes), [0.0] * len(net.nodes)
    totals = [0.0, 0.0]
    whole = _Timer(device)
    for iteration in range(iterations):
        both = _Timer(device)
        for index in range(len(net.nodes)):
            timer = _Timer(device)
            steps.forward_layer(index)
            forward[index] += timer.ms()
        totals[0] += (passed := both.ms())
        for param in net.params:
            param.tensor.grad = None
        steps.diff = [None] * len(steps.diff)
        for index in reversed(range(len(net.nodes))):
            _prepare_backward(steps, index)
            timer = _Timer(device)
            steps.backward_layer(index)
            backward[index] += timer.ms()
        elapsed = both.ms()
        totals[1] += elapsed - passed
        logs.info("caffe.cpp:394", f"Iteration: {iteration + 1} forward-backward time: {number(round(elapsed))} ms.")
    total = whole.ms()
    logs.info("caffe.cpp:397", "Average time per layer: ")
    result = {}
    for node, fore, back in zip(net.nodes, forward, backward, strict=True):
        logs.info("caffe.cpp:400", f"{node.name:>10}\tforward: {number(fore / iterations)} ms.")
        logs.info("caffe.cpp:403", f"{node.name:>10}\tbackward: {number(back / iterations)} ms.")
        result[node.name] = (fore / iterations, back / iterations)
    logs.info("caffe.cpp:408", f"Average Forward pass: {number(totals[0] / iterations)} ms.")
    logs.info("caffe.cpp:410", f"Average Backward pass: {number(totals[1] / iterations)} ms.")
    logs.info("caffe.cpp:412", f"Average Forward-Backward: {number(total / iterations)} ms.")
    logs.info("caffe.cpp:414", f"Total Time: {number(total)} ms.")
    logs.info("caffe.cpp:415", "*** Benchmark ends ***")
    return result
