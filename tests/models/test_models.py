"""The nets in models/: what Caffe's of the same names are, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import text_format

from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter, SolverParameter
from caffecli.spec import load
from scripts.zoo.catalogue import MODELS as ZOO

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
NAMES = ("lenet", "cifar10_quick", "cifar10_full", "bvlc_reference_caffenet", "bvlc_alexnet")
SOLVERS = sorted(
    path.relative_to(MODELS).as_posix() for name in NAMES for path in MODELS.glob(f"{name}/solver*.prototxt")
)


def read_net(name: str, file: str) -> NetParameter:
    return text_format.Parse((MODELS / name / file).read_text(), NetParameter())


def layers_of(net: NetParameter, phase: int) -> list:
    return [layer for layer in net.layer if not layer.include or any(rule.phase == phase for rule in layer.include)]


@pytest.mark.parametrize("name", NAMES)
def test_deploy_has_the_layers_and_shapes_of_caffe_s(name, golden):
    param = load.load_net(MODELS / name / "deploy.prototxt")
    param.state.phase = TEST
    net = Net(param)
    assert [
        {
            "layer": node.name,
            "type": node.layer.type,
            "bottoms": list(node.bottoms),
            "tops": [[top, list(net.shapes[slot])] for top, slot in zip(node.tops, node.outputs, strict=True)],
            "params": [list(blob.shape) for blob in node.layer.blobs],
        }
        for node in net.nodes
    ] == json.loads((golden / "model_shapes.json").read_text())[name]


@pytest.mark.parametrize("name", NAMES)
def test_deploy_has_the_layers_of_caffe_s(name, golden):
    recorded = json.loads((golden / "model_shapes.json").read_text())[name]
    net = read_net(name, "deploy.prototxt")
    assert [(layer.name, layer.type, list(layer.bottom), list(layer.top)) for layer in net.layer] == [
        (layer["layer"], layer["type"], layer["bottoms"], [top for top, _ in layer["tops"]]) for layer in recorded
    ]
    assert list(net.layer[0].input_param.shape[0].dim) == recorded[0]["tops"][0][1]


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("name", NAMES)
def test_train_val_is_deploy_between_data_and_loss(name, phase):
    train = layers_of(read_net(name, "train_val.prototxt"), phase)
    deploy = list(read_net(name, "deploy.prototxt").layer)
    assert train[0].type == "Data"
    assert list(train[0].top) == ["data", "label"]
    assert [layer.type for layer in train[-2:]] == (
        ["Accuracy", "SoftmaxWithLoss"] if phase == TEST else [deploy[-2].type, "SoftmaxWithLoss"]
    )
    body = [layer for layer in train[1:] if layer.type not in ("Accuracy", "SoftmaxWithLoss")]
    for layer in body:  # what deploy has no use for
        layer.ClearField("param")
        for settings in ("convolution_param", "inner_product_param"):
            if layer.HasField(settings):
                getattr(layer, settings).ClearField("weight_filler")
                getattr(layer, settings).ClearField("bias_filler")
    assert body == deploy[1:-1]
    assert deploy[-1].type == "Softmax"


@pytest.mark.parametrize("path", SOLVERS)
def test_solvers_name_files_of_the_repository(path):
    solver = text_format.Parse((MODELS / path).read_text(), SolverParameter())
    folder = Path("models") / Path(path).parent
    assert solver.net == (folder / "train_val.prototxt").as_posix()
    assert Path(solver.snapshot_prefix).parent == folder
    data = layers_of(text_format.Parse((ROOT / solver.net).read_text(), NetParameter()), TEST)[0]
    assert data.data_param.source.startswith("data/")
    tested = data.data_param.batch_size * solver.test_iter[0]
    assert tested == (50_000 if "bvlc" in path else 10_000), "the whole test set, once"


def test_each_folder_is_complete():
    deploy_only = {"bvlc_caffenet_full_conv"}
    assert {path.name for path in MODELS.iterdir() if path.is_dir()} == {*NAMES, *deploy_only, *ZOO}
    for name in deploy_only:
        assert (MODELS / name / "deploy.prototxt").is_file()
        assert (MODELS / name / "readme.md").is_file()
    for name in NAMES:
        for file in ("train_val.prototxt", "deploy.prototxt", "solver.prototxt", "readme.md"):
            assert (MODELS / name / file).is_file(), f"{name}/{file}"
    assert len(SOLVERS) == 8


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "lenet",
            {
                "base_lr": 0.01,
                "lr_policy": "inv",
                "gamma": 0.0001,
                "power": 0.75,
                "weight_decay": 0.0005,
                "max_iter": 10000,
            },
        ),
        ("cifar10_quick", {"base_lr": 0.001, "lr_policy": "fixed", "weight_decay": 0.004, "max_iter": 4000}),
        ("cifar10_full", {"base_lr": 0.001, "lr_policy": "fixed", "weight_decay": 0.004, "max_iter": 60000}),
        ("bvlc_alexnet", {"base_lr": 0.01, "lr_policy": "step", "gamma": 0.1, "stepsize": 100000, "max_iter": 450000}),
    ],
)
def test_solvers_have_the_published_settings(name, settings):
    solver = text_format.Parse((MODELS / name / "solver.prototxt").read_text(), SolverParameter())
    assert {key: getattr(solver, key) for key in settings} == {
        key: pytest.approx(value) if isinstance(value, float) else value for key, value in settings.items()
    }
    assert solver.momentum == pytest.approx(0.9)
