"""The PriorBox of TextBoxes and FaceBoxes against NumPy written box by box, and which net means which."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.layers.forks.ssd.priors import PriorBox
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from caffecli.spec.upgrade import upgrade_net
from tests.layers.oracle import build, check

FEATURES, IMAGE = (2, 3, 2, 3), (2, 3, 64, 96)
STEP = 32


def table(boxes: list[list[float]]) -> np.ndarray:
    """Boxes of x, y, width and height in pixels, at each place."""
    rows = [
        [(x - wide / 2) / 96, (y - high / 2) / 64, (x + wide / 2) / 96, (y + high / 2) / 64]
        for row in range(FEATURES[2])
        for column in range(FEATURES[3])
        for x, y, wide, high in [
            [column * STEP + right, row * STEP + down, wide, high] for right, down, wide, high in boxes
        ]
    ]
    return np.array(rows).ravel()


def priors_of(settings: str, expected: np.ndarray) -> None:
    check(
        f'type: "PriorBox" prior_box_param {{ {settings} }}',
        FEATURES,
        IMAGE,
        oracle=lambda *_: np.stack([expected, np.full(expected.size, 0.1)])[None],
        gradient=False,
    )


def test_denser_prior_boxes_come_again_a_step_further_down() -> None:
    """From the place's begin, whatever the offset."""
    root = math.sqrt(2)
    sizes = [(10, 10), (20, 20), (10 * root, 10 / root)]
    boxes = [[8.0, down, wide, high] for wide, high in sizes for down in (8.0, 32.0)]
    priors_of(
        "min_size: 10 max_size: 40 aspect_ratio: 2 flip: false offset: 0.25 denser_prior_boxes: true", table(boxes)
    )


def dense(size: float, density: int, ratios: list[float]) -> list[list[float]]:
    step = int(size / density)
    boxes = []
    for ratio in ratios:
        wide = int(size) if ratio == 1 else size * math.sqrt(ratio)
        high = int(size) if ratio == 1 else size / math.sqrt(ratio)
        for row in range(density):
            for column in range(density):
                x, y = (16 - int(size) // 2 + step / 2 + place * step for place in (column, row))
                boxes.append([x, y, wide, high])
    return boxes


def cut(boxes: np.ndarray) -> np.ndarray:
    """Begins at 0 or more, ends at 1 or less."""
    low, high = boxes.reshape(-1, 2, 2)[:, 0], boxes.reshape(-1, 2, 2)[:, 1]
    return np.concatenate([low.clip(min=0), high.clip(max=1)], 1).ravel()


@pytest.mark.parametrize(
    ("settings", "boxes"),
    [
        ("fixed_size: 16 density: 1", dense(16, 1, [1])),
        ("fixed_size: 33 fixed_size: 9.5 density: 4 density: 2", [*dense(33, 4, [1]), *dense(9.5, 2, [1])]),
        ("fixed_size: 16 density: 2 aspect_ratio: 4", dense(16, 2, [1, 4, 0.25])),
        ("fixed_size: 20 density: 2 fixed_ratio: 4 fixed_ratio: 0.5", dense(20, 2, [4, 0.5])),
    ],
)
def test_boxes_in_densities(settings: str, boxes: list[list[float]]) -> None:
    priors_of(settings, cut(table(boxes)))


DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 64 dim: 96 } } }'
HEAD = """layer { name: "loc_%(n)d" type: "Convolution" bottom: "data" top: "loc_%(n)d"
    convolution_param { num_output: %(loc)d kernel_size: 32 stride: 32 } }
  layer { name: "perm_%(n)d" type: "Permute" bottom: "loc_%(n)d" top: "perm_%(n)d"
    permute_param { order: 0 order: 2 order: 3 order: 1 } }
  layer { name: "flat_%(n)d" type: "Flatten" bottom: "perm_%(n)d" top: "flat_%(n)d" }
  layer { name: "prior_%(n)d" type: "PriorBox" bottom: "loc_%(n)d" bottom: "data" top: "prior_%(n)d"
    prior_box_param { %(prior)s } }"""
OUT = """layer { name: "loc" type: "Concat" bottom: "flat_0" bottom: "flat_1" top: "loc" concat_param { axis: 1 } }
  layer { name: "priors" type: "Concat" bottom: "prior_0" bottom: "prior_1" top: "priors" concat_param { axis: 2 } }
  layer { name: "conf" type: "Input" top: "conf" input_param { shape { dim: 1 dim: %d } } }
  layer { name: "out" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "out"
    detection_output_param { num_classes: 2 share_location: %s code_type: CENTER_SIZE } }"""


def net_of(predicted: tuple[int, int], priors: tuple[str, str], classes: int = 1) -> Net:
    """A net that predicts so many boxes at each of six places."""
    heads = [
        HEAD % {"n": n, "loc": 4 * count * classes, "prior": prior}
        for n, (count, prior) in enumerate(zip(predicted, priors, strict=True))
    ]
    end = OUT % (6 * 2 * sum(predicted), "true" if classes == 1 else "false")
    return Net(upgrade_net(text.parse("".join([DATA, *heads, end]), NetParameter())))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def forms(net: Net) -> list[str]:
    return [layer.form for layer in net.layers.values() if isinstance(layer, PriorBox)]


FACES = "min_size: 32 min_size: 64 min_size: 128"


def test_faceboxes_are_told_by_what_is_predicted(caplog: pytest.LogCaptureFixture) -> None:
    net = net_of((21, 1), (FACES, "min_size: 256"))
    assert forms(net) == ["FaceBoxes", "FaceBoxes"]
    assert warnings(caplog) == [
        "PriorBox, from layer 'prior_0' on, makes 21 boxes of min_size 32, 64 and 128, and all squares a pixel "
        "smaller, as FaceBoxes does: so many locations are predicted"
    ]
    first, second = (net.layer(name) for name in ("prior_0", "prior_1"))
    boxes = [[16 + right, 16 + down, 31.0, 31.0] for down in (-16, -8, 0, 8) for right in (-16, -8, 0, 8)]
    boxes += [[16 + right, 16 + down, 63.0, 63.0] for down in (-16, 0) for right in (-16, 0)]
    boxes += [[16.0, 16.0, 127.0, 127.0]]
    bottoms = torch.zeros(FEATURES), torch.zeros(IMAGE)
    for layer, expected in ((first, boxes), (second, [[16.0, 16.0, 255.0, 255.0]])):
        got = layer(*bottoms)
        assert isinstance(got, torch.Tensor)
        np.testing.assert_allclose(got[0, 0].numpy(), table(expected), rtol=1e-6)


def test_textboxes_are_told_by_what_is_predicted(caplog: pytest.LogCaptureFixture) -> None:
    priors = "min_size: 30 aspect_ratio: 2 flip: false", "min_size: 60 max_size: 90 aspect_ratio: 2 flip: false"
    net = net_of((4, 6), priors)
    assert forms(net) == ["TextBoxes", "TextBoxes"]
    assert "makes each box twice, as with denser_prior_boxes: true, as TextBoxes does" in caplog.text
    bottoms = torch.zeros(FEATURES), torch.zeros(IMAGE)
    said = build(f'type: "PriorBox" prior_box_param {{ {priors[1]} denser_prior_boxes: true }}', FEATURES, IMAGE)
    ours, theirs = net.layer("prior_1")(*bottoms), said(*bottoms)
    assert isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("predicted", "priors", "classes"),
    [
        ((3, 1), (FACES, "min_size: 256"), 1),
        ((2, 3), ("min_size: 30 max_size: 40", "min_size: 60 aspect_ratio: 2"), 1),
        ((2, 3), ("min_size: 30 max_size: 40", "min_size: 60 aspect_ratio: 2"), 2),
        ((2, 2), ("min_size: 30 denser_prior_boxes: true", "min_size: 60 max_size: 70"), 1),
    ],
    ids=str,
)
def test_other_nets_are_ssds(
    predicted: tuple[int, int], priors: tuple[str, str], classes: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert forms(net_of(predicted, priors, classes)) == ["", ""]
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            "fixed_size: 32 density: 1 min_size: 4",
            "has both fixed_size, FaceBoxes', and min_size, SSD's; leave",
        ),
        (
            "fixed_size: 32 density: 1 denser_prior_boxes: true",
            "has both fixed_size, FaceBoxes', and denser_prior_boxes, TextBoxes++'s; leave out one of them",
        ),
        ("fixed_size: 32 density: 1 aspect_ratio: 2 fixed_ratio: 2", "has both fixed_ratio and aspect_ratio"),
        ("fixed_size: 32", "for each fixed_size a density of 1 or more, got [32], [] and []"),
        ("fixed_size: 32 density: 0.5", "for each fixed_size a density of 1 or more, got [32], [] and [0.5]"),
        ("fixed_size: 0 density: 1", "expected fixed_size and fixed_ratio above 0"),
        ("min_size: 32 density: 1", "fixed_ratio and density, FaceBoxes', need fixed_size"),
    ],
)
def test_errors(settings: str, said: str) -> None:
    with pytest.raises(CaffeError) as error:
        build(f'type: "PriorBox" prior_box_param {{ {settings} }}', FEATURES, IMAGE)
    assert "layer 'l' (PriorBox): " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
