"""The pictures that a net sees resized: their names and sizes, and boxes in their own pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from caffecli.errors import FormatError
from caffecli.formats.atomic import read_bytes
from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import ResizeParameter


@dataclass(frozen=True)
class Original:
    """A picture's name, and its size in pixels."""

    name: str
    height: int
    width: int


def read_originals(layer: Layer, path: str) -> list[Original]:
    """The pictures of a layer's ``name_size_file``: lines ``NAME HEIGHT WIDTH``, as ``get_image_size`` writes them.

    Raises FormatError for a file that cannot be read, a line of another form, and a file without lines.
    """
    try:
        return _read(path)
    except FormatError as error:
        raise FormatError(
            f"layer {layer.name!r}: name_size_file: {error}; caffecli get_image_size writes such files"
        ) from error


def _read(path: str) -> list[Original]:
    found = []
    for number, line in enumerate(os.fsdecode(read_bytes(path)).splitlines(), 1):
        if not line.strip():
            continue
        parts = line.rsplit(maxsplit=2)
        sizes = [int(part) if part.isdecimal() and len(part) < 10 else 0 for part in parts[1:]]
        if len(sizes) != 2 or min(sizes) < 1:
            raise FormatError(
                f"{path!r}, line {number}: expected a name, a height and a width in pixels, got {line.strip()!r:.80}"
            )
        found.append(Original(parts[0].strip(), *sizes))
    if not found:
        raise FormatError(f"{path!r} names no pictures")
    return found


def in_pixels(boxes: Tensor, original: Original, resize: ResizeParameter | None) -> Tensor:
    """Boxes (n, 4), as parts of the picture that ``resize`` makes, in pixels of the original, within it."""
    size = boxes.new_tensor([original.width, original.height])
    mode = ResizeParameter.WARP if resize is None else resize.resize_mode
    if resize is not None and mode == ResizeParameter.FIT_LARGE_SIZE_AND_PAD:
        wanted = boxes.new_tensor([resize.width, resize.height])
        inner = size * (wanted / size).min() / wanted  # the part of the resized picture that is not padding
        boxes = (boxes - ((1 - inner) / 2).repeat(2)) / inner.repeat(2)
    if resize is not None and mode == ResizeParameter.FIT_SMALL_SIZE and resize.height_scale and resize.width_scale:
        scale = boxes.new_tensor([resize.width_scale, resize.height_scale])
        return torch.minimum((boxes * scale.repeat(2)).clamp(min=0), size.repeat(2))
    return boxes.clamp(0, 1) * size.repeat(2)
