"""Layers beside the obvious PyTorch expression of each, forward and backward: ``make bench``.

Both sides of a row take turns in one process; the ratio is the median over rounds of our time to PyTorch's (below 1: ours is
faster).

    python scripts/bench_layers.py [--rounds 15] [--device cpu]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli.cli.main does, before torch is imported

import torch
from google.protobuf import text_format
from torch import Tensor, nn
from torch.nn import functional as F

from caffecli import layers as _all_layers  # noqa: F401
from caffecli.layers import registry
from caffecli.proto.caffe_pb2 import LayerParameter

Expression = Callable[..., Tensor]


def ours(text: str, inputs: list[Tensor]) -> tuple[Expression, list[Tensor]]:
    """A layer as a function of its bottoms, and its learned blobs."""
    layer = registry.create(text_format.Parse(text, LayerParameter()))
    layer.setup([x.shape for x in inputs])
    layer.materialize()
    layer.to(inputs[0].device)

    def run(*bottoms: Tensor) -> Tensor:
        tops = layer(*bottoms)
        return tops[0] if isinstance(tops, tuple) else tops

    return run, [blob for blob in layer.blobs if blob.requires_grad]


def milliseconds(run: Expression, inputs: list[Tensor], learned: list[Tensor]) -> float:
    """Time of one forward and backward pass."""
    leaves = [x for x in [*inputs, *learned] if x.requires_grad]
    start = time.perf_counter()
    y = run(*inputs)
    torch.autograd.grad(y, leaves, torch.ones_like(y))
    if y.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def rows(device: torch.device) -> dict[str, tuple[str, list[Tensor], Expression, list[Tensor]]]:
    """Name -> our layer's text, its bottoms, PyTorch's expression and what that learns."""
    torch.manual_seed(0)
    x = torch.randn(32, 48, 28, 28, device=device, requires_grad=True)
    steps = torch.randn(100, 16, 64, device=device, requires_grad=True)
    cont = torch.ones(100, 16, device=device)
    cont[0] = 0
    lstm = nn.LSTM(64, 128).to(device)
    norm, conv, up = nn.BatchNorm2d(48, affine=False), nn.Conv2d(48, 64, 3, padding=1), nn.ConvTranspose2d(48, 24, 4, 2, 1)
    slope = torch.full((48,), 0.25, device=device, requires_grad=True)
    for module in (norm, conv, up):
        module.to(device)
    kernel, upward = (f'type: "{name}" convolution_param {{ %s }}' for name in ("Convolution", "Deconvolution"))
    pool = 'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 '
    recurrent = 'recurrent_param { num_output: 128 weight_filler { type: "uniform" min: -0.1 max: 0.1 } }'
    return {
        "LRN": ('type: "LRN"', [x], lambda x: F.local_response_norm(x, 5, 1.0, 0.75, 1.0), []),
        "MVN": ('type: "MVN" mvn_param { across_channels: true }', [x], lambda x: F.layer_norm(x, x.shape[1:]), []),
        "BatchNorm": ('type: "BatchNorm"', [x], norm, []),
        "Convolution": (kernel % "num_output: 64 kernel_size: 3 pad: 1", [x], conv, [*conv.parameters()]),
        "Deconvolution": (upward % "num_output: 24 kernel_size: 4 stride: 2 pad: 1", [x], up, [*up.parameters()]),
        "Pooling MAX": (pool + "}", [x], lambda x: F.max_pool2d(x, 2), []),
        "Pooling AVE": (pool + "pool: AVE }", [x], lambda x: F.avg_pool2d(x, 2), []),
        "PReLU": ('type: "PReLU"', [x], lambda x: F.prelu(x, slope), [slope]),
        "ELU": ('type: "ELU"', [x], F.elu, []),
        "Swish": ('type: "Swish"', [x], F.silu, []),
        "BNLL": ('type: "BNLL"', [x], F.softplus, []),
        "Softmax": ('type: "Softmax"', [x], lambda x: x.softmax(1), []),
        "Reduction": ('type: "Reduction" reduction_param { axis: 1 }', [x], lambda x: x.flatten(1).sum(1), []),
        "LSTM, 100 steps": (f'type: "LSTM" {recurrent}', [steps, cont], lambda s, _: lstm(s)[0], [*lstm.parameters()]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.device}", flush=True)
    for name, (text, inputs, theirs, learned) in rows(torch.device(args.device)).items():
        mine, blobs = ours(text, inputs)
        sides = ((mine, blobs), (theirs, learned))
        for run, leaves in sides:
            milliseconds(run, inputs, leaves)
        pairs = [tuple(milliseconds(run, inputs, leaves) for run, leaves in sides) for _ in range(args.rounds)]
        own, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:16} caffecli {own:8.2f} ms, PyTorch {other:8.2f} ms, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
