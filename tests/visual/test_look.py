"""What a net has learnt, as arrays: against nets so small that the answer can be said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import ShapeError, SpecError
from caffecli.visual import look
from caffecli.visual.inside import Inside

INPUT = 'layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ dim: 4 dim: {0} dim: {1} dim: {2} }} }} }}'
CONV = 'layer { name: "conv" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 5 kernel_size: 3 } }'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }'
POOL = 'layer { name: "pool" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }'
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "p" top: "ip" inner_product_param { num_output: 3 } }'


@pytest.fixture
def opened(tmp_path):
    """``opened(layers, channels, height, width)``: the net, its weights random."""

    def make(layers, channels=2, height=8, width=6):
        path = tmp_path / "net.prototxt"
        path.write_text(f'name: "n" {INPUT.format(channels, height, width)} {layers}')
        inside = Inside.open(path, None)
        generator = torch.Generator().manual_seed(5)
        for blob in inside.net.parameters():
            blob.data.normal_(0, 1, generator=generator)
        return inside

    return make


@pytest.fixture
def picture():
    return np.random.default_rng(6).normal(size=(2, 8, 6)).astype(np.float32)


def test_vis_square():
    tiled = look.vis_square(np.arange(3 * 2 * 2, dtype=np.float32).reshape(3, 2, 2))
    expected = np.array([[0, 1, 11, 4, 5], [2, 3, 11, 6, 7], [11] * 5, [8, 9, 11, 11, 11], [10, 11, 11, 11, 11]]) / 11
    np.testing.assert_allclose(tiled, expected, rtol=1e-6)
    assert look.vis_square(np.zeros((5, 4, 3, 3), np.float32), 2).shape == (2 * 6 - 2, 3 * 5 - 2, 3)


def test_filters(opened):
    inside = opened(CONV + POOL + IP)
    weight = inside.net.layer("conv").weight.detach().numpy()
    found = look.filters(inside, "conv")
    assert found.shape == (5 * 2, 3, 3, 1)
    np.testing.assert_array_equal(found[2 * 3 + 1, ..., 0], weight[3, 1])
    assert look.filters(opened(CONV, 3), "conv").shape == (5, 3, 3, 3)
    assert look.filters(inside, "ip").shape == (3 * 5, 3, 2, 1)
    with pytest.raises(ShapeError, match=r"layer 'pool' \(Pooling\) has no filters; name one with weights"):
        look.filters(inside, "pool")


def test_activations_are_the_nets(opened, picture):
    inside = opened(CONV + RELU + POOL + IP)
    outputs = inside.net({"data": torch.from_numpy(picture[None])})["ip"]
    np.testing.assert_allclose(look.activations(inside, "ip", picture), outputs[0].detach().numpy(), rtol=1e-5)
    before, after = look.activations(inside, "conv", picture), look.activations(inside, "relu", picture)
    assert before.shape == (5, 6, 4)
    np.testing.assert_array_equal(np.maximum(before, 0), after)


def test_histogram():
    counts, edges = look.histogram(np.array([0, 1, 1, 4, np.nan], np.float32), 4)
    np.testing.assert_array_equal(counts, [1, 2, 0, 1])
    np.testing.assert_array_equal(edges, [0, 1, 2, 3, 4])


def test_deconv_puts_filters_where_the_switches_point(opened, picture):
    inside = opened(CONV + RELU + POOL)
    found = look.deconv(inside, "pool", picture, top=2)
    pooled, conv = look.activations(inside, "pool", picture), look.activations(inside, "conv", picture)
    assert found.units == np.argsort(-pooled.max((1, 2)))[:2].tolist()
    weight = inside.net.layer("conv").weight.detach().numpy()
    for unit, value, made in zip(found.units, found.values, found.pictures, strict=True):
        y, x = np.unravel_index(conv[unit].argmax(), conv[unit].shape)
        assert value == conv[unit].max()
        expected = np.zeros_like(picture)
        expected[:, y : y + 3, x : x + 3] = value * weight[unit]
        np.testing.assert_allclose(made, expected, rtol=1e-5)


def test_deconv_rectifies_what_comes_down(opened, picture):
    second = CONV.replace('"conv"', '"conv2"').replace('bottom: "data" top: "c"', 'bottom: "c" top: "d"')
    inside = opened(CONV + RELU + second)
    found = look.deconv(inside, "conv2", picture, unit=3)
    top = look.activations(inside, "conv2", picture)[3]
    y, x = np.unravel_index(top.argmax(), top.shape)
    down = np.zeros((5, 6, 4), np.float32)
    down[:, y : y + 3, x : x + 3] = np.maximum(top.max() * inside.net.layer("conv2").weight.detach().numpy()[3], 0)
    weight = inside.net.layer("conv").weight.detach()
    expected = torch.nn.functional.conv_transpose2d(torch.from_numpy(down[None]), weight)[0]
    np.testing.assert_allclose(found.pictures[0], expected, rtol=1e-4, atol=1e-5)
    assert found.units == [3]


def test_saliency_is_the_gradient(opened, picture):
    inside = opened(CONV + RELU + POOL + IP)
    x = torch.from_numpy(picture[None]).requires_grad_()
    scores = inside.net({"data": x})["ip"][0]
    for unit in (None, 1):
        number, found = look.saliency(inside, "ip", picture, unit)
        assert number == (int(scores.argmax()) if unit is None else unit)
        conv = torch.nn.functional.conv2d(x, inside.net.layer("conv").weight, inside.net.layer("conv").bias).relu()
        flat = torch.nn.functional.max_pool2d(conv, 2).flatten(1)
        (grad,) = torch.autograd.grad((flat @ inside.net.layer("ip").weight.t())[0, number], x)
        np.testing.assert_allclose(found, grad[0].abs().amax(0).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(SpecError, match="layer 'ip' has the units 0 to 2, not 3"):
        look.saliency(inside, "ip", picture, 3)


def test_occlusion(opened, picture):
    total = 'layer { name: "sum" type: "Reduction" bottom: "data" top: "s" reduction_param { axis: 1 } }'
    inside = opened(total)
    found = look.occlusion(inside, "sum", picture, size=3, stride=2, fill=0.5)
    assert (found.tops, found.lefts, found.unit) == ([0, 2, 4, 5], [0, 2, 3], 0)
    for row, y in enumerate(found.tops):
        for column, x in enumerate(found.lefts):
            expected = picture.sum() - picture[:, y : y + 3, x : x + 3].sum() + 0.5 * 18
            assert found.values[row, column] == pytest.approx(expected, abs=1e-4)
    assert found.whole == pytest.approx(picture.sum(), abs=1e-4)
    with pytest.raises(SpecError, match="a square of 7 hides more than the picture of 8 x 6; choose a smaller one"):
        look.occlusion(inside, "sum", picture, size=7)


def test_layers_that_are_not_there(opened, picture):
    inside = opened(CONV + RELU)
    with pytest.raises(SpecError, match="net 'n' has no layer 'cnv'; did you mean 'conv'"):
        look.activations(inside, "cnv", picture)
    with pytest.raises(SpecError, match="net 'n' has no layer 'xyz'; layers: conv, relu"):
        look.filters(inside, "xyz")
