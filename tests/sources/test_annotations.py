"""Pictures with boxes: AnnotatedData's batches, and SSD's settings in Data and ImageData."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from caffecli import logs, sources
from caffecli.errors import DataError, SpecError
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import TEST, TRAIN, AnnotatedDataParameter, AnnotatedDatum, Datum, LayerParameter
from caffecli.sources import Once
from caffecli.sources.augment import Augmenter
from caffecli.sources.boxes import Jitter
from caffecli.spec import text as spec_text
from tests.sources.opening import opened

Make = Any

#: ten pictures of 16 × 24: a black ground, the box's area in its own colour
BOXES = [(4 * i % 12, i % 8, 4 * i % 12 + 8 + i % 3, i % 8 + 6) for i in range(10)]


def picture(i: int, channels: int = 3) -> np.ndarray:
    image = np.zeros((16, 24, channels), np.uint8)
    x1, y1, x2, y2 = BOXES[i]
    image[y1:y2, x1:x2] = 20 * i + 30
    return image


def record(i: int, typed: bool = True, raw: bool = False, grow: int = 1) -> AnnotatedDatum:
    """Picture i, ``grow`` times as large, with its box, of class i, and for odd i a second one over the whole."""
    image = picture(i).repeat(grow, 0).repeat(grow, 1)
    data = cv2.imencode(".png", image)[1].tobytes()
    datum = from_array(image.transpose(2, 0, 1), i) if raw else Datum(data=data, encoded=True, label=i)
    made = AnnotatedDatum(datum=datum)
    if typed:
        made.type = AnnotatedDatum.BBOX
        for label, corners in ((i, BOXES[i]), (99, (0, 0, 24, 16)))[: 1 + i % 2]:
            x1, y1, x2, y2 = corners
            box = made.annotation_group.add(group_label=label).annotation.add(instance_id=3).bbox
            box.xmin, box.ymin, box.xmax, box.ymax, box.difficult = x1 / 24, y1 / 16, x2 / 24, y2 / 16, i == 2
    return made


def write(path: str, records: list[AnnotatedDatum]) -> None:
    with open_writer(path) as db:
        for i, made in enumerate(records):
            db.put(b"%08d_%d" % (i, i), made.SerializeToString())


@pytest.fixture
def annotated(in_tmp: Path) -> str:
    write("boxes", [record(i) for i in range(10)])
    return "boxes"


def layer(
    source: str, batch: int = 4, transform: str = "", annotated: str = "", tops: int = 2, extra: str = ""
) -> LayerParameter:
    top = 'top: "data"' + ' top: "label"' * (tops > 1)
    return spec_text.parse(
        f'name: "data" type: "AnnotatedData" {top} transform_param {{ {transform} }} '
        f"annotated_data_param {{ {annotated} }} "
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB {extra} }}',
        LayerParameter(),
    )


def batches(
    param: LayerParameter, count: int, phase: int = TRAIN, seed: int = 1, **more: Any
) -> list[tuple[np.ndarray, ...]]:
    with closing(opened(param, phase, seed, **more)) as source:
        return [tuple(array.copy() for array in source.next().arrays) for _ in range(count)]


def same(a: list[tuple[np.ndarray, ...]], b: list[tuple[np.ndarray, ...]]) -> bool:
    return all(np.array_equal(x, y) for pair in zip(a, b, strict=True) for x, y in zip(*pair, strict=True))


def test_pictures_and_rows(annotated: str) -> None:
    with closing(opened(layer(annotated), TEST, 1)) as source:
        assert source.shapes == ((4, 3, 16, 24), (1, 1, 1, 8))
        batch = source.next()
    data, label = batch.arrays
    assert batch.keys == ("00000000_0", "00000001_1", "00000002_2", "00000003_3")
    np.testing.assert_array_equal(data, np.stack([picture(i).transpose(2, 0, 1) for i in range(4)]))
    expected = []
    for i in range(4):
        x1, y1, x2, y2 = BOXES[i]
        expected.append([i, i, 3, x1 / 24, y1 / 16, x2 / 24, y2 / 16, i == 2])
        if i % 2:
            expected.append([i, 99, 3, 0, 0, 1, 1, 0])
    assert label.dtype == np.float32 and label.shape == (1, 1, 6, 8)
    np.testing.assert_allclose(label[0, 0], expected, atol=1e-6)


YOLO = "yolo_data_type: 1 yolo_data_jitter: 0"


def test_rows_of_yolo(annotated: str) -> None:
    with closing(opened(layer(annotated, annotated=YOLO), TEST, 1)) as source:
        assert source.shapes == ((4, 3, 16, 24), (4, 1, 300, 5))
        batch = source.next()
        assert [array.shape for array in source.cut(batch, 3).arrays] == [(3, 3, 16, 24), (3, 1, 300, 5)]
    rows = batch.arrays[1]
    for i in range(4):
        x1, y1, x2, y2 = BOXES[i]
        expected = [[i - 1, (x1 + x2) / 48, (y1 + y2) / 32, (x2 - x1) / 24, (y2 - y1) / 16], [98, 0.5, 0.5, 1, 1]]
        np.testing.assert_allclose(rows[i, 0, : 1 + i % 2], expected[: 1 + i % 2], atol=1e-6)
        assert not rows[i, 0, 1 + i % 2 :].any()
    ((_, rows),) = batches(layer(annotated, annotated=f"{YOLO} train_diffcult: false"), 1)
    assert rows[:, 0, :, 3].any(1).tolist() == [True, True, False, True]  # that of record 2 is difficult


def test_rows_of_yolo_end_with_the_three_hundredth(in_tmp: Path) -> None:
    crowd = record(0)
    for i in range(310):
        box = crowd.annotation_group.add(group_label=i + 1).annotation.add().bbox
        box.xmin, box.ymin, box.xmax, box.ymax = 0.25, 0.25, 0.5, 0.5
    write("crowd", [crowd])
    ((_, rows),) = batches(layer("crowd", batch=2, annotated=YOLO), 1)
    assert rows.shape == (2, 1, 300, 5) and rows[:, 0, -1, 0].tolist() == [298, 298]


SIZES = "".join(
    f"resize_param {{ prob: {prob} height: {side} width: {side + 8} }} " for side, prob in ((8, 0.25), (16, 0.75))
)


def test_each_ten_batches_have_a_size_of_their_own(annotated: str) -> None:
    with closing(opened(layer(annotated, 2, SIZES, YOLO), TRAIN, 1)) as source:
        assert source.shapes[0] == (2, 3, 8, 16)
    found = batches(layer(annotated, 2, SIZES, YOLO), 60)
    sides = [data.shape[2] for data, _ in found]
    assert [len(set(sides[i : i + 10])) for i in range(0, 60, 10)] == [1] * 6 and set(sides) == {8, 16}
    assert all(data.shape[3] == data.shape[2] + 8 for data, _ in found)
    with closing(opened(layer(annotated, 2, SIZES, YOLO), TRAIN, 1)) as source:
        for _ in range(33):
            state = source.next().state
        source.restore(state)
        assert [source.next().arrays[0].shape[2] for _ in range(20)] == sides[33:53]
    assert {data.shape[2] for data, _ in batches(layer(annotated, 1, SIZES), 30, seed=3)} == {8, 16}


def test_the_sizes_come_by_their_prob() -> None:
    draws = augmenter(SIZES)
    rng = np.random.default_rng(5)
    assert abs(np.mean([draws.draw_size(rng) for _ in range(4000)]) - 0.75) < 0.03


SQUARE = "resize_param { height: 8 width: 8 prob: %g } "


@pytest.mark.parametrize(
    ("transform", "of_yolo", "words"),
    [
        (SQUARE % 1 * 2, "", "expected the prob of 2 resize_param to be 0 or more, and 1 together, got 1, 1"),
        (SQUARE % 1.5 + SQUARE % -0.5, "", "got 1.5, -0.5"),
        (SIZES + "resize_param { prob: 0 height: 4 }", "", "expected height and width above 0, got 4 and 0"),
        ("", "yolo_data_jitter: 1", "'data': expected a yolo_data_jitter of 0 to below 1, got 1"),
    ],
)  # fmt: skip
def test_sizes_and_jitters_that_cannot_be_drawn(transform: str, of_yolo: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        augmenter(transform, of_yolo)
    assert words in str(error.value)


def augmenter(transform: str, of_yolo: str = "") -> Augmenter:
    made = layer("", transform=transform, annotated=of_yolo)
    return Augmenter(made.transform_param, made.name, made.annotated_data_param)


def test_jitter() -> None:
    """Of the windows a fifth is the whole picture, the others' sides are evenly spread, their places any."""
    param = AnnotatedDataParameter(yolo_data_type=1, yolo_data_jitter=0.6)
    rng = np.random.default_rng(3)
    drawn = [Jitter(param, "").draw(rng, square=False) for _ in range(4000)]
    windows = np.array([window for window in drawn if window is not None])
    assert abs(len(windows) / 4000 - 0.8) < 0.03
    low, sides = windows[:, :2], windows[:, 2:] - windows[:, :2]
    assert sides.min() > 0.399 and low.min() >= 0 and windows.max() <= 1 + 1e-6
    np.testing.assert_allclose(sides.mean(0), 0.25 * 0.85 + 0.75 * 0.7, atol=0.02)  # 1 and 3 windows in 4
    np.testing.assert_allclose((low / (1 - sides)).mean(0), 0.5, atol=0.03)
    assert abs(np.corrcoef(sides.T)[0, 1]) < 0.2
    square = [Jitter(param, "").draw(rng, square=True) for _ in range(50)]
    sides = np.array([window[2:] - window[:2] for window in square if window is not None])
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "cuts"),
    [
        ("yolo_data_type: 1", True),
        ("yolo_data_jitter: 0.2", True),
        (YOLO, False),
        ("", False),
        ("yolo_data_type: 2", False),
        ("yolo_data_type: 1 batch_sampler {}", False),
    ],
)
def test_who_jitters(settings: str, cuts: bool) -> None:
    assert bool(Jitter(text_format.Parse(settings, AnnotatedDataParameter()), "")) == cuts


def test_one_top_needs_no_boxes(annotated: str) -> None:
    ((data,),) = batches(layer(annotated, tops=1), 1)
    assert data.shape == (4, 3, 16, 24)


def test_no_box_in_a_batch_is_a_row_of_minus_ones(in_tmp: Path) -> None:
    empty = record(0)
    del empty.annotation_group[:]
    write("empty", [empty])
    with closing(opened(layer("empty", batch=2), TEST, 1)) as source:
        assert source.shapes[1] == (1, 1, 1, 8)
        np.testing.assert_array_equal(source.next().arrays[1], np.full((1, 1, 1, 8), -1))


def test_records_without_a_type_have_labels(in_tmp: Path) -> None:
    write("labels", [record(i, typed=False) for i in range(4)])
    ((_, label),) = batches(layer("labels"), 1)
    assert label.tolist() == [0, 1, 2, 3]
    ((_, rows),) = batches(layer("labels", annotated="anno_type: BBOX"), 1)
    np.testing.assert_array_equal(rows, np.full((1, 1, 1, 8), -1))


@pytest.mark.parametrize(("field", "value"), [("xmin", np.nan), ("ymax", np.inf), ("xmax", -np.inf)])
def test_a_box_of_no_numbers(field: str, value: float, in_tmp: Path) -> None:
    whole = record(1)
    setattr(whole.annotation_group[1].annotation[0].bbox, field, value)
    write("boxes", [record(0), whole])
    with pytest.raises(
        DataError, match=r"'boxes': record '00000001_1': a box of class 99 has the corners .*; mend its"
    ):
        batches(layer("boxes", batch=2), 1)


@pytest.mark.parametrize(
    "corners",
    [(0.5, 0.5, 0.1, 0.9), (0.2, 0.2, 0.2, 0.8), (2, 2, 3, 3), (-3, -3, -2, -2)],
    ids=["inverted", "flat", "right", "left"],
)
def test_a_box_of_nothing_is_left_out(corners: tuple[float, ...], in_tmp: Path) -> None:
    """As SSD leaves it out; one that is too large is cut off."""
    made = record(0)
    box = made.annotation_group[0].annotation[0].bbox
    box.xmin, box.ymin, box.xmax, box.ymax = corners
    box = made.annotation_group.add(group_label=5).annotation.add().bbox
    box.xmin, box.ymin, box.xmax, box.ymax = -1e30, 0.25, 1e30, 1e30
    write("boxes", [made])
    ((_, boxes),) = batches(layer("boxes", batch=1), 1)
    assert boxes.tolist() == [[[[0, 5, 0, 0, 0.25, 1, 1, 0]]]]


def test_a_record_without_a_type_among_others(in_tmp: Path) -> None:
    write("mixed", [record(0), record(1, typed=False)])
    with pytest.raises(
        DataError, match="'data', 'mixed': record '00000001_1' has no type, and the first record has one"
    ):
        batches(layer("mixed", batch=2), 1)
    ((_, rows),) = batches(layer("mixed", batch=2, annotated="anno_type: BBOX"), 1)
    assert rows.shape == (1, 1, 1, 8)


def test_a_database_of_plain_datums(in_tmp: Path, make: Make) -> None:
    make.db("plain", [picture(0).transpose(2, 0, 1)])
    with pytest.raises(
        DataError, match=r"record '00000000': the value is not an AnnotatedDatum.*layer type Data reads"
    ):
        batches(layer("plain"), 1)


@pytest.mark.parametrize("raw", [False, True], ids=["encoded", "raw"])
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_boxes_stay_on_their_pixels(in_tmp: Path, raw: bool, phase: int) -> None:
    """Whatever is done to the picture: the pixels of its colour fill the box, and lie nowhere else."""
    write("boxes", [record(i, raw=raw, grow=8) for i in range(10)])
    transform = (
        "mirror: true crop_h: 24 crop_w: 28 expand_param { prob: 0.5 max_expand_ratio: 2 } "
        "resize_param { height: 32 width: 32 resize_mode: FIT_LARGE_SIZE_AND_PAD interp_mode: NEAREST }"
    )
    samplers = (
        "batch_sampler { max_sample: 1 max_trials: 1 } batch_sampler { max_sample: 1 sampler { min_scale: 0.6 } }"
    )
    checked = 0
    for data, label in batches(layer("boxes", 5, transform, samplers), 12, phase):
        assert data.shape == (5, 3, 24, 28)
        for row in label[0, 0]:
            if row[0] >= 0 and row[1] != 99:
                lit = np.argwhere(data[int(row[0]), 0] == 20 * row[1] + 30)
                x1, y1, x2, y2 = row[3:7] * [28, 24, 28, 24]
                if len(lit) and min(x2 - x1, y2 - y1) > 3:
                    np.testing.assert_allclose(lit.min(0), [y1, x1], atol=1.5)
                    np.testing.assert_allclose(lit.max(0) + 1, [y2, x2], atol=1.5)
                    checked += 1
    assert checked > 30


def test_mirror_turns_the_boxes(annotated: str) -> None:
    plain = batches(layer(annotated, 10), 1, TEST)[0]
    turned = batches(layer(annotated, 10, "mirror: true"), 1, TEST)[0]
    mirrored = [i for i in range(10) if not np.array_equal(plain[0][i], turned[0][i])]
    assert 0 < len(mirrored) < 10
    for one, other in zip(plain[1][0, 0], turned[1][0, 0], strict=True):
        x1, x2 = (1 - one[5], 1 - one[3]) if int(one[0]) in mirrored else (one[3], one[5])
        np.testing.assert_array_equal(other, [*one[:3], x1, one[4], x2, *one[6:]])


def test_a_crop_in_the_middle_and_emit_constraint(annotated: str) -> None:
    ((_, label),) = batches(layer(annotated, 10, "crop_size: 8"), 1, TEST)
    ((_, centred),) = batches(layer(annotated, 10, "crop_size: 8 emit_constraint { emit_type: CENTER }"), 1, TEST)
    whole = label[0, 0][label[0, 0, :, 1] == 99]
    np.testing.assert_array_equal(whole[:, 3:7], [[0, 0, 1, 1]] * 5)
    x1, y1, x2, y2 = BOXES[4]  # the crop is columns 8 to 16, rows 4 to 12
    (row,) = label[0, 0][label[0, 0, :, 1] == 4]
    np.testing.assert_allclose(
        row[3:7], np.clip([(x1 - 8) / 8, (y1 - 4) / 8, (x2 - 8) / 8, (y2 - 4) / 8], 0, 1), atol=1e-6
    )
    inside = [i for i, (x1, y1, x2, y2) in enumerate(BOXES) if 8 <= (x1 + x2) / 2 <= 16 and 4 <= (y1 + y2) / 2 <= 12]
    assert [int(label) for label in centred[0, 0, :, 1] if label != 99] == inside


def test_fit_small_size_and_the_size_that_boxes_are_parts_of(annotated: str) -> None:
    transform = "resize_param { resize_mode: FIT_SMALL_SIZE height: 8 width: 8 height_scale: 4 width_scale: 6 } "
    ((data, label),) = batches(layer(annotated, 1, transform), 1, TEST)
    assert data.shape == (1, 3, 8, 12)
    x1, y1, x2, y2 = BOXES[0]
    np.testing.assert_allclose(label[0, 0, 0, 3:7], np.array([x1 / 24, y1 / 16, x2 / 24, y2 / 16]) * 2, atol=1e-6)


ALL = (
    "mirror: true crop_size: 10 distort_param { brightness_prob: 0.5 brightness_delta: 30 hue_prob: 1 hue_delta: 18 } "
    "expand_param { max_expand_ratio: 3 } resize_param { height: 16 width: 16 interp_mode: LINEAR interp_mode: AREA } "
    "noise_param { saltpepper: true saltpepper_param { fraction: 0.1 value: 0 } } mean_value: 50"
)
SAMPLERS = "batch_sampler { max_sample: 1 sampler { min_scale: 0.3 } sample_constraint { min_jaccard_overlap: 0.1 } }"


@pytest.mark.parametrize("extra", ["", "shuffle: true"])
def test_resumed_and_sharded(annotated: str, extra: str) -> None:
    """Batches are a function of the seed and the position: for a resumed source, and for each of several ranks."""
    param = layer(annotated, 4, ALL, SAMPLERS, extra=extra)
    all_batches = batches(param, 6)
    assert same(all_batches, batches(param, 6))
    assert not same(all_batches, batches(param, 6, seed=2))
    with closing(opened(param, TRAIN, 1)) as source:
        for _ in range(3):
            state = source.next().state
    with closing(opened(param, TRAIN, 7)) as source:
        source.restore(state)
        assert same(all_batches[3:], [tuple(array.copy() for array in source.next().arrays) for _ in range(3)])
    param.data_param.batch_size = 2
    ranks = [batches(param, 6, shard=(rank, 2)) for rank in range(2)]
    for i, (data, label) in enumerate(all_batches):
        for rank in range(2):
            np.testing.assert_array_equal(data[rank::2], ranks[rank][i][0])
            rows = label[0, 0][label[0, 0, :, 0] % 2 == rank] if label[0, 0, 0, 0] >= 0 else label[0, 0, :0]
            theirs = ranks[rank][i][1][0, 0]
            np.testing.assert_array_equal(rows[:, 1:], theirs[theirs[:, 0] >= 0][:, 1:])
            np.testing.assert_array_equal(rows[:, 0] // 2, theirs[theirs[:, 0] >= 0][:, 0])


def test_each_record_once(annotated: str) -> None:
    with closing(opened(layer(annotated, 4), TEST, 1)) as source:
        once = Once(source, 10)
        found = [once.next() for _ in range(3)]
    assert [len(batch.arrays[0]) for batch in found] == [4, 4, 2]
    assert found[2].arrays[1][0, 0, :, :2].tolist() == [[0, 8], [1, 9], [1, 99]]
    assert sum(batch.arrays[1].shape[2] for batch in found) == 15


def test_the_settings_in_data_and_image_data(in_tmp: Path, make: Make) -> None:
    """What they do to a picture is what they do in AnnotatedData, by the same numbers."""
    write("boxes", [record(i) for i in range(10)])
    make.db("plain", [picture(i).transpose(2, 0, 1) for i in range(10)])
    Path("pics").mkdir()
    for i in range(10):
        cv2.imwrite(f"pics/{i}.png", picture(i))
    Path("list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(10)))
    expected = [data for data, _ in batches(layer("boxes", 4, ALL), 3)]
    others = [make.data("plain", 4, transform=ALL), make.image_data("list.txt", 4, 'root_folder: "pics/"', ALL)]
    for other in others:
        got = batches(other, 3)
        assert all(np.array_equal(a, b) for a, (b, _) in zip(expected, got, strict=True))
        assert [int(label) for _, labels in got for label in labels] == [i % 10 for i in range(12)]


def test_pictures_of_several_sizes_fit_once_resized(in_tmp: Path, make: Make) -> None:
    make.db("plain", [np.zeros((3, 5 + i, 9 - i), np.uint8) for i in range(4)])
    ((data, _),) = batches(make.data("plain", 4, transform="resize_param { height: 6 width: 7 }"), 1)
    assert data.shape == (4, 3, 6, 7)


def test_window_data_says_that_it_reads_none_of_them(in_tmp: Path) -> None:
    cv2.imwrite("0.png", picture(0))
    Path("windows.txt").write_text("# 0\n0.png\n3\n16\n24\n2\n1 0.9 0 0 5 4\n2 0.1 1 1 6 5\n")
    param = text_format.Parse(
        'name: "data" type: "WindowData" top: "data" top: "label" '
        "transform_param { crop_size: 4 resize_param { height: 9 width: 9 } } "
        'window_data_param { source: "windows.txt" batch_size: 4 }',
        LayerParameter(),
    )
    heard = io.StringIO()
    handler = logs.show(heard)
    try:
        assert batches(param, 1)[0][0].shape == (4, 3, 4, 4)
    finally:
        logs.hide(handler)
    assert "data: WindowData reads none of SSD's settings in transform_param" in heard.getvalue()


def test_errors_name_the_record(annotated: str, make: Make, in_tmp: Path) -> None:
    with pytest.raises(
        DataError, match=r"layer 'data': record '00000000_0' has 1 channel; distort_param's hue works on"
    ):
        batches(layer(annotated, 4, "force_gray: true distort_param { hue_prob: 1 hue_delta: 3 }"), 1)
    with pytest.raises(DataError, match="crop_h × crop_w 20 × 9 is larger than record '00000000_0', which is 16 × 24"):
        batches(layer(annotated, 4, "crop_h: 20 crop_w: 9"), 1)
    with pytest.raises(SpecError, match="expected crop_h and crop_w together, got 20 and 0; set both or none"):
        batches(layer(annotated, 4, "crop_h: 20"), 1)
    make.db("floats", [np.zeros((3, 5, 5), np.float32)])
    with pytest.raises(DataError, match="record '00000000' has float32 numbers; noise_param works on 8-bit pictures"):
        batches(make.data("floats", 1, transform="noise_param { inverse: true }"), 1)


def test_a_source_that_failed_begins_with_the_same_records(annotated: str) -> None:
    with closing(opened(layer(annotated, 4, extra="prefetch: 0"), TEST, 1)) as source:
        assert isinstance(source, sources.AnnotatedSource)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "_augmented", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                source.next()
        assert source.next().keys[0] == "00000000_0"
