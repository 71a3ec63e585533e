"""The precision that layers compute in: float32, or with ``--amp`` bfloat16 where a layer multiplies matrices.

bfloat16 has the range of float32, so no loss has to be scaled and no update is ever skipped, as float16 would need: a
run with ``--amp`` does as many updates as one without, and its snapshots have the same form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.layers.base import Precision, as_tuple
from caffecli.net.graph import Node

Tops = Tensor | tuple[Tensor, ...]


class PrecisionPolicy:
    """Runs layers as they are. A runner lets each layer compute through ``run``, which a subclass overrides."""

    def run(self, node: Node, bottoms: Sequence[Tensor]) -> Tops:
        """What the layer of ``node`` makes of ``bottoms``."""
        return node.layer(*bottoms)


class Bfloat16(PrecisionPolicy):
    """Mixed precision: layers compute as their ``precision`` asks; weights, their updates and losses stay in float32.

    BFLOAT16: by autocast. ANY: in the type of its bottoms. FLOAT32: on bottoms in float32. Outputs and losses of the
    net are float32.
    """

    def run(self, node: Node, bottoms: Sequence[Tensor]) -> Tops:
        asked = node.layer.precision
        if asked is Precision.FLOAT32:
            bottoms = [_float32(bottom) for bottom in bottoms]
        if asked is Precision.BFLOAT16:
            with torch.autocast(bottoms[0].device.type, torch.bfloat16):
                tops: Tops = node.layer(*bottoms)
        else:
            tops = node.layer(*bottoms)
        if not node.reported:
            return tops
        return tuple([_float32(top) for top in as_tuple(tops)])


def _float32(blob: Tensor) -> Tensor:
    return blob.float() if blob.dtype == torch.bfloat16 else blob


FULL = PrecisionPolicy()
BFLOAT16 = Bfloat16()


def choose(amp: bool, device: torch.device) -> PrecisionPolicy:
    """What the flag ``--amp`` asks for. Raises SolverError for a device without bfloat16; warns where it is slow."""
    if not amp:
        return FULL
    if device.type == "cuda":
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                name = torch.cuda.get_device_name(device)
                raise SolverError(
                    f"--amp computes in bfloat16, which {name} does not (compute capability 8.0 does); leave it out"
                )
    elif not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        logs.warning(
            "caffe.cpp:197",
            "--amp: this CPU has no instructions for bfloat16; it will be several times slower than without",
        )
    return BFLOAT16
