"""The predictions of SSD and of RefineDet, as ``caffe.model_libs`` puts them over a net's layers.

Source: Liu et al., ECCV 2016 (SSD); Zhang et al., CVPR 2018 (RefineDet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caffe import layers as L
from caffe.conv_bn import ConvBNLayer, ResBody, there
from caffe.errors import ArgumentError
from caffe.net_spec import NetSpec, Top


def CreateMultiBoxHead(
    net: NetSpec,
    data_layer: str = "data",
    num_classes: int = 0,
    from_layers: Sequence[str] = (),
    use_objectness: bool = False,
    normalizations: Sequence[float] = (),
    use_batchnorm: bool = True,
    lr_mult: float = 1,
    use_scale: bool = True,
    min_sizes: Sequence[Any] = (),
    max_sizes: Sequence[Any] = (),
    prior_variance: Sequence[float] = (0.1,),
    aspect_ratios: Sequence[Any] = (),
    steps: Sequence[Any] = (),
    img_height: int = 0,
    img_width: int = 0,
    share_location: bool = True,
    flip: bool = True,
    clip: bool = True,
    offset: float = 0.5,
    inter_layer_depth: Sequence[int] = (),
    kernel_size: int = 1,
    pad: int = 0,
    conf_postfix: str = "",
    loc_postfix: str = "",
    **bn_param: Any,
) -> list[Top]:
    """SSD's predictions over ``from_layers``: tops mbox_loc, mbox_conf, mbox_priorbox, and with ``use_objectness``
    mbox_objectness.

    Of each layer: its scale to normalize to (-1: none), the sizes in pixels of its priors (``min_sizes``,
    ``max_sizes``: a number or several), their ``aspect_ratios``, ``steps``, and the outputs of a convolution before the
    predictions (``inter_layer_depth``; 0: none). ``use_scale`` has no effect.
    """
    head = _Head(
        net, data_layer, normalizations, use_batchnorm, lr_mult, min_sizes, max_sizes, prior_variance, aspect_ratios,
        steps, img_height, img_width, share_location, flip, clip, offset, inter_layer_depth, kernel_size, pad,
        conf_postfix, loc_postfix, bn_param,
    )  # fmt: skip
    return head.over(from_layers, num_classes, "mbox", objectness=use_objectness)


def CreateRefineDetHead(
    net: NetSpec,
    data_layer: str = "data",
    num_classes: int = 0,
    from_layers: Sequence[str] = (),
    from_layers2: Sequence[str] = (),
    normalizations: Sequence[float] = (),
    use_batchnorm: bool = True,
    lr_mult: float = 1,
    min_sizes: Sequence[Any] = (),
    max_sizes: Sequence[Any] = (),
    prior_variance: Sequence[float] = (0.1,),
    aspect_ratios: Sequence[Any] = (),
    steps: Sequence[Any] = (),
    img_height: int = 0,
    img_width: int = 0,
    share_location: bool = True,
    flip: bool = True,
    clip: bool = True,
    offset: float = 0.5,
    inter_layer_depth: Sequence[int] = (),
    kernel_size: int = 1,
    pad: int = 0,
    conf_postfix: str = "",
    loc_postfix: str = "",
    **bn_param: Any,
) -> list[Top]:
    """RefineDet's predictions: tops arm_loc, arm_conf and arm_priorbox of its first stage, over ``from_layers`` and of
    two classes, then odm_loc and odm_conf of its second one, over ``from_layers2``.

    All else as in ``CreateMultiBoxHead``, for both stages; with ``inter_layer_depth`` a ResBody of 1024 outputs stands
    before the predictions.
    """
    head = _Head(
        net, data_layer, normalizations, use_batchnorm, lr_mult, min_sizes, max_sizes, prior_variance, aspect_ratios,
        steps, img_height, img_width, share_location, flip, clip, offset, inter_layer_depth, kernel_size, pad,
        conf_postfix, loc_postfix, bn_param,
    )  # fmt: skip
    first = head.over(from_layers, 2 if num_classes else 0, "arm", bodies=True)
    return first + head.over(from_layers2, num_classes, "odm", priors=False, bodies=True)


@dataclass(frozen=True)
class _Head:
    """What the predictions of a net have in common."""

    net: NetSpec
    data_layer: str
    normalizations: Sequence[float]
    use_batchnorm: bool
    lr_mult: float
    min_sizes: Sequence[Any]
    max_sizes: Sequence[Any]
    prior_variance: Sequence[float]
    aspect_ratios: Sequence[Any]
    steps: Sequence[Any]
    img_height: int
    img_width: int
    share_location: bool
    flip: bool
    clip: bool
    offset: float
    inter_layer_depth: Sequence[int]
    kernel_size: int
    pad: int
    conf_postfix: str
    loc_postfix: str
    bn_param: dict[str, Any]

    def over(
        self,
        layers: Sequence[str],
        classes: int,
        prefix: str,
        priors: bool = True,
        objectness: bool = False,
        bodies: bool = False,
    ) -> list[Top]:
        """The tops PREFIX_loc, PREFIX_conf and those asked for; ``bodies``: ResBody stands before the predictions."""
        self._check(layers, classes)
        net = self.net
        tops: dict[str, list[Top]] = {"loc": [], "conf": [], "priorbox": [], "objectness": []}
        for i, layer in enumerate(layers):
            top = self._before(layer, i, bodies)
            least, most, ratios = (
                _listed(values[i]) if values else [] for values in (self.min_sizes, self.max_sizes, self.aspect_ratios)
            )
            if most and len(most) != len(least):
                raise ArgumentError(f"{layer}: expected as many max_sizes as min_sizes, got {most} and {least}")
            count = len(least) * ((2 if most else 1) + len(ratios) * (2 if self.flip else 1))
            width = count * 4 * (1 if self.share_location else classes)
            tops["loc"].append(self._predicted(top, "loc", self.loc_postfix, width))
            tops["conf"].append(self._predicted(top, "conf", self.conf_postfix, count * classes))
            if priors:
                tops["priorbox"].append(self._priors(top, i, least, most, ratios))
            if objectness:
                tops["objectness"].append(self._predicted(top, "objectness", "", count * 2))
        for kind, parts in tops.items():
            if parts:
                net[f"{prefix}_{kind}"] = L.Concat(*parts, axis=2 if kind == "priorbox" else 1)
        return [net[f"{prefix}_{kind}"] for kind, parts in tops.items() if parts]

    def _check(self, layers: Sequence[str], classes: int) -> None:
        if not classes or classes < 0:
            raise ArgumentError("give num_classes, the background's among them")
        for name in ("normalizations", "min_sizes", "max_sizes", "aspect_ratios", "steps", "inter_layer_depth"):
            values = getattr(self, name)
            if len(values) != len(layers) and (values or name == "min_sizes"):
                raise ArgumentError(f"{name} has {len(values)} values for {len(layers)} from_layers")
        there(self.net, self.data_layer)

    def _before(self, top: str, i: int, bodies: bool) -> str:
        """The top that the ``i``-th predictions are made of: normalized, and with layers between, as asked for."""
        net = self.net
        if self.normalizations and self.normalizations[i] != -1:
            scale = {"type": "constant", "value": self.normalizations[i]}
            net[f"{top}_norm"] = L.Normalize(net[top], scale_filler=scale, across_spatial=False, channel_shared=False)
            top = f"{top}_norm"
        depth = self.inter_layer_depth[i] if self.inter_layer_depth else 0
        if depth > 0 and bodies:
            ResBody(net, top, f"{top}_inter", 256, 256, 1024, 1, True)
            return f"res{top}_inter"
        if depth > 0:
            inter = f"{top}_inter"
            ConvBNLayer(
                net, top, inter, self.use_batchnorm, True, depth, 3, 1, 1, lr_mult=self.lr_mult, **self.bn_param
            )
            return inter
        return top

    def _predicted(self, top: str, kind: str, postfix: str, width: int) -> Top:
        net, name = self.net, f"{top}_mbox_{kind}{postfix}"
        ConvBNLayer(
            net, top, name, self.use_batchnorm, False, width, self.kernel_size, self.pad, 1, lr_mult=self.lr_mult,
            **self.bn_param,
        )  # fmt: skip
        net[f"{name}_perm"] = L.Permute(net[name], order=[0, 2, 3, 1])
        net[f"{name}_flat"] = L.Flatten(net[f"{name}_perm"], axis=1)
        return net[f"{name}_flat"]

    def _priors(self, top: str, i: int, least: list[Any], most: list[Any], ratios: list[Any]) -> Top:
        net, name = self.net, f"{top}_mbox_priorbox"
        high, wide = self.img_height, self.img_width
        net[name] = L.PriorBox(
            net[top], net[self.data_layer], min_size=least, clip=self.clip, variance=list(self.prior_variance),
            offset=self.offset,
        )  # fmt: skip
        net.update(name, {"max_size": most} if most else {})
        net.update(name, {"aspect_ratio": ratios, "flip": self.flip} if ratios else {})
        net.update(name, {"step": self.steps[i]} if self.steps and self.steps[i] else {})
        if high and wide:
            net.update(name, {"img_size": high} if high == wide else {"img_h": high, "img_w": wide})
        return net[name]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
