"""The command ``visualize``: a PNG of each kind, and one line where there can be none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.cli.main import cli
from caffecli.errors import DataError, SpecError
from caffecli.visual import draw
from caffecli.visual.inside import Inside

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
        ("occlusion", "ip2", "with a square of 14 in it"),
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
    inside = Inside.open(tmp_path / "net.prototxt", None)
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), pixels)
    came = draw.load_picture(inside, tmp_path / "p.png", "1,2,3", 0.5)
    np.testing.assert_allclose(came, (pixels.transpose(2, 0, 1) - np.array([1, 2, 3]).reshape(3, 1, 1)) / 2)
    with pytest.raises(DataError, match=r"--mean '1,2' has 2 numbers; expected 1, or one for each of 3 channel"):
        draw.load_picture(inside, tmp_path / "p.png", "1,2")
    with pytest.raises(DataError, match=r"net.prototxt' cannot be read as a picture; give a PNG or JPEG"):
        draw.load_picture(inside, tmp_path / "net.prototxt")


def test_wrong_use(tmp_path):
    with pytest.raises(DataError, match="activations needs a picture: give --image"):
        visualize("activations", NET, tmp_path / "o.png", "--layer", "conv1")
    with pytest.raises(DataError, match=r"its name must end in .png"):
        visualize("filters", NET, tmp_path / "o.jpg", "--layer", "conv1")
    with pytest.raises(SpecError, match="has no Input layer to give a picture to; take the deploy net"):
        visualize("filters", ROOT / "models/lenet/train_val.prototxt", tmp_path / "o.png", "--layer", "conv1")
    assert list(tmp_path.iterdir()) == []
