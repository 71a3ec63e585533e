"""Where a Crop without ``crop_param`` cuts: at 0, as Caffe has it, or at the offset that the net's form tells.

In the nets of fully convolutional networks of 2015, HED and their kin, Crop has no settings: it lays the first bottom
over the second, from how strides, kernels and pads shift the pixels of both. Source: the Crop layer of
``longjon/caffe``, branch ``future``, and ``s9xie/hed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from caffecli import logs
from caffecli.layers.base import Coordinates, Layer, Shape
from caffecli.layers.select import Crop
from caffecli.net.graph import Node

#: per axis (scale, shift): coordinate i of one blob is scale * i + shift of another
Map = tuple[tuple[Fraction, Fraction], ...]

_SAME: Map = ((Fraction(1), Fraction(0)),) * 2


def find_offset(node: Node, nodes: Sequence[Node], shapes: Sequence[Shape]) -> bool:
    """Give a Crop without ``crop_param`` the offset at which its bottoms' pixels lie over each other.

    ``nodes`` are those before it, ``shapes`` those of all slots so far. True where it is given one: where both bottoms
    come from one blob by layers whose pixels have places, pixels of one size, both offsets are whole and above 0, and
    the part fits. Where the bottoms' pixels do not lie so, the log says it, and the offset is 0.
    """
    layer = node.layer
    if not isinstance(layer, Crop) or layer.param.HasField("crop_param"):
        return False
    big, wanted = (tuple(shapes[slot]) for slot in node.inputs)
    if len(big) != 4 or len(wanted) != 4 or big[2:] == wanted[2:]:
        return False
    found = _between(node.inputs[0], node.inputs[1], nodes)
    if found is None or found == _SAME:
        return False
    offsets = [-shift for _, shift in found]
    room = [size - part for size, part in zip(big[2:], wanted[2:], strict=True)]
    whole = all(scale == 1 for scale, _ in found) and all(offset.denominator == 1 for offset in offsets)
    if whole and all(0 < offset <= most for offset, most in zip(offsets, room, strict=True)):
        layer.param.crop_param.axis = 2
        layer.param.crop_param.offset.extend(int(offset) for offset in offsets)
        return True
    same_size = all(scale == 1 for scale, _ in found)
    why = f"lie {_listed(offsets)} apart" if same_size else "differ in size"
    logs.warning(
        "crop_layer.cpp:20",
        f"layer {layer.name!r} (Crop) has no crop_param and cuts at 0, but by the layers before them its bottoms' "
        f"pixels {why}; write crop_param {{ axis: 2 offset: N }}, with 0 where it is meant",
    )
    return False


def log_found(layers: Sequence[Layer]) -> None:
    """One line for all the offsets that were found."""
    if layers:
        told = ", ".join(f"{layer.name!r} at {_offset(layer)}" for layer in layers)
        logs.warning(
            "crop_layer.cpp:20",
            "Crop without crop_param cuts where the pixels of both bottoms lie over each other, as HED and the first "
            f"FCN have it: {told}; for Caffe's own rule, 0, write crop_param {{ offset: 0 }}",
        )


def _offset(layer: Layer) -> str:
    offsets = layer.param.crop_param.offset
    return " x ".join(map(str, offsets if len(set(offsets)) > 1 else offsets[:1]))


def _listed(values: Sequence[Fraction]) -> str:
    return " and ".join(f"{float(value):g}" for value in (values if len(set(values)) > 1 else values[:1]))


def _between(start: int, end: int, nodes: Sequence[Node]) -> Map | None:
    """The map from the blob in slot ``start`` to that in ``end``, by way of the first that both come from."""
    makers = {slot: node for node in nodes for slot in node.outputs}
    seen = dict(_upwards(start, makers))
    for slot, to_end in _upwards(end, makers):
        if slot in seen:
            return _after(to_end, _inverse(seen[slot]))
    return None


def _upwards(slot: int, makers: dict[int, Node]) -> list[tuple[int, Map]]:
    """The slots from which a blob comes, by first bottoms, each with the map from there to the blob."""
    way, here = [(slot, _SAME)], _SAME
    while (node := makers.get(slot)) is not None and node.inputs:
        step = _step(node.layer)
        if step is None:
            break
        slot, here = node.inputs[0], _after(here, step)
        way.append((slot, here))
    return way


def _step(layer: Layer) -> Map | None:
    """The map from a layer's first bottom to its top; None where there is none."""
    if layer.coordinates is Coordinates.SAME:
        return _SAME
    if isinstance(layer, Crop):
        return tuple((Fraction(1), Fraction(-offset)) for axis, offset in layer.places if axis >= 2) or _SAME
    lattice = layer.lattice()
    if layer.coordinates is None or len(lattice) != 2:
        return None
    if layer.coordinates is Coordinates.STRIDED:
        return tuple((Fraction(1, s), (pad - Fraction(extent - 1, 2)) / s) for s, extent, pad in lattice)
    return tuple((Fraction(s), Fraction(extent - 1, 2) - pad) for s, extent, pad in lattice)


def _after(then: Map, first: Map) -> Map:
    """The map ``first``, and ``then`` the other."""
    return tuple((s2 * s1, s2 * t1 + t2) for (s2, t2), (s1, t1) in zip(then, first, strict=True))


def _inverse(one: Map) -> Map:
    return tuple((1 / scale, -shift / scale) for scale, shift in one)
