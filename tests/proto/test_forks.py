"""Fields of Caffe's forks: read by name, kept under each fork's own number, printed again."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2

from caffecli.errors import SpecError
from caffecli.formats import caffemodel
from caffecli.proto import caffe_pb2, forks
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.spec import text

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
    out = forks.named(net.layer[4]).detection_output_param
    assert (out.num_classes, out.code_type, out.keep_top_k, out.share_location) == (3, 2, -1, True)
    assert forks.named(net.layer[3]).upsample_param.scale == 2


def test_the_plain_messages_have_no_field_of_a_fork():
    names = {field.name for field in LayerParameter.DESCRIPTOR.fields}
    assert not names & {"permute_param", "norm_param", "interp_param"}


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
        ("BlobProto", "raw_data_type", 10),
        ("BlobProto", "raw_data", 12),
    ],
)
def test_numbers_are_the_forks_own(message, field, number):
    wide = {each.name: each for each in forks.wide_file().message_type}
    assert {each.name: each.number for each in wide[message].field}[field] == number


def test_the_reference_is_unchanged_in_the_wide_schema():
    wide = {message.name: message for message in forks.wide_file().message_type}
    plain = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(plain)
    for message in plain.message_type:
        assert list(wide[message.name].field)[: len(message.field)] == list(message.field)
        numbers = [field.number for field in wide[message.name].field]
        assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "layer { multibox_loss_param { } }",
            "<string>:1:9: unknown field 'multibox_loss_param' in LayerParameter; it is one of SSD",
        ),
        ("layer { bn_param { } }", "it is one of SegNet (alexgkendall/caffe-segnet)"),
        ("default_forward_type: FLOAT16", "it is one of NVIDIA (NVIDIA/caffe)"),
        ("layer { detection_output_param { save_output_param { } } }", "in DetectionOutputParameter; it is one of SSD"),
        ("layer { permute_param { ordr: 1 } }", "<string>:1:25: unknown field 'ordr' in PermuteParameter; did you mean 'order'?"),
        ("layer { name: 'x' permute_param { order: 'a' } }", "<string>:1:42: expected a whole number"),
    ],
)
def test_errors_say_whose_a_field_is(source, said):
    with pytest.raises(SpecError) as error:
        text.parse(source, NetParameter())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_in_a_forks_file_are_known_by_the_layers_type(tmp_path):
    """SegNet's upsample_param has the number of embed_param, DeepLab's interp_param that of input_param."""
    segnet = b"\x0a\x01u\x12\x08Upsample\xca\x08\x06\x08\x02\x10\x05\x18\x03"  # name, type, 137 { 1: 2  2: 5  3: 3 }
    deeplab = b"\x0a\x01i\x12\x06Interp\xfa\x08\x02\x18\x03"  # name, type, 143 { 3: 3 }
    plain = LayerParameter(name="in", type="Input")
    plain.input_param.shape.add(dim=[4])
    layers = (segnet, deeplab, plain.SerializeToString())
    (tmp_path / "a.caffemodel").write_bytes(b"".join(b"\xa2\x06" + bytes([len(layer)]) + layer for layer in layers))
    net = caffemodel.read_net(tmp_path / "a.caffemodel")
    upsample = forks.named(net.layer[0]).upsample_param
    assert (upsample.scale, upsample.scale_h, upsample.scale_w) == (2, 5, 3)
    assert forks.named(net.layer[1]).interp_param.zoom_factor == 3
    assert not net.layer[0].HasField("embed_param")
    assert net.layer[2] == plain
