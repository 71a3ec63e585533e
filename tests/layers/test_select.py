"""Slice, Crop, Tile, Filter, BatchReindex."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import CaffeError, DataError
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import NetParameter
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden


@pytest.mark.parametrize("case", ["slice", "crop", "tile", "filter", "batch_reindex"])
def test_golden(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


# -- Slice ---------------------------------------------------------------------------------------------------------

SLICE = 'type: "Slice" top: "a" top: "b" top: "c"'


@pytest.mark.parametrize(
    ("settings", "axis", "points"),
    [
        ("", 1, [2, 4]),
        ("slice_point: 1 slice_point: 3", 1, [1, 3]),
        ("axis: 2", 2, [1, 2]),
        ("axis: -1 slice_point: 1 slice_point: 2", 3, [1, 2]),
        ("slice_dim: 3 slice_point: 1 slice_point: 2", 3, [1, 2]),
    ],
)
def test_slice(settings: str, axis: int, points: list[int]) -> None:
    shape = (2, 6, 3, 4)
    check(f"{SLICE} slice_param {{ {settings} }}", shape, oracle=lambda x: tuple(np.split(x, points, axis)))


def test_slice_into_one_passes_it_on() -> None:
    x = torch.rand(SHAPE)
    assert build('type: "Slice"', SHAPE)(x) is x


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", r"3 tops do not divide axis 1 of 'x' \(2, 7, 3, 4\); give slice_points"),
        ("slice_point: 1", r"expected 2 slice_point\(s\) for 3 top\(s\), got 1"),
        ("slice_point: 3 slice_point: 3", r"expected rising slice_points from 1 to 6 for axis 1, got \[3, 3\]"),
        ("slice_point: 0 slice_point: 3", r"got \[0, 3\]"),
        ("slice_point: 3 slice_point: 7", r"got \[3, 7\]"),
        ("slice_point: 3 slice_point: 9", r"got \[3, 9\]"),
        ("axis: 1 slice_dim: 1", "axis and slice_dim say the same thing"),
        ("axis: 4", "axis 4 is out of range for a blob of 4 dimensions"),
        ("slice_dim: 4", "slice_dim 4 is out of range"),
    ],
)
def test_slice_refuses(settings: str, words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(Slice\): .*{words}" if "got [" not in words else words):
        build(f"{SLICE} slice_param {{ {settings} }}", SHAPE)


# -- Crop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "like", "part"),
    [
        ("", (1, 1, 2, 3), np.s_[:, :, :2, :3]),
        ("offset: 1", (1, 1, 2, 3), np.s_[:, :, 1:3, 1:4]),
        ("offset: 1 offset: 0", (9, 9, 2, 3), np.s_[:, :, 1:3, :3]),
        ("axis: 1 offset: 4 offset: 1 offset: 2", (1, 3, 2, 1), np.s_[:, 4:7, 1:3, 2:3]),
        ("axis: -1 offset: 3", (1, 1, 1, 1), np.s_[..., 3:4]),
        ("axis: 0 offset: 1 offset: 0 offset: 0 offset: 2", (1, 7, 3, 2), np.s_[1:, :, :, 2:]),
        ("axis: 3", (1, 1, 1, 4, 5), np.s_[:]),
    ],
)
def test_crop(settings: str, like: tuple[int, ...], part: tuple[slice, ...]) -> None:
    text = f'type: "Crop" crop_param {{ {settings} }}'
    check(text, SHAPE, like, oracle=lambda x, _: x[part], gradient=[0])


@pytest.mark.parametrize(
    ("settings", "like", "words"),
    [
        ("", (1, 1, 4, 4), r"a part of 4 at offset 0 does not fit axis 2: 'x' \(2, 7, 3, 4\), 'x1' \(1, 1, 4, 4\)"),
        ("offset: 2", (1, 1, 1, 3), "a part of 3 at offset 2 does not fit axis 3"),
        (
            "axis: 1 offset: 0 offset: 1",
            (1, 1, 1, 1),
            "expected offset once, or once for each of the 3 axes from 1 on, got 2",
        ),
        ("axis: 4", (1, 1, 1, 1), "axis 4 is out of range"),
        ("", (1, 1, 2), r"expected a second bottom of at least 4 axes, got 'x' \(2, 7, 3, 4\), 'x1' \(1, 1, 2\)"),
    ],
)
def test_crop_refuses(settings: str, like: tuple[int, ...], words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(Crop\): {words}"):
        build(f'type: "Crop" crop_param {{ {settings} }}', SHAPE, like)


# -- Tile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 3, -2])
@pytest.mark.parametrize("tiles", [1, 3])
def test_tile(axis: int, tiles: int) -> None:
    text = f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}'
    check(text, oracle=lambda x: np.concatenate([x] * tiles, axis))


def test_tile_goes_along_axis_1() -> None:
    check('type: "Tile" tile_param { tiles: 2 }', (2, 3), oracle=lambda x: np.concatenate([x, x], 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "expected tiles of at least 1, got none"),
        ("tiles: 0", "expected tiles of at least 1, got 0"),
        ("tiles: -2", "expected tiles of at least 1, got -2"),
        ("tiles: 2 axis: 4", "axis 4 is out of range"),
    ],
)
def test_tile_refuses(settings: str, words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(Tile\): {words}"):
        build(f'type: "Tile" tile_param {{ {settings} }}', SHAPE)


# -- Filter --------------------------------------------------------------------------------------------------------

FILTER = 'type: "Filter" bottom: "a" bottom: "b" bottom: "s" top: "y" top: "z"'


@pytest.mark.parametrize("selector", [[1, 0, -2, 0.5, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
def test_filter(selector: list[float]) -> None:
    shapes = (5, 3, 2), (5, 2), (5, 1, 1)
    layer = build(FILTER, *shapes)
    assert layer.reshape([*shapes]) == [(5, 3, 2), (5, 2)]
    a, b = (torch.from_numpy(distinct(*shape)).requires_grad_() for shape in shapes[:2])
    y, z = layer(a, b, torch.tensor(selector).reshape(5, 1, 1))
    kept = np.array(selector) != 0
    np.testing.assert_array_equal(y.detach().numpy(), a.detach().numpy()[kept])
    np.testing.assert_array_equal(z.detach().numpy(), b.detach().numpy()[kept])
    (y.sum() + 2 * z.sum()).backward()
    assert a.grad is not None and b.grad is not None
    np.testing.assert_array_equal(a.grad.numpy()[:, 0, 0], kept)
    np.testing.assert_array_equal(b.grad.numpy()[:, 0], 2 * kept)


def test_a_net_goes_on_behind_a_filter() -> None:
    text = """
        force_backward: true
        layer { name: "in" type: "Input" top: "x" top: "s" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
        layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "y" }
        layer { name: "ip" type: "InnerProduct" bottom: "y" top: "z" inner_product_param { num_output: 2 } }
        layer { name: "sum" type: "Reduction" bottom: "z" top: "loss" loss_weight: 1 }
    """
    net = Net(text_format.Parse(text, NetParameter()))
    assert net.shape("z") == (4, 2) and net.nodes[1].down == [True, False]
    for selector, count in (([0.0, 1, 0, 1], 2), ([0.0, 0, 0, 0], 0)):
        result = Whole(net).forward({"x": torch.ones(4, 3), "s": torch.tensor(selector)})
        result.loss.backward()
        assert net.layer("ip").blobs[1].grad is not None
        assert net.layer("ip").blobs[1].grad.tolist() == [count, count]
        net.zero_grad()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(5, 3), (5, 2), (5, 2)], r"the selector, to be \(N, 1, ...\), got 'a' \(5, 3\), 'b' \(5, 2\), 's' \(5, 2\)"),
        ([(5, 3), (4, 2), (5,)], "expected bottoms with as many items"),
        ([(5, 3), (5, 2), ()], "the selector"),
    ],
)
def test_filter_refuses(shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(Filter\): .*{words}"):
        build(FILTER, *shapes)


def test_filter_needs_a_top_for_each_bottom_but_the_last() -> None:
    with pytest.raises(
        CaffeError, match=r"layer 'l' \(Filter\): expected a top for each bottom but the last, got 3 bottoms and 1"
    ):
        build('type: "Filter"', (5, 3), (5, 2), (5,))


# -- BatchReindex --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, (3, 5), (2,)])
def test_batch_reindex(shape: tuple[int, ...]) -> None:
    index = np.array([1, 1, 0, 1, 0], np.float32)
    inputs = [distinct(*shape), index]
    check(
        'type: "BatchReindex"', shape, (5,), inputs=inputs, oracle=lambda x, i: x[i.astype(int)], gradient=[0]
    )  # fmt: skip


def test_batch_reindex_to_nothing() -> None:
    layer = build('type: "BatchReindex"', (3, 2), (0,))
    assert layer(torch.rand(3, 2), torch.rand(0)).shape == (0, 2)


@pytest.mark.parametrize("index", [3, -1, float("nan"), 1e30])
def test_batch_reindex_names_an_index_out_of_range(index: float) -> None:
    layer = build('type: "BatchReindex" bottom: "x" bottom: "i"', (3, 2), (4,))
    words = r"layer 'l': index \S+ of item 2 of 'i' is out of range; the first bottom has items 0 to 2"
    with pytest.raises(DataError, match=words):
        layer(torch.rand(3, 2), torch.tensor([0, 1, index, -7]))


def test_batch_reindex_refuses_indices_of_more_axes() -> None:
    with pytest.raises(
        CaffeError, match=r"layer 'l' \(BatchReindex\): expected bottoms \(N, ...\) and \(M\), the indices"
    ):
        build('type: "BatchReindex"', (3, 2), (4, 1))


def test_where_torch_does_not_check_an_index_out_of_range_gives_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffecli.layers.select.torch_checks", lambda _: False)
    x = torch.arange(6.0).reshape(3, 2).requires_grad_()
    y = build('type: "BatchReindex"', (3, 2), (4,))(x, torch.tensor([2.0, -1, 3, 0]))
    assert y[[0, 3]].tolist() == [[4, 5], [0, 1]] and y[1:3].isnan().all()
    embed = build('type: "Embed" embed_param { num_output: 2 input_dim: 3 }', (2, 2))
    y = embed(torch.tensor([[0.0, 3], [float("nan"), 2]]))
    assert y.isnan()[..., 0].tolist() == [[False, True], [True, False]]
