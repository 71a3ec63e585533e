"""What a net has learnt, as arrays: against nets so small that the answer can be said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import ShapeError, SpecError
from caffecli.tools.visual import methods
from caffecli.tools.visual.inspector import Inspector

INPUT = (
    'layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ dim: 4 dim: {0} dim: {1} dim: {2} }} }} }}'
)
CONV = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 5 kernel_size: 3 '
    "} }"
)
RELU = 'layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }'
POOL = 'layer { name: "pool" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }'
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "p" top: "ip" inner_product_param { num_output: 3 } }'


@pytest.fixture
def opened(tmp_path):
    """``opened(layers, channels, height, width)``: the net, its weights random."""

    def make(layers, channels=2, height=8, width=6):
        path = tmp_path / "net.prototxt"
        path.write_text(f'name: "n" {INPUT.format(channels, height, width)} {layers}')
        inspector = Inspector.open(path, None)
        generator = torch.Generator().manual_seed(5)
        for blob in inspector.net.parameters():
            blob.data.normal_(0, 1, generator=generator)
        return inspector

    return make


@pytest.fixture
def picture():
    return np.random.default_rng(6).normal(size=(2, 8, 6)).astype(np.float32)


def test_vis_square():
    tiled = methods.vis_square(np.arange(3 * 2 * 2, dtype=np.float32).reshape(3, 2, 2))
    expected = np.array([[0, 1, 11, 4, 5], [2, 3, 11, 6, 7], [11] * 5, [8, 9, 11, 11, 11], [10, 11, 11, 11, 11]]) / 11
    np.testing.assert_allclose(tiled, expected, rtol=1e-6)
    assert methods.vis_square(np.zeros((5, 4, 3, 3), np.float32), 2).shape == (2 * 6 - 2, 3 * 5 - 2, 3)


def test_filters(opened):
    inspector = opened(CONV + POOL + IP)
    weight = inspector.net.layer("conv").weight.detach().numpy()
    found = methods.filters(inspector, "conv")
    assert found.shape == (5 * 2, 3, 3, 1)
    np.testing.assert_array_equal(found[2 * 3 + 1, ..., 0], weight[3, 1])
    assert methods.filters(opened(CONV, 3), "conv").shape == (5, 3, 3, 3)
    assert methods.filters(inspector, "ip").shape == (3 * 5, 3, 2, 1)
    np.testing.assert_array_equal(methods.filters(inspector, "conv", 3)[1, ..., 0], weight[3, 1])
    with pytest.raises(SpecError, match="layer 'conv' has the units 0 to 4, not 5"):
        methods.filters(inspector, "conv", 5)
    with pytest.raises(ShapeError, match=r"layer 'pool' \(Pooling\) has no filters; name one with weights"):
        methods.filters(inspector, "pool")


def test_weights_without_height_and_width_are_one_picture(opened):
    second = IP.replace('"ip"', '"ip2"').replace('bottom: "p"', 'bottom: "ip"')
    inspector = opened(CONV + POOL + IP + second)
    weight = inspector.net.layer("ip2").weight.detach().numpy()
    np.testing.assert_array_equal(methods.filters(inspector, "ip2")[0, ..., 0], weight)
    np.testing.assert_array_equal(methods.filters(inspector, "ip2", 1)[0, 0, :, 0], weight[1])


def test_filters_of_one_value_are_one_picture(opened):
    inspector = opened(CONV.replace("kernel_size: 3", "kernel_size: 1"), 7)
    weight = inspector.net.layer("conv").weight.detach().numpy()
    np.testing.assert_array_equal(methods.filters(inspector, "conv")[0, ..., 0], weight[..., 0, 0])


def test_filters_of_a_deconvolution_go_by_its_outputs(opened):
    up = 'layer { name: "up" type: "Deconvolution" bottom: "data" top: "u" '
    up += "convolution_param { num_output: 6 group: 2 kernel_size: 3 } }"
    inspector = opened(up, 4)
    weight = inspector.net.layer("up").weight.detach().numpy()  # (channels, num_output / group, height, width)
    found = methods.filters(inspector, "up", 4)
    np.testing.assert_array_equal(found[..., 0], weight[2:, 1])
    assert methods.filters(inspector, "up").shape == (4 * 3, 3, 3, 1)


def test_activations_are_the_nets(opened, picture):
    inspector = opened(CONV + RELU + POOL + IP)
    outputs = inspector.net({"data": torch.from_numpy(picture[None])})["ip"]
    np.testing.assert_allclose(methods.activations(inspector, "ip", picture), outputs[0].detach().numpy(), rtol=1e-5)
    before, after = methods.activations(inspector, "conv", picture), methods.activations(inspector, "relu", picture)
    assert before.shape == (5, 6, 4)
    np.testing.assert_array_equal(np.maximum(before, 0), after)


def test_histogram():
    counts, edges = methods.histogram(np.array([0, 1, 1, 4, np.nan], np.float32), 4)
    np.testing.assert_array_equal(counts, [1, 2, 0, 1])
    np.testing.assert_array_equal(edges, [0, 1, 2, 3, 4])


def test_deconv_puts_filters_where_the_switches_point(opened, picture):
    inspector = opened(CONV + RELU + POOL)
    found = methods.deconv(inspector, "pool", picture, top=2)
    pooled, conv = methods.activations(inspector, "pool", picture), methods.activations(inspector, "conv", picture)
    assert found.units == np.argsort(-pooled.max((1, 2)))[:2].tolist()
    weight = inspector.net.layer("conv").weight.detach().numpy()
    for unit, value, made in zip(found.units, found.values, found.pictures, strict=True):
        y, x = np.unravel_index(conv[unit].argmax(), conv[unit].shape)
        assert value == conv[unit].max()
        expected = np.zeros_like(picture)
        expected[:, y : y + 3, x : x + 3] = value * weight[unit]
        np.testing.assert_allclose(made, expected, rtol=1e-5)


def test_deconv_rectifies_what_comes_down(opened, picture):
    second = CONV.replace('"conv"', '"conv2"').replace('bottom: "data" top: "c"', 'bottom: "c" top: "d"')
    inspector = opened(CONV + RELU + second)
    found = methods.deconv(inspector, "conv2", picture, unit=3)
    top = methods.activations(inspector, "conv2", picture)[3]
    y, x = np.unravel_index(top.argmax(), top.shape)
    down = np.zeros((5, 6, 4), np.float32)
    down[:, y : y + 3, x : x + 3] = np.maximum(top.max() * inspector.net.layer("conv2").weight.detach().numpy()[3], 0)
    weight = inspector.net.layer("conv").weight.detach()
    expected = torch.nn.functional.conv_transpose2d(torch.from_numpy(down[None]), weight)[0]
    np.testing.assert_allclose(found.pictures[0], expected, rtol=1e-4, atol=1e-5)
    assert found.units == [3]


def conv_up(x, w, bias, pad, stride, group):
    """Caffe's convolution, number by number."""
    kernel, (outputs, _) = w.shape[2], w.shape[:2]
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad)])
    rows, columns = ((side - kernel) // stride + 1 for side in x.shape[1:])
    top = np.zeros((outputs, rows, columns))
    for o, i, j in np.ndindex(top.shape):
        g = o // (outputs // group) * w.shape[1]
        window = x[g : g + w.shape[1], i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        top[o, i, j] = (window * w[o]).sum() + bias[o]
    return top


def conv_down(top, w, shape, pad, stride, group):
    """Each value of the top times its filter, added up where the filter lay."""
    kernel, outputs = w.shape[2], len(w)
    x = np.zeros((shape[0], shape[1] + 2 * pad, shape[2] + 2 * pad))
    for o, i, j in np.ndindex(top.shape):
        g = o // (outputs // group) * w.shape[1]
        x[g : g + w.shape[1], i * stride : i * stride + kernel, j * stride : j * stride + kernel] += top[o, i, j] * w[o]
    return x[:, pad : pad + shape[1], pad : pad + shape[2]]


def pool_up(x, kernel, stride):
    """Caffe's max pooling, whose last windows may hang over, and the switches: where in x each maximum was."""
    rows, columns = (-(-(side - kernel) // stride) + 1 for side in x.shape[1:])
    top, switches = np.zeros((len(x), rows, columns)), {}
    for c, i, j in np.ndindex(top.shape):
        window = x[c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        y, z = np.unravel_index(window.argmax(), window.shape)
        top[c, i, j], switches[c, i, j] = window[y, z], (c, i * stride + y, j * stride + z)
    return top, switches


@pytest.mark.parametrize("unit", [None, 4])
def test_deconv_is_zeiler_and_fergus_definition(opened, unit):
    """Convolutions with padding, stride and groups, ReLUs, overlapping max pooling: up and down by hand."""
    layers = """
    layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
      convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
    layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
    layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { kernel_size: 3 stride: 2 } }
    layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2"
      convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 2 } }
    layer { name: "r2" type: "ReLU" bottom: "c2" top: "c2" }
    """
    inspector = opened(layers, 2, 13, 11)
    picture = np.random.default_rng(3).normal(size=(2, 13, 11)).astype(np.float32)
    (w1, b1), (w2, b2) = (
        [blob.detach().numpy().astype(np.float64) for blob in inspector.net.layer(name).blobs] for name in ("c1", "c2")
    )
    first = np.maximum(conv_up(picture, w1, b1, 1, 1, 1), 0)
    pooled, switches = pool_up(first, 3, 2)
    second = np.maximum(conv_up(pooled, w2, b2, 1, 2, 2), 0)
    found = methods.deconv(inspector, "r2", picture, top=3, unit=unit)
    peaks = second.max((1, 2))
    assert found.units == (np.argsort(-peaks, kind="stable")[:3].tolist() if unit is None else [unit])
    for number, value, made in zip(found.units, found.values, found.pictures, strict=True):
        assert value == pytest.approx(peaks[number], rel=1e-5)
        top = np.where((second == peaks[number]) & (np.arange(6) == number)[:, None, None], second, 0)
        down = np.maximum(top, 0)  # its ReLU
        down = conv_down(down, w2, pooled.shape, 1, 2, 2)
        unpooled = np.zeros_like(first)
        for place, switch in switches.items():
            unpooled[switch] += down[place]
        expected = conv_down(np.maximum(unpooled, 0), w1, picture.shape, 1, 1, 1)
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_deconv_of_many_units_is_that_of_each(opened, monkeypatch, picture):
    inspector = opened(CONV + RELU + POOL)
    whole = methods.deconv(inspector, "pool", picture, top=5)
    monkeypatch.setattr(methods, "_BATCH", 2)
    parts = methods.deconv(inspector, "pool", picture, top=5)
    assert parts.units == whole.units
    np.testing.assert_allclose(parts.pictures, whole.pictures, rtol=1e-5, atol=1e-6)


def test_saliency_of_a_linear_net_is_its_weights(opened, picture):
    inspector = opened(IP.replace('bottom: "p"', 'bottom: "data"'))
    weight = inspector.net.layer("ip").weight.detach().numpy().reshape(3, 2, 8, 6)
    for unit in range(3):
        np.testing.assert_array_equal(methods.saliency(inspector, "ip", picture, unit)[1], np.abs(weight[unit]).max(0))


def test_saliency_is_the_gradient(opened, picture):
    inspector = opened(CONV + RELU + POOL + IP)
    x = torch.from_numpy(picture[None]).requires_grad_()
    scores = inspector.net({"data": x})["ip"][0]
    for unit in (None, 1):
        number, found = methods.saliency(inspector, "ip", picture, unit)
        assert number == (int(scores.argmax()) if unit is None else unit)
        conv = torch.nn.functional.conv2d(
            x, inspector.net.layer("conv").weight, inspector.net.layer("conv").bias
        ).relu()
        flat = torch.nn.functional.max_pool2d(conv, 2).flatten(1)
        (grad,) = torch.autograd.grad((flat @ inspector.net.layer("ip").weight.t())[0, number], x)
        np.testing.assert_allclose(found, grad[0].abs().amax(0).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(SpecError, match="layer 'ip' has the units 0 to 2, not 3"):
        methods.saliency(inspector, "ip", picture, 3)


def test_occlusion(opened, picture):
    total = 'layer { name: "sum" type: "Reduction" bottom: "data" top: "s" reduction_param { axis: 1 } }'
    inspector = opened(total)
    found = methods.occlusion(inspector, "sum", picture, size=3, stride=2, fill=0.5)
    assert (found.tops, found.lefts, found.unit) == ([0, 2, 4, 5], [0, 2, 3], 0)
    for row, y in enumerate(found.tops):
        for column, x in enumerate(found.lefts):
            expected = picture.sum() - picture[:, y : y + 3, x : x + 3].sum() + 0.5 * 18
            assert found.values[row, column] == pytest.approx(expected, abs=1e-4)
    assert found.whole == pytest.approx(picture.sum(), abs=1e-4)
    with pytest.raises(SpecError, match="a square of 7 hides more than the picture of 8 x 6; choose a smaller one"):
        methods.occlusion(inspector, "sum", picture, size=7)


def test_occlusion_of_a_linear_net_is_what_the_hidden_pixels_gave(opened, picture):
    inspector = opened(IP.replace('bottom: "p"', 'bottom: "data"'))
    weight = inspector.net.layer("ip").weight.detach().numpy().reshape(3, 2, 8, 6)
    found = methods.occlusion(inspector, "ip", picture, unit=2, size=2, stride=2)
    part = (weight[2] * picture).sum(0).reshape(4, 2, 3, 2).sum((1, 3))
    np.testing.assert_allclose(found.values, found.whole - part, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(methods.heat(found, (8, 6)), found.values.repeat(2, 0).repeat(2, 1))


def test_heat_is_the_mean_of_the_squares_over_a_pixel():
    found = methods.Occlusion(0, 9.0, np.array([[1.0, 3.0]], np.float32), 2, [1], [0, 1])
    expected = [[9, 9, 9, 9], [1, 2, 3, 9], [1, 2, 3, 9]]
    np.testing.assert_array_equal(methods.heat(found, (3, 4)), expected)


def test_tops_without_a_row_for_each_picture(opened, picture):
    total = 'layer { name: "sum" type: "Reduction" bottom: "data" top: "s" reduction_param { axis: 0 } }'
    inspector = opened(total)
    for way in (methods.activations, methods.deconv, methods.saliency, methods.occlusion):
        with pytest.raises(
            ShapeError, match=r"layer 'sum': its top, of shape \(\), has no row for each picture; choose another"
        ):
            way(inspector, "sum", picture)


def test_a_layer_the_picture_does_not_reach(opened, picture):
    inspector = opened('layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 dim: 3 } } }')
    with pytest.raises(SpecError, match="layer 'd' does not depend on input 'data'; choose another"):
        methods.saliency(inspector, "d", picture)


def test_layers_that_are_not_there(opened, picture):
    inspector = opened(CONV + RELU)
    with pytest.raises(SpecError, match="net 'n' has no layer 'cnv'; did you mean 'conv'"):
        methods.activations(inspector, "cnv", picture)
    with pytest.raises(SpecError, match="net 'n' has no layer 'xyz'; layers: conv, relu"):
        methods.filters(inspector, "xyz")
