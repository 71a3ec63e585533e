"""V0 nets (``layers { layer { type: "conv" kernelsize: 5 } bottom: "data" top: "conv1" }``) to V1."""

from __future__ import annotations

from google.protobuf.message import Message

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import NetParameter, V0LayerParameter, V1LayerParameter
from caffecli.wording import did_you_mean

_TYPES = {
    "accuracy": V1LayerParameter.ACCURACY,
    "bnll": V1LayerParameter.BNLL,
    "concat": V1LayerParameter.CONCAT,
    "conv": V1LayerParameter.CONVOLUTION,
    "data": V1LayerParameter.DATA,
    "dropout": V1LayerParameter.DROPOUT,
    "euclidean_loss": V1LayerParameter.EUCLIDEAN_LOSS,
    "flatten": V1LayerParameter.FLATTEN,
    "hdf5_data": V1LayerParameter.HDF5_DATA,
    "hdf5_output": V1LayerParameter.HDF5_OUTPUT,
    "im2col": V1LayerParameter.IM2COL,
    "images": V1LayerParameter.IMAGE_DATA,
    "infogain_loss": V1LayerParameter.INFOGAIN_LOSS,
    "innerproduct": V1LayerParameter.INNER_PRODUCT,
    "lrn": V1LayerParameter.LRN,
    "multinomial_logistic_loss": V1LayerParameter.MULTINOMIAL_LOGISTIC_LOSS,
    "pool": V1LayerParameter.POOLING,
    "relu": V1LayerParameter.RELU,
    "sigmoid": V1LayerParameter.SIGMOID,
    "softmax": V1LayerParameter.SOFTMAX,
    "softmax_loss": V1LayerParameter.SOFTMAX_LOSS,
    "split": V1LayerParameter.SPLIT,
    "tanh": V1LayerParameter.TANH,
    "window_data": V1LayerParameter.WINDOW_DATA,
}

#: for each kind of layer, where V1 keeps its V0 settings
_PLACES: dict[str, dict[str, str]] = {
    "conv": {
        "num_output": "convolution_param.num_output",
        "biasterm": "convolution_param.bias_term",
        "weight_filler": "convolution_param.weight_filler",
        "bias_filler": "convolution_param.bias_filler",
        "pad": "convolution_param.pad",
        "kernelsize": "convolution_param.kernel_size",
        "group": "convolution_param.group",
        "stride": "convolution_param.stride",
    },
    "innerproduct": {
        "num_output": "inner_product_param.num_output",
        "biasterm": "inner_product_param.bias_term",
        "weight_filler": "inner_product_param.weight_filler",
        "bias_filler": "inner_product_param.bias_filler",
    },
    "pool": {
        "pad": "pooling_param.pad",
        "kernelsize": "pooling_param.kernel_size",
        "stride": "pooling_param.stride",
        "pool": "pooling_param.pool",
    },
    "dropout": {"dropout_ratio": "dropout_param.dropout_ratio"},
    "lrn": {
        "local_size": "lrn_param.local_size",
        "alpha": "lrn_param.alpha",
        "beta": "lrn_param.beta",
        "k": "lrn_param.k",
    },
    "concat": {"concat_dim": "concat_param.concat_dim"},
    "data": {
        "source": "data_param.source",
        "batchsize": "data_param.batch_size",
        "rand_skip": "data_param.rand_skip",
    },
    "hdf5_data": {"source": "hdf5_data_param.source", "batchsize": "hdf5_data_param.batch_size"},
    "hdf5_output": {"hdf5_output_param": "hdf5_output_param"},
    "infogain_loss": {"source": "infogain_loss_param.source"},
    "images": {
        "source": "image_data_param.source",
        "batchsize": "image_data_param.batch_size",
        "rand_skip": "image_data_param.rand_skip",
        "shuffle_images": "image_data_param.shuffle",
        "new_height": "image_data_param.new_height",
        "new_width": "image_data_param.new_width",
    },
    "window_data": {
        "source": "window_data_param.source",
        "batchsize": "window_data_param.batch_size",
        "det_fg_threshold": "window_data_param.fg_threshold",
        "det_bg_threshold": "window_data_param.bg_threshold",
        "det_fg_fraction": "window_data_param.fg_fraction",
        "det_context_pad": "window_data_param.context_pad",
        "det_crop_mode": "window_data_param.crop_mode",
    },
}
#: settings that have the same place in any kind of layer; the reference ignores new_num and new_channels
_COMMON = {
    "name": "name",
    "blobs": "blobs",
    "blobs_lr": "blobs_lr",
    "weight_decay": "weight_decay",
    "scale": "transform_param.scale",
    "meanfile": "transform_param.mean_file",
    "cropsize": "transform_param.crop_size",
    "mirror": "transform_param.mirror",
}
_IGNORED = {"type", "new_num", "new_channels"}
#: the reference's source line that reports a setting which the layer does not have
_LINES = {
    "num_output": 237,
    "biasterm": 249,
    "weight_filler": 261,
    "bias_filler": 273,
    "pad": 283,
    "kernelsize": 295,
    "group": 304,
    "stride": 316,
    "pool": 341,
    "dropout_ratio": 350,
    "local_size": 359,
    "alpha": 367,
    "beta": 375,
    "k": 383,
    "source": 403,
    "batchsize": 429,
    "rand_skip": 449,
    "shuffle_images": 458,
    "new_height": 467,
    "new_width": 476,
    "concat_dim": 485,
    "det_fg_threshold": 494,
    "det_bg_threshold": 504,
    "det_fg_fraction": 514,
    "det_context_pad": 524,
    "det_crop_mode": 534,
    "hdf5_output_param": 544,
}


def is_v0(net: NetParameter) -> bool:
    """Whether the net has V0 layers."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade(net: NetParameter) -> tuple[NetParameter, bool]:
    """The V1 net, and whether every V0 setting has a counterpart; others are logged.

    Raises SpecError for a type that V0 did not have, a padding layer in a wrong place, and V1 layers among the V0 ones.
    """
    for i, layer in enumerate(net.layers):
        if not layer.HasField("layer"):
            raise SpecError(
                f"layers {i} ({layer.name!r}) is of the V1 format in a net of the V0 format (layers "
                f"{{ layer {{ ... }} }}); write all in one of them"
            )
    upgraded = NetParameter(input=net.input, input_dim=net.input_dim)
    for field in ("name", "force_backward"):
        if net.HasField(field):
            setattr(upgraded, field, getattr(net, field))
    complete = [_upgrade_layer(layer, upgraded.layers.add()) for layer in _fold_padding(net)]
    return upgraded, all(complete)


def _fold_padding(net: NetParameter) -> list[V1LayerParameter]:
    """The layers without the padding ones: the convolution or pooling behind each pads by itself."""
    makers: dict[str, V1LayerParameter | None] = dict.fromkeys(net.input)
    folded: list[V1LayerParameter] = []
    for original in net.layers:
        layer = V1LayerParameter()
        layer.CopyFrom(original)
        for j, blob in enumerate(original.bottom):
            if blob not in makers:
                raise SpecError(f"layer {_name(original)}: unknown bottom blob {blob!r}{did_you_mean(blob, makers)}")
            maker = makers[blob]
            if maker is not None and maker.layer.type == "padding":
                _check_padding(maker, original)
                layer.layer.pad = maker.layer.pad
                layer.bottom[j] = maker.bottom[0]
        if original.layer.type != "padding":
            folded.append(layer)
        makers.update(dict.fromkeys(original.top, original))
    return folded


def _check_padding(padding: V1LayerParameter, layer: V1LayerParameter) -> None:
    if layer.layer.type not in ("conv", "pool"):
        raise SpecError(
            f"layer {_name(layer)} ({layer.layer.type}): reads the padding layer {_name(padding)}; "
            "only a conv or pool layer can"
        )
    if (len(layer.bottom), len(padding.bottom), len(padding.top)) != (1, 1, 1):
        raise SpecError(
            f"layer {_name(layer)}: it and the padding layer {_name(padding)} it reads must have one bottom each, "
            "and the padding layer one top"
        )


def _upgrade_layer(old: V1LayerParameter, layer: V1LayerParameter) -> bool:
    layer.bottom.extend(old.bottom)
    layer.top.extend(old.top)
    kind = old.layer.type
    if old.layer.HasField("type"):
        if kind not in _TYPES:
            raise SpecError(f"layer {_name(old)}: unknown V0 type {kind!r}{did_you_mean(kind, _TYPES)}")
        layer.type = _TYPES[kind]
    places = _COMMON | _PLACES.get(kind, {})
    complete = True
    for field, value in old.layer.ListFields():
        if field.name in places:
            _put(layer, places[field.name], value)
        elif field.name not in _IGNORED:
            shown = "shuffle" if field.name == "shuffle_images" else field.name
            logs.error(f"upgrade_proto.cpp:{_LINES[field.name]}", f"Unknown parameter {shown} for layer type {kind}")
            complete = False
    return complete


def _put(message: Message, place: str, value: object) -> None:
    """Set the field at a dotted path; a single value is added to a repeated field."""
    *parts, name = place.split(".")
    for part in parts:
        message = getattr(message, part)
    field = getattr(message, name)
    if isinstance(field, Message):
        field.SetInParent()  # keep the message present, even if empty
        field.CopyFrom(value)
    elif isinstance(field, str | int | float):
        setattr(message, name, value)
    elif isinstance(value, int):
        field.append(value)
    else:
        field.extend(value)


def _name(layer: V1LayerParameter) -> str:
    param: V0LayerParameter = layer.layer
    return repr(param.name)
