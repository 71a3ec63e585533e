"""Which pixel of one blob lies at which of another, through convolutions, pooling and crops of a NetSpec.

A coordinate map is (axis, scale, shift): coordinate i of a layer's bottom, from ``axis`` on, is ``scale * i + shift``
of its top; scale and shift are arrays when the axes differ. The identity is (None, 1, 0). ``crop`` makes the Crop layer
that lays one blob over another, as fully convolutional nets need it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from caffe.net_spec import Function, Top
from caffe.net_spec import layers as L
from caffecli.errors import CaffeError, SpecError
from caffecli.layers import layer_class, types
from caffecli.layers.base import Coordinates

CoordMap: TypeAlias = "tuple[int | None, Any, Any]"


def coordinates(type_name: str) -> Coordinates | None:
    """How coordinates map through layers of a type; None where they do not, or the type is not known."""
    kind = layer_class(type_name)
    return kind.coordinates if kind is not None else None


_LEGACY = {"pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w"}


def __getattr__(name: str) -> list[str]:
    if name == "PASS_THROUGH_LAYERS":  # layers whose tops lie pixel for pixel on their bottoms
        return [kind for kind in types() if coordinates(kind) is Coordinates.SAME]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class UndefinedMapException(CaffeError):
    """A layer that has no coordinate map, such as InnerProduct."""


class AxisMismatchException(CaffeError):
    """Two maps that begin at different axes."""


class UnconnectedError(SpecError, RuntimeError):
    """Two tops that no layers with coordinate maps connect."""


class CropError(SpecError, AssertionError):
    """Tops that no Crop layer can lay over each other, or settings that a map cannot be made of."""


def conv_params(fn: Function) -> tuple[int, Any, Any, Any]:
    """(axis, stride, extent of the kernel, pad) of a Convolution, Deconvolution, Im2col or Pooling."""
    params = fn.params.get("convolution_param", fn.params)
    legacy = sorted(_LEGACY & {*fn.params, *params})
    if legacy:
        raise CropError(
            f"cropping does not support legacy _h/_w params: {fn.type_name} has {', '.join(legacy)}; give lists"
        )
    if "kernel_size" not in params:
        raise UndefinedMapException(f"{fn.type_name} has no kernel_size, which its coordinate map needs")
    kernel, dilation, stride, pad = (
        np.array(params.get(name, default), ndmin=1)
        for name, default in [("kernel_size", None), ("dilation", 1), ("stride", 1), ("pad", 0)]
    )
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, Any]:
    """(axis, offset) of a Crop layer."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> CoordMap:
    """The coordinate map of a layer. Raises UndefinedMapException."""
    kind = coordinates(fn.type_name)
    if kind is Coordinates.STRIDED:
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if kind is Coordinates.TRANSPOSED:
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if kind is Coordinates.SAME:
        return None, 1, 0
    if kind is Coordinates.CROPPED:
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # a convolution's axis is the one before its coordinates
    raise UndefinedMapException(f"a layer of type {fn.type_name} has no coordinate map")


def compose(base_map: CoordMap, next_map: CoordMap) -> CoordMap:
    """``base_map`` after ``next_map``. Raises AxisMismatchException."""
    axis1, scale1, shift1 = base_map
    axis2, scale2, shift2 = next_map
    if axis1 is not None and axis2 is not None and axis1 != axis2:
        raise AxisMismatchException(f"a map from axis {axis1} on cannot be composed with one from axis {axis2} on")
    return axis2 if axis1 is None else axis1, scale1 * scale2, scale1 * shift2 + shift1


def inverse(coord_map: CoordMap) -> CoordMap:
    """The map from the top to the bottom."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """The map from coordinates of ``top_from`` to those of ``top_to``, by way of a blob that both come from.

    Raises RuntimeError when there is none, or when layers without maps lie between.
    """
    from_maps: dict[Top, CoordMap] = {}
    for top, to_here in _upwards(top_from):
        from_maps[top] = to_here
    for top, to_here in _upwards(top_to):
        if top in from_maps:
            return compose(to_here, inverse(from_maps[top]))
    raise UnconnectedError("Could not compute map between tops; are they connected by spatial layers?")


def _upwards(top: Top) -> Any:
    """Each blob that ``top`` comes from through layers with maps, itself first,
    with the map from that blob to ``top``.
    """
    maps: dict[Top, CoordMap] = {top: (None, 1, 0)}
    pending = [top]
    while pending:
        here = pending.pop()
        yield here, maps[here]
        cropped = coordinates(here.fn.type_name) is Coordinates.CROPPED
        bottoms = here.fn.inputs[:1] if cropped else here.fn.inputs  # a Crop's second gives its size only
        if not bottoms:
            continue
        try:
            step = coord_map(here.fn)
        except UndefinedMapException:
            continue
        for bottom in bottoms:
            if bottom not in maps:
                maps[bottom] = compose(maps[here], step)
                pending.append(bottom)


def crop(top_from: Top, top_to: Top) -> Any:
    """The top of a Crop layer that cuts ``top_from`` to what lies over ``top_to``.

    Raises an AssertionError when their pixels differ in size, or ``top_from`` would have to grow or to move by parts of
    a pixel.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    scale, shift = np.atleast_1d(scale), np.atleast_1d(shift)
    if not np.all(scale == 1):
        raise CropError(f"scale mismatch on crop (a = {scale}); let strides and deconvolutions undo each other")
    if not np.all(shift <= 0):
        raise CropError(f"cannot crop negative offset (b = {shift}); pad the net's input or its first convolution")
    if not np.all(np.round(shift) == shift):
        raise CropError(f"cannot crop noninteger offset (b = {shift})")
    if axis is None:
        axis = 1
    return L.Crop(
        top_from, top_to, crop_param={"axis": axis + 1, "offset": [int(offset) for offset in -np.round(shift)]}
    )
