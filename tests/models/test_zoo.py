"""The nets that scripts/zoo writes: the committed files are what it makes,
and agree with Caffe's record of the same nets.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec import load
from scripts.zoo.catalogue import MODELS as ZOO
from scripts.zoo.model import MODELS
from scripts.zoo.surgery import interpolation

RECORDED = {"bvlc_reference_rcnn_ilsvrc13": "rcnn_ilsvrc13"}  # others are recorded under their own names
WITH_SPLITS = ("fcn8s",)  # recorded with the Split layers that Caffe inserts


OTHERS = (
    "lenet",
    "cifar10_quick",
    "cifar10_full",
    "bvlc_reference_caffenet",
    "bvlc_alexnet",
)  # held to it in test_models
MEASURED = ("lenet", "cifar10_quick", "cifar10_full", "bvlc_caffenet_full_conv")  # or, for one, not yet
SHAPES = json.loads((Path(__file__).parents[1] / "golden/model_shapes.json").read_text())
AGREEING = [name for name in (*ZOO, "bvlc_caffenet_full_conv") if RECORDED.get(name, name) in SHAPES]


@pytest.mark.parametrize("name", ZOO)
def test_committed_files_are_those_that_the_program_writes(name):
    texts = ZOO[name].texts()
    assert {path.name for path in (MODELS / name).glob("*.prototxt")} == {path.name for path in texts}
    for path, text in texts.items():
        assert path.read_text() == text, f"{path}: run python -m scripts.zoo {name}"


def test_every_recorded_net_is_here():
    assert {RECORDED.get(name, name) for name in (*AGREEING, *OTHERS)} == set(SHAPES)


@pytest.mark.parametrize("name", AGREEING)
def test_deploy_agrees_with_caffe_s_blob_by_blob(name):
    expected = SHAPES[RECORDED.get(name, name)]
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


def test_program_says_which_models_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    program = str(MODELS.parent / "scripts/zoo/__main__.py")
    monkeypatch.setattr(sys, "argv", [program, "vgg61"])
    with pytest.raises(SystemExit, match=r"^there is no model 'vgg61'; the models are bvlc_googlenet, "):
        runpy.run_path(program, run_name="__main__")


def front_matter(name: str) -> dict[str, str]:
    head = re.match(r"---\n(.*?)\n---\n\n# ", (MODELS / name / "readme.md").read_text(), re.DOTALL)
    assert head, f"{name}/readme.md has no front matter"
    return dict(line.split(": ", 1) for line in head[1].splitlines())


@pytest.mark.parametrize("name", [*ZOO, *OTHERS, "bvlc_caffenet_full_conv"])
def test_readmes_say_where_weights_are_and_what_they_are(name):
    fields = front_matter(name)
    assert fields["name"]
    assert fields.keys() <= {"name", "caffemodel", "caffemodel_url", "license", "sha1", "gist_id", "source"}
    for key in ("caffemodel_url", "source"):
        assert re.match(r"https?://", fields.get(key, "http://"))
    assert re.fullmatch("[0-9a-f]{40}", fields.get("sha1", "0" * 40))
    if "caffemodel_url" in fields:
        assert fields["caffemodel"].endswith(".caffemodel")
    assert ("caffemodel" in fields) >= ("caffemodel_url" in fields) >= ("sha1" in fields)
    text = " ".join((MODELS / name / "readme.md").read_text().split())
    assert name in MEASURED or "Not measured here." in text or "No accuracy measured here." in text


def test_the_list_of_models_names_each():
    listed = re.findall(r"\]\(([\w.]+)/readme\.md\)", (MODELS / "readme.md").read_text())
    assert sorted(listed) == sorted(path.name for path in MODELS.iterdir() if path.is_dir())
    assert f"[{len(ZOO)} more](models/readme.md)" in (MODELS.parent / "README.md").read_text()


def test_interpolation_enlarges_each_class_by_itself():
    weights = interpolation((3, 3, 4, 4))
    side = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
    for to in range(3):
        for of in range(3):
            np.testing.assert_array_equal(weights[to, of], np.outer(side, side) * (to == of))
