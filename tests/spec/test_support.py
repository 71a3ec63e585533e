"""What is known of forks and is not here is said in one message, after the net is filtered for its phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.layers import registry
from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
from caffecli.spec import support, text
from caffecli.spec.filter import filter_net
from caffecli.spec.load import load_solver
from caffecli.spec.upgrade import upgrade_net

INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }'
RELU = ' layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" } '
#: a layer that is not here
CENSOR = 'layer { name: "c" type: "CensorLabel" bottom: "data" bottom: "label" top: "c" } '
DATA = 'layer { name: "d" type: "Data" top: "data" top: "label" } '
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "relu" bottom: "c" }'
MSCNN = """name: "mscnn"
layer { name: "data" type: "ImageGtData" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "in" type: "Input" top: "data" include { phase: TEST }
  input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "loss" type: "BboxAccuracy" bottom: "conv" bottom: "label" top: "loss" include { phase: TRAIN } }
"""


def refused(source: str, phase: str = "TRAIN") -> str:
    """The words that refuse a net in a phase; "" where it is not refused."""
    net = upgrade_net(text.parse(source, NetParameter()))
    net.state.phase = phase  # type: ignore[assignment]
    try:
        support.check(filter_net(net, net.state), registry.types(), net)
    except SpecError as error:
        return str(error)
    return ""


def test_types_come_first_and_all_at_once() -> None:
    assert refused(MSCNN) == (
        "net 'mscnn' needs the layers ImageGtData ('data') and BboxAccuracy ('loss') of MS-CNN (zhaoweicai/mscnn), "
        "which are not here; in phase TEST the net runs"
    )


def test_what_another_phase_needs_stops_nothing() -> None:
    assert refused(MSCNN, "TEST") == ""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            'layer { name: "d" type: "Data" top: "data" transform_param { multi_scale: true fix_crop: true } }' + RELU,
            "the net needs the settings transform_param.multi_scale ('d') and transform_param.fix_crop ('d') of TSN "
            "(yjxiong/caffe), which are not here; its deploy net, which has neither data layers nor losses, runs",
        ),
        (
            'layer { name: "d" type: "DummyData" top: "data" top: "label" } '
            + RELU
            + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "relu" bottom: "label" '
            "loss_param { label_smoothing: 0.1 } }",
            "the net needs the setting loss_param.label_smoothing ('l') of NVIDIA (NVIDIA/caffe), "
            "which is not here; "
            "its deploy net, which has neither data layers nor losses, runs",
        ),
        (
            INPUT + 'layer { name: "ip" type: "InnerProduct" bottom: "data" inner_product_param { normalize: true } }',
            "the net needs the setting inner_product_param.normalize ('ip') of NormFace and AM-Softmax "
            "(happynear/caffe-windows), "
            "which is not here",
        ),
        (
            INPUT + 'layer { name: "r" type: "Hotspot" bottom: "data" } layer { name: "s" type: "Hotspot" '
            'bottom: "data" }',
            "the net needs the layer Hotspot ('r' and 1 more) of NormFace and AM-Softmax "
            "(happynear/caffe-windows), which is "
            "not here; it can be "
            "written in PyTorch (docs/your-own-layer.md) and named by --layers",
        ),
        (
            INPUT + 'layer { name: "n" type: "Normalize" bottom: "data" normalize_param { normalize_type: "L1" } }',
            "the net needs the setting normalize_param ('n') of NormFace and AM-Softmax (happynear/caffe-windows), "
            "which is not here",
        ),
        (
            INPUT + 'layer { name: "c" type: "Convolution" bottom: "data" convolution_param { hole: 2 } }',
            "the net needs the setting convolution_param.hole ('c') of DeepLab (version 1, "
            "TheLegendAli/DeepLab-Context), which is not "
            "here; for convolution_param.hole write dilation, which is the same",
        ),
        (
            INPUT + 'layer { name: "e" type: "Eltwise" bottom: "data" eltwise_param { operation: STOCHASTIC_SUM } }',
            "the net needs the setting eltwise_param.operation: STOCHASTIC_SUM ('e') of TSN (yjxiong/caffe), which is "
            "not here",
        ),
        (
            'layer { name: "v" type: "SegData" top: "v" } layer { name: "b" type: "BatchReduction" bottom: "v" }',
            "the net needs the layers SegData ('v') and BatchReduction ('b') of TSN (yjxiong/caffe), which are "
            "not here; they can be "
            "written in PyTorch (docs/your-own-layer.md) and named by --layers",
        ),
        (
            'layer { name: "v" type: "VideoData" top: "data" video_data_param { num_segments: 3 } }' + RELU,
            "the setting video_data_param.num_segments ('v') of TSN (yjxiong/caffe), which is not here; its deploy net",
        ),
        (
            'layer { name: "v" type: "VideoData" top: "data" video_data_param { source: "l" new_length: 5 } }' + RELU,
            "the settings video_data_param.new_length ('v') and video_data_param.source ('v') of TSN (yjxiong/caffe) "
            "or C3D (facebook/C3D), which are not here; its deploy net",
        ),
        (
            'layer { name: "v" type: "L1Loss" top: "data" }' + RELU,
            "the layer L1Loss ('v') of NVIDIA (NVIDIA/caffe) or FlowNet (lmb-freiburg/flownet2), which is not here",
        ),
        (
            'layers { name: "seg" type: IMAGE_SEG_DATA top: "d" } '
            'layers { name: "m" type: MULTI_STAGE_MEANFIELD bottom: "d" }',
            "the net needs the layer ImageSegData ('seg') of DeepLab (version 2, and hszhao/PSPNet) and the layer "
            "MultiStageMeanfield ('m') of CRF as RNN (torrvision/caffe), which are not here",
        ),
    ],
)
def test_what_is_missing_of_which_fork_and_what_works_all_the_same(source: str, said: str) -> None:
    words = refused(source)
    assert said in words
    assert "remove" not in words and "\n" not in words


@pytest.mark.parametrize(
    ("layer", "runs"),
    [
        ('type: "Input" top: "data" input_param { shape { dim: 1 } }', True),
        ('type: "Input" top: "other" input_param { shape { dim: 1 } }', False),
        ('type: "NobodyKnows" top: "data"', False),
        ('type: "ImageGtData" top: "data"', False),
    ],
)
def test_another_phase_is_named_only_where_its_layers_wire_up(layer: str, runs: bool) -> None:
    test = f'layer {{ name: "in" {layer} include {{ phase: TEST }} }}'
    said = refused(
        'layer { name: "d" type: "ImageGtData" top: "data" include { phase: TRAIN } } '
        + test
        + RELU
        + ' layer { name: "l" type: "EuclideanLoss" bottom: "relu" bottom: "data" }'
    )
    assert ("in phase TEST the net runs" in said) == runs


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        (DATA + RELU + CENSOR + LOSS, True),
        (DATA + RELU + CENSOR + LOSS + ' layer { type: "Silence" bottom: "label" }', True),
        (DATA + CENSOR + LOSS, False),  # the loss's other bottom is not there
        (DATA + RELU + CENSOR + LOSS + ' layer { type: "Softmax" bottom: "c" top: "s" }', False),
        # a layer that stays reads another top of the source than the first
        (DATA.replace('"label"', '"info"') + 'layer { type: "Hotspot" bottom: "data" bottom: "info" top: "rois" } '
         'layer { name: "r" type: "ReLU" bottom: "rois" top: "r" }', False),
        # deploy nets
        (INPUT + 'layer { type: "ContinuationIndicator" top: "cont" }' + RELU, False),
        (INPUT + RELU + CENSOR.replace('bottom: "label"', 'bottom: "relu"'), False),
        # no data layer, though it has no bottoms
        (DATA + RELU + 'layer { type: "ContinuationIndicator" top: "cont" } '
         'layer { type: "Eltwise" bottom: "relu" bottom: "cont" top: "e" } '
         'layer { type: "EuclideanLoss" bottom: "e" bottom: "label" }', False),
        # nothing stays
        ('layer { type: "ImageGtData" top: "data" top: "label" }', False),
    ],
)  # fmt: skip
def test_the_deploy_net_is_named_only_where_it_runs(source: str, runs: bool) -> None:
    said = refused(source)
    assert "not here" in said and ("its deploy net" in said) == runs


def test_a_setting_cannot_be_written_as_a_python_layer() -> None:
    layers = (
        'layer { type: "Hotspot" bottom: "data" } '
        'layer { type: "Pooling" bottom: "data" pooling_param { bin_size: 2 } }'
    )
    said = refused(INPUT + layers)
    assert "Hotspot" in said and "bin_size" in said and "Python layer" not in said


def test_what_is_at_its_default_changes_nothing() -> None:
    assert (
        refused(
            INPUT + 'layer { name: "c" type: "Convolution" bottom: "data" convolution_param { hole: 1 relu: false } }'
        )
        == ""
    )


def test_a_type_that_nobody_knows_is_left_to_the_registry() -> None:
    assert refused('layer { name: "x" type: "Convolutoin" }') == ""


def test_a_layer_from_outside_reads_its_own_settings() -> None:
    net = text.parse(
        INPUT + 'layer { type: "Correlation" bottom: "data" correlation_param { pad: 2 } }', NetParameter()
    )
    support.check(net, [*registry.types(), "Correlation"])


V1_LOSS = """layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs { data: 3 } }
layers { name: "l" type: SOFTMAX_LOSS bottom: "c" include { phase: TRAIN } softmaxloss_param { ignore_label: 21 } }"""


def test_a_forks_setting_in_the_old_format_is_looked_at_once_the_net_is_filtered() -> None:
    assert refused(V1_LOSS) == (
        "the net needs the setting softmaxloss_param.ignore_label ('l') of DeepLab (version 1, "
        "TheLegendAli/DeepLab-Context), which is not here; for softmaxloss_param.ignore_label write loss_param { "
        "ignore_label: N }, which takes one label"
    )
    assert refused(V1_LOSS, "TEST") == ""
    assert refused("layers { name: 'l' type: EUCLIDEAN_LOSS euclidean_loss_param { type: L2 } }") == ""
    assert "euclidean_loss_param.type" in refused(
        "layers { type: EUCLIDEAN_LOSS euclidean_loss_param { type: L2sqrt } }"
    )
    assert "CensorLabel ('c')" in refused("layers { name: 'c' type: CENSOR_LABEL censor_label_param { } }")
    assert "MultiStageMeanfield ('m')" in refused("layers { name: 'm' type: MULTI_STAGE_MEANFIELD }")
    assert "VOXEL_WISE_SOFTMAX ('v') of C3D" in refused(
        "layers { name: 'v' type: VOXEL_WISE_SOFTMAX video_data_param { } }"
    )


GUIDED = """layer { name: "d" type: "%s" bottom: "data" top: "d" include { phase: TRAIN }
  guided_dropout_param { a: 1 b < c: "}" # }
  > d: [1, 2] } }"""


@pytest.mark.parametrize(
    ("layer_type", "said"),
    [("GuidedDropout", "the layer GuidedDropout"), ("Dropout", "the setting guided_dropout_param")],
)
def test_a_field_of_which_only_the_name_is_known(layer_type: str, said: str) -> None:
    source = INPUT + GUIDED % layer_type
    whose = "dgd_person_reid (Cysu/dgd_person_reid)"
    assert refused(source) == f"the net needs {said} ('d') of {whose}, which is not here; in phase TEST the net runs"
    assert refused(source, "TEST") == ""


def test_what_chooses_only_how_it_is_computed_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logs, "warning", lambda source, words: said.append(words))
    relu = 'layer { name: "r" type: "ReLU" bottom: "data" forward_type: FLOAT16 relu_param { engine: MKLDNN } }'
    assert refused(f'name: "n" default_forward_type: FLOAT16 {INPUT} {relu} {relu}') == ""
    assert said == [
        "net 'n': not looked at, as they choose only how a fork computes: default_forward_type, forward_type (2 times)"
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('eval_type: "detection" ap_version: "11point" lr_policy: "plateau" plateau_winsize: 4', ""),
        (
            "solver_type: SAG",
            "the solver needs the setting solver_type: SAG of NVIDIA (NVIDIA/caffe), which is not here",
        ),
        ("min_lr: 0.001", "the solver needs the setting min_lr of NVIDIA (NVIDIA/caffe), which is not here"),
    ],
)
def test_solvers_are_looked_at_as_they_are_loaded(tmp_path: Path, source: str, said: Any) -> None:
    path = tmp_path / "s.prototxt"
    path.write_text(f"base_lr: 0.1 {source}")
    text.read(path, SolverParameter)
    if not said:
        load_solver(path)
        return
    with pytest.raises(SpecError) as error:
        load_solver(path)
    assert str(error.value).startswith(f"{path}: the solver needs ") and said in str(error.value)
