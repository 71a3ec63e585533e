"""A layer set up once more for bottoms of other shapes, its learned blobs kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffecli.layers.base import Layer
from caffecli.layers.hdf5_output import HDF5Output
from caffecli.layers.python import Python


def shape_again(layer: Layer, shapes: Sequence[tuple[int, ...]]) -> list[torch.Size]:
    """The tops' shapes for bottoms of ``shapes``. Raises ShapeError where the layer cannot take them, or its blobs do not fit."""
    if isinstance(layer, Python):
        return layer.infer(list(shapes))
    names, fillers = list(layer.blob_names), list(layer.fillers)
    kept = layer.blobs
    tied = [isinstance(getattr(type(layer), name, None), property) for name in names]
    if isinstance(layer, HDF5Output):
        return []
    if any(tied):
        return _meta_tops(layer, names, shapes)
    layer.blob_names, layer.fillers = [], []
    try:
        layer.setup(list(shapes))
        wanted = [tuple(blob.shape) for blob in layer.blobs]
        try:
            tops = layer.infer(list(shapes))
        except RuntimeError as error:
            raise layer.shape_error(f"cannot run on {', '.join(str(tuple(s)) for s in shapes)}: {error}") from error
    finally:
        layer.blob_names, layer.fillers = names, fillers
        for name, blob in zip(names, kept, strict=True):
            setattr(layer, name, blob)
    found = [tuple(blob.shape) for blob in kept]
    if wanted != found:
        bottoms = ", ".join(str(tuple(shape)) for shape in shapes)
        raise layer.shape_error(f"bottoms of {bottoms} need blobs of {wanted}, it has {found}; reshape to what its weights fit")
    return tops


def _meta_tops(layer: Layer, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[torch.Size]:
    """By a run on zeros, for layers whose blobs cannot be put aside."""
    device = layer.blobs[0].device if names else torch.device("cpu")
    with torch.no_grad():
        made: Tensor | tuple[Tensor, ...] = layer(*(torch.zeros(tuple(shape), device=device) for shape in shapes))
    return [top.shape for top in (made if isinstance(made, tuple) else (made,))]
