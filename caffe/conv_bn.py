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


def ResBody(
    net: NetSpec,
    from_layer: str,
    block_name: str,
    out2a: int,
    out2b: int,
    out2c: int,
    stride: int,
    use_branch1: bool,
    dilation: int = 1,
    **bn_param: Any,
) -> None:
    """A block of a ResNet: 1x1, 3x3 and 1x1 convolutions; beside them the way straight on, or, with ``use_branch1``, a
    convolution.
    """
    names: dict[str, Any] = {
        f"{kind}_{end}": text
        for kind, prefix in (("conv", "res"), ("bn", "bn"), ("scale", "scale"))
        for end, text in (("prefix", f"{prefix}{block_name}_"), ("postfix", ""))
    }
    res = f"res{block_name}"

    def conv(top: str, branch: str, width: int, size: int, pad: int, stride: int, relu: bool, dilation: int = 1) -> str:
        ConvBNLayer(net, top, branch, True, relu, width, size, pad, stride, dilation=dilation, **names, **bn_param)
        return f"{res}_{branch}"

    straight = conv(from_layer, "branch1", out2c, 1, 0, stride, False) if use_branch1 else from_layer
    top = conv(from_layer, "branch2a", out2a, 1, 0, stride, True)
    top = conv(top, "branch2b", out2b, 3, same(3, dilation), 1, True, dilation)
    top = conv(top, "branch2c", out2c, 1, 0, 1, False)
    net[res] = L.Eltwise(net[straight], net[top])
    net[f"{res}_relu"] = L.ReLU(net[res], in_place=True)


def DeconvBNLayer(
    net: NetSpec,
    from_layer: str,
    out_layer: str,
    use_bn: bool,
    use_relu: bool,
    num_output: int,
    kernel_size: int,
    pad: int,
    stride: int,
    use_scale: bool = True,
    lr_mult: float = 1,
    deconv_prefix: str = "",
    deconv_postfix: str = "",
    bn_prefix: str = "",
    bn_postfix: str = "_bn",
    scale_prefix: str = "",
    scale_postfix: str = "_scale",
    bias_prefix: str = "",
    bias_postfix: str = "_bias",
    **bn_params: Any,
) -> None:
    """RefineDet's deconvolution, with ``use_bn`` a BatchNorm and a Scale (or a Bias) after it, and with ``use_relu`` a
    ReLU. ``bn_params`` have no effect.
    """
    deconv, bn = f"{deconv_prefix}{out_layer}{deconv_postfix}", f"{bn_prefix}{out_layer}{bn_postfix}"
    own = learned(lr_mult)
    if use_bn:
        own = {"param": own["param"][:1], "weight_filler": {"type": "gaussian", "std": 0.01}, "bias_term": False}
    window = {"kernel_size": kernel_size, "pad": pad, "stride": stride}
    net[deconv] = L.Deconvolution(net[from_layer], num_output=num_output, **window, **own)
    if use_bn:
        net[bn] = L.BatchNorm(net[deconv], in_place=True)
        if use_scale:
            net[f"{scale_prefix}{out_layer}{scale_postfix}"] = L.Scale(net[bn], in_place=True, bias_term=True)
        else:
            following = {"param": [{"lr_mult": lr_mult, "decay_mult": 0}], "filler": {"type": "constant", "value": 0.0}}
            net[f"{bias_prefix}{out_layer}{bias_postfix}"] = L.Bias(net[bn], in_place=True, **following)
    if use_relu:
        net[f"{deconv}_relu"] = L.ReLU(net[deconv], in_place=True)


def EltwiseLayer(net: NetSpec, from_layer: list[str], out_layer: str) -> None:
    """RefineDet's sum of two layers."""
    net[out_layer] = L.Eltwise(net[from_layer[0]], net[from_layer[1]])


def there(net: NetSpec, layer: str) -> None:
    """Raise ArgumentError where the net has no such layer."""
    if layer not in net.tops:
        raise ArgumentError(f"the net has no layer {layer!r}; it has {', '.join(net.keys()) or 'none'}")


def same(kernel_size: int, dilation: int) -> int:
    """The pad that keeps the size."""
    return dilation * (kernel_size - 1) // 2


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
