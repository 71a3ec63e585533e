"""Hints: those that help come, those that mislead do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffecli import wording
from caffecli.cli.main import COMMANDS
from caffecli.layers import registry
from caffecli.layers.fillers import _FILLERS
from caffecli.proto.caffe_pb2 import (
    ConvolutionParameter,
    ImageDataParameter,
    LayerParameter,
    SolverParameter,
    V1LayerParameter,
)
from caffecli.solver.learning_rate import POLICIES
from caffecli.solver.rules import RULES

NAMES = {
    "types": registry.types(),
    "fillers": list(_FILLERS),
    "policies": list(POLICIES),
    "rules": list(RULES),
    "commands": list(COMMANDS),
    "of a layer": list(LayerParameter.DESCRIPTOR.fields_by_name),
    "old types": list(V1LayerParameter.LayerType.keys()),
    "of a picture": list(ImageDataParameter.DESCRIPTOR.fields_by_name),
    "of a solver": list(SolverParameter.DESCRIPTOR.fields_by_name),
    "of a convolution": list(ConvolutionParameter.DESCRIPTOR.fields_by_name),
}


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        # mistypings
        ("types", "LRNN", "LRN"),
        ("types", "Convoluton", "Convolution"),
        ("types", "Convolutoin", "Convolution"),
        ("types", "Inner_Product", "InnerProduct"),
        ("types", "BatchNorm2d", "BatchNorm"),
        ("types", "ReLUU", "ReLU"),
        ("types", "relu", "ReLU"),
        ("types", "SOFTMAX", "Softmax"),
        ("rules", "SDG", "SGD"),
        ("rules", "ADAM", "Adam"),
        ("policies", "fixd", "fixed"),
        ("fillers", "xaveir", "xavier"),
        ("fillers", "gausian", "gaussian"),
        ("commands", "trian", "train"),
        ("commands", "convert-imagset", "convert_imageset"),
        ("of a solver", "lr_polcy", "lr_policy"),
        ("of a solver", "base_lrr", "base_lr"),
        ("of a convolution", "kernal_size", "kernel_size"),
        ("of a convolution", "numoutput", "num_output"),
        # what is cut short
        ("types", "Conv", "Convolution"),
        ("types", "Pool", "Pooling"),
        ("types", "Abs", "AbsVal"),
        ("policies", "multi", "multistep"),
        ("of a layer", "scal", "scale_param"),
        ("of a layer", "pooling", "pooling_param"),
        ("of a layer", "conv_param", "convolution_param"),
        ("of a layer", "convolutoin_param", "convolution_param"),
        ("of a layer", "convoluton_param", "convolution_param"),
        ("of a layer", "reluu_param", "relu_param"),
        ("of a layer", "relu_params", "relu_param"),
        ("old types", "WINDOWDATA", "WINDOW_DATA"),
        # other things altogether
        ("types", "LayerNorm", None),
        ("types", "GroupNorm", None),
        ("types", "Mish", None),
        ("types", "Mul", None),
        ("types", "Linear", None),
        ("types", "Resize", None),
        ("rules", "momentum", None),
        ("fillers", "normal", None),
        ("commands", "predict", None),
        ("of a solver", "learning_rate", None),
        ("of a layer", "something_new_param", None),
        ("of a convolution", "padding", None),
        ("of a picture", "new_dim", None),
        ("of a solver", "stepearly", None),
        # a name with more before it or behind it
        ("of a layer", "deformable_convolution_param", None),
        ("of a layer", "relux_param", None),
        ("old types", "MCWINDOW_DATA", None),
        # two are as near
        ("types", "GELU", None),
        ("of a convolution", "kernel", None),
        ("of a convolution", "stride_z", None),
    ],
)
def test_nearest(kind: str, written: str, meant: str | None) -> None:
    assert wording.nearest(written, NAMES[kind]) == meant


@pytest.mark.parametrize(
    ("written", "known", "meant"),
    [
        ("xx", ["x", "y"], "x"),
        ("pi", ["ip", "data"], "ip"),
        ("ip3", ["data", "ip2"], "ip2"),
        ("conv9", ["conv1", "conv2"], None),
        ("a", ["b"], None),
        ("", ["b"], None),
        ("x", [], None),
        ("data", ["Data", "DATA"], "Data"),
    ],
)
def test_blobs(written: str, known: list[str], meant: str | None) -> None:
    assert wording.nearest(written, known) == meant


@given(st.data())
def test_one_mistake_leads_to_no_name_further_away(data: st.DataObject) -> None:
    names = NAMES[data.draw(st.sampled_from(sorted(NAMES)))]
    name = data.draw(st.sampled_from([one for one in names if len(one) > 3]))
    at = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
    before, here, after = name[:at], name[at], name[at + 1 :]
    mistakes = [
        before + letter + here + after,
        before + after,
        before + letter + after,
        before + after[:1] + here + after[1:],
    ]
    written = data.draw(st.sampled_from(mistakes))
    meant = wording.nearest(written, names)
    assert written in names or meant in (name, None) or wording._mistakes(written.lower(), meant.lower(), 9) == 1


@given(st.data())
def test_case_never_matters(data: st.DataObject) -> None:
    names = NAMES[data.draw(st.sampled_from(sorted(NAMES)))]
    name = data.draw(st.sampled_from(names))
    written = "".join(letter.upper() if data.draw(st.booleans()) else letter.lower() for letter in name)
    assert wording.nearest(written, names) == name


def test_did_you_mean() -> None:
    assert wording.did_you_mean("trian", ["train"], "there is train") == "; did you mean 'train'?"
    assert wording.did_you_mean("far", ["train"], "there is train") == "; there is train"
    assert wording.did_you_mean("far", ["train"]) == ""


def test_paths_and_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = wording.does_not_exist("source", "x", "make it first")
    assert (
        text
        == f"source 'x' does not exist; make it first (paths are relative to the working directory, {str(tmp_path)!r})"
    )
    assert wording.dimensions((3, 227, 227)) == "3 × 227 × 227"
    assert wording.dimensions(()) == ""
