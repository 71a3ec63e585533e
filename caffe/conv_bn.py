"""A convolution with what follows it, as ``caffe.model_libs`` and its bodies put it into a net."""

from __future__ import annotations

from typing import Any

from caffe import layers as L
from caffe.errors import ArgumentError
from caffe.net_spec import NetSpec

FROZEN = {"lr_mult": 0, "decay_mult": 0}


def UnpackVariable(var: Any, num: int) -> list[Any]:
    """``num`` values: those of a list of as many, or one value, alone or in a list, again and again."""
    values = var if isinstance(var, list) else [var]
    if len(values) not in (1, num):
        raise ArgumentError(f"expected one value or {num}, got {var!r}")
    return values if len(values) == num else values * num


def ConvBNLayer(
    net: NetSpec,
    from_layer: str,
    out_layer: str,
    use_bn: bool,
    use_relu: bool,
    num_output: int,
    kernel_size: Any,
    pad: Any,
    stride: Any,
    dilation: int = 1,
    use_scale: bool = True,
    lr_mult: float = 1,
    conv_prefix: str = "",
    conv_postfix: str = "",
    bn_prefix: str = "",
    bn_postfix: str = "_bn",
    scale_prefix: str = "",
    scale_postfix: str = "_scale",
    bias_prefix: str = "",
    bias_postfix: str = "_bias",
    **bn_params: Any,
) -> None:
    """A convolution, with ``use_bn`` a BatchNorm and a Scale (or a Bias) after it, and with ``use_relu`` a ReLU.

    ``kernel_size``, ``pad`` and ``stride`` are one value, or a list of height and width. ``bn_params``: eps (0.001),
    moving_average_fraction (0.999), use_global_stats (False; else Scale and Bias do not learn either).
    """
    conv, bn, scale, bias = (
        f"{prefix}{out_layer}{postfix}"
        for prefix, postfix in (
            (conv_prefix, conv_postfix),
            (bn_prefix, bn_postfix),
            (scale_prefix, scale_postfix),
            (bias_prefix, bias_postfix),
        )
    )
    weights = {"lr_mult": lr_mult, "decay_mult": 1}
    if use_bn:
        own = {"param": [weights], "weight_filler": {"type": "gaussian", "std": 0.01}, "bias_term": False}
    else:
        own = learned(lr_mult)
    net[conv] = L.Convolution(net[from_layer], num_output=num_output, **_window(kernel_size, pad, stride), **own)
    if dilation > 1:
        net.update(conv, {"dilation": dilation})
    if use_bn:
        frozen = bool(bn_params.get("use_global_stats", False))
        statistics = (
            {"use_global_stats": bn_params["use_global_stats"]}
            if frozen
            else {"moving_average_fraction": bn_params.get("moving_average_fraction", 0.999)}
        )
        net[bn] = L.BatchNorm(
            net[conv], in_place=True, param=[FROZEN] * 3, eps=bn_params.get("eps", 0.001), **statistics
        )
        following = {"lr_mult": 0 if frozen else lr_mult, "decay_mult": 0}
        zero = {"type": "constant", "value": 0.0}
        if use_scale:
            one = {"type": "constant", "value": 1.0}
            net[scale] = L.Scale(
                net[bn], in_place=True, bias_term=True, param=[following] * 2, filler=one, bias_filler=zero
            )
        else:
            net[bias] = L.Bias(net[bn], in_place=True, param=[following], filler=zero)
    if use_relu:
        net[f"{conv}_relu"] = L.ReLU(net[conv], in_place=True)


def learned(lr_mult: float = 1) -> dict[str, Any]:
    """The settings of a layer with weights and biases."""
    return {
        "param": [{"lr_mult": lr_mult, "decay_mult": 1}, {"lr_mult": 2 * lr_mult, "decay_mult": 0}],
        "weight_filler": {"type": "xavier"},
        "bias_filler": {"type": "constant", "value": 0},
    }


def _window(kernel_size: Any, pad: Any, stride: Any) -> dict[str, Any]:
    """A convolution's window: by one number each where it is as high as wide."""
    pairs = {
        "kernel": UnpackVariable(kernel_size, 2),
        "pad": UnpackVariable(pad, 2),
        "stride": UnpackVariable(stride, 2),
    }
    if pairs["kernel"][0] == pairs["kernel"][1]:
        return {"kernel_size": pairs["kernel"][0], "pad": pairs["pad"][0], "stride": pairs["stride"][0]}
    return {f"{name}_{side}": value for name, pair in pairs.items() for side, value in zip("hw", pair, strict=True)}
