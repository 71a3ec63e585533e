"""Notes on AlexNet and ImageNet: the reference CaffeNet read, its log, and its first five classes for a picture."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffecli import logs
from caffecli.proto.caffe_pb2 import NetParameter
from tests.old_tutorials.conftest import MODELS

#: the sizes in the notes' log, layer by layer
TOPS = [
    ("conv1", "10 96 55 55 (2904000)", 11616000), ("relu1", "10 96 55 55 (2904000)", 23232000),
    ("pool1", "10 96 27 27 (699840)", 26031360), ("norm1", "10 96 27 27 (699840)", 28830720),
    ("conv2", "10 256 27 27 (1866240)", 36295680), ("relu2", "10 256 27 27 (1866240)", 43760640),
    ("pool2", "10 256 13 13 (432640)", 45491200), ("norm2", "10 256 13 13 (432640)", 47221760),
    ("conv3", "10 384 13 13 (648960)", 49817600), ("relu3", "10 384 13 13 (648960)", 52413440),
    ("conv4", "10 384 13 13 (648960)", 55009280), ("relu4", "10 384 13 13 (648960)", 57605120),
    ("conv5", "10 256 13 13 (432640)", 59335680), ("relu5", "10 256 13 13 (432640)", 61066240),
    ("pool5", "10 256 6 6 (92160)", 61434880), ("fc6", "10 4096 (40960)", 61598720),
    ("relu6", "10 4096 (40960)", 61762560), ("drop6", "10 4096 (40960)", 61926400),
    ("fc7", "10 4096 (40960)", 62090240), ("relu7", "10 4096 (40960)", 62254080),
    ("drop7", "10 4096 (40960)", 62417920), ("fc8", "10 1000 (10000)", 62457920), ("prob", "10 1000 (10000)", 62497920),
]  # fmt: skip


def test_the_log_of_a_net(capfd: pytest.CaptureFixture[str]) -> None:
    """Its lines in the notes' order: what each layer reads and makes, sizes, memory, what goes backward, outputs. The
    input was no layer then, and its memory, 6183480 bytes, did not count; axes of length 1 were shown.
    """
    logs.show_by_default(True)
    text = (MODELS / "bvlc_reference_caffenet/deploy.prototxt").read_text()
    start, end = text.index("layer {"), text.index("layer {", text.index("input_param"))
    Path("deploy.prototxt").write_text(
        text[:start] + 'input: "data" input_dim: 10 input_dim: 3 input_dim: 227 input_dim: 227\n' + text[end:]
    )
    caffe.Net("deploy.prototxt", caffe.TEST)
    said = capfd.readouterr().err
    layers = re.findall(
        r"Creating Layer (\w+)\n.*?\] \1 (?:<- (\w+)\n.*?\] \1 )?-> (\w+)( \(in-place\))?\n.*?Setting up \1\n"
        r".*?Top shape: (.*)\n.*?Memory required for data: (\d+)",
        said,
    )
    found = [(name, shape, int(memory)) for name, _, _, _, shape, memory in layers if name != "input"]
    assert [(name, shape, memory - 6183480) for name, shape, memory in found] == TOPS
    in_place = [name for name, _, _, place, _, _ in layers if place]
    assert in_place == [name for name, _, _ in TOPS if name[:4] in ("relu", "drop")]
    backward = re.findall(r"\] (\w+) does not need backward computation", said)
    assert backward[:-1] == [name for name, _, _ in reversed(TOPS)]
    assert said.rstrip().endswith("Network initialization done.")
    assert "This network produces output prob" in said


@pytest.fixture(autouse=True)
def in_a_folder(caffe_root: Path) -> None:
    """Files are written there."""


def test_weights_of_that_time(caffenet: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    """A caffemodel in the form of 2014: transformation fields where they were, layers for training named as ignored."""
    weights = NetParameter.FromString(caffenet[1].read_bytes())
    old = NetParameter(name="CaffeNet")
    kinds = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18, "Pooling": 17, "LRN": 15, "Dropout": 6}
    data = old.layers.add(name="data", type=5, top=["data", "label"])
    data.data_param.source, data.data_param.batch_size = "ilsvrc12_train_leveldb", 256
    data.data_param.crop_size, data.data_param.mirror = 227, True
    data.data_param.mean_file = "ilsvrc12_mean.binaryproto"
    for layer in weights.layer:
        if layer.type in kinds:
            old.layers.add(
                name=layer.name, type=kinds[layer.type], bottom=layer.bottom, top=layer.top, blobs=layer.blobs
            )
    old.layers.add(name="loss", type=21, bottom=["fc8", "label"])
    Path("bvlc_reference_caffenet.caffemodel").write_bytes(old.SerializeToString())
    logs.show_by_default(True)
    net = caffe.Net(str(caffenet[0]), "bvlc_reference_caffenet.caffemodel", caffe.TEST)
    said = capfd.readouterr().err
    for words in (
        "Attempting to upgrade input file specified using deprecated transformation parameters: bvlc_",
        "Successfully upgraded file specified using deprecated data transformation parameters.",
        "Note that future Caffe releases will only support transform_param messages for transformation fields.",
        "Ignoring source layer loss",
    ):
        assert words in said
    copied = caffe.Net(str(caffenet[0]), str(caffenet[1]), caffe.TEST)
    for name, blobs in copied.params.items():
        assert all((a.data == b.data).all() for a, b in zip(blobs, net.params[name], strict=True))


def test_the_first_five_classes(caffenet: tuple[Path, Path]) -> None:
    Path("data/ilsvrc12").mkdir()
    Path("data/ilsvrc12/synset_words.txt").write_text("".join(f"n{i:08} name {i}\n" for i in range(1000)))
    cv2.imwrite("cat.jpg", np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8))
    mean = np.random.default_rng(2).uniform(90, 130, (3, 256, 256))
    np.save("ilsvrc_2012_mean.npy", mean)
    caffe.set_mode_cpu()
    net = caffe.Classifier(
        str(caffenet[0]),
        str(caffenet[1]),
        mean=np.load("ilsvrc_2012_mean.npy").mean(1).mean(1),
        channel_swap=(2, 1, 0),
        raw_scale=255,
        image_dims=(256, 256),
    )
    prediction = net.predict([caffe.io.load_image("cat.jpg")])
    labels = np.loadtxt("data/ilsvrc12/synset_words.txt", str, delimiter="\t")
    top_k = net.blobs["prob"].data[0].flatten().argsort()[-1:-6:-1]
    picture = caffe.io.resize_image(caffe.io.load_image("cat.jpg"), (256, 256))[:227, :227]  # the first crop
    plain = caffe.Net(str(caffenet[0]), str(caffenet[1]), caffe.TEST)
    plain.blobs["data"].data[...] = ((picture * 255)[..., ::-1] - mean.mean(1).mean(1)).transpose(2, 0, 1)
    expected = plain.forward()["prob"][0].argsort()[-1:-6:-1]
    assert list(top_k) == list(expected)
    assert list(labels[top_k]) == [f"n{i:08} name {i}" for i in expected]
    assert prediction.shape == (1, 1000)
