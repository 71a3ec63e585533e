"""Fields that Caffe's forks add to its messages, each with the fork's own number.

caffe.proto has exactly the reference's fields. A text with a field of a fork is read by a wider schema, ``caffe.proto`` plus all
of ``FORKS``, and becomes a message of the plain one, in which those fields ride along as unknown ones, into caffemodels too::

    wide = widen(NetParameter, text)    # what to parse the text into; None where it has no fork's field
    plain = NetParameter.FromString(wide.SerializeToString())
    named(plain)                        # the wide message again: to print it, or to read ``named(layer_param).permute_param``

A number that the reference, or another fork, gives to another field is moved up by ``MOVED``. In files of that fork the layer's
type says what the number means: ``move_taken``.
Sources: the caffe.proto of each repository.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from caffecli.proto import caffe_pb2

MOVED = 8_000_000

#: by fork: messages of its own, and what it adds to the reference's (those that a message ``extend``s)
FORKS = {
    "SSD (weiliu89/caffe)": """
        message PermuteParameter { repeated uint32 order = 1; }
        message NormalizeParameter {
          optional bool across_spatial = 1 [default = true];
          optional FillerParameter scale_filler = 2;
          optional bool channel_shared = 3 [default = true];
          optional float eps = 4 [default = 1e-10];
        }
        message PriorBoxParameter {
          enum CodeType { CORNER = 1; CENTER_SIZE = 2; CORNER_SIZE = 3; }
          repeated float min_size = 1;
          repeated float max_size = 2;
          repeated float aspect_ratio = 3;
          optional bool flip = 4 [default = true];
          optional bool clip = 5 [default = false];
          repeated float variance = 6;
          optional uint32 img_size = 7;
          optional uint32 img_h = 8;
          optional uint32 img_w = 9;
          optional float step = 10;
          optional float step_h = 11;
          optional float step_w = 12;
          optional float offset = 13 [default = 0.5];
        }
        message NonMaximumSuppressionParameter {
          optional float nms_threshold = 1 [default = 0.3];
          optional int32 top_k = 2;
          optional float eta = 3 [default = 1];
        }
        message DetectionOutputParameter {
          optional uint32 num_classes = 1;
          optional bool share_location = 2 [default = true];
          optional int32 background_label_id = 3 [default = 0];
          optional NonMaximumSuppressionParameter nms_param = 4;
          optional PriorBoxParameter.CodeType code_type = 6 [default = CORNER];
          optional int32 keep_top_k = 7 [default = -1];
          optional bool variance_encoded_in_target = 8 [default = false];
          optional float confidence_threshold = 9;
        }
        extend LayerParameter {
          optional PermuteParameter permute_param = 202;
          optional PriorBoxParameter prior_box_param = 203;
          optional DetectionOutputParameter detection_output_param = 204;
          optional NormalizeParameter norm_param = 206;
        }""",
    "SegNet (alexgkendall/caffe-segnet)": """
        message UpsampleParameter {
          optional uint32 scale = 1 [default = 2];
          optional uint32 scale_h = 2;
          optional uint32 scale_w = 3;
          optional bool pad_out_h = 4 [default = false];
          optional bool pad_out_w = 5 [default = false];
          optional uint32 upsample_h = 6;
          optional uint32 upsample_w = 7;
        }
        extend LayerParameter { optional UpsampleParameter upsample_param = 137; }""",
    "DeepLab (deeplab-public-ver2)": """
        message InterpParameter {
          optional int32 height = 1 [default = 0];
          optional int32 width = 2 [default = 0];
          optional int32 zoom_factor = 3 [default = 1];
          optional int32 shrink_factor = 4 [default = 1];
          optional int32 pad_beg = 5 [default = 0];
          optional int32 pad_end = 6 [default = 0];
        }
        extend LayerParameter { optional InterpParameter interp_param = 143; }""",
    "ShuffleNet (farmingyard/ShuffleNet)": """
        message ShuffleChannelParameter { optional uint32 group = 1 [default = 1]; }
        extend LayerParameter { optional ShuffleChannelParameter shuffle_channel_param = 164; }""",
    "Faster R-CNN (rbgirshick/caffe-fast-rcnn)": """
        message ROIPoolingParameter {
          optional uint32 pooled_h = 1 [default = 0];
          optional uint32 pooled_w = 2 [default = 0];
          optional float spatial_scale = 3 [default = 1];
        }
        message SmoothL1LossParameter { optional float sigma = 1 [default = 1]; }
        extend LayerParameter {
          optional ROIPoolingParameter roi_pooling_param = 8266711;
          optional SmoothL1LossParameter smooth_l1_loss_param = 8266712;
        }""",
    "NVIDIA (NVIDIA/caffe)": """
        enum Type { DOUBLE = 0; FLOAT = 1; FLOAT16 = 2; INT = 3; UINT = 4; }
        extend BlobProto {
          optional Type raw_data_type = 10;
          optional Type raw_diff_type = 11;
          optional bytes raw_data = 12;
          optional bytes raw_diff = 13;
        }""",
}

#: fields of forks that mean nothing here, so that an error can say whose they are: by fork, by message
REFUSED = {
    "SSD (weiliu89/caffe)": {
        "LayerParameter": "annotated_data_param multibox_loss_param detection_evaluate_param video_data_param",
        "TransformationParameter": "resize_param noise_param distort_param expand_param emit_constraint",
        "DetectionOutputParameter": "save_output_param visualize visualize_threshold save_file",
        "SolverParameter": "eval_type ap_version show_per_class_result plateau_winsize",
    },
    "SegNet (alexgkendall/caffe-segnet)": {
        "LayerParameter": "bn_param dense_image_data_param",
        "LossParameter": "weight_by_label_freqs class_weighting",
        "DropoutParameter": "sample_weights_test",
    },
    "NVIDIA (NVIDIA/caffe)": {
        "LayerParameter": "detectnet_groundtruth_param detectnet_augmentation_param forward_type backward_type forward_math "
        "backward_math",
        "NetParameter": "default_forward_type default_backward_type default_forward_math default_backward_math global_grad_scale "
        "reduce_buckets",
        "BatchNormParameter": "scale_filler bias_filler scale_bias",
        "SolverParameter": "test_epoch_size test_interval_epoch max_epoch epoch_size per_parameter_reduce min_lr rampup_interval "
        "rampup_lr store_blobs_in_old_format",
    },
}

#: layer types whose settings a fork keeps under a number of the reference's: the reference's field, and the fork's
_TAKEN = {"Upsample": ("embed_param", "upsample_param"), "Interp": ("input_param", "interp_param")}
TAKEN = tuple(theirs for theirs, _ in _TAKEN.values())

_ITEM = re.compile(
    r"(?P<close>\})|(?P<kind>message|enum|extend) (?P<name>\w+) \{"
    r"|(?P<label>optional|repeated) (?P<type>[\w.]+) (?P<field>\w+) = (?P<number>\d+)(?: \[default = (?P<default>\S+)\])?;"
    r"|(?P<value>\w+) = (?P<at>\d+);"
)
_SCALARS = {"bool", "bytes", "float", "int32", "uint32"}


@functools.cache
def wide_file() -> FileDescriptorProto:
    """caffe.proto with all that the forks add."""
    file = FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    for schema in FORKS.values():
        _read(schema, file)
    return file


def _read(schema: str, file: FileDescriptorProto) -> None:
    """Add to ``file`` what a fork's schema says; types come before their use."""
    messages = {message.name: message for message in file.message_type}
    open_items: list[Any] = [file]
    for item in _ITEM.finditer(schema):
        inside = open_items[-1]
        if item["close"]:
            open_items.pop()
        elif item["kind"] == "extend":
            open_items.append(messages[item["name"]])
        elif item["kind"] == "message":
            messages[item["name"]] = file.message_type.add(name=item["name"])
            open_items.append(messages[item["name"]])
        elif item["kind"]:
            open_items.append(inside.enum_type.add(name=item["name"]))
        elif item["label"]:
            _add_field(inside, item, item["type"] in messages)
        else:
            inside.value.add(name=item["value"], number=int(item["at"]))


def _add_field(message: DescriptorProto, item: re.Match[str], is_message: bool) -> None:
    taken = {field.number for field in message.field}
    number = int(item["number"])
    field = message.field.add(name=item["field"], number=number + MOVED if number in taken else number)
    field.label = FieldDescriptorProto.Label.Value(f"LABEL_{item['label'].upper()}")
    kind = item["type"] if item["type"] in _SCALARS else "message" if is_message else "enum"
    field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if kind in ("message", "enum"):
        field.type_name = f".caffe.{item['type']}"
    if item["default"]:
        field.default_value = item["default"]


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wide_file().SerializeToString())
    return pool


@functools.cache
def _wide_class(full_name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))


@functools.cache
def _mentions() -> re.Pattern[str]:
    """Where a text may have a field of a fork."""
    names = [
        field.name
        for message in wide_file().message_type
        if message.name in caffe_pb2.DESCRIPTOR.message_types_by_name
        for field in message.field
        if field.name not in caffe_pb2.DESCRIPTOR.message_types_by_name[message.name].fields_by_name
    ]
    return re.compile(rf"\b(?:{'|'.join(names)})\s*[:{{<]")


def widen(message: Message, text: str) -> Message | None:
    """An empty message of ``message``'s type in the wide schema; None where ``text`` has no fork's field."""
    if message.DESCRIPTOR.file is not caffe_pb2.DESCRIPTOR or not _mentions().search(text):
        return None
    return _wide_class(message.DESCRIPTOR.full_name)()


def named(message: Message) -> Any:
    """The message in the wide schema, where the fields of forks have their names."""
    if message.DESCRIPTOR.file is not caffe_pb2.DESCRIPTOR:
        return message
    return _wide_class(message.DESCRIPTOR.full_name).FromString(message.SerializePartialToString())


def owner(message: str, field: str) -> str | None:
    """The fork that has this field, when it means nothing here."""
    for fork, refused in REFUSED.items():
        if field in refused.get(message, "").split():
            return fork
    return None


def move_taken(layer: Any) -> None:
    """Move the settings of a fork's layer, in a file of that fork, from the reference's number to the one they have here.

    ``layer`` is a LayerParameter whose ``TAKEN`` fields are bytes, as they stand in the file.
    """
    reference, ours = _TAKEN.get(layer.type, ("", ""))
    if reference and layer.HasField(reference):
        raw = getattr(layer, reference)
        layer.ClearField(reference)
        number = _wide_class("caffe.LayerParameter").DESCRIPTOR.fields_by_name[ours].number
        layer.MergeFromString(_varint(number << 3 | 2) + _varint(len(raw)) + raw)


def _varint(value: int) -> bytes:
    """Protobuf's bytes of a whole number."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
