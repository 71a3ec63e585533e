"""PriorBox and DetectionOutput against NumPy written box by box, and their error texts."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import TEST
from tests.layers.oracle import build, check

FEATURES, IMAGE = (2, 3, 4, 5), (2, 3, 32, 60)


def prior_boxes(sizes: list[tuple[float, float]], step: tuple[float, float], image=(32, 60), offset=0.5) -> np.ndarray:
    boxes = []
    for row in range(4):
        for column in range(5):
            x, y = (column + offset) * step[1], (row + offset) * step[0]
            for wide, high in sizes:
                boxes += [
                    (x - wide / 2) / image[1],
                    (y - high / 2) / image[0],
                    (x + wide / 2) / image[1],
                    (y + high / 2) / image[0],
                ]
    return np.array(boxes)


ROOT = math.sqrt(2)


@pytest.mark.parametrize(
    ("settings", "sizes", "others"),
    [
        ("min_size: 10", [(10, 10)], {}),
        ("min_size: 10.9 max_size: 40.5", [(10, 10), (20, 20)], {}),
        (
            "min_size: 10 max_size: 40 aspect_ratio: 2 aspect_ratio: 1 aspect_ratio: 2",
            [(10, 10), (20, 20), (10 * ROOT, 10 / ROOT), (10 / ROOT, 10 * ROOT)],
            {},
        ),
        ("min_size: 4 min_size: 8 aspect_ratio: 4 flip: false", [(4, 4), (8, 2), (8, 8), (16, 4)], {}),
        ("min_size: 10 img_size: 64", [(10, 10)], {"image": (64, 64), "step": (16, 12.8)}),
        (
            "min_size: 10 img_h: 40 img_w: 80 step: 6 offset: 0.25",
            [(10, 10)],
            {"image": (40, 80), "step": (6, 6), "offset": 0.25},
        ),
        ("min_size: 10 step_h: 5 step_w: 7", [(10, 10)], {"step": (5, 7)}),
    ],
)
@pytest.mark.parametrize("clip", ["true", "false"])
@pytest.mark.parametrize("variance", [[], [0.25], [0.1, 0.1, 0.2, 0.2]])
def test_prior_box(settings, sizes, others, clip, variance):
    boxes = prior_boxes(sizes, **{"step": (8, 12), **others})
    if clip == "true":
        boxes = boxes.clip(0, 1)
    variances = np.tile(np.resize(variance or [0.1], 4), boxes.size // 4)
    settings += f" clip: {clip}" + "".join(f" variance: {each}" for each in variance)
    text = f'type: "PriorBox" prior_box_param {{ {settings} }}'
    check(text, FEATURES, IMAGE, oracle=lambda *_: np.stack([boxes, variances])[None], gradient=False)


def test_prior_box_to_the_last_bit():
    """Centres in float32, the rest in float64, rounded once: as C++ computes SSD's expressions."""
    text = 'type: "PriorBox" prior_box_param { min_size: 7 max_size: 19 offset: 0.3 }'
    bottoms = torch.zeros(1, 2, 3, 7), torch.zeros(1, 3, 50, 61)
    got = build(text, *(bottom.shape for bottom in bottoms))(*bottoms)[0, 0].reshape(3, 7, 2, 4)
    single = np.float32
    for row, column, size in itertools.product(range(3), range(7), range(2)):
        x = (single(column) + single(0.3)) * (single(61) / single(7))
        y = (single(row) + single(0.3)) * (single(50) / single(3))
        side = float(single((7, math.sqrt(7 * 19))[size])) / 2
        x, y = float(x), float(y)
        expected = [(x - side) / 61, (y - side) / 50, (x + side) / 61, (y + side) / 50]
        np.testing.assert_array_equal(got[row, column, size], np.array(expected, single))


def decode(prior, variance, change, code):
    change = variance * change
    wide, high = prior[2] - prior[0], prior[3] - prior[1]
    if code == "CORNER":
        return prior + change
    if code == "CORNER_SIZE":
        return prior + change * np.array([wide, high, wide, high])
    x, y = (prior[0] + prior[2]) / 2 + change[0] * wide, (prior[1] + prior[3]) / 2 + change[1] * high
    wide, high = wide * math.exp(change[2]), high * math.exp(change[3])
    return np.array([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])


def overlap(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * high / (sum(area) - wide * high)


def detections(
    loc, conf, priors, classes, *, code, shared, background, threshold, nms, eta, top_k, keep_top_k, encoded
):
    prior, variance = priors.reshape(2, -1, 4)
    variance = np.ones_like(variance) if encoded else variance
    out = []
    for image in range(len(loc)):
        rows = []
        for label in range(classes):
            if label == background:
                continue
            change = loc[image].reshape(len(prior), -1, 4)[:, 0 if shared else label]
            score = conf[image].reshape(len(prior), classes)[:, label]
            boxes = [decode(*each, code) for each in zip(prior, variance, change, strict=True)]
            order = sorted((i for i in range(len(prior)) if score[i] > threshold), key=lambda i: -score[i])
            kept: list[int] = []
            limit = nms
            for i in order[: top_k if top_k > -1 else None]:
                if all(overlap(boxes[i], boxes[j]) <= limit for j in kept):
                    kept.append(i)
                    if eta < 1 and limit > 0.5:
                        limit *= eta
            rows += [[image, label, score[i], *boxes[i]] for i in kept]
        if -1 < keep_top_k < len(rows):
            rows = sorted(sorted(rows, key=lambda row: -row[2])[:keep_top_k], key=lambda row: (row[1], -row[2]))
        out += rows
    return np.array(out or [[image, *[-1] * 6] for image in range(len(loc))])[None, None]


PLAIN = {
    "code": "CENTER_SIZE",
    "shared": True,
    "background": 0,
    "threshold": 0.1,
    "nms": 0.45,
    "eta": 1.0,
    "top_k": -1,
    "keep_top_k": -1,
    "encoded": False,
}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"code": "CORNER"},
        {"code": "CORNER_SIZE"},
        {"shared": False},
        {"shared": False, "background": 2, "code": "CORNER"},
        {"background": -1},
        {"threshold": 0.6},
        {"threshold": 2},
        {"nms": 0.0},
        {"nms": 0.9, "eta": 0.8},
        {"top_k": 5},
        {"keep_top_k": 7},
        {"keep_top_k": 0},
        {"top_k": 9, "keep_top_k": 11, "encoded": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_detection_output(changed, seed):
    options = {**PLAIN, **changed}
    random, count, classes = np.random.default_rng(seed), 30, 3
    corner, size = random.uniform(0, 0.6, (count, 2)), random.uniform(0.1, 0.4, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1).ravel()
    priors = np.stack([boxes, np.tile([0.1, 0.1, 0.2, 0.2], count)])[None].astype(np.float32)
    loc = random.normal(0, 0.5, (2, count * 4 * (1 if options["shared"] else classes))).astype(np.float32)
    conf = random.permutation(np.linspace(0, 1, 2 * count * classes)).reshape(2, -1).astype(np.float32)
    text = f"""type: "DetectionOutput" detection_output_param {{ num_classes: {classes} code_type: {options["code"]}
        share_location: {str(options["shared"]).lower()} background_label_id: {options["background"]}
        nms_param {{ nms_threshold: {options["nms"]} eta: {options["eta"]} top_k: {options["top_k"]} }}
        keep_top_k: {options["keep_top_k"]} confidence_threshold: {options["threshold"]}
        variance_encoded_in_target: {str(options["encoded"]).lower()} }}"""
    arrays = [loc, conf, priors]
    expected = detections(*(array.astype(np.float64) for array in arrays), classes=classes, **options)  # type: ignore[misc]
    layer = build(text, *(array.shape for array in arrays), phase=TEST)
    got = layer(*map(torch.from_numpy, arrays))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_boxes_beyond_all_bounds_pass():
    layer = build(
        'type: "DetectionOutput" detection_output_param { num_classes: 2 code_type: CENTER_SIZE }',
        (1, 8),
        (1, 4),
        (1, 2, 8),
    )
    loc = torch.full((1, 8), 1e4)
    priors = torch.tensor([[[0.1, 0.1, 0.3, 0.4] * 2, [1.0] * 8]])
    out = layer(loc, torch.tensor([[0.5, 0.5, 0.4, 0.6]]), priors)
    assert out[0, 0, :, 2].tolist() == pytest.approx([0.6])


def test_the_number_of_boxes_is_not_known_before():
    layer = build('type: "DetectionOutput" detection_output_param { num_classes: 3 }', (2, 20), (2, 15), (1, 2, 20))
    assert layer.reshape([(2, 20), (2, 15), (1, 2, 20)]) == [(1, 1, 1, 7)]


SAVE = """type: "DetectionOutput" detection_output_param { num_classes: 3
  save_output_param { label_map_file: "l.prototxt"
    output_format: "VOC" resize_param { resize_mode: WARP height: 300 width: 300 interp_mode: LINEAR } """


def test_where_the_label_map_is_not_there_nothing_is_written_and_that_is_said(caplog):
    """The deploy nets that SSD's scripts write have save_output_param, and those for a webcam a bottom more."""
    shapes = [(2, 20), (2, 15), (1, 2, 20), (2, 3, 8, 8)]
    with caplog.at_level("WARNING"):
        build(SAVE + "} }", *shapes)
        assert not caplog.records
        layer = build(SAVE + 'output_directory: "found" name_size_file: "s.txt" num_test_image: 4 } }', *shapes)
        build(
            SAVE.replace('label_map_file: "l.prototxt"', "") + 'output_directory: "found" } visualize: true }', *shapes
        )
    assert [record.message for record in caplog.records] == [
        "Layer 'l': nothing is written to 'found': label_map_file 'l.prototxt' is not there.",
        "Layer 'l': nothing is written to 'found': save_output_param has no label_map_file.",
        "Layer 'l': no window can be opened here: nothing is shown; set save_file.",
    ]
    assert layer(*map(torch.zeros, shapes)).shape == (1, 1, 20, 7)


SIZES = "000001 100 200\nb 50 50\n"
MAP = 'item { name: "none" label: 0 } item { name: "cat" label: 1 } item { name: "7" label: 2 }'


def saving(folder: Path, form: str, more: str = "", label_map: str = MAP, sizes: str = SIZES) -> Layer:
    (folder / "l.prototxt").write_text(label_map)
    (folder / "s.txt").write_text(sizes)
    return build(
        f"""type: "DetectionOutput" detection_output_param {{ num_classes: 3 save_output_param {{
        output_directory: "{folder}/a/b" label_map_file: "{folder}/l.prototxt" name_size_file: "{folder}/s.txt"
        output_format: "{form}" {more} }} confidence_threshold: 0.3 }}""",
        (1, 8),
        (1, 6),
        (1, 2, 8),
        phase=TEST,
    )


PRIOR = torch.tensor([[[0.1, 0.1, 0.3, 0.4, 0.6, 0.6, 0.9, 1.2], [0.1] * 8]])
PREFIX = 'output_name_prefix: "c4_" '


@pytest.mark.parametrize(
    ("form", "more", "expected"),
    [
        (
            "VOC",
            PREFIX,
            {
                "c4_cat.txt": "000001 0.5 20 10 60 40\nb 0.5 5 5 15 20\n",
                "c4_7.txt": "000001 0.75 120 60 180 100\nb 0.75 30 30 45 50\n",
            },
        ),
        (
            "ILSVRC",
            "",
            {
                "detections.txt": "000001 1 0.5 20 10 60 40\n000001 2 0.75 120 60 180 100\nb 1 0.5 5 5 15 20\n"
                "b 2 0.75 30 30 45 50\n"
            },
        ),
        (
            "COCO",
            PREFIX + "num_test_image: 1",
            {
                "c4_.json": """[
{"image_id": 1, "category_id": "cat", "bbox": [20.0, 10.0, 40.0, 30.0], "score": 0.5},
{"image_id": 1, "category_id": 7, "bbox": [120.0, 60.0, 60.0, 40.0], "score": 0.75}
]
"""
            },
        ),
        (
            "VOC",
            PREFIX + "resize_param { resize_mode: FIT_LARGE_SIZE_AND_PAD height: 300 width: 300 }",
            {
                "c4_cat.txt": "000001 0.5 20 0 60 30\nb 0.5 5 5 15 20\n",
                "c4_7.txt": "000001 0.75 120 70 180 100\nb 0.75 30 30 45 50\n",
            },
        ),
    ],
)
def test_what_is_found_is_written_when_all_pictures_have_passed(
    tmp_path: Path, form: str, more: str, expected: dict[str, str]
) -> None:
    layer = saving(tmp_path, form, more)
    assert not (tmp_path / "a").exists()
    bottoms = torch.zeros(1, 8), torch.tensor([[0.1, 0.5, 0.1, 0.1, 0.2, 0.75]]), PRIOR
    layer(*bottoms)
    assert [*(tmp_path / "a/b").iterdir()] == [] or "num_test_image" in more
    for _ in range(3):
        layer(*bottoms)
    assert {path.name: path.read_text() for path in (tmp_path / "a/b").iterdir()} == expected


def test_without_any_box_the_files_are_there_and_empty(tmp_path: Path) -> None:
    for form, name, content in (("VOC", "cat.txt", ""), ("COCO", "detections.json", "[\n]\n")):
        layer = saving(tmp_path, form)
        for _ in range(2):
            layer(torch.zeros(1, 8), torch.zeros(1, 6), PRIOR)
        assert (tmp_path / "a/b" / name).read_text() == content


def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layer = saving(tmp_path, "VOC")
    (tmp_path / "a").write_text("")
    with caplog.at_level("WARNING"):
        for _ in range(2):
            assert layer(torch.zeros(1, 8), torch.ones(1, 6), PRIOR).shape == (1, 1, 4, 7)
    (said,) = (record.message for record in caplog.records)
    assert said == f"Layer 'l': nothing is written to '{tmp_path}/a/b': it cannot be made (Not a directory)."


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"form": "XML"}, """expected output_format: "VOC", "COCO" or "ILSVRC", got 'XML'"""),
        ({"form": "VOC", "label_map": 'item { name: "cat" label: 1 }'}, "l.prototxt' has no item of label 2"),
        ({"form": "VOC", "label_map": MAP.replace("cat", "../cat")}, "'../cat' cannot be part of a file's name"),
        ({"form": "COCO", "more": 'output_name_prefix: "/etc/x"'}, "'/etc/x' cannot be part of a file's name"),
        ({"form": "COCO", "more": "num_test_image: 3"}, "num_test_image: 3, but "),
        ({"form": "COCO", "sizes": "a 5\n"}, "line 1: expected a name, a height and a width in pixels, got 'a 5'"),
    ],
)
def test_results_that_cannot_be_written(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    with pytest.raises(CaffeError) as error:
        saving(tmp_path, **settings)
    assert said in str(error.value)


@pytest.mark.parametrize("changed", [{"top_k": 4}, {"top_k": 40, "keep_top_k": 9}, {}], ids=str)
def test_equal_confidences_stand_in_the_order_of_the_priors(changed):
    options = {**PLAIN, **changed}
    random = np.random.default_rng(0)
    corner = random.uniform(0, 0.6, (60, 2))
    priors = np.stack([np.concatenate([corner, corner + 0.2], 1).ravel(), np.full(240, 0.1)])[None].astype(np.float32)
    loc = np.zeros((2, 240), np.float32)
    conf = random.integers(1, 5, (2, 180)).astype(np.float32) / 8
    text = f"""type: "DetectionOutput" detection_output_param {{ num_classes: 3 code_type: CENTER_SIZE nms_param {{
        nms_threshold: 0.45 top_k: {options["top_k"]} }} keep_top_k: {options["keep_top_k"]}
        confidence_threshold: 0.1 }}"""
    expected = detections(*(each.astype(np.float64) for each in (loc, conf, priors)), classes=3, **options)  # type: ignore[misc]
    got = build(text, (2, 240), (2, 180), (1, 2, 240), phase=TEST)(*map(torch.from_numpy, (loc, conf, priors)))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE"])
def test_a_first_stage_says_where_objects_are_and_moves_the_priors(code):
    """RefineDet's: in each image by itself."""
    random, count = np.random.default_rng(2), 12
    corner = random.uniform(0, 0.6, (count, 2))
    prior = np.concatenate([corner, corner + 0.3], 1)
    variance = np.tile([0.1, 0.1, 0.2, 0.2], (count, 1))
    shapes = (2, count * 4), (2, count * 3), (2, count * 2), (2, count * 4)
    loc, conf, objectness, moves = (random.uniform(0, 1, shape) for shape in shapes)
    settings = f"num_classes: 3 code_type: {code} confidence_threshold: 0.2 nms_param {{ nms_threshold: 0.45 }}"
    objects = (objectness.reshape(2, count, 2)[..., 1:] >= 0.4) * conf.reshape(2, count, 3)
    for bottoms in (3, 4):
        expected = []
        for image in range(2):
            own = [decode(*each, code) for each in zip(prior, variance, moves[image].reshape(-1, 4), strict=True)]
            priors = np.stack([np.stack(own) if bottoms == 4 else prior, variance]).reshape(1, 2, -1)
            options = {**PLAIN, "code": code, "threshold": 0.2}
            rows = detections(loc[image : image + 1], objects[image : image + 1], priors, 3, **options)[0, 0]
            rows[:, 0] = image
            expected += list(rows)
        priors = np.stack([prior, variance]).reshape(1, 2, -1)
        given = [torch.from_numpy(each) for each in (loc, conf, priors, objectness, moves)[: bottoms + 1]]
        text = f'type: "DetectionOutput" detection_output_param {{ {settings} objectness_score: 0.4 }}'
        layer = build(text, *(each.shape for each in given), phase=TEST)
        np.testing.assert_allclose(layer(*given)[0, 0].numpy(), expected, rtol=1e-6)


def test_a_fourth_bottom_is_objectness_or_images():
    text = 'type: "DetectionOutput" detection_output_param { num_classes: 3 %s }'
    shapes = (2, 20), (2, 15), (1, 2, 20)
    assert build(text % "", *shapes, (2, 10, 1, 1)).has_first_stage
    assert not build(text % "", *shapes, (2, 3, 8, 8)).has_first_stage
    assert not build(text % "visualize: true", *shapes, (2, 10, 1, 1)).has_first_stage
    for others in ([(2, 11)], [(2, 10), (2, 16)], [(1, 10), (2, 20)], [(2, 3, 8, 8), (2, 20)]):
        with pytest.raises(CaffeError, match=r"expected objectness \(num, priors \* 2\) and, with"):
            build(text % "", *shapes, *others)


PRIORS = 'type: "PriorBox" prior_box_param { '
OUT = 'type: "DetectionOutput" detection_output_param { '


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        (PRIORS + "}", [FEATURES, IMAGE], "layer 'l' (PriorBox): expected one min_size or more, above 0, got []"),
        (
            PRIORS + "min_size: 3 min_size: 4 max_size: 5 }",
            [FEATURES, IMAGE],
            "a larger max_size for each min_size [3, 4], got [5]",
        ),
        (PRIORS + "min_size: 3 max_size: 3 }", [FEATURES, IMAGE], "a larger max_size for each min_size [3], got [3]"),
        (
            PRIORS + "min_size: 3 variance: 1 variance: 2 }",
            [FEATURES, IMAGE],
            "expected one or four variance, above 0, got [1, 2]",
        ),
        (PRIORS + "min_size: 3 aspect_ratio: 0 }", [FEATURES, IMAGE], "expected each aspect_ratio above 0, got 0"),
        (
            PRIORS + "min_size: 3 img_size: 4 img_h: 4 img_w: 4 }",
            [FEATURES, IMAGE],
            "expected img_size, or img_h and img_w, above 0",
        ),
        (PRIORS + "min_size: 3 step_h: 4 }", [FEATURES, IMAGE], "expected step, or step_h and step_w, above 0"),
        (PRIORS + "min_size: 3 }", [FEATURES, (2, 3)], "(num, channels, height, width), got 'x1' (2, 3)"),
        (OUT + "}", [(2, 20), (2, 15), (1, 2, 20)], "layer 'l' (DetectionOutput): expected num_classes"),
        (OUT + "num_classes: 3 }", [(2, 20), (2, 14), (1, 2, 20)], "got 'x' (2, 20), 'x1' (2, 14), 'x2' (1, 2, 20)"),
        (
            OUT + "num_classes: 4 }",
            [(2, 20), (2, 15), (1, 2, 20)],
            "; the confidences are of 3 classes: is num_classes: 4 meant?",
        ),
        (
            OUT + "num_classes: 3 share_location: false }",
            [(2, 20), (2, 15), (1, 2, 20)],
            "locations (num, priors * 12)",
        ),
        (
            OUT + "num_classes: 3 nms_param { eta: 0 } }",
            [(2, 20), (2, 15), (1, 2, 20)],
            "eta above 0, up to 1, got 0.3 and 0",
        ),
    ],
)
def test_errors(text, shapes, said):
    with pytest.raises(CaffeError) as error:
        build(text, *shapes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
