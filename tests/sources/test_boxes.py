"""Boxes in windows, and the windows that SSD draws: single cases by hand, and their statistics."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import AnnotatedDataParameter, EmitConstraint
from caffecli.sources.boxes import WHOLE, CropSampler, coverage, overlap, project, satisfied, windows_of


def boxes(*corners: tuple[float, float, float, float]) -> np.ndarray:
    rows = [[i + 1, i, *corner, i % 2] for i, corner in enumerate(corners)]
    return np.array(rows, np.float32).reshape(-1, 7)


def window(*corners: float) -> np.ndarray:
    return np.array(corners, np.float32)


def emit(text: str) -> EmitConstraint:
    return text_format.Parse(text, EmitConstraint())


def sampler(text: str) -> CropSampler:
    param = text_format.Parse(text, AnnotatedDataParameter())
    return CropSampler(list(param.batch_sampler), "layer 'd'")


def test_project() -> None:
    """Moved, scaled, clipped; what only touches the window, lies beside it, or has no area is left out."""
    found = project(
        boxes((0.25, 0.5, 0.5, 0.75), (0.0, 0.0, 1.0, 1.0), (0.0, 0.1, 0.25, 0.9), (0.8, 0.8, 0.9, 0.9), (0.3,) * 4),
        window(0.25, 0.25, 0.75, 0.75),
        None,
    )
    np.testing.assert_array_equal(found, [[1, 0, 0, 0.5, 0.5, 1, 0], [2, 1, 0, 0, 1, 1, 1]])


def test_project_to_a_larger_canvas() -> None:
    (row,) = project(boxes((0.5, 0, 1, 1)), window(-1, -0.5, 3, 1.5), None)
    np.testing.assert_array_equal(row[2:6], [0.375, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("emit_type: CENTER", [1, 2]),  # the second one's centre lies on the edge, the third one's beyond
        ("emit_type: MIN_OVERLAP emit_overlap: 0.5", [1]),  # above, not at the bound
        ("emit_type: MIN_OVERLAP emit_overlap: 0.25", [1, 2]),
    ],
)
def test_emit_constraint(text: str, kept: list[int]) -> None:
    given = boxes((0.25, 0.25, 0.5, 0.5), (0.25, 0.0, 0.5, 0.5), (0.5, 0.375, 1.25, 1.0))
    found = project(given, window(0.25, 0.25, 0.75, 0.75), emit(text))
    assert found[:, 0].tolist() == kept


def test_no_boxes() -> None:
    none = np.empty((0, 7), np.float32)
    assert project(none, WHOLE, emit("")).shape == (0, 7)


def test_measures() -> None:
    a, b = window(0, 0, 0.5, 0.5), window(0.25, 0.25, 1, 1)
    shared, both = 0.0625, 0.25 + 0.5625 - 0.0625
    assert float(overlap(a, b)) == pytest.approx(shared / both)
    assert float(coverage(a, b)) == 0.25
    assert float(coverage(b, a)) == pytest.approx(shared / 0.5625)
    assert float(overlap(a, window(0.5, 0, 1, 1))) == 0
    assert float(overlap(window(0.5, 0, 0.2, 1), a)) == 0  # inside out: it has no area


def test_windows_of_draws() -> None:
    """A width of scale * sqrt(ratio), a height of scale / sqrt(ratio), and the ratio within [scale², 1 / scale²]."""
    param = text_format.Parse(
        "batch_sampler { sampler { min_scale: 0.5 max_scale: 1 min_aspect_ratio: 0.25 max_aspect_ratio: 4 } }",
        AnnotatedDataParameter(),
    )
    draws = np.array([[0, 0.2, 0.5, 0], [0.5, 0, 0.5, 0.25], [0.5, 0.9999, 0, 0]], np.float32)
    found = windows_of(param.batch_sampler[0].sampler, draws)
    np.testing.assert_allclose(found[0], [0.25, 0, 0.75, 0.5], atol=1e-6)  # ratio 1
    np.testing.assert_allclose(found[1], [0.21875, 0, 0.78125, 1], atol=1e-6)  # ratio 0.25 -> 0.75²
    np.testing.assert_allclose(found[2], [0, 0, 1, 0.5625], atol=1e-6)  # ratio 4 -> 1 / 0.75²


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ("", [True, True, True]),
        ("min_jaccard_overlap: 0.25", [True, True, False]),
        ("min_jaccard_overlap: 0.25 max_jaccard_overlap: 0.25", [True, False, False]),  # bounds are inclusive
        ("max_jaccard_overlap: 0", [False, True, True]),  # one box of the two is enough
        ("min_sample_coverage: 1", [False, True, False]),
        ("min_object_coverage: 0.9", [True, False, False]),
        ("min_object_coverage: 0.9 min_sample_coverage: 0.9", [False, False, False]),  # one box has to satisfy both
    ],
)
def test_constraints(bounds: str, kept: list[bool]) -> None:
    param = text_format.Parse(f"batch_sampler {{ sample_constraint {{ {bounds} }} }}", AnnotatedDataParameter())
    windows = np.array([(0, 0, 1, 1), (0, 0, 0.375, 0.375), (0.75, 0.75, 1, 1)], np.float32)
    corners = np.array([(0, 0, 0.5, 0.5), (0.25, 0.5, 0.5, 0.75)], np.float32)
    got = satisfied(windows, corners, param.batch_sampler[0].sample_constraint)
    assert got.tolist() == kept


def test_one_window_of_all_kept() -> None:
    """Each sampler gives at most max_sample windows; of all together one is drawn, evenly."""
    crops = sampler(
        "batch_sampler { max_sample: 1 max_trials: 1 }"
        "batch_sampler { sampler { min_scale: 0.5 max_scale: 0.5 } max_sample: 3 }"
        "batch_sampler { use_original_image: false sampler { min_scale: 0.1 max_scale: 0.1 } }"
        "batch_sampler { sampler { min_scale: 0.2 max_scale: 0.2 } max_sample: 1"
        "  sample_constraint { min_jaccard_overlap: 0.9 } }"
    )
    rng = np.random.default_rng(1)
    widths = [float(drawn[2] - drawn[0]) for _ in range(400) if (drawn := crops.draw(boxes(), rng)) is not None]
    assert len(widths) == 400
    assert {round(width, 3) for width in widths} == {0.5, 1.0}
    assert np.mean(np.array(widths) > 0.9) == pytest.approx(0.25, abs=0.06)


def test_nothing_kept() -> None:
    crops = sampler("batch_sampler { max_trials: 20 sample_constraint { min_jaccard_overlap: 0.5 } }")
    assert crops
    assert crops.draw(boxes((0, 0, 0.1, 0.1)), np.random.default_rng(1)) is None
    assert not sampler("batch_sampler { use_original_image: false }")


def test_places_and_sizes_are_even() -> None:
    crops = sampler(
        "batch_sampler { max_sample: 1 sampler { min_scale: 0.3 max_scale: 0.5 min_aspect_ratio: 0.5 "
        "max_aspect_ratio: 2 } }"
    )
    rng = np.random.default_rng(2)
    drawn = np.array([crops.draw(boxes(), rng) for _ in range(2000)])
    width, height = drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1]
    scale, ratio = np.sqrt(width * height), width / height
    for values, low, high in ((scale, 0.3, 0.5), (ratio, 0.5, 2.0), (drawn[:, 0] / (1 - width), 0.0, 1.0)):
        assert low - 1e-5 <= values.min() and values.max() <= high + 1e-5
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.04 * (high - low))
        assert values.std() == pytest.approx((high - low) / np.sqrt(12), rel=0.05)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min_scale: 0", "batch_sampler 0: expected 0 < min_scale <= max_scale <= 1, got 0 and 1"),
        ("min_scale: 0.5 max_scale: 0.25", "expected 0 < min_scale <= max_scale <= 1, got 0.5 and 0.25"),
        ("max_scale: 1.5", "expected 0 < min_scale <= max_scale <= 1, got 1 and 1.5"),
        ("min_aspect_ratio: 2", "expected 0 < min_aspect_ratio <= max_aspect_ratio, got 2 and 1"),
    ],
)
def test_ranges_that_nothing_can_be_drawn_from(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        sampler(f"batch_sampler {{ sampler {{ {text} }} }}")
