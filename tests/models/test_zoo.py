"""The nets that scripts/zoo writes: the committed files are what it makes, and agree with Caffe's record of the same nets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec import load
from scripts.zoo.catalogue import MODELS as ZOO
from scripts.zoo.model import MODELS

RECORDED = {"bvlc_reference_rcnn_ilsvrc13": "rcnn_ilsvrc13"}  # others are recorded under their own names
WITH_SPLITS = ("fcn8s",)  # recorded with the Split layers that Caffe inserts
#: Too large to build in a second or two.
LARGE = ()


def recorded(golden, name: str) -> list:
    return json.loads((golden / "model_shapes.json").read_text()).get(RECORDED.get(name, name), [])


@pytest.mark.parametrize("name", ZOO)
def test_committed_files_are_those_that_the_program_writes(name):
    texts = ZOO[name].texts()
    assert {path.name for path in (MODELS / name).glob("*.prototxt")} == {path.name for path in texts}
    for path, text in texts.items():
        assert path.read_text() == text, f"{path}: run python -m scripts.zoo {name}"


@pytest.mark.parametrize("name", ZOO)
def test_deploy_agrees_with_caffe_s_blob_by_blob(name, golden):
    expected = recorded(golden, name)
    if not expected:
        pytest.skip("not among the recorded nets")
    param = load.load_net(MODELS / name / "deploy.prototxt")
    if name in WITH_SPLITS:
        param = load.prepare_net(param, TEST)
    param.state.phase = TEST
    net = Net(param)
    for node, layer in zip(net.nodes, expected, strict=True):
        assert {
            "layer": node.name,
            "type": node.layer.type,
            "bottoms": list(node.bottoms),
            "tops": [[top, list(net.shapes[slot])] for top, slot in zip(node.tops, node.outputs, strict=True)],
            "params": [list(blob.shape) for blob in node.layer.blobs],
        } == layer


def test_program_says_which_models_there_are():
    done = subprocess.run([sys.executable, "-m", "scripts.zoo", "vgg61"], cwd=MODELS.parent, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no model 'vgg61'; the models are bvlc_googlenet, ")
