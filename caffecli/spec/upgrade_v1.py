"""V1 nets (``layers { type: CONVOLUTION blobs_lr: 1 }``) to the present form (``layer { type: "Convolution" }``)."""

from __future__ import annotations

import functools

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffecli import logs
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, ParamSpec, V1LayerParameter
from caffecli.proto.fork_types import TYPES

#: the types of V1 layers, as they are called now
TYPE_NAMES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "CROP": "Crop",  # of the forks of 2015, which have no crop_param: see net/crops.py
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
#: V1 fields that have another form today; the others have kept their names
_CHANGED = {"type", "param", "blob_share_mode", "blobs_lr", "weight_decay", "layer"}

_DATA_LAYERS = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_DATA_SETTINGS = ("scale", "mean_file", "crop_size", "mirror")


def has_data_settings(net: NetParameter) -> bool:
    """Whether a V1 data layer has what ``transform_param`` now holds."""
    for layer in net.layers:
        if layer.type in _DATA_LAYERS:
            param = getattr(layer, _DATA_LAYERS[layer.type])
            if any(param.HasField(setting) for setting in _DATA_SETTINGS):
                return True
    return False


def move_data_settings(net: NetParameter) -> NetParameter:
    """A copy of the net with scale, mean_file, crop_size and mirror of its V1
    data layers in their ``transform_param``.
    """
    moved = NetParameter()
    moved.CopyFrom(net)
    for layer in moved.layers:
        if layer.type in _DATA_LAYERS:
            param = getattr(layer, _DATA_LAYERS[layer.type])
            param.SetInParent()  # present from here on, even if empty, as in the reference
            layer.transform_param.SetInParent()
            for setting in _DATA_SETTINGS:
                if param.HasField(setting):
                    setattr(layer.transform_param, setting, getattr(param, setting))
                    param.ClearField(setting)
    return moved


def upgrade(net: NetParameter) -> NetParameter:
    """The net with present layers in the place of V1 ones."""
    upgraded = NetParameter()
    upgraded.CopyFrom(net)
    del upgraded.layers[:]
    for old in net.layers:
        _upgrade_layer(old, upgraded.layer.add())
    return upgraded


def _upgrade_layer(old: V1LayerParameter, layer: LayerParameter) -> None:
    for field, value in old.ListFields():
        if field.name in _CHANGED:
            continue
        if not _goes_on(field):
            logs.warning(
                "upgrade_proto.cpp:628",
                f"Layer {old.name!r}: {field.name} has no place in the present form, and is left out",
            )
            continue
        if isinstance(value, str | int):
            setattr(layer, field.name, value)
        elif isinstance(value, Message):
            getattr(layer, field.name).SetInParent()  # keep the message present, even if empty
            getattr(layer, field.name).CopyFrom(value)
        else:
            getattr(layer, field.name).extend(value)
    if old.HasField("type"):
        layer.type = _type(V1LayerParameter.LayerType.Name(old.type))
    if layer.type == "Interp" and layer.interp_param.HasField("zoom_factor"):
        layer.interp_param.ClearField("shrink_factor")  # with both, the first DeepLab takes zoom_factor alone
    for i, name in enumerate(old.param):
        _param(layer, i).name = name
    for i, mode in enumerate(old.blob_share_mode):
        _param(layer, i).share_mode = mode
    for i, rate in enumerate(old.blobs_lr):
        _param(layer, i).lr_mult = rate
    for i, decay in enumerate(old.weight_decay):
        _param(layer, i).decay_mult = decay


def _type(name: str) -> str:
    """The present name of a type. A fork's V1 name is mostly the present one in capitals; others stay as they are."""
    return TYPE_NAMES[name] if name in TYPE_NAMES else _types_of_forks().get(name.replace("_", ""), name)


@functools.cache
def _types_of_forks() -> dict[str, str]:
    types = {each.upper(): each for names in TYPES.values() for each in names.split()}
    del types["NORMALIZE"]  # caffe-windows' layer of this name, which is another one than SSD's
    return types


def _goes_on(field: FieldDescriptor) -> bool:
    """Whether a field is one of today's: all but DeconvNet's unpooling_param, as ParseNet has given its name away."""
    new = LayerParameter.DESCRIPTOR.fields_by_name[field.name]
    return new.message_type is field.message_type


def _param(layer: LayerParameter, i: int) -> ParamSpec:
    """``layer.param[i]``, made where it is missing."""
    while len(layer.param) <= i:
        layer.param.add()
    return layer.param[i]
