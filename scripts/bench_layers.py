"""Layers beside the obvious PyTorch expression of each, forward and backward: ``make bench``.

Both sides of a row are modules, as in a net, and take turns in one process, now one first, now the other; the ratio is
the median over rounds of our time to PyTorch's (below 1: ours is faster).

    python scripts/bench_layers.py [--rounds 41] [--device cpu]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli does, before torch is imported

import torch
from google.protobuf import text_format
from torch import Tensor, nn
from torch.nn import functional as F

from caffecli import host
from caffecli import layers as _all_layers  # noqa: F401
from caffecli.layers import registry
from caffecli.proto.caffe_pb2 import LayerParameter

Expression = Callable[..., Tensor]


class Module(nn.Module):
    """An expression as a module."""

    def __init__(self, expression: Expression) -> None:
        super().__init__()
        self.expression = expression

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.expression(*inputs)


def ours(text: str, inputs: list[Tensor]) -> tuple[Expression, list[Tensor]]:
    """A layer, and its learned blobs."""
    layer = registry.create(text_format.Parse(text, LayerParameter()))
    layer.setup([x.shape for x in inputs])
    layer.reshape([x.shape for x in inputs])
    layer.materialize()
    layer.to(inputs[0].device)
    return layer, [blob for blob in layer.blobs if blob.requires_grad]


def milliseconds(run: Expression, inputs: list[Tensor], learned: list[Tensor]) -> float:
    """Time of a forward pass, and of a backward pass where the top has a gradient."""
    leaves = [x for x in [*inputs, *learned] if x.requires_grad]
    start = time.perf_counter()
    y = run(*inputs)
    if y.requires_grad:
        torch.autograd.grad(y, leaves, torch.ones_like(y))
    if y.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


Row = tuple[str, list[Tensor], Expression, list[Tensor]]


def heavy(device: torch.device) -> dict[str, Row]:
    """Layers that have work to do: name -> our layer's text, its bottoms, PyTorch's expression and what that learns."""
    torch.manual_seed(0)
    x = torch.randn(32, 48, 28, 28, device=device, requires_grad=True)
    steps = torch.randn(100, 16, 64, device=device, requires_grad=True)
    cont = torch.ones(100, 16, device=device)
    cont[0] = 0
    lstm = nn.LSTM(64, 128).to(device)
    norm, conv, up = (
        nn.BatchNorm2d(48, affine=False),
        nn.Conv2d(48, 64, 3, padding=1),
        nn.ConvTranspose2d(48, 24, 4, 2, 1),
    )
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


def light(device: torch.device) -> dict[str, Row]:
    """The rest: layers of a single pass over memory, losses and the like;
    expressions give Caffe's answers, ties and cap too.
    """
    torch.manual_seed(0)
    x, other = (torch.randn(32, 48, 28, 28, device=device, requires_grad=True) for _ in range(2))
    positive = torch.rand(32, 48, 28, 28, device=device).add_(0.5).requires_grad_()
    scores = torch.randn(256, 1000, device=device, requires_grad=True)
    features = torch.randn(256, 512, device=device, requires_grad=True)
    labels = torch.randint(0, 1000, (256,), device=device)
    words = torch.randint(0, 2000, (20, 64), device=device)
    table, offset = (torch.randn(*shape, device=device, requires_grad=True) for shape in ((2000, 256), (256,)))
    linear = nn.Linear(512, 256).to(device)
    scale, shift = (torch.ones(48, device=device, requires_grad=True) for _ in range(2))
    targets = torch.rand(256, 1000, device=device)
    order = torch.randint(0, 32, (32,), device=device)
    two = [x, other]
    return {
        "InnerProduct": ('type: "InnerProduct" inner_product_param { num_output: 256 }', [features],
                         linear, [*linear.parameters()]),
        "Embed": ('type: "Embed" embed_param { input_dim: 2000 num_output: 256 }', [words.float()],
                  lambda w: F.embedding(w.long(), table) + offset, [table, offset]),
        "Scale": ('type: "Scale" scale_param { bias_term: true }', [x],
                  lambda x: x * scale[:, None, None] + shift[:, None, None], [scale, shift]),
        "Bias": ('type: "Bias"', [x], lambda x: x + shift[:, None, None], [shift]),
        "ReLU": ('type: "ReLU"', [x], F.relu, []),
        "ReLU, leaky": ('type: "ReLU" relu_param { negative_slope: 0.1 }', [x], lambda x: F.leaky_relu(x, 0.1), []),
        "Sigmoid": ('type: "Sigmoid"', [x], torch.sigmoid, []),
        "TanH": ('type: "TanH"', [x], torch.tanh, []),
        "AbsVal": ('type: "AbsVal"', [x], torch.abs, []),
        "Exp": ('type: "Exp"', [x], torch.exp, []),
        "Log": ('type: "Log"', [positive], torch.log, []),
        "Power": ('type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }', [x], lambda x: (1 + 0.5 * x) ** 2, []),
        "Dropout": ('type: "Dropout"', [x], lambda x: F.dropout(x, 0.5), []),
        "Threshold": ('type: "Threshold"', [x], lambda x: (x > 0).float(), []),
        "Eltwise SUM": ('type: "Eltwise"', two, lambda a, b: a + b, []),
        "Eltwise PROD": ('type: "Eltwise" eltwise_param { operation: PROD }', two, lambda a, b: a * b, []),
        "Eltwise MAX": ('type: "Eltwise" eltwise_param { operation: MAX }', two, torch.maximum, []),
        "Concat": ('type: "Concat"', two, lambda a, b: torch.cat([a, b], 1), []),
        "Tile": ('type: "Tile" tile_param { tiles: 2 }', [x], lambda x: x.repeat(1, 2, 1, 1), []),
        "Crop": ('type: "Crop" crop_param { offset: 2 }', [x, other[..., :20, :20].detach()],
                 lambda x, y: x[..., 2:22, 2:22], []),
        "BatchReindex": ('type: "BatchReindex"', [x, order.float()], lambda x, i: x[i.long()], []),
        "MVN, by channel": ('type: "MVN"', [x], lambda x: F.instance_norm(x), []),
        "LRN, in channel": ('type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL }', [x],
                            lambda x: x * (1 + F.avg_pool2d(x * x, 5, 1, 2)) ** -0.75, []),
        "ArgMax": ('type: "ArgMax"', [scores.detach()],
                   lambda x: (x.shape[1] - 1.0 - x.flip(1).argmax(1))[:, None, None], []),
        "ArgMax, top 5": ('type: "ArgMax" argmax_param { top_k: 5 }', [scores.detach()],
                          lambda x: (999.0 - x.flip(1).argsort(dim=1, descending=True, stable=True)[:, :5])[:, None],
                          []),
        "Accuracy": ('type: "Accuracy"', [scores.detach(), labels.float()],
                     lambda x, t: ((x < x.gather(1, t.long()[:, None])).sum(1) == 999).float().mean(), []),
        "SoftmaxWithLoss": ('type: "SoftmaxWithLoss"', [scores, labels.float()], _softmax_loss, []),
        "EuclideanLoss": ('type: "EuclideanLoss"', [scores, targets], lambda a, b: ((a - b) ** 2).sum() / 512, []),
        "SigmoidCrossE.": ('type: "SigmoidCrossEntropyLoss"', [scores, targets],
                           lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum") / 256, []),
        "HingeLoss": ('type: "HingeLoss"', [scores, labels.float()], _hinge, []),
    }  # fmt: skip


def _softmax_loss(x: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(x, labels.long(), reduction="none").clamp(max=87.3365).mean()


def _hinge(x: Tensor, labels: Tensor) -> Tensor:
    signs = 1 - 2 * F.one_hot(labels.long(), x.shape[1]).float()
    return (1 + signs * x).clamp(min=0).sum() / x.shape[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    host.keep_memory()  # as caffecli does
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.device}", flush=True)
    device = torch.device(args.device)
    for name, (text, inputs, theirs, learned) in {**heavy(device), **light(device)}.items():
        sides = (ours(text, inputs), (theirs if isinstance(theirs, nn.Module) else Module(theirs), learned))
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(-2, args.rounds):  # the first two to warm up
            for side in (0, 1) if turn % 2 else (1, 0):
                run, leaves = sides[side]
                took = milliseconds(run, inputs, leaves)
                if turn >= 0:
                    times[side].append(took)
        own, other = map(statistics.median, times)
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        print(f"{name:16} caffecli {own:8.2f} ms, PyTorch {other:8.2f} ms, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
