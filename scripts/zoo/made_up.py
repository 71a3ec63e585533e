"""Weights and inputs of any net, made up, for tests and measurements: the same each time."""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.net.graph import by_name
from caffecli.net.net import Net


def weights(net: Net, seed: int = 2) -> Net:
    """Fill the net's blobs with values that neither die out nor blow up on the way through it. Returns the net."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in by_name(net.nodes).values():
            for name, blob in zip(layer.blob_names, layer.blobs, strict=True):
                _fill(name, blob, generator)
    return net


def _fill(name: str, blob: Tensor, generator: torch.Generator) -> None:
    if name == "scale":
        blob.normal_(1, 0.1, generator=generator)
    elif name == "mean":
        blob.normal_(0, 1, generator=generator)
    elif name == "variance":
        blob.uniform_(4, 8, generator=generator)  # each layer then adds little to a sum of many
    elif name == "factor":
        blob.fill_(2)
    else:
        blob.normal_(0, (2 / blob[0].numel()) ** 0.5 if blob.dim() > 1 else 0.1, generator=generator)


def inputs(net: Net, batch: int = 1, seed: int = 1) -> dict[str, Tensor]:
    """A batch for each input of the net: pictures and features are random;
    numbers (words, markers) are 0 and 1 in turns.
    """
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in net.inputs:
        shape = (batch, *net.shape(name)[1:])
        values = torch.randn(shape, generator=generator)
        made[name] = values if len(shape) > 2 else torch.arange(values.numel()).reshape(shape) % 2 * 1.0
    return made
