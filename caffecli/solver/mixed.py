"""Mixed precision: ``--amp``. What multiplies matrices does so in bfloat16; weights, their updates and losses stay in float32.

bfloat16 has the range of float32, so no loss has to be scaled and no update is ever skipped, as float16 would need: a run does
the same iterations with and without, and its snapshots hold the same kinds of numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.net.net import Net

#: layers whose time goes into products of matrices
MULTIPLY = frozenset({"Convolution", "Deconvolution", "InnerProduct", "LSTM", "RNN"})
#: layers that lose nothing by taking values as they come; all others (sums over many values, powers, losses) get float32
PASS_ON = frozenset(
    "Concat Crop Dropout Flatten Permute Pooling ReLU ReLU6 Reshape ShuffleChannel Silence Slice Split Tile".split()  # noqa: SIM905
)


def check(device: torch.device) -> None:
    """Raise SolverError for a device that has no bfloat16; warn where it is slow."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                name = torch.cuda.get_device_name(device)
                raise SolverError(
                    f"--amp computes in bfloat16, which {name} does not (compute capability 8.0 does); leave it out"
                )
    elif not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        logs.warning("caffe.cpp:197", "--amp: this CPU has no instructions for bfloat16; expect no gain in speed")


def mix(net: Net) -> None:
    """Let ``net`` run in mixed precision from now on; its output blobs and losses are float32."""
    for node in net.nodes:
        layer = node.layer
        told = any(node.loss_weights) or any(name in net.outputs for name in node.tops)
        low = layer.type in MULTIPLY
        if low or layer.type not in PASS_ON or told:
            run = functools.partial(_run, layer.forward, low, low or layer.type in PASS_ON, told)
            setattr(layer, "forward", run)  # noqa: B010  mypy knows it as a method


def _run(
    forward: Callable[..., Tensor | tuple[Tensor, ...]], low: bool, takes_any: bool, told: bool, *bottoms: Tensor
) -> Tensor | tuple[Tensor, ...]:
    """One layer: ``low``: by autocast; ``takes_any``: bottoms in bfloat16 too; ``told``: its tops are float32."""
    if not takes_any:
        bottoms = tuple([_single(bottom) for bottom in bottoms])
    if low:
        with torch.autocast(bottoms[0].device.type, torch.bfloat16):
            tops = forward(*bottoms)
    else:
        tops = forward(*bottoms)
    if not told:
        return tops
    return tuple([_single(top) for top in tops]) if isinstance(tops, tuple) else _single(tops)


def _single(blob: Tensor) -> Tensor:
    return blob.float() if blob.dtype == torch.bfloat16 else blob
