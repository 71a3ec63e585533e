"""Which project's PriorBox a net means: SSD's, or TextBoxes' and FaceBoxes', which have the same fields.

TextBoxes doubles each box, FaceBoxes makes 21 of three min_size; the net tells it by how many locations its
convolutions predict. Source: ``prior_box_layer.cpp`` of MhLiao/TextBoxes and of sfzhang15/FaceBoxes.
"""

from __future__ import annotations

from caffecli import logs
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter

#: the min_size of FaceBoxes' first PriorBox, and how far the centres of its boxes are from the place's, in pixels
FACES: dict[int, tuple[int, ...]] = {32: (-16, -8, 0, 8), 64: (-16, 0), 128: (0,)}

#: which layers read locations, confidences and priors, by the field of their settings
_HEADS = ("multibox_loss_param", "detection_output_param")
#: layers between a convolution and its locations that neither add nor drop any
_BETWEEN = ("Split", "Permute", "Flatten", "Reshape")


def find_form(name: str, net: NetParameter) -> str:
    """The project whose PriorBox the layer ``name`` is by its net: "FaceBoxes", "TextBoxes", or "" for SSD.

    Of the first of a net's PriorBoxes that are not SSD's, the log says so.
    """
    makers = {top: maker for maker in net.layer for top in maker.top}
    for head in net.layer:
        if len(head.bottom) > 2 and any(head.HasField(field) for field in _HEADS):
            priors, predicted = _parts(head.bottom[2], makers), _parts(head.bottom[0], makers)
            if name in [each.name for each in priors] and len(priors) == len(predicted):
                form = _form(priors, [_per_place(each, head) for each in predicted])
                if form and name == priors[0].name:
                    _say(name, form)
                return form
    return ""


def _form(priors: list[LayerParameter], predicted: list[float]) -> str:
    """``predicted``: how many boxes are predicted at each place, for each of the net's ``priors``."""
    counts = [_count(each) for each in priors]
    faces = [list(each.prior_box_param.min_size) == list(FACES) for each in priors]
    of_faces = sum(len(shifts) ** 2 for shifts in FACES.values())
    if any(faces) and predicted == [of_faces if face else 1 for face in faces]:
        return "FaceBoxes"
    return "TextBoxes" if all(counts) and predicted == [2 * count for count in counts] else ""


def _say(name: str, form: str) -> None:
    what = "each box twice, as with denser_prior_boxes: true"
    if form == "FaceBoxes":
        what = "21 boxes of min_size 32, 64 and 128, and all squares a pixel smaller"
    logs.warning(
        "prior_box_layer.cpp:16",
        f"PriorBox, from layer {name!r} on, makes {what}, as {form} does: so many locations are predicted",
    )


def _count(layer: LayerParameter) -> int:
    """How many boxes SSD makes at each place; 0 where it is no PriorBox of SSD's."""
    param = layer.prior_box_param
    if layer.type != "PriorBox" or param.fixed_size or param.denser_prior_boxes:
        return 0
    ratios = [1.0]
    for ratio in param.aspect_ratio:
        if ratio > 0 and all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios += [ratio, 1 / ratio] if param.flip else [ratio]
    return len(ratios) * len(param.min_size) + len(param.max_size)


def _parts(blob: str, makers: dict[str, LayerParameter]) -> list[LayerParameter]:
    """The layers that make the parts of which a blob is put together, past those that only rearrange it."""
    maker = makers.get(blob)
    while maker is not None and maker.type in _BETWEEN:
        maker = makers.get(maker.bottom[0]) if maker.bottom else None
    if maker is None:
        return []
    if maker.type == "Concat":
        return [part for bottom in maker.bottom for part in _parts(bottom, makers)]
    return [maker]


def _per_place(maker: LayerParameter, head: LayerParameter) -> float:
    """How many boxes a convolution predicts at each place."""
    param = head.multibox_loss_param if head.HasField("multibox_loss_param") else head.detection_output_param
    return maker.convolution_param.num_output / 4 / (1 if param.share_location else max(1, param.num_classes))
