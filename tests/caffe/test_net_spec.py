"""Nets written in Python; the expected texts are those that pycaffe's NetSpec makes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from caffe.net_spec import NetSpec, Top, assign_proto, param_name_dict, to_proto
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffecli.errors import SpecError
from caffecli.proto import caffe_pb2
from caffecli.spec import text


def parsed(prototxt: str) -> Any:
    return text.parse(prototxt, caffe_pb2.NetParameter())


def test_names_come_from_the_attributes() -> None:
    n = NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [2, 1, 8, 8]}, {"dim": 2}], transform_param={"scale": 0.5}, ntop=2)
    n.conv = L.Convolution(
        n.data, kernel_size=3, num_output=np.int64(4), weight_filler={"type": "xavier"}, param=[{"lr_mult": 2}]
    )
    n["relu"] = L.ReLU(n.conv, in_place=True)
    n.pool = L.Pooling(n.relu, pool=P.Pooling.AVE, kernel_size=2, loss_weight=0.5)
    n.quiet = L.Silence(n.label, ntop=0)
    assert n.to_proto() == parsed(
        """
        layer { name: "data" type: "DummyData" top: "data" top: "label" transform_param { scale: 0.5 }
          dummy_data_param { shape { dim: 2 dim: 1 dim: 8 dim: 8 } shape { dim: 2 } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 }
          convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" loss_weight: 0.5
          pooling_param { pool: AVE kernel_size: 2 } }
        layer { name: "quiet" type: "Silence" bottom: "label" }
        """
    )


def test_names_are_made_where_none_are_given() -> None:
    data = L.DummyData(shape={"dim": 3})
    a, b = L.Slice(data, ntop=2)
    relu = L.ReLU(a, in_place=True)
    expected = parsed(
        """
        layer { name: "DummyData1" type: "DummyData" top: "DummyData1" dummy_data_param { shape { dim: 3 } } }
        layer { name: "Slice1" type: "Slice" bottom: "DummyData1" top: "Slice1" top: "Slice2" }
        layer { name: "ReLU1" type: "ReLU" bottom: "Slice1" top: "Slice1" }
        layer { name: "Eltwise1" type: "Eltwise" bottom: "Slice1" bottom: "Slice2" top: "Eltwise1" }
        layer { name: "Silence1" type: "Silence" bottom: "Eltwise1" }
        """
    )
    total = L.Eltwise(relu, b)
    assert to_proto(total, L.Silence(total, ntop=0)) == expected
    del expected.layer[-1]
    assert total.to_proto() == expected


def test_settings_of_other_messages_and_of_the_layer() -> None:
    n = NetSpec()
    n.data = L.Input(input_param={"shape": {"dim": [1, 2, 8, 8]}}, include={"phase": 1, "stage": ["a", "b"]})
    n.up = L.Deconvolution(n.data, convolution_param={"num_output": 2, "kernel_size": 4}, name="up2")
    n.other = L.OwnType(n.up, python_param={"module": "m"})
    net = n.to_proto()
    assert [layer.name for layer in net.layer] == ["data", "up2", "other"]
    assert net.layer[0].include[0].stage == ["a", "b"] and net.layer[1].convolution_param.kernel_size == [4]
    assert net.layer[2].type == "OwnType"


def test_settings_of_forks_are_printed_by_name() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 2, 8, 8]})
    n.permute = L.Permute(n.data, order=[0, 2, 3, 1])
    net = n.to_proto()
    assert "permute_param {\n    order: 0\n" in str(net)
    assert list(parsed(str(net)).layer[1].top) == ["permute"]
    assert net.layer[1].permute_param.order == [0, 2, 3, 1]
    del n.tops["permute"]
    assert isinstance(n.to_proto(), caffe_pb2.NetParameter)


def test_nets_are_written_for_forks_whose_layers_are_not_here() -> None:
    n = NetSpec()
    n.data, n.label = L.AnnotatedData(
        ntop=2,
        data_param={"source": "lmdb", "batch_size": 8, "backend": P.Data.LMDB},
        annotated_data_param={"label_map_file": "map", "batch_sampler": [{"max_sample": 1}, {"max_trials": 50}]},
        transform_param={"resize_param": {"prob": 1, "resize_mode": P.Resize.WARP, "interp_mode": [P.Resize.AREA]}},
    )
    n.rois = L.PSROIPooling(n.data, n.label, spatial_scale=0.0625, output_dim=21, group_size=7)
    n.loss = L.MultiBoxLoss(n.data, n.label, neg_pos_ratio=3, code_type=P.PriorBox.CENTER_SIZE)
    net = parsed(str(n.to_proto()))
    assert [sampler.max_trials for sampler in net.layer[0].annotated_data_param.batch_sampler] == [100, 50]
    assert net.layer[1].psroi_pooling_param.group_size == 7
    assert net.layer[2].multibox_loss_param.code_type == caffe_pb2.PriorBoxParameter.CENTER_SIZE


def test_several_resize_param() -> None:
    """As MobileNet-YOLO's, whose field is repeated."""
    sizes = [{"prob": 0.5, "height": side, "width": side} for side in (320, 416, 608)]
    n = NetSpec()
    n.data, n.label = L.AnnotatedData(ntop=2, transform_param={"scale": 2, "resize_param": sizes})
    n.one = L.Data(transform_param={"resize_param": sizes[:1]})
    for made in (n.to_proto(), parsed(str(n.to_proto()))):
        first, second = (layer.transform_param for layer in made.layer)
        assert [first.resize_param.height, *(size.height for size in first.resize_other)] == [320, 416, 608]
        assert second.resize_param.height == 320 and not second.resize_other
    assert text.parse(text.format(n.to_proto()), caffe_pb2.NetParameter()) == n.to_proto()


def test_tops_are_listed_changed_and_removed_as_in_ssd() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 2, 8, 8]})
    n.conv = L.Convolution(n.data, kernel_size=3, num_output=4)
    n.quiet = L.Silence(n.conv, ntop=0)
    assert n.keys() == ["data", "conv", "quiet"] and n.vals() == [n.data, n.conv, n.quiet]
    n.update("conv", {"num_output": 8, "param": [{"lr_mult": 0}]})
    n.update("quiet", {"name": "still"})
    net = n.to_proto()
    assert net.layer[1].convolution_param.num_output == 8 and net.layer[1].convolution_param.kernel_size == [3]
    assert net.layer[1].param[0].lr_mult == 0 and net.layer[2].name == "still"
    del n["quiet"]
    assert n.keys() == ["data", "conv"]
    for missing in (lambda: n.update("conv2", {}), lambda: n.__delitem__("conv2")):
        with pytest.raises(KeyError, match="the NetSpec has no top 'conv2'; it has data, conv"):
            missing()


def test_a_top_may_be_called_as_a_method_of_ssd() -> None:
    n: Any = NetSpec()
    n.keys = L.Input(shape={"dim": [1, 2]})
    n.update = L.ReLU(n.keys)
    n.vals = L.ReLU(n["update"])
    assert [(layer.name, list(layer.bottom)) for layer in copy.copy(n).to_proto().layer] == [
        ("keys", []),
        ("update", ["keys"]),
        ("vals", ["update"]),
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pad": 1.5}, "ConvolutionParameter.pad: expected a whole number from 0 on, got 1.5"),
        ({"num_output": -1}, "ConvolutionParameter.num_output: expected a whole number from 0 on, got -1"),
        ({"axis": "1"}, "ConvolutionParameter.axis: expected a whole number, got '1'"),
        ({"bias_term": "no"}, "ConvolutionParameter.bias_term: expected True or False, got 'no'"),
        ({"engine": "GPU"}, "ConvolutionParameter.engine: expected one of DEFAULT, CAFFE, CUDNN"),
        ({"weight_filler": "xavier"}, "ConvolutionParameter.weight_filler: expected a dict, got 'xavier'"),
        ({"weight_filler": {"std": "a"}}, "FillerParameter.std: expected a number, got 'a'"),
        ({"param": ["w"]}, "LayerParameter.param: expected a dict, got 'w'"),
        ({"name": 3}, "LayerParameter.name: expected a text, got 3"),
    ],
)
def test_a_value_that_its_field_cannot_hold_is_named_with_the_layer(settings: dict[str, Any], said: str) -> None:
    n = NetSpec()
    n.data = L.Input()
    n.conv = L.Convolution(n.data, **settings)
    with pytest.raises(SpecError) as error:
        n.to_proto()
    assert f"layer 'conv' (Convolution): {said}" in str(error.value)
    assert isinstance(error.value, TypeError) and isinstance(error.value, ValueError)


def test_mistakes_are_named() -> None:
    n = NetSpec()
    n.data = L.Input()
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"):
        L.Silence((n.data,), ntop=0)
    n.conv = L.Convolution(n.data, kernal_size=3)
    with pytest.raises(
        AttributeError, match=r"layer 'conv' \(Convolution\) has no setting 'kernal_size'; did you mean 'kernel_size'"
    ):
        n.to_proto()
    with pytest.raises(SpecError, match=r"layer 'ReLU1' .*; settings .* are given as ..._param=dict\(...\)"):
        L.ReLU(n.data, num_output=1).to_proto()
    for missing in (lambda: n.conv2, lambda: n["conv2"]):
        with pytest.raises(KeyError, match="the NetSpec has no top 'conv2'; it has data, conv"):
            missing()
    assert not hasattr(n, "conv2") and copy.copy(n).data is n.data
    with pytest.raises(AttributeError, match="there is no message PolingParameter; did you mean 'Pooling'"):
        _ = P.Poling.MAX
    with pytest.raises(AttributeError):
        _ = P.Pooling.MAXIMUM
    n.conv = (n.data, n.data)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="conv is neither a Top nor a Function"):
        n.to_proto()


def test_assign_proto() -> None:
    layer = caffe_pb2.LayerParameter()
    assign_proto(layer, "bottom", "a")
    assign_proto(layer, "bottom", ("b", "c"))
    assign_proto(layer, "param", {"lr_mult": 3})
    assign_proto(layer, "convolution_param", {"pad": [1, 2], "group": 2})
    assert list(layer.bottom) == ["a", "b", "c"] and layer.param[0].lr_mult == 3
    assert list(layer.convolution_param.pad) == [1, 2] and layer.convolution_param.group == 2
    with pytest.raises(AttributeError, match="LayerParameter has no field 'botom'; did you mean 'bottom'"):
        assign_proto(layer, "botom", "a")


def test_param_names() -> None:
    names = param_name_dict()
    assert names["InnerProduct"] == "inner_product" and names["LRN"] == "lrn" and names["Transformation"] == "transform"
    assert isinstance(L.Input(), Top) and P.Pooling.STOCHASTIC == 2


def test_settings_of_another_types_message() -> None:
    """As RefineDet's NetSpec takes them: ``L.Deconvolution(bottom, num_output=256)``."""
    data = L.Input()
    layer = L.Deconvolution(data, num_output=3, convolution_param={"group": 3}).to_proto().layer[1]
    assert (layer.convolution_param.num_output, layer.convolution_param.group) == (3, 3)


def test_whole_floats_are_whole_numbers() -> None:
    """Scripts of Python 2's time divide: ``pad = kernel / 2``."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1.0, 3, 8, 8]})
    n.conv = L.Convolution(n.data, num_output=64 / 2, pad=[4 / 2, np.float64(1)], kernel_size=3)
    layers = n.to_proto().layer
    assert list(layers[0].input_param.shape[0].dim) == [1, 3, 8, 8]
    assert (layers[1].convolution_param.num_output, list(layers[1].convolution_param.pad)) == (32, [2, 1])


def test_messages_made_by_keywords_take_whole_floats() -> None:
    """SSD's scripts: ``SolverParameter(test_iter=[num_test_image / test_batch_size], ...)``."""
    messages: Any = caffe_pb2
    solver = messages.SolverParameter(test_iter=[4952 / 8], iter_size=32 / 8, base_lr=0.5, net_param={"name": "n"})
    assert (list(solver.test_iter), solver.iter_size, solver.base_lr, solver.net_param.name) == ([619], 4, 0.5, "n")
    pad = messages.LayerParameter(convolution_param={"kernel_size": [3], "pad": (4 / 2, 1)})
    assert list(pad.convolution_param.pad) == [2, 1]
    assert list(messages.BlobShape(dim=[1.0, 3]).dim) == [1, 3]
    with pytest.raises(TypeError, match="float"):
        messages.SolverParameter(test_iter=[4952 / 3])
    with pytest.raises(ValueError, match="max_itr"):
        messages.SolverParameter(max_itr=1.0)
