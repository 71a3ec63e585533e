"""Coordinate maps, by the arithmetic of kernel, stride and pad."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from caffe.coord_map import (
    AxisMismatchException,
    UndefinedMapException,
    compose,
    coord_map,
    coord_map_from_to,
    crop,
    inverse,
)
from caffe.net_spec import layers as L


def up_and_down(pad: int = 0, pool: int = 2, stride: int = 2, up_pad: int = 0) -> tuple[Any, Any]:
    data = L.Input(shape={"dim": [2, 1, 100, 100]})
    conv = L.Convolution(data, num_output=10, kernel_size=3, pad=pad)
    low = L.Pooling(conv, kernel_size=pool, stride=pool)
    return data, L.Deconvolution(
        L.ReLU(low), convolution_param={"num_output": 10, "kernel_size": 2 * stride, "stride": stride, "pad": up_pad}
    )


def test_a_layer() -> None:
    data = L.Input()
    assert coord_map(L.Convolution(data, kernel_size=5, stride=2, pad=1).fn) == (1, 0.5, -0.5)
    assert coord_map(L.Convolution(data, kernel_size=3, dilation=2).fn) == (1, 1, -2)
    assert coord_map(L.Deconvolution(data, kernel_size=4, stride=2, pad=1).fn) == (1, 2, 0.5)
    assert coord_map(L.Pooling(data, kernel_size=2, stride=2).fn) == (1, 0.5, -0.25)
    assert coord_map(L.Crop(data, data, offset=3).fn) == (1, 1, -3)
    assert coord_map(L.Dropout(data).fn) == (None, 1, 0)
    axis, scale, shift = coord_map(L.Convolution(data, kernel_size=[3, 5], stride=[1, 2], pad=[0, 10]).fn)
    assert axis == 1 and scale.tolist() == [1, 0.5] and shift.tolist() == [-1, 4]


def test_compose_and_inverse() -> None:
    first, second = (1, 0.5, -0.5), (None, 1, 0)
    assert compose(first, second) == first == compose(second, first)
    assert compose((1, 2, 3), (1, 5, 7)) == (1, 10, 17)
    assert compose(first, inverse(first)) == (1, 1, 0)
    with pytest.raises(AxisMismatchException, match="a map from axis 1 on cannot be composed with one from axis 2 on"):
        compose((1, 1, 0), (2, 1, 0))


@pytest.mark.parametrize(
    ("settings", "shift"), [({}, 0), ({"pool": 4, "stride": 4}, -1), ({"pad": 7}, -7), ({"up_pad": 3}, 3)]
)
def test_from_the_upsampled_blob_to_the_data(settings: dict[str, int], shift: int) -> None:
    data, up = up_and_down(**settings)
    assert coord_map_from_to(up, data) == (1, 1, shift)
    if shift <= 0:
        assert crop(up, data).fn.params == {"crop_param": {"axis": 2, "offset": [-shift]}}
    else:
        with pytest.raises(AssertionError, match="cannot crop negative offset"):
            crop(up, data)


def test_what_cannot_be_mapped() -> None:
    data, up = up_and_down(pool=3, stride=2)
    with pytest.raises(AssertionError, match="scale mismatch on crop"):
        crop(up, data)
    with pytest.raises(AssertionError, match="cannot crop noninteger offset"):
        crop(L.Convolution(data, kernel_size=2, pad=1), data)
    with pytest.raises(RuntimeError, match="Could not compute map between tops"):
        coord_map_from_to(L.InnerProduct(up, num_output=2), data)
    with pytest.raises(UndefinedMapException, match="a layer of type InnerProduct has no coordinate map"):
        coord_map(L.InnerProduct(up, num_output=2).fn)
    with pytest.raises(AssertionError, match="legacy _h/_w params: Pooling has kernel_h"):
        coord_map(L.Pooling(data, kernel_h=2, kernel_w=2).fn)


def test_a_crops_second_bottom_gives_its_size_only() -> None:
    data, up = up_and_down()
    cut = L.Crop(up, data, offset=4)
    assert coord_map_from_to(cut, data) == (1, 1, 4)
    assert np.all(coord_map_from_to(L.Eltwise(cut, cut), up)[2] == 4)
