"""The command ``visualize``: a PNG of each kind, and one line where there can be none."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.cli.main import cli
from caffecli.errors import CaffeError, DataError, FormatError, ShapeError, SpecError
from caffecli.formats import caffemodel
from caffecli.spec.load import load_net
from caffecli.tools.visual import picture, sheet
from caffecli.tools.visual.inspector import Inspector

ROOT = Path(__file__).parents[2]
NET = str(ROOT / "models/lenet/deploy.prototxt")


@pytest.fixture
def digit(tmp_path):
    """A picture with a bright bar."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[6:22, 12:16] = 255
    cv2.imwrite(str(tmp_path / "digit.png"), pixels)
    return str(tmp_path / "digit.png")


def visualize(*args):
    cli.main(["visualize", *map(str, args)], standalone_mode=False)


@pytest.mark.parametrize(
    ("kind", "layer", "words"),
    [
        ("filters", "conv1", "20 filters of 5 x 5"),
        ("activations", "pool1", "activations of shape (20, 12, 12)"),
        ("activations", "ip2", "activations of shape (10,)"),
        ("histogram", "conv1", "histograms of weight, bias, activations"),
        ("deconv", "conv2", "units and their activations: "),
        ("occlusion", "ip2", "where squares of 14 hide it"),
        ("saliency", "ip2", "gradients up to"),
    ],
)
def test_each_kind(kind, layer, words, golden, digit, tmp_path, capsys):
    if kind == "histogram":
        pytest.importorskip("matplotlib")
    out = tmp_path / "out.png"
    weights = golden / "lenet" / "lenet_iter_10000.caffemodel"
    size = ["--size", 14, "--stride", 7] if kind == "occlusion" else []
    visualize(kind, NET, weights, out, "--layer", layer, "--image", digit, "--scale", 1 / 256, *size)
    assert words in capsys.readouterr().out
    pixels = cv2.imread(str(out))
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 5


def test_pictures_become_what_the_net_takes(tmp_path):
    source = (ROOT / "models/cifar10_quick/deploy.prototxt").read_text()
    (tmp_path / "net.prototxt").write_text(source)
    inspector = Inspector.open(tmp_path / "net.prototxt", None)
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), pixels)
    came = picture.load_picture(inspector, tmp_path / "p.png", "1,2,3", 0.5)
    np.testing.assert_allclose(came, (pixels.transpose(2, 0, 1) - np.array([1, 2, 3]).reshape(3, 1, 1)) / 2)
    with pytest.raises(DataError, match=r"--mean '1,2' has 2 numbers; expected 1, or one for each of 3 channel"):
        picture.load_picture(inspector, tmp_path / "p.png", "1,2")
    with pytest.raises(DataError, match=r"net.prototxt' is no picture that OpenCV reads; give a PNG or JPEG"):
        picture.load_picture(inspector, tmp_path / "net.prototxt")


def test_colours_are_as_people_see_them(tmp_path):
    """Blue first in the net's input and in its filters, as OpenCV has them; with --rgb the other way round."""
    source = (ROOT / "models/cifar10_quick/deploy.prototxt").read_text()
    (tmp_path / "net.prototxt").write_text(source)
    inspector = Inspector.open(tmp_path / "net.prototxt", None)
    cv2.imwrite(
        str(tmp_path / "p.png"), np.full((32, 32, 3), (200, 100, 0), np.uint8)
    )  # OpenCV's order: blue, green, red
    assert picture.fit_picture(inspector, tmp_path / "p.png")[:, 0, 0].tolist() == [200, 100, 0]
    assert picture.fit_picture(inspector, tmp_path / "p.png", rgb=True)[:, 0, 0].tolist() == [0, 100, 200]
    weights = {"conv1": [np.zeros((32, 3, 5, 5), np.float32), np.zeros(32, np.float32)]}
    weights["conv1"][0][0, 0] = 1  # the first filter sees blue alone
    for name in ("conv2", "conv3", "ip1", "ip2"):
        weights[name] = [blob.detach().numpy() for blob in inspector.net.layer(name).blobs]
    caffemodel.write(tmp_path / "w.caffemodel", load_net(tmp_path / "net.prototxt"), weights)
    for flags, expected in (([], [255, 0, 0]), (["--rgb"], [0, 0, 255])):
        visualize(
            "filters",
            tmp_path / "net.prototxt",
            tmp_path / "w.caffemodel",
            tmp_path / "o.png",
            "--layer",
            "conv1",
            *flags,
        )
        drawn = cv2.imread(str(tmp_path / "o.png"))
        assert drawn[60, 40].tolist() == expected
        visualize(
            *("saliency", tmp_path / "net.prototxt", tmp_path / "w.caffemodel", tmp_path / "o.png", "--layer", "conv1"),
            *("--image", tmp_path / "p.png", "--mean", "104,117,123", "--unit", 0, *flags),
        )
        assert cv2.imread(str(tmp_path / "o.png"))[100, 100].tolist() == [200, 100, 0]  # no mean taken from it


def test_scales_name_the_ends_and_zero():
    marked = sheet.with_scale(np.zeros((200, 50, 3), np.uint8), -2, 6)
    assert marked.shape[0] == 200
    assert marked.shape[1] > 50 + 14
    bar = marked[:, 50 + 12 + 7, 0].astype(int)
    assert (bar[0], bar[-1]) == (255, 0)
    assert abs(bar[150] - 255 * 2 / 8) < 3  # where 0 is
    assert (marked[145:156, 50 + 12 + 14 :] < 128).any()


def test_long_titles_are_cut_and_pictures_too_narrow_widened():
    drawn = sheet.sheet("x" * 500, np.zeros((5, 5, 3), np.uint8))
    assert drawn.shape[1] == 600 + 2 * 12
    assert (drawn[:, -14:] == 255).all()


def test_bars():
    drawn = sheet.bars(np.array([2, -1, 0.5]), 101)
    assert drawn.shape[0] == 101
    assert drawn[3:64, 100, 0].max() < 128
    assert drawn[75:, 100, 0].min() == 255
    assert drawn[75:95, 300, 0].max() < 128


@pytest.mark.parametrize(
    ("kind", "layer", "unit", "words"),
    [
        ("filters", "ip2", [], "weights, 10 x 500"),
        ("filters", "ip2", ["--unit", 3], "500 weights"),
        ("activations", "ip2", ["--unit", 3], "activations of shape (1,), "),
        ("activations", "prob", [], "the largest of unit "),
    ],
)
def test_values_without_height_and_width(kind, layer, unit, words, golden, digit, tmp_path, capsys):
    weights = golden / "lenet" / "lenet_iter_10000.caffemodel"
    visualize(kind, NET, weights, tmp_path / "o.png", "--layer", layer, "--image", digit, *unit)
    assert words in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "o.png")).std() > 5


@pytest.mark.parametrize("unit", [[], ["--unit", 3]])
def test_one_unit(unit, golden, digit, tmp_path, capsys):
    weights = golden / "lenet" / "lenet_iter_10000.caffemodel"
    args = (NET, weights, tmp_path / "o.png", "--layer", "conv2", "--image", digit, *unit)
    visualize("filters", *args)
    visualize("activations", *args)
    words = capsys.readouterr().out
    assert ("20 filters of 5 x 5" if unit else "1000 filters of 5 x 5") in words
    assert f"activations of shape ({1 if unit else 50}, 8, 8)" in words


def test_the_nets_log_is_not_shown(golden, tmp_path, capsys):
    visualize("filters", NET, golden / "lenet" / "lenet_iter_10000.caffemodel", tmp_path / "o.png", "--layer", "conv1")
    assert capsys.readouterr().err == ""


def test_weights_of_another_net(golden, tmp_path, capsys):
    lenet = golden / "lenet" / "lenet_iter_10000.caffemodel"
    (tmp_path / "net.prototxt").write_text(re.sub('"(conv|ip)([12])"', '"other_\\1\\2"', Path(NET).read_text()))
    with pytest.raises(
        SpecError, match=r"iter_10000.caffemodel' has no weights for any layer of net 'LeNet', .*'other_conv1'; give"
    ):
        visualize("filters", tmp_path / "net.prototxt", lenet, tmp_path / "o.png", "--layer", "other_conv1")
    (tmp_path / "net.prototxt").write_text(Path(NET).read_text().replace('"ip2"', '"ip3"'))
    visualize("filters", tmp_path / "net.prototxt", lenet, tmp_path / "o.png", "--layer", "conv1")
    assert "has no weights for ip3: they keep what the fillers made" in capsys.readouterr().err
    (tmp_path / "net.prototxt").write_text(Path(NET).read_text().replace("kernel_size: 5", "kernel_size: 3"))
    with pytest.raises(ShapeError, match=r"layer 'conv1', blob 0: expected \(20, 1, 3, 3\), .* has \(20, 1, 5, 5\)"):
        visualize("filters", tmp_path / "net.prototxt", lenet, tmp_path / "p.png", "--layer", "conv1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.prototxt", "o.png"]


@pytest.mark.parametrize(
    ("kind", "layer", "changed", "error", "words"),
    [
        ("filters", "cnv1", {}, SpecError, "net 'LeNet' has no layer 'cnv1'; did you mean 'conv1'"),
        ("filters", "pool1", {}, ShapeError, r"layer 'pool1' \(Pooling\) has no filters; name one with weights"),
        ("filters", "conv1", {"--unit": 20}, SpecError, "layer 'conv1' has the units 0 to 19, not 20"),
        (
            "activations",
            "conv1",
            {"--image": "none.png"},
            FormatError,
            "cannot read 'none.png': No such file or directory",
        ),
        (
            "activations",
            "conv1",
            {"--image": NET},
            DataError,
            r"deploy.prototxt' is no picture that OpenCV reads; give a PNG or JPEG",
        ),
        ("activations", "conv1", {"--mean": "none.binaryproto"}, FormatError, "there is no mean 'none.binaryproto'"),
        (
            "activations",
            "conv1",
            {"--mean": "1,2"},
            DataError,
            r"--mean '1,2' has 2 numbers; expected 1, or one for each of 1",
        ),
        ("activations", "ip2", {"--unit": 10}, SpecError, "layer 'ip2' has the units 0 to 9, not 10"),
        ("occlusion", "ip2", {"--size": 40}, SpecError, "a square of 40 hides more than the picture of 28 x 28"),
        ("histogram", "pool1", {"--image": None}, DataError, "layer 'pool1' has no weights; give --image"),
        (
            "saliency",
            "ip2",
            {"out": "none/o.png"},
            FormatError,
            r"cannot write 'none/o.png': .*; create the folder 'none' first",
        ),
        ("saliency", "ip2", {"weights": "none.caffemodel"}, FormatError, "cannot read 'none.caffemodel'"),
        ("saliency", "ip2", {"net": "none.prototxt"}, CaffeError, "cannot read 'none.prototxt'"),
    ],
)
def test_wrong_input_is_named_and_nothing_written(
    kind, layer, changed, error, words, golden, digit, tmp_path, monkeypatch
):
    if kind == "histogram":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o.png").write_bytes(b"mine")
    given = {
        "net": NET,
        "weights": golden / "lenet" / "lenet_iter_10000.caffemodel",
        "out": "o.png",
        "--image": digit,
    } | changed
    args = [given.pop(name) for name in ("net", "weights", "out")]
    flags = [part for name, value in given.items() if value is not None for part in (name, value)]
    with pytest.raises(error, match=words) as caught:
        visualize(kind, *args, "--layer", layer, *flags)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digit.png", "o.png"]
    assert (tmp_path / "o.png").read_bytes() == b"mine"


def test_values_that_are_no_numbers(tmp_path):
    net = load_net(NET)
    inspector = Inspector.open(NET, None)
    weights = {node.name: [blob.detach().numpy().copy() for blob in node.layer.blobs] for node in inspector.net.nodes}
    weights["conv1"][0][2, 0, 1, 1:3] = np.nan
    caffemodel.write(tmp_path / "w.caffemodel", net, weights)
    with pytest.raises(
        DataError, match="layer 'conv1': 2 of 500 values are nan or infinite; give weights of a sound training"
    ):
        visualize("filters", NET, tmp_path / "w.caffemodel", tmp_path / "o.png", "--layer", "conv1")
    assert [path.name for path in tmp_path.iterdir()] == ["w.caffemodel"]


def test_wrong_use(tmp_path):
    with pytest.raises(DataError, match="activations needs a picture: give --image"):
        visualize("activations", NET, tmp_path / "o.png", "--layer", "conv1")
    with pytest.raises(DataError, match=r"its name must end in .png"):
        visualize("filters", NET, tmp_path / "o.jpg", "--layer", "conv1")
    with pytest.raises(SpecError, match="has no Input layer to give a picture to; take the deploy net"):
        visualize("filters", ROOT / "models/lenet/train_val.prototxt", tmp_path / "o.png", "--layer", "conv1")
    assert list(tmp_path.iterdir()) == []
