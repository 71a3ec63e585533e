"""DetectionEvaluate against NumPy written detection by detection; boxes in pixels; its error texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import CaffeError
from caffecli.layers.base import Layer
from caffecli.layers.forks.ssd.originals import Original, in_pixels
from caffecli.layers.labels import LabelError
from caffecli.proto.caffe_pb2 import TEST, ResizeParameter
from tests.layers.forks.test_detection import overlap
from tests.layers.oracle import build


def made(settings: str, detections: int = 4, boxes: int = 3) -> Layer:
    text = f'type: "DetectionEvaluate" detection_evaluate_param {{ {settings} }}'
    return build(text, (1, 1, detections, 7), (1, 1, boxes, 8), phase=TEST)


def evaluated(
    detections: np.ndarray, truth: np.ndarray, classes: int, background: int, threshold: float, difficult: bool
) -> np.ndarray:
    true = []
    for row in truth:
        if row[0] == -1:
            break
        true.append(row)
    rows = []
    for label in range(classes):
        if label != background:
            rows.append([-1, label, sum(r[1] == label and (difficult or not r[7]) for r in true), -1, -1])
    for image, label in sorted({(row[0], row[1]) for row in detections if row[1] != -1}):
        own = [row for row in detections if (row[0], row[1]) == (image, label)]
        others = [row for row in true if (row[0], row[1]) == (image, label)]
        if others:
            own.sort(key=lambda row: -row[2])
        hit: set[int] = set()
        for row in own:
            each = [overlap(row[3:], other[3:7]) for other in others]
            best = int(np.argmax(each)) if each else -1
            if best < 0 or each[best] < threshold:
                rows.append([image, label, row[2], 0, 1])
            elif others[best][7] and not difficult:
                rows.append([image, label, row[2], 0, 0])
            else:
                rows.append([image, label, row[2], best not in hit, best in hit])
                hit.add(best)
    return np.array(rows, np.float32)


@pytest.mark.parametrize("difficult", [True, False])
@pytest.mark.parametrize(("background", "threshold"), [(0, 0.5), (2, 0.2)])
def test_each_detection_is_judged_as_by_a_loop(background: int, threshold: float, difficult: bool) -> None:
    labels = [label for label in range(4) if label != background]
    settings = f"num_classes: 4 background_label_id: {background} overlap_threshold: {threshold} "
    for seed in range(5):
        random = np.random.default_rng(seed)
        corner, size = random.uniform(0, 0.6, (9, 2)), random.uniform(0.1, 0.4, (9, 2))
        boxes = np.concatenate([corner, corner + size], 1)
        truth = np.array([[random.integers(3), random.choice(labels), 0, *b, random.integers(2)] for b in boxes])
        near = [boxes[random.integers(9)] + random.normal(0, 0.05, 4) for _ in range(40)]
        found = np.array([[random.integers(4), random.choice(labels), random.random(), *box] for box in near])
        found[::9, 1] = -1
        truth[7] = -1
        layer = made(settings + f"evaluate_difficult_gt: {str(difficult).lower()}", 40, 9)
        top = layer(*(torch.from_numpy(each.astype(np.float32))[None, None] for each in (found, truth)))
        expected = evaluated(found.astype(np.float32), truth.astype(np.float32), 4, background, threshold, difficult)
        np.testing.assert_allclose(top[0, 0].numpy(), expected, rtol=1e-6)


def test_without_a_background_all_classes_have_a_row() -> None:
    layer = made("num_classes: 2 background_label_id: 4294967295")
    nothing = torch.full((1, 1, 1, 7), -1.0), torch.full((1, 1, 1, 8), -1.0)
    assert layer(*nothing)[0, 0].tolist() == [[-1, 0, 0, -1, -1], [-1, 1, 0, -1, -1]]


@pytest.mark.parametrize(
    ("settings", "box", "expected"),
    [
        ("", (0.25, 0.5, 1.5, 0.75), (50, 50, 200, 75)),
        ("height: 300 width: 300", (-0.1, 0.5, 0.5, 0.75), (0, 50, 100, 75)),
        ("resize_mode: FIT_LARGE_SIZE_AND_PAD height: 300 width: 300", (0, 0.25, 0.5, 0.75), (0, 0, 100, 100)),
        ("resize_mode: FIT_LARGE_SIZE_AND_PAD height: 100 width: 400", (0.25, 0, 0.75, 0.5), (0, 0, 200, 50)),
        ("resize_mode: FIT_LARGE_SIZE_AND_PAD height: 300 width: 300", (0, 0.1, 0.5, 0.2), (0, 0, 100, 0)),
        ("resize_mode: FIT_SMALL_SIZE height: 300 width: 300", (0.5, 0.5, 1, 1), (100, 50, 200, 100)),
        (
            "resize_mode: FIT_SMALL_SIZE height: 300 width: 300 height_scale: 300 width_scale: 600",
            (0.1, 0.1, 0.5, 0.3),
            (60, 30, 200, 90),
        ),
    ],
)
def test_boxes_in_pixels_of_a_picture_of_200_by_100(settings: str, box: tuple, expected: tuple) -> None:
    param = text_format.Parse(settings, ResizeParameter()) if settings else None
    moved = in_pixels(torch.tensor([box]), Original("a", 100, 200), param)
    assert moved[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_overlaps_in_pixels_follow_the_pictures_in_turn(tmp_path: Path) -> None:
    """A box of 10 by 1 and one of 10 by 2 pixels, ends counted: 11 * 2 of 11 * 3; in the second picture less."""
    sizes = tmp_path / "sizes.txt"
    sizes.write_text("my picture 10 10\nb 1000 10\n\n")
    layer = made(f'num_classes: 2 overlap_threshold: 0.6 name_size_file: "{sizes}"', 2, 2)
    found = torch.tensor([[[[0, 1, 0.9, 0, 0, 1, 0.1], [1, 1, 0.9, 0, 0, 1, 0.1]]]])
    true = torch.tensor([[[[0, 1, 0, 0, 0, 1, 0.2, 0], [1, 1, 0, 0, 0, 1, 0.2, 0]]]])
    for _ in range(2):
        assert layer(found, true)[0, 0, 1:, 3].tolist() == [1, 0]
    assert layer(found[:, :, :1], true[:, :, :1])[0, 0, 1:, 3].tolist() == [1]
    assert layer(found, true)[0, 0, 1:, 3].tolist() == [0, 1]  # the pictures go on where they were


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "layer 'l' (DetectionEvaluate): expected num_classes, with the background's, got none"),
        ("num_classes: 2 overlap_threshold: 0", "expected an overlap_threshold above 0, got 0"),
        ('num_classes: 2 name_size_file: "no.txt"', "layer 'l': name_size_file: cannot read 'no.txt'"),
    ],
)
def test_errors(settings: str, said: str) -> None:
    with pytest.raises(CaffeError) as error:
        made(settings)
    assert said in str(error.value)


@pytest.mark.parametrize("line", ["a 10", "a b 10", "a -1 5", "a 0 5", f"a {'9' * 5000} 5"])
def test_lines_that_name_no_size(tmp_path: Path, line: str) -> None:
    path = tmp_path / "sizes.txt"
    path.write_text(f"a 5 5\n{line}\n")
    with pytest.raises(CaffeError, match=f"line 2: expected a name, a height and a width in pixels, got '{line:.79}"):
        made(f'num_classes: 2 name_size_file: "{path}"')
    path.write_text("\n")
    with pytest.raises(
        CaffeError, match=r"^layer .*: name_size_file: .* names no pictures; caffecli get_image_size writes such files$"
    ):
        made(f'num_classes: 2 name_size_file: "{path}"')


def test_true_boxes_of_no_class_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    layer = made("num_classes: 2", 1, 3)
    detections, truth = torch.zeros(1, 1, 1, 7), torch.zeros(1, 1, 3, 8)
    detections[0, 0, 0] = torch.tensor([0, 1, 0.9, 0, 0, 1, 1])
    for row, label in zip(truth[0, 0], (1, 7, -5), strict=True):
        row[1], row[5:7] = label, 1
    for _ in range(2):
        top = layer(detections, truth)
    torch.testing.assert_close(top[0, 0], torch.tensor([[-1.0, 1, 1, -1, -1], [0, 1, 0.9, 1, 0]]))
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1 and "true boxes have the label 7, which is none of the 2 classes" in said[0]


def test_bottoms_that_do_not_fit() -> None:
    text = 'type: "DetectionEvaluate" detection_evaluate_param { num_classes: 2 }'
    with pytest.raises(CaffeError, match=r"expected detections \(1, 1, count, 7\) and true boxes .*, got 'x'"):
        build(text, (1, 1, 4, 6), (1, 1, 3, 8))


def test_boxes_of_the_background() -> None:
    layer = made("num_classes: 2")
    boxes = torch.zeros(1, 1, 1, 7), torch.ones(1, 1, 1, 8)
    with pytest.raises(
        LabelError, match="a detection of item 0 has label 0, the background's; set background_label_id"
    ):
        layer(*boxes)
    with pytest.raises(LabelError, match="a true box of item 1 has label 0") as error:
        layer(boxes[0] + 1, torch.tensor([[[[1.0] + [0.0] * 7]]]))
    assert error.value.item == 1
