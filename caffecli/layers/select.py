"""Layers that take parts of blobs, or repeat them: Slice, Crop, Tile, Filter, BatchReindex;
and the rows of a table by index.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffecli.errors import DataError
from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.labels import out_of_range, to_classes, torch_checks
from caffecli.layers.registry import register


@register("Slice")
class Slice(Layer):
    """The bottom cut along ``axis`` (1 by default; ``slice_dim`` in old nets), one piece for each top.

    ``slice_point`` says where each piece but the first begins; without, the pieces are of one size. A lone top is the
    bottom.
    Raises SpecError where the axis is out of range or given twice, or the points are not one less than the tops,
    rising, and within the axis; ShapeError where the tops do not divide the axis. Source: ``slice_layer.cpp``.
    """

    read_by_opencv = True
    precision = Precision.ANY
    top_count = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.slice_param
        if param.HasField("axis") and param.HasField("slice_dim"):
            raise self.spec_error("axis and slice_dim say the same thing; keep axis, drop slice_dim")
        self.count = len(self.param.top)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        param, dims = self.param.slice_param, len(bottoms[0])
        if param.HasField("slice_dim"):  # a count from the front only
            self.slice_axis = self.axis(param.slice_dim, dims, "slice_dim")
        else:
            self.slice_axis = self.axis(param.axis, dims)
        size, points = bottoms[0][self.slice_axis], list(param.slice_point)
        if points and len(points) != self.count - 1:
            raise self.spec_error(
                f"expected {self.count - 1} slice_point(s) for {self.count} top(s), got {len(points)}"
            )
        ends = [0, *points, size]
        self.sizes = [end - begin for begin, end in itertools.pairwise(ends)] if points else []
        if any(piece < 1 for piece in self.sizes):
            raise self.spec_error(
                f"expected rising slice_points from 1 to {size - 1} for axis {self.slice_axis}, got {points}"
            )
        if not points and size % self.count:
            where = f"axis {self.slice_axis} of {self.listing(bottoms)}"
            raise self.shape_error(f"{self.count} tops do not divide {where}; give slice_points")
        before, after = bottoms[0][: self.slice_axis], bottoms[0][self.slice_axis + 1 :]
        return [torch.Size((*before, piece, *after)) for piece in self.sizes or [size // self.count] * self.count]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.count == 1:
            return x
        pieces = self.sizes or [x.shape[self.slice_axis] // self.count] * self.count
        return torch.split(x, pieces, self.slice_axis)


@register("Crop")
class Crop(Layer):
    """The part of the first bottom that has the second's size in all axes from ``axis`` (2) on.

    ``offset`` is where the part begins: once, once for each of those axes, or 0. The second bottom gives its shape
    only. Without ``crop_param`` the offset is where the pixels of both bottoms lie over each other, as the first fully
    convolutional nets and HED have it, if the layers before tell one above 0 along both spatial axes; the log says so.
    Raises SpecError where the axis is out of range or the offsets' count wrong, ShapeError where the part reaches out
    of the bottom. Source: ``crop_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.CROPPED
    precision = Precision.ANY
    bottom_count = (2, 2)
    no_gradient = (1,)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        param, shape, wanted = self.param.crop_param, tuple(bottoms[0]), tuple(bottoms[1])
        start = self.axis(param.axis, len(shape))
        offsets, count = list(param.offset), len(shape) - start
        if len(offsets) not in (0, 1, count):
            raise self.spec_error(
                f"expected offset once, or once for each of the {count} axes from {start} on, got {len(offsets)}"
            )
        if len(wanted) < len(shape):
            raise self.shape_error(
                f"expected a second bottom of at least {len(shape)} axes, got {self.listing(bottoms)}"
            )
        self.places = list(
            zip(range(start, len(shape)), offsets if len(offsets) > 1 else offsets * count or [0] * count, strict=True)
        )
        for axis, offset in self.places:
            if offset + wanted[axis] > shape[axis]:
                part = f"a part of {wanted[axis]} at offset {offset}"
                raise self.shape_error(f"{part} does not fit axis {axis}: {self.listing(bottoms)}")
        return [torch.Size((*shape[:start], *wanted[start : len(shape)]))]

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        for axis, offset in self.places:
            x = x.narrow(axis, offset, like.shape[axis])
        return x


@register("Tile")
class Tile(Layer):
    """y = ``tiles`` copies of x, one after another along ``axis`` (1).

    Raises SpecError where tiles is missing or under 1, or the axis out of range. Source: ``tile_layer.cpp``.
    """

    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.tile_param
        self.tiles = param.tiles
        if self.tiles < 1:
            raise self.spec_error(
                f"expected tiles of at least 1, got {param.tiles if param.HasField('tiles') else 'none'}"
            )

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        axis = self.tile_axis = self.axis(self.param.tile_param.axis, len(bottoms[0]))
        return [torch.Size((*bottoms[0][:axis], bottoms[0][axis] * self.tiles, *bottoms[0][axis + 1 :]))]

    def forward(self, x: Tensor) -> Tensor:
        axis = self.tile_axis
        copies = x.unsqueeze(axis).expand(*x.shape[:axis], self.tiles, *x.shape[axis:])
        return copies.flatten(axis, axis + 1)


@register("Filter")
class Filter(Layer):
    """The items of each bottom but the last for which the last one, the selector, is not 0.

    Bottoms: any number of blobs of N items, and the selector (N, 1, ...). Tops: one for each bottom but the selector,
    of as many items as are selected, which may be none; until the layer runs, N are planned for. The selector has no
    gradient.
    Raises ShapeError where the items' counts differ or the selector has more than a value for each.
    Source: ``filter_layer.cpp``.
    """

    compiles = False
    bottom_count = (2, None)
    top_count = (1, None)

    def check_wiring(self, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        super().check_wiring(bottoms, tops)
        if len(tops) != len(bottoms) - 1:
            what = "expected a top for each bottom but the last"
            raise self.spec_error(f"{what}, got {len(bottoms)} bottoms and {len(tops)} top(s)")

    def setup(self, bottoms: list[Shape]) -> None:
        self.no_gradient = (len(bottoms) - 1,)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        *blobs, selector = (tuple(shape) for shape in bottoms)
        if not selector or math.prod(selector[1:]) != 1:
            raise self.shape_error(
                f"expected the last bottom, the selector, to be (N, 1, ...), got {self.listing(bottoms)}"
            )
        if any(shape[:1] != selector[:1] for shape in blobs):
            raise self.shape_error(
                f"expected bottoms with as many items (the first dimension), got {self.listing(bottoms)}"
            )
        return [torch.Size(shape) for shape in blobs]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        *blobs, selector = bottoms
        index = selector.flatten().nonzero().flatten()
        return tuple(blob.index_select(0, index) for blob in blobs)


@register("BatchReindex")
class BatchReindex(Layer):
    """y[i] = x[index[i]]: items of the first bottom, chosen, ordered and repeated by the second;
    gradients of repeats add up.

    Bottoms: x (N, ...) and indices (M), whole numbers from 0 to N - 1; top (M, ...). The indices have no gradient.
    Raises ShapeError where the indices have not one axis, DataError for an index out of range; on an accelerator, which
    must not be waited for, such an item is NaN. Source: ``batch_reindex_layer.cpp``.
    """

    compiles = False
    bottom_count = (2, 2)
    no_gradient = (1,)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if not bottoms[0] or len(bottoms[1]) != 1:
            raise self.shape_error(f"expected bottoms (N, ...) and (M), the indices, got {self.listing(bottoms)}")
        return [torch.Size((bottoms[1][0], *bottoms[0][1:]))]

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        index, bad = to_rows(indices, x.shape[0])
        try:
            y = x.index_select(0, index)
        except (IndexError, RuntimeError) as error:
            raise row_error(self, indices, x.shape[0], "the first bottom has items") or error from None
        return y if bad is None else y.masked_fill(bad.view(-1, *(1,) * (x.dim() - 1)), math.nan)


def to_rows(indices: Tensor, rows: int) -> tuple[Tensor, Tensor | None]:
    """``indices`` as int64 and, where torch does not check them, a mask of those out of range, which are 0 then."""
    index = to_classes(indices)
    if torch_checks(indices):
        return index, None
    bad = out_of_range(index, rows, None)
    return index.masked_fill(bad, 0), bad


def row_error(layer: Layer, indices: Tensor, rows: int, what: str) -> DataError | None:
    """The error for the first of ``indices`` that is no row; None where all are.

    For the CPU only, as it reads values.
    """
    bad = out_of_range(to_classes(indices), rows, None).flatten()
    if not bool(bad.any()):
        return None
    place = int(torch.nonzero(bad)[0])
    item = place * indices.shape[0] // indices.numel() if indices.dim() else 0
    value = float(indices.flatten()[place])
    name = repr(layer.param.bottom[-1]) if layer.param.bottom else "the indices"
    return DataError(
        f"layer {layer.name!r}: index {value:.10g} of item {item} of {name} is out of range; {what} 0 to {rows - 1}"
    )
