"""Fields of Caffe's forks: read by name, kept under each fork's own number, printed again."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from caffecli.errors import FormatError, SpecError
from caffecli.formats import caffemodel
from caffecli.layers import registry
from caffecli.proto import caffe_pb2, fork_names, forks
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.spec import text
from caffecli.spec.upgrade import upgrade_net

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
    wide = {each.name: each for each in forks.wide_file().message_type}
    assert {each.name: each.number for each in wide[message].field}[field] == number


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("PermuteParameter", "order=1"),
        ("NormalizeParameter", "across_spatial=1 scale_filler=2 channel_shared=3 eps=4"),
        (
            "PriorBoxParameter",
            "min_size=1 max_size=2 aspect_ratio=3 flip=4 clip=5 variance=6 img_size=7 img_h=8 img_w=9 step=10 step_h=11 "
            "step_w=12 offset=13",
        ),
        ("NonMaximumSuppressionParameter", "nms_threshold=1 top_k=2 eta=3"),
        (
            "DetectionOutputParameter",
            "num_classes=1 share_location=2 background_label_id=3 nms_param=4 save_output_param=5 code_type=6 keep_top_k=7 "
            "variance_encoded_in_target=8 confidence_threshold=9",
        ),
        (
            "SaveOutputParameter",
            "output_directory=1 output_name_prefix=2 output_format=3 label_map_file=4 name_size_file=5 num_test_image=6 "
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
    wide = {each.name: each for each in forks.wide_file().message_type}
    assert " ".join(f"{field.name}={field.number}" for field in wide[message].field) == fields


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
        ("layer { dense_image_data_param { } }", "it is one of SegNet (alexgkendall/caffe-segnet)"),
        ("default_forward_type: FLOAT16", "it is one of NVIDIA (NVIDIA/caffe)"),
        ("layer { detection_output_param { visualize: true } }", "in DetectionOutputParameter; it is one of SSD"),
        ("layer { dropout_param { random_seed: 1 } }", "it is one of NVIDIA (NVIDIA/caffe), of which no layer here makes use"),
        ("layer { reorg_param { stride: 2 } }", "in LayerParameter; it is one of MobileNet-YOLO (eric612/MobileNet-YOLO)"),
        ("layer { norm_param { fix_scale: true } }", "in NormalizeParameter; it is one of ParseNet"),
        (
            "layer { psroi_pooling_param { } }",
            "in LayerParameter; it is one of R-FCN (daijifeng001/caffe-rfcn), of which no layer",
        ),
        (
            "layer { detection_evaluate_param { } }",
            "it is one of SSD (weiliu89/caffe), of which no layer here makes use: remove it",
        ),
        ("layer { convolution_param { hole: 2 } }", "in ConvolutionParameter; it is DeepLab's: write dilation"),
        (
            "layers { type: VIDEO_DATA }",
            "unknown value 'VIDEO_DATA' for LayerType; it is one of C3D (facebook/C3D), of which no layer here makes "
            "use: remove it",
        ),
        (
            "item { name: 'dog' }",
            "<string>:1:1: unknown field 'item' in NetParameter; it is one of SSD's label maps: this is no net",
        ),
        ("layers { type: CROP }", "for LayerType; the old 'layers' have no such type: write all as layer { type: \"Crop\" ... }"),
        ("layer { convolution_param { engine: MKLDNN } }", "unknown value 'MKLDNN' for Engine; it is one of Intel (intel/caffe)"),
        (
            "layers { type: 'Softmax' }",
            "1:16: expected a type of the old 'layers', as CONVOLUTION; for 'Softmax' write layer { ... }, the present form",
        ),
        ("layers { type: 'SOFTMAX' }", "expected SOFTMAX, a name without quotes"),
        (
            "layers { type: RELU permute_param { order: 1 } }",
            "<string>:1:21: unknown field 'permute_param' in V1LayerParameter; the old 'layers' have no such field: write all as "
            'layer { type: "Type" ... }, the present form',
        ),
        ("layer { permute_param { ordr: 1 } }", "<string>:1:25: unknown field 'ordr' in PermuteParameter; did you mean 'order'?"),
        ("layer { name: 'x' permute_param { order: 'a' } }", "<string>:1:42: expected a whole number"),
    ],
)
def test_errors_say_whose_a_field_is(source, said):
    with pytest.raises(SpecError) as error:
        text.parse(source, NetParameter())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_refused_is_not_here():
    """A field, value or type that has come to mean something leaves the table of those that do not."""
    wide = {message.name: {field.name for field in message.field} for message in forks.wide_file().message_type}
    for fork in fork_names.REFUSED.values():
        for message, fields in fork.items():
            assert not wide[message] & set(fields.split()), message
    refused = {name for names in fork_names.REFUSED_TYPES.values() for name in names.split()}
    assert not refused & set(registry.types())


def test_a_type_of_a_fork_is_said_to_be_its():
    with pytest.raises(SpecError) as error:
        registry.create(LayerParameter(name="mbox_loss", type="MultiBoxLoss"))
    assert str(error.value) == (
        "layer 'mbox_loss': unknown type 'MultiBoxLoss'; it is one of SSD (weiliu89/caffe), which is not here: remove the layer, "
        "or write it as a Python layer"
    )
    with pytest.raises(SpecError, match=r"it is one of NVIDIA \(NVIDIA/caffe\) and FlowNet \(lmb-freiburg/flownet2\)"):
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
    assert forks.read_net(FILE) == net
    upsample = forks.named(net.layer[0]).upsample_param
    assert (upsample.scale, upsample.scale_h, upsample.scale_w) == (2, 5, 3)
    assert forks.named(net.layer[1]).interp_param.zoom_factor == 3
    assert not net.layer[0].HasField("embed_param")
    assert net.layer[2] == INPUT


def test_files_are_written_with_the_forks_own_numbers(tmp_path):
    net = forks.read_net(FILE)
    assert net is not None
    assert forks.write_net(net) == FILE
    caffemodel.write(tmp_path / "a.caffemodel", net, {"u": [np.ones(2, np.float32)]})
    written = NetParameter.FromString((tmp_path / "a.caffemodel").read_bytes())  # as the reference reads it
    assert [layer.HasField("embed_param") for layer in written.layer] == [True, False, False]
    assert [layer.HasField("input_param") for layer in written.layer] == [False, True, True]
    assert caffemodel.read_net(tmp_path / "a.caffemodel") == net
    assert caffemodel.read(tmp_path / "a.caffemodel")["u"][0].tolist() == [1, 1]


def test_files_with_the_moved_numbers_are_read_too():
    net = forks.read_net(FILE)
    assert net is not None
    assert forks.read_net(net.SerializeToString()) == net


def test_damaged_settings_are_no_net(tmp_path):
    broken = b"\x0a\x01u\x12\x08Upsample\xca\x08\x01\xff"
    file = b"\xa2\x06" + bytes([len(broken)]) + broken
    assert forks.read_net(file) is None
    (tmp_path / "a.caffemodel").write_bytes(file)
    with pytest.raises(FormatError, match=r"a.caffemodel' is damaged: the settings of one of its layers cannot be read"):
        caffemodel.read_net(tmp_path / "a.caffemodel")


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
