"""Layers that join, copy and rearrange blobs: Concat, Eltwise, Flatten, Reshape, Split, Silence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffecli.errors import ShapeError
from caffecli.layers.base import Coordinates, Layer, Precision, Shape, exporting
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import EltwiseParameter


@register("Concat")
class Concat(Layer):
    """y = the bottoms one after another along ``axis`` (1 by default; ``concat_dim`` in old nets).

    Any number of bottoms whose dimensions agree but for that axis, one top. A lone bottom is passed on.
    Raises ShapeError where they do not agree, SpecError where the axis is out of range or given twice.
    """

    read_by_opencv = True
    precision = Precision.ANY
    bottom_count = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.concat_param
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise self.spec_error("axis and concat_dim say the same thing; keep axis, drop concat_dim")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        param, dims = self.param.concat_param, len(bottoms[0])
        if param.HasField("concat_dim"):  # a count from the front only
            self.concat_axis = self.axis(param.concat_dim, dims, "concat_dim")
        else:
            self.concat_axis = self.axis(param.axis, dims)
        others = {tuple(shape[: self.concat_axis]) + tuple(shape[self.concat_axis + 1 :]) for shape in bottoms}
        if len(others) > 1 or any(len(shape) != dims for shape in bottoms):
            raise self.shape_error(
                f"expected bottoms that agree in every dimension but axis {self.concat_axis}, got "
                f"{self.listing(bottoms)}"
            )
        axis, first = self.concat_axis, tuple(bottoms[0])
        return [torch.Size((*first[:axis], sum(shape[axis] for shape in bottoms), *first[axis + 1 :]))]

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0] if len(bottoms) == 1 else torch.cat(bottoms, self.concat_axis)


@register("Eltwise")
class Eltwise(Layer):
    """PROD: y = a b c …; SUM (the default): y = coeff[0] a + coeff[1] b + …; MAX: y = max(a, b, …), value by value.

    Two or more bottoms of one shape, a top of that shape. ``coeff`` is 1 unless there is one for each bottom.
    At a tie MAX sends the gradient to one bottom only: the second of the first two, and the earlier one from there on.
    The gradient of PROD is always the stable one, the product of the other bottoms.
    Raises ShapeError where the shapes differ, SpecError where ``coeff`` has another length or goes with PROD.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    bottom_count = (2, None)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.eltwise_param
        if param.coeff and len(param.coeff) != len(bottoms):
            raise self.spec_error(f"expected one coeff for each of the {len(bottoms)} bottoms, got {len(param.coeff)}")
        if param.coeff and param.operation == EltwiseParameter.PROD:
            raise self.spec_error("coeff goes with operation SUM, not PROD; drop coeff, or scale by a Power layer")
        self.operation = param.operation
        self.coeffs = list(param.coeff) or [1.0] * len(bottoms)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len({tuple(shape) for shape in bottoms}) > 1:
            raise self.shape_error(f"expected bottoms of one shape, got {self.listing(bottoms)}")
        return [torch.Size(bottoms[0])]

    def forward(self, *bottoms: Tensor) -> Tensor:
        first, second, *rest = bottoms
        if self.operation == EltwiseParameter.PROD:
            y = first * second
            for bottom in rest:
                y = y * bottom
        elif self.operation == EltwiseParameter.MAX:
            y = torch.where(first > second, first, second)  # `where` sends the gradient the way it took the value
            for bottom in rest:
                y = torch.where(bottom > y, bottom, y)
        else:
            y = first if self.coeffs[0] == 1 else first * self.coeffs[0]
            for bottom, coeff in zip(bottoms[1:], self.coeffs[1:], strict=True):
                y = torch.add(y, bottom, alpha=coeff)
        return y


class _View(Layer):
    """A layer whose top is its bottom in another shape."""

    precision = Precision.ANY
    in_place = False
    shares_data = True
    shares_diff = True

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.planned = torch.Size(bottoms[0]), self.top_shape(bottoms[0])
        return [torch.Size(self.planned[1])]

    def top_shape(self, bottom: Shape) -> list[int]:
        """The top's shape for a bottom's; raises where there is none."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        bottom, top = self.planned
        # an exported program takes any batch: it may not ask whether this is the planned one
        return x.reshape(self.top_shape(x.shape) if exporting() or x.shape != bottom else top)


@register("Flatten")
class Flatten(_View):
    """y = x with the axes from ``axis`` (1) to ``end_axis`` (-1, the last), both included, made one.

    Bottom (N, C, H, W), top (N, C H W) by default. Raises SpecError where an axis is out of range or they are out of
    order.
    """

    read_by_opencv = True

    def top_shape(self, bottom: Shape) -> list[int]:
        param = self.param.flatten_param
        start = self.axis(param.axis, len(bottom))
        end = self.axis(param.end_axis, len(bottom), "end_axis") + 1
        if start > end:  # start == end is an empty run of axes: a new axis of 1
            raise self.spec_error(
                f"axis {param.axis} comes after end_axis {param.end_axis} in a blob of {len(bottom)} dimensions"
            )
        return [*bottom[:start], math.prod(bottom[start:end]), *bottom[end:]]


@register("Reshape")
class Reshape(_View):
    """y = x with ``num_axes`` axes from ``axis`` on (all of them by default) replaced by the dimensions of ``shape``.

    In ``shape`` 0 copies the bottom's dimension at the same place, and one -1 takes what the others leave. ``axis`` -1
    is the place behind the last axis. Bottom and top hold as many values. Raises SpecError where a setting is out of
    range, ShapeError where the counts cannot agree.
    """

    read_by_opencv = True

    def top_shape(self, bottom: Shape) -> list[int]:
        param = self.param.reshape_param
        dims = len(bottom)
        start = param.axis if param.axis >= 0 else dims + param.axis + 1
        if not 0 <= start <= dims:
            raise self.spec_error(f"axis {param.axis} is out of range for a blob of {dims} dimensions")
        if param.num_axes < -1:
            raise self.spec_error(f"expected num_axes 0 or more, or -1 for all, got {param.num_axes}")
        end = dims if param.num_axes == -1 else start + param.num_axes
        if end > dims:
            raise self.spec_error(
                f"axis {param.axis} and num_axes {param.num_axes} reach past the {dims} dimensions of the bottom"
            )
        top = [*bottom[:start], *self._new_dims(bottom, start), *bottom[end:]]
        count, known = math.prod(bottom), math.prod(dim for dim in top if dim != -1)
        if -1 in top:
            if exporting():
                return top
            if known == 0 or count % known:
                raise self._count_error(bottom, top, f"a multiple of {known}")
            top[top.index(-1)] = count // known
        elif known != count:
            raise self._count_error(bottom, top, str(known))
        return top

    def _new_dims(self, bottom: Shape, start: int) -> list[int]:
        """The dimensions of ``shape`` with the zeros filled in; at most one -1 is left."""
        dims = list(self.param.reshape_param.shape.dim)
        if dims.count(-1) > 1:
            raise self.spec_error(f"shape {tuple(dims)} has more than one -1; one dimension can be left open")
        for i, dim in enumerate(dims):
            if dim < -1:
                raise self.spec_error(
                    f"shape {tuple(dims)}: expected dimensions of 0 (copy), -1 (the rest) or more, got {dim}"
                )
            if dim == 0 and start + i >= len(bottom):
                raise self.spec_error(
                    f"shape {tuple(dims)}: dim {i} is 0, but {self.listing([bottom])} has no axis {start + i} to copy"
                )
            dims[i] = dim or bottom[start + i]
        return dims

    def _count_error(self, bottom: Shape, top: list[int], wanted: str) -> ShapeError:
        count = math.prod(bottom)
        return self.shape_error(
            f"shape {tuple(top)} takes {wanted} values, {self.listing([bottom])} has {count}; mend reshape_param"
        )


@register("Split")
class Split(Layer):
    """y_i = x for each top; the bottom's gradient is the sum of the tops'.

    Nets insert it where a blob is used twice.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    precision = Precision.ANY
    in_place = False
    shares_data = True
    top_count = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        self.copies = len(self.param.top)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return [torch.Size(bottoms[0])] * self.copies

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,) * self.copies


@register("Silence")
class Silence(Layer):
    """Takes bottoms and makes nothing, so that a net does not print them as its outputs."""

    read_by_opencv = True
    precision = Precision.ANY
    compiles = False
    bottom_count = (1, None)
    top_count = (0, 0)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return []

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()
