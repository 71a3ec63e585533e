"""Inception v3 (Szegedy et al. 2016), as ``caffe.model_libs`` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caffe import layers as L
from caffe import params as P
from caffe.conv_bn import ConvBNLayer
from caffe.net_spec import NetSpec, Top


def InceptionTower(
    net: NetSpec, from_layer: str, tower_name: str, layer_params: Sequence[Mapping[str, Any]], **bn_param: Any
) -> Top:
    """Layers one behind the other, by their settings, ``name`` among them; a pooling where that says ``pool``."""
    for settings in layer_params:
        rest = {key: value for key, value in settings.items() if key != "name"}
        layer = f"{tower_name}/{settings['name']}"
        if "pool" in layer:
            net[layer] = L.Pooling(net[from_layer], **rest)
        else:
            ConvBNLayer(net, from_layer, layer, use_bn=True, use_relu=True, use_scale=False, **rest, **bn_param)
        from_layer = layer
    top: Top = net[from_layer]
    return top


#: a layer of a tower: outputs, height and width of the kernel, and whether it halves the size, without a pad
_Conv = tuple[int, int, int, bool]


def _conv(width: int, high: int = 1, wide: int | None = None, halves: bool = False) -> _Conv:
    return width, high, high if wide is None else wide, halves


def _chain(*convs: _Conv) -> list[dict[str, Any]]:
    """The settings of convolutions one behind the other: conv, conv_1, ..."""
    chain = []
    for i, (width, high, wide, halves) in enumerate(convs):
        square = high == wide
        pads = [0 if halves else high // 2, 0 if halves else wide // 2]
        stride = 2 if halves else 1
        chain.append(
            {
                "name": f"conv_{i}" if i else "conv",
                "num_output": width,
                "kernel_size": high if square else [high, wide],
                "pad": pads[0] if square else pads,
                "stride": stride if square else [stride, stride],
            }
        )
    return chain


def _pool(kind: int, halves: bool = False) -> dict[str, Any]:
    return {"name": "pool", "pool": kind, "kernel_size": 3, "pad": 0 if halves else 1, "stride": 2 if halves else 1}


def InceptionV3Body(net: NetSpec, from_layer: str, output_pred: bool = False, **bn_param: Any) -> NetSpec:
    """Inception v3: conv to mixed_10/join, and with ``output_pred`` its 1008 classes."""

    def tower(name: str, *layers: Mapping[str, Any], top: str = "") -> Top:
        return InceptionTower(net, top or from_layer, name, layers, **bn_param)

    def join(name: str, *towers: Top) -> str:
        net[name] = L.Concat(*towers, axis=1)
        return name

    stem = (("conv", 32, 3, 0, 2), ("conv_1", 32, 3, 0, 1), ("conv_2", 64, 3, 1, 1), "pool", ("conv_3", 80, 1, 0, 1))
    for part in (*stem, ("conv_4", 192, 3, 0, 1), "pool_1"):
        if isinstance(part, str):
            name = part
            net[name] = L.Pooling(net[from_layer], pool=P.Pooling.MAX, kernel_size=3, stride=2, pad=0)
        else:
            name, width, kernel_size, pad, stride = part
            ConvBNLayer(net, from_layer, name, True, True, width, kernel_size, pad, stride, use_scale=False, **bn_param)
        from_layer = name

    for i, width in enumerate((32, 64, 64)):
        mixed = f"mixed_{i}" if i else "mixed"
        from_layer = join(
            f"{mixed}/join",
            tower(mixed, *_chain(_conv(64))),
            tower(f"{mixed}/tower", *_chain(_conv(48), _conv(64, 5))),
            tower(f"{mixed}/tower_1", *_chain(_conv(64), _conv(96, 3), _conv(96, 3))),
            tower(f"{mixed}/tower_2", _pool(P.Pooling.AVE), *_chain(_conv(width))),
        )
    from_layer = join(
        "mixed_3/join",
        tower("mixed_3", *_chain(_conv(384, 3, halves=True))),
        tower("mixed_3/tower", *_chain(_conv(64), _conv(96, 3), _conv(96, 3, halves=True))),
        tower("mixed_3", _pool(P.Pooling.MAX, halves=True)),
    )
    for i, width in enumerate((128, 160, 160, 192), 4):
        mixed = f"mixed_{i}"
        down, across = _conv(width, 7, 1), _conv(width, 1, 7)
        from_layer = join(
            f"{mixed}/join",
            tower(mixed, *_chain(_conv(192))),
            tower(f"{mixed}/tower", *_chain(_conv(width), across, _conv(192, 7, 1))),
            tower(f"{mixed}/tower_1", *_chain(_conv(width), down, across, down, _conv(192, 1, 7))),
            tower(f"{mixed}/tower_2", _pool(P.Pooling.AVE), *_chain(_conv(192))),
        )
    from_layer = join(
        "mixed_8/join",
        tower("mixed_8/tower", *_chain(_conv(192), _conv(320, 3, halves=True))),
        tower("mixed_8/tower_1", *_chain(_conv(192), _conv(192, 1, 7), _conv(192, 7, 1), _conv(192, 3, halves=True))),
        tower("mixed_8", _pool(P.Pooling.MAX, halves=True)),
    )
    for i, kind in ((9, P.Pooling.AVE), (10, P.Pooling.MAX)):
        mixed = f"mixed_{i}"
        towers = [tower(mixed, *_chain(_conv(320)))]
        for name, chain in (("tower", _chain(_conv(384))), ("tower_1", _chain(_conv(448), _conv(384, 3)))):
            tower(f"{mixed}/{name}", *chain)
            top, split = f"{mixed}/{name}/{chain[-1]['name']}", f"{mixed}/{name}/mixed"
            parts = [tower(split, part, top=top) for part in _chain(_conv(384, 1, 3), _conv(384, 3, 1))]
            towers.append(net[join(split, *parts)])
        towers.append(tower(f"{mixed}/tower_2", _pool(kind), *_chain(_conv(192))))
        from_layer = join(f"{mixed}/join", *towers)
    if output_pred:
        net.pool_3 = L.Pooling(net[from_layer], pool=P.Pooling.AVE, kernel_size=8, pad=0, stride=1)
        net.softmax = L.InnerProduct(net.pool_3, num_output=1008)
        net.softmax_prob = L.Softmax(net.softmax)
    return net
