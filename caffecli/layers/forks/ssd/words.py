"""What TextBoxes++ predicts of a written word beside its box: four corners, or a turned rectangle.

With ``use_polygon: true`` eight values: x1, y1, ..., x4, y4, clockwise from the word's top left; with ``use_polygon:
false`` five: the ends x1, y1, x2, y2 of the upper side and the height. Source: Liao et al., TIP 2018, section 3.2;
``bbox_util.cpp`` of MhLiao/TextBoxes_plusplus.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import (
    DetectionEvaluateParameter,
    DetectionOutputParameter,
    MultiBoxLossParameter,
    PriorBoxParameter,
)

CORNERS, RECTANGLE = 8, 5
#: for each value the prior's side that puts it out of the loss with ``bp_inside``, where it is outside of the image
INSIDE = {CORNERS: [0, 1, 2, 3, 2, 3, 2, 3], RECTANGLE: [0, 1, 2, 3, 3]}


def values_of(param: MultiBoxLossParameter | DetectionOutputParameter | DetectionEvaluateParameter) -> int:
    """How many values a prior has beside its box's four: none without ``use_polygon``."""
    return 0 if not param.HasField("use_polygon") else CORNERS if param.use_polygon else RECTANGLE


def check(layer: Layer, code: int, scaled: bool) -> None:
    """Raise SpecError where the values have no code."""
    if code != PriorBoxParameter.CENTER_SIZE or not scaled:
        raise layer.spec_error("use_polygon needs code_type: CENTER_SIZE, and variances that are not in the target")


def encode(values: Tensor, priors: Tensor, variances: Tensor) -> Tensor:
    """The change (..., 8 or 5) of ``priors`` (..., 4) that ``decode`` makes ``values`` of."""
    begin, scale = _frame(priors, variances, values.shape[-1])
    if values.shape[-1] == CORNERS:
        return (values - begin) / scale
    high = (values[..., 4:] / (priors[..., 3:] - priors[..., 1:2])).log() / variances[..., 3:]
    return torch.cat([(values[..., :4] - begin) / scale, high], -1)


def decode(change: Tensor, priors: Tensor, variances: Tensor) -> Tensor:
    """The values (..., 8 or 5) that a change of the priors (..., 4) means."""
    begin, scale = _frame(priors, variances, change.shape[-1])
    if change.shape[-1] == CORNERS:
        return begin + change * scale
    high = (variances[..., 3:] * change[..., 4:]).exp() * (priors[..., 3:] - priors[..., 1:2])
    return torch.cat([begin + change[..., :4] * scale, high], -1)


def _frame(priors: Tensor, variances: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """From where points count, corners from the prior's corners and a side's ends from its centre; and their unit."""
    unit = (priors[..., 2:] - priors[..., :2]) * variances[..., :2]
    if values == CORNERS:
        return priors[..., [0, 1, 2, 1, 2, 3, 0, 3]], torch.cat([unit] * 4, -1)
    centre = (priors[..., :2] + priors[..., 2:]) / 2
    return torch.cat([centre] * 2, -1), torch.cat([unit] * 2, -1)
