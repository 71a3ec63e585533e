"""Fields of Caffe's forks: read by name, kept in files under each fork's own number, printed again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from caffecli import logs
from caffecli.errors import FormatError, SpecError
from caffecli.formats import caffemodel
from caffecli.layers import registry
from caffecli.net import weights
from caffecli.net.net import Net
from caffecli.proto import caffe_pb2, encoding, forks, unsupported, wire
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.proto.fork_numbers import FIELDS
from caffecli.proto.fork_types import OTHERS, TYPES
from caffecli.spec import text
from caffecli.spec.upgrade import upgrade_net

ROOT = Path(__file__).parents[2]
MESSAGES = caffe_pb2.DESCRIPTOR.message_types_by_name

NET = """name: "forks"
layer {
  name: "permute"
  type: "Permute"
  permute_param {
    order: 0
    order: 2
    order: 3
    order: 1
  }
}
layer {
  name: "input"
  type: "Input"
  input_param {
    shape {
      dim: 3
    }
  }
}
layer {
  name: "interp"
  type: "Interp"
  interp_param {
    zoom_factor: 3
    pad_end: -1
  }
}
layer {
  name: "upsample"
  type: "Upsample"
  upsample_param {
    scale_h: 5
    scale_w: 3
  }
}
layer {
  name: "out"
  type: "DetectionOutput"
  detection_output_param {
    num_classes: 3
    nms_param {
      nms_threshold: 0.45
      top_k: 400
    }
    code_type: CENTER_SIZE
  }
}
"""


def test_text_comes_back_as_it_was():
    net = text.parse(NET, NetParameter())
    assert text.format(net) == NET
    assert text.format(NetParameter.FromString(net.SerializeToString())) == NET


def test_settings_are_read_with_their_defaults():
    net = text.parse(NET, NetParameter())
    out = net.layer[4].detection_output_param
    assert (out.num_classes, out.code_type, out.keep_top_k, out.share_location) == (3, 2, -1, True)
    assert net.layer[3].upsample_param.scale == 2


@pytest.mark.parametrize(
    ("message", "field", "number"),
    [
        ("LayerParameter", "permute_param", 202),
        ("LayerParameter", "prior_box_param", 203),
        ("LayerParameter", "detection_output_param", 204),
        ("LayerParameter", "norm_param", 206),
        ("LayerParameter", "shuffle_channel_param", 164),
        ("LayerParameter", "roi_pooling_param", 8266711),
        ("LayerParameter", "smooth_l1_loss_param", 8266712),
        ("LayerParameter", "upsample_param", 137 + forks.MOVED),
        ("LayerParameter", "interp_param", 143 + forks.MOVED),
        ("LayerParameter", "relu6_param", 211),
        ("LayerParameter", "bn_param", 45),
        ("V1LayerParameter", "interp_param", 43),
        ("DropoutParameter", "sample_weights_test", 2),
        ("DropoutParameter", "scale_train", 2 + forks.MOVED),
        ("PoolingParameter", "ceil_mode", 13 + forks.MOVED),
        ("BlobProto", "raw_data_type", 10),
        ("BlobProto", "raw_diff_type", 11),
        ("BlobProto", "raw_data", 12),
        ("BlobProto", "raw_diff", 13),
    ],
)
def test_numbers_are_the_forks_own(message, field, number):
    assert MESSAGES[message].fields_by_name[field].number == number


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("PermuteParameter", "order=1"),
        ("NormalizeParameter", "across_spatial=1 scale_filler=2 channel_shared=3 eps=4"),
        (
            "PriorBoxParameter",
            "min_size=1 max_size=2 aspect_ratio=3 flip=4 clip=5 variance=6 img_size=7 img_h=8 img_w=9 step=10 "
            "step_h=11 "
            "step_w=12 offset=13",
        ),
        ("NonMaximumSuppressionParameter", "nms_threshold=1 top_k=2 eta=3"),
        (
            "DetectionOutputParameter",
            "num_classes=1 share_location=2 background_label_id=3 nms_param=4 save_output_param=5 code_type=6 "
            "keep_top_k=7 "
            "variance_encoded_in_target=8 confidence_threshold=9",
        ),
        (
            "SaveOutputParameter",
            "output_directory=1 output_name_prefix=2 output_format=3 label_map_file=4 name_size_file=5 "
            "num_test_image=6 "
            "resize_param=7",
        ),
        (
            "BNParameter",
            f"scale_filler=1 shift_filler=2 bn_mode=3 slope_filler={1 + forks.MOVED} bias_filler={2 + forks.MOVED} "
            f"momentum={3 + forks.MOVED} eps=4 frozen=5 engine=6",
        ),
        ("UpsampleParameter", "scale=1 scale_h=2 scale_w=3 pad_out_h=4 pad_out_w=5 upsample_h=6 upsample_w=7"),
        ("InterpParameter", "height=1 width=2 zoom_factor=3 shrink_factor=4 pad_beg=5 pad_end=6"),
        ("ShuffleChannelParameter", "group=1"),
        ("ROIPoolingParameter", "pooled_h=1 pooled_w=2 spatial_scale=3"),
        ("SmoothL1LossParameter", "sigma=1"),
    ],
)
def test_numbers_inside_the_forks_messages(message, fields):
    known = {f"{field.name}={field.number}" for field in MESSAGES[message].fields}
    assert set(fields.split()) <= known


def test_every_field_has_a_number_of_its_own():
    for message in MESSAGES.values():
        numbers = [field.number for field in message.fields]
        assert len(numbers) == len(set(numbers)), message.name


def test_users_of_forks_find_their_messages_by_name():
    net = NetParameter()
    text_format.Merge("layer { transform_param { resize_param { height: 300 resize_mode: WARP } } }", net)
    assert net.layer[0].transform_param.resize_param.height == 300
    labels = caffe_pb2.LabelMap()
    text_format.Merge('item { name: "dog" label: 12 display_name: "dog" }', labels)
    assert labels.item[0].label == 12
    datum = caffe_pb2.AnnotatedDatum(type=caffe_pb2.AnnotatedDatum.BBOX)
    datum.annotation_group.add(group_label=3).annotation.add().bbox.xmin = 0.5
    assert datum.SerializeToString() == bytes.fromhex("1000 1a0b 0803 1207 1205 0d0000003f")
    assert dict(caffe_pb2.AnnotatedDatum.AnnotationType.items()) == {"BBOX": 0, "BBOXandSeg": 1, "LANE": 2}
    assert caffe_pb2.MultiBoxLossParameter().neg_pos_ratio == 3 and caffe_pb2.PriorBoxParameter.CENTER_SIZE == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "vstep_lr: 1",
            "unknown field 'vstep_lr' in SolverParameter; it is one of SPP-net (ShaoqingRen/SPP_net), which is not "
            "here",
        ),
        (
            "layers { layer { conv_param { } } }",
            "unknown field 'conv_param' in V0LayerParameter; it is one of SPP-net (ShaoqingRen/SPP_net), which is not "
            "here",
        ),
        (
            "item { name: 'dog' }",
            "unknown field 'item' in NetParameter; it is one of LabelMap: is this a label map file?",
        ),
        (
            "layers { type: 'Softmax' }",
            "1:16: expected a type of the old 'layers', as CONVOLUTION; "
            "for 'Softmax' write layer { ... }, the present form",
        ),
        ("layers { type: 'SOFTMAX' }", "expected SOFTMAX, a name without quotes"),
        (
            "layers { type: RELU permute_param { order: 1 } }",
            "<string>:1:21: unknown field 'permute_param' in V1LayerParameter; the old 'layers' have no such field: "
            "write all as "
            'layer { type: "Type" ... }, the present form',
        ),
        (
            "layer { permute_param { ordr: 1 } }",
            "<string>:1:25: unknown field 'ordr' in PermuteParameter; did you mean 'order'?",
        ),
        ("layer { name: 'x' permute_param { order: 'a' } }", "<string>:1:42: expected a whole number"),
        ("layer { kernel_size: 3 }", "it belongs in convolution_param or pooling_param"),  # not where forks have it
    ],
)
def test_errors_say_whose_a_field_is(source, said):
    message = caffe_pb2.SolverParameter() if source.startswith("vstep") else NetParameter()
    with pytest.raises(SpecError) as error:
        text.parse(source, message)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_tables_name_fields_that_are_known():
    for fork, messages in unsupported.FIELDS.items():
        assert fork in forks.FORKS
        for message, names in messages.items():
            assert set(names.split()) <= set(MESSAGES[message].fields_by_name), (fork, message)
    for message, names in unsupported.HOW.items():
        assert set(names.split()) <= set(MESSAGES[message].fields_by_name), message
        assert not any(forks.of_unsupported(message, name) for name in names.split())
    for fork, messages in unsupported.NAMES.items():
        assert forks.title(fork)
        for message, names in messages.items():
            if message != "LayerType":
                known = {name: MESSAGES[message].fields_by_name.get(name) for name in names.split()}
                of_layer = message in ("LayerParameter", "V1LayerParameter")
                assert all((field is not None) == of_layer for field in known.values()), (fork, message)
    assert set(TYPES) <= set(forks.FORKS) | set(OTHERS)


def test_each_field_of_a_fork_is_read_or_listed():
    """A field of a fork in one of the reference's messages, which no code names, must stand among those that are "
    "not here."""
    code = "".join(
        path.read_text()
        for room in ("layers", "formats", "net", "solver")
        for path in ROOT.glob(f"caffecli/{room}/**/*.py")
    )
    named = set(re.findall(r"\b\w+\b", code))
    for name, message in MESSAGES.items():
        if all(not forks.is_of_reference(name, field.number) for field in message.fields):
            continue  # a fork's own, which comes with its layer
        for field in message.fields:
            if (
                forks.is_of_reference(name, field.number)
                or not forks.is_read(name, field.name)
                or field.message_type is not None
            ):
                continue
            if name not in ("BlobProto", "Datum", "LayerParameter", "SolverState", "V1LayerParameter"):
                assert field.name in named, f"{name}.{field.name} is neither read nor listed as unsupported"


def test_a_type_of_a_fork_is_said_to_be_its():
    with pytest.raises(SpecError) as error:
        registry.create(LayerParameter(name="spot", type="Hotspot"))
    assert str(error.value) == (
        "layer 'spot': unknown type 'Hotspot'; it is one of NormFace and AM-Softmax (happynear/caffe-windows), which "
        "is not here"
    )
    with pytest.raises(SpecError, match=r"it is one of NVIDIA \(NVIDIA/caffe\) or FlowNet \(lmb-freiburg/flownet2\)"):
        registry.create(LayerParameter(name="l1", type="L1Loss"))


INPUT = LayerParameter(name="in", type="Input")
INPUT.input_param.shape.add(dim=[4])
#: as SegNet and DeepLab write them: upsample_param has the number of embed_param, interp_param that of input_param
LAYERS = (
    b"\x0a\x01u\x12\x08Upsample\xca\x08\x06\x08\x02\x10\x05\x18\x03",  # name, type, 137 { 1: 2  2: 5  3: 3 }
    b"\x0a\x01i\x12\x06Interp\xfa\x08\x02\x18\x03",  # name, type, 143 { 3: 3 }
    INPUT.SerializeToString(),
)
FILE = b"".join(b"\xa2\x06" + bytes([len(layer)]) + layer for layer in LAYERS)


def test_settings_in_a_forks_file_are_known_by_the_layers_type(tmp_path):
    (tmp_path / "a.caffemodel").write_bytes(FILE)
    net = caffemodel.read_net(tmp_path / "a.caffemodel")
    assert wire.read_net(FILE) == net
    upsample = net.layer[0].upsample_param
    assert (upsample.scale, upsample.scale_h, upsample.scale_w) == (2, 5, 3)
    assert net.layer[1].interp_param.zoom_factor == 3
    assert not net.layer[0].HasField("embed_param")
    assert net.layer[2] == INPUT


def test_files_are_written_with_the_forks_own_numbers(tmp_path):
    net = wire.read_net(FILE)
    assert net is not None
    assert wire.write_net(net) == FILE
    caffemodel.write(tmp_path / "a.caffemodel", net, {"u": [np.ones(2, np.float32)]})
    written = NetParameter.FromString((tmp_path / "a.caffemodel").read_bytes())  # as the reference reads it
    assert [layer.HasField("embed_param") for layer in written.layer] == [True, False, False]
    assert [layer.HasField("input_param") for layer in written.layer] == [False, True, True]
    assert caffemodel.read_net(tmp_path / "a.caffemodel") == net
    assert caffemodel.read(tmp_path / "a.caffemodel")["u"][0].tolist() == [1, 1]


def test_files_with_the_moved_numbers_are_read_too():
    net = wire.read_net(FILE)
    assert net is not None
    assert wire.read_net(net.SerializeToString()) == net


def test_damaged_settings_are_no_net(tmp_path):
    broken = b"\x0a\x01u\x12\x08Upsample\xca\x08\x01\xff"
    file = b"\xa2\x06" + bytes([len(broken)]) + broken
    assert wire.read_net(file) is None
    (tmp_path / "a.caffemodel").write_bytes(file)
    with pytest.raises(
        FormatError,
        match=r"a.caffemodel' is damaged: the settings of one of its layers cannot be "
        "read",
    ):
        caffemodel.read_net(tmp_path / "a.caffemodel")


def test_weights_are_read_whatever_a_fork_that_nobody_knows_has_set(tmp_path, monkeypatch):
    """Its field 137 is a text, where SegNet's and the reference's are messages."""
    said: list[str] = []
    monkeypatch.setattr(logs, "warning", lambda source, words: said.append(words))
    blob = b"\x3a\x0a\x2a\x04\x00\x00\x40\x40\x3a\x02\x08\x01"  # blobs { data: 3 shape { dim: 1 } }
    layer = b"\x0a\x01u\x12\x08Upsample\xca\x08\x03abc" + blob
    path = tmp_path / "a.caffemodel"
    path.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    net, weights = caffemodel.read_with_net(path)
    assert net == text.parse('layer { name: "u" type: "Upsample" }', NetParameter())
    assert weights["u"][0].tolist() == [3]
    assert said == [f"{str(path)!r}: settings that cannot be read are left out: those of 'u'"]


V1_OF_DEEPLAB = """layers { name: "c" type: CONVOLUTION top: "y" convolution_param { num_output: 1 bias_term: false }
  blobs { num: 1 channels: 1 height: 1 width: 1 data: 3 } }
layers { name: "l" type: SOFTMAX_LOSS bottom: "y" top: "l" softmaxloss_param { ignore_label: 21 } }"""
V0_OF_NOBODY = """layers { layer { name: "c" type: "conv" blobs { num: 1 channels: 1 height: 1 width: 1 data: 3 } } }
layers { layer { name: "l" type: "of_nobody" } }"""


@pytest.mark.parametrize("source", [V1_OF_DEEPLAB, V0_OF_NOBODY])
def test_weights_of_old_files_of_forks_are_loaded(source, tmp_path):
    (tmp_path / "a.caffemodel").write_bytes(wire.write_net(text.parse(source, NetParameter())))
    net = Net(
        text.parse(
            """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 1 dim: 1 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "y"
          convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }""",
            NetParameter(),
        )
    )
    weights.load(net, tmp_path / "a.caffemodel")
    assert net.layer("c").blobs[0].item() == 3


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ("zoom_factor: 8", "zoom_factor: 8"),
        ("shrink_factor: 2", "shrink_factor: 2"),
        ("zoom_factor: 3 shrink_factor: 2", "zoom_factor: 3"),
    ],
)
def test_deeplabs_old_interp_is_upgraded(settings, kept):
    old = f'layers {{ name: "i" type: INTERP interp_param {{ {settings} }} }} layers {{ name: "r" type: RELU }}'
    new = f'layer {{ name: "i" type: "Interp" interp_param {{ {kept} }} }} layer {{ name: "r" type: "ReLU" }}'
    assert upgrade_net(text.parse(old, NetParameter())) == text.parse(new, NetParameter())


def filled(message: Any, fork: str, depth: int = 0) -> Any:
    """The message with a value in each field that a fork has."""
    for field in message.DESCRIPTOR.fields:
        owners = [own for numbers in FIELDS.get(message.DESCRIPTOR.name, {}).values() for own in numbers]
        if (fork, field.number) not in owners or field.type == field.TYPE_GROUP:
            continue
        if field.message_type is not None:
            inner = getattr(message, field.name)
            inner = inner.add() if hasattr(inner, "add") else inner
            inner.SetInParent()
            if depth < 3:
                filled(inner, fork, depth + 1)
            continue
        value: Any = {"string": "s", "bytes": b"b"}.get(
            {field.TYPE_STRING: "string", field.TYPE_BYTES: "bytes"}.get(field.type, ""), 1
        )
        if field.enum_type is not None:
            value = field.enum_type.values[-1].number
        if hasattr(getattr(message, field.name), "extend"):
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


def net_of(fork: str) -> NetParameter:
    """A net with all of a fork: each of its types, and each field that it adds, in layers of their own."""
    net = NetParameter(layer=[LayerParameter(name=name, type=name) for name in TYPES.get(fork, "").split()])
    filled(net, fork)
    for field in LayerParameter.DESCRIPTOR.fields:
        if field.message_type is None or field.name in ("blobs", "include", "exclude"):
            continue
        layer = LayerParameter(name=field.name, type=field.message_type.name.removesuffix("Parameter"))
        inner = getattr(layer, field.name)
        filled(inner.add() if hasattr(inner, "add") else inner, fork)
        owned = any((fork, field.number) in owners for owners in FIELDS["LayerParameter"].values())
        if owned or any(item.ListFields() for item in ([inner] if isinstance(inner, Message) else inner)):
            net.layer.append(layer)
    return net


@pytest.mark.parametrize("fork", forks.FORKS)
def test_all_of_a_fork_goes_into_a_file_and_comes_back(fork):
    net = net_of(fork)
    data = wire.write_net(net)
    assert wire.read_net(data) == net


def test_all_forks_together_come_back():
    net = NetParameter(name="all")
    for fork in forks.FORKS:
        net.layer.extend(net_of(fork).layer)
    assert wire.read_net(wire.write_net(net)) == net


def numbers(data: bytes, *path: int) -> list[int]:
    """The numbers of the fields in a binary message, or in the first message in it at a path of numbers."""
    start, end = 0, len(data)
    for step in path:
        start, end = next(
            (value, stop) for number, _, _, value, stop in encoding.fields(data, start, end) if number == step
        )
    return [number for number, *_ in encoding.fields(data, start, end)]


@pytest.mark.parametrize(
    ("net", "path", "written"),
    [
        # a layer's settings, by its type: SegNet's number is embed_param's, DeepLab's input_param's,
        # caffe-face's swish_param's
        ('layer { type: "Upsample" upsample_param { scale: 2 } }', (100,), [2, 137]),
        ('layer { type: "Interp" interp_param { zoom_factor: 2 } }', (100,), [2, 143]),
        ('layer { type: "CenterLoss" center_loss_param { num_output: 2 } }', (100,), [2, 147]),
        ('layer { type: "MarginInnerProduct" margin_inner_product_param { num_output: 2 } }', (100,), [2, 147]),
        ('layer { type: "LSTM" recurrent_param { num_output: 2 } }', (100,), [2, 146]),
        # Faster R-CNN's scale_train has the number of
        # SegNet's sample_weights_test; what else is in the net tells which
        (
            'layer { type: "Dropout" dropout_param { scale_train: false } } layer { type: "ROIPooling" }',
            (100, 108),
            [2],
        ),
        (
            'layer { type: "Dropout" dropout_param { sample_weights_test: true } } layer { type: "Upsample" }',
            (100, 108),
            [2],
        ),
        # SegNet's class weights stand where others have their normalisation; a net of neither keeps the
        # reference's number
        ('layer { loss_param { weight_by_label_freqs: true } } layer { type: "DenseImageData" }', (100, 101), [3]),
        ("layer { loss_param { normalization: VALID } }", (100, 101), [3]),
        # R-FCN has NONE = 4 and PRE_FIXED = 3
        ("layer { loss_param { pre_fixed_normalizer: 128 } } layer { psroi_pooling_param { } }", (100, 101), [4]),
        # ShuffleNet's and SSD's own
        ('layer { type: "ShuffleChannel" shuffle_channel_param { group: 3 } }', (100,), [2, 164]),
        ('layer { type: "Permute" permute_param { order: 3 } }', (100,), [2, 202]),
        # NVIDIA's are numbers where the reference has messages
        ('layer { type: "ReLU" forward_type: FLOAT16 }', (100,), [2, 145]),
    ],
)
def test_files_carry_the_numbers_of_the_net_s_fork(net, path, written):
    read = text.parse(net, NetParameter())
    data = wire.write_net(read)
    assert numbers(data, *path) == written
    assert wire.read_net(data) == read


def test_a_fork_without_a_sign_of_it_keeps_our_number():
    """Faster R-CNN's scale_train alone would be read as SegNet's sample_weights_test, which has the same number."""
    net = text.parse('layer { type: "Dropout" dropout_param { scale_train: false } }', NetParameter())
    data = wire.write_net(net)
    assert numbers(data, 100, 108) == [2 + forks.MOVED]
    assert wire.read_net(data) == net


def test_values_of_enums_are_the_forks_own_too():
    """In R-FCN's files 3 is PRE_FIXED, and NONE is 4; in the reference's 3 is NONE."""
    plain = text.parse("layer { loss_param { normalization: NONE } }", NetParameter())
    assert wire.write_net(plain) == plain.SerializeToString()
    assert plain.layer[0].SerializeToString().endswith(b"\x18\x03")
    rest = "layer { box_annotator_ohem_param { } psroi_pooling_param { } }"
    for name, number in (("NONE", 4), ("PRE_FIXED", 3)):
        net = text.parse(f"layer {{ loss_param {{ normalization: {name} }} }} {rest}", NetParameter())
        data = wire.write_net(net)
        assert data[data.index(b"\xaa\x06") + 3 :][:2] == bytes([0x18, number])
        assert wire.read_net(data) == net


def encoded(number: int, value: int | float | bytes) -> bytes:
    """A field of a binary message: a whole number, a float, or a text or message."""
    if isinstance(value, bytes):
        return encoding.varint(number << 3 | 2) + encoding.varint(len(value)) + value
    if isinstance(value, float):
        return encoding.varint(number << 3 | 5) + np.float32(value).tobytes()
    return encoding.varint(number << 3) + encoding.varint(value)


def layer(layer_type: bytes, *fields: bytes) -> bytes:
    return encoded(100, encoded(2, layer_type) + b"".join(fields))


def test_a_batch_norm_is_its_fork_s_by_what_it_holds():
    """TSN's BN has the number of embed_param; a frozen one is not SegNet's, nor then are those that do not say so."""
    fillers = encoded(1, encoded(2, 1.0)) + encoded(2, encoded(2, 0.5))
    data = layer(b"BN", encoded(137, fillers)) + layer(b"BN", encoded(137, fillers + encoded(5, 1)))
    net = wire.read_net(data)
    assert net is not None
    for each in net.layer:
        assert (each.bn_param.slope_filler.value, each.bn_param.bias_filler.value) == (1, 0.5)
        assert not each.bn_param.HasField("scale_filler")
    assert net.layer[1].bn_param.frozen


def test_settings_of_no_fork_that_is_known_stay_unknown():
    """149 is many forks' number, each for something else: of a layer that is nobody's, nothing tells which."""
    data = layer(b"Nobodys", encoded(149, encoded(15, 3.0)))
    net = wire.read_net(data)
    assert net is not None
    assert [field.name for field, _ in net.layer[0].ListFields()] == ["type"]
    assert wire.write_net(net) == data


def test_a_number_of_the_reference_is_its_but_for_signs():
    pool = layer(b"Pooling", encoded(121, encoded(13, 0)))
    plain = wire.read_net(pool)
    assert plain is not None and plain.layer[0].pooling_param.HasField("round_mode")
    other = wire.read_net(pool + layer(b"PSROIPooling", encoded(10001, encoded(1, 0.5))))
    assert other is not None and not other.layer[0].pooling_param.HasField("round_mode")
    assert other.layer[0].pooling_param.HasField("ceil_mode") and not other.layer[0].pooling_param.ceil_mode


@pytest.mark.parametrize(
    ("net", "path", "number"),
    [
        (
            'layer { type: "BoxOutput" box_output_param { } } '
            'layer { type: "ROIPooling" roi_pooling_param { pad_ratio: 1 } }',
            b"ROI",
            147,
        ),
        (
            'layer { type: "Interp" } '
            'layer { type: "BN" bn_param { slope_filler { } momentum: 0.9 eps: 0.1 frozen: true } }',
            b"BN",
            152,
        ),
    ],
)
def test_the_number_is_that_of_the_fork_that_the_net_shows(net, path, number):
    read = text.parse(net, NetParameter())
    data = wire.write_net(read)
    at = next((v, s) for n, _, _, v, s in encoding.fields(data, 0, len(data)) if n == 100 and path in data[v:s])
    assert numbers(data[slice(*at)])[-1] == number
    assert wire.read_net(data) == read


@pytest.mark.parametrize("data", [b"\xa2\x06", b"\xa2\x06\x05\x0a", b"\x0b", b"\xff" * 12, b"\xa2\x06\x02\x0a\x7f"])
def test_damaged_nets_are_none(data):
    assert wire.read_net(data) is None
