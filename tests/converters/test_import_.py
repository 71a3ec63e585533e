"""Nets in: PyTorch's modules and programs as nets that give the same outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from caffecli.errors import SpecError
from caffecli.formats import caffemodel
from caffecli.net import exported, weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec import text
from caffecli.spec.load import load_net, prepare_net
from converters import import_
from converters.from_torch import archive
from tests.converters.importing import agree, imported, module_of, outputs, save, wanted
from tests.converters.torch_modules import MODULES, OPERATIONS, Wrapped
from tests.models.opencv import needs_importer

ROOT = Path(__file__).parents[2]
#: what OpenCV has no layers for
NOT_IN_OPENCV = {
    *(
        "argmax",
        "argmax keepdim",
        "argmin",
        "amax of the rows",
        "max",
        "max and places",
        "min",
        "topk",
        "topk smallest",
    ),
    *("max_pool2d places", "mean", "mean of the last", "sum of the last", "threshold"),
}


@pytest.mark.parametrize("audience", ["both", "caffe"])
@pytest.mark.parametrize("name", [*MODULES, *OPERATIONS])
def test_gives_the_modules_outputs(name, audience):
    module, example = module_of(name)
    agree(outputs(imported(module, example, audience), example), wanted(module, example))


@needs_importer
@pytest.mark.parametrize("name", [name for name in [*MODULES, *OPERATIONS] if name not in NOT_IN_OPENCV])
def test_opencv_gives_the_modules_outputs(name, tmp_path):
    import cv2

    module, example = module_of(name)
    made = imported(module, example)
    (tmp_path / "net.prototxt").write_text(text.format(made.net))
    caffemodel.write(tmp_path / "net.caffemodel", made.net, made.weights)
    theirs = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel"))
    theirs.setInput(example.numpy())
    came = [theirs.forward()] if len(made.outputs) == 1 else theirs.forward(made.outputs)
    agree(came, wanted(module, example), 1e-5)


def test_layers_are_called_by_their_modules_and_weights_stay(tmp_path):
    module, example = module_of("ResNet")
    import_.import_program(save(module, example, tmp_path / "m.pt2"), tmp_path / "net", ["data"])
    net, stored = load_net(tmp_path / "net.prototxt"), caffemodel.read(tmp_path / "net.caffemodel")
    names = [layer.name for layer in net.layer]
    assert names[:6] == ["data", "conv1", "bn1", "bn1/scale", "relu", "maxpool"]
    assert {
        "layer1.0.conv1",
        "layer1.0.relu",
        "layer1.0.relu_2",
        "layer1.0.add",
        "layer1.1.add",
        "layer2.0.downsample.1/scale",
        "fc",
    } <= set(names)
    np.testing.assert_array_equal(stored["layer2.0.downsample.0"][0], module.layer2[0].downsample[0].weight.detach())
    np.testing.assert_array_equal(stored["bn1"][1], module.bn1.running_var)
    np.testing.assert_array_equal(stored["bn1/scale"][0], module.bn1.weight.detach())
    np.testing.assert_array_equal(stored["fc"][1], module.fc.bias.detach())


def test_usual_layers_as_caffes_users_write_them():
    module, example = module_of("AlexNet")
    made = imported(module, example)
    layers = {layer.name: layer for layer in made.net.layer}
    assert text.format(layers["features.0"].convolution_param).split() == [
        "num_output:",
        "16",
        "pad:",
        "2",
        "kernel_size:",
        "11",
        "stride:",
        "4",
    ]
    assert list(layers["features.1"].bottom) == list(layers["features.1"].top) == ["features.0"]
    assert layers["classifier.1"].type == "InnerProduct"
    assert not {"Dropout", "Flatten", "Reshape", "Power"} & {layer.type for layer in made.net.layer}
    lrn = imported(nn.LocalResponseNorm(5, 1e-4), torch.randn(1, 8, 4, 4)).net.layer[1]
    assert (lrn.type, lrn.lrn_param.alpha, lrn.lrn_param.local_size) == ("LRN", np.float32(1e-4), 5)
    pool = imported(nn.MaxPool2d(3, 2, 1), torch.randn(1, 8, 6, 6), "caffe").net.layer[1].pooling_param
    assert text.format(pool).split()[-2:] == ["round_mode:", "FLOOR"]


def test_a_free_batch(tmp_path):
    module, example = module_of("VGG")
    path = save(module, example, tmp_path / "m.pt2", dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (None, 5):
        import_.import_program(path, tmp_path / f"net{batch}", batch=batch)
        net = load_net(tmp_path / f"net{batch}.prototxt")
        assert net.layer[0].input_param.shape[0].dim[0] == (batch or 1)
    made = import_.convert(archive.read(path), "net")
    agree(outputs(made, example), wanted(module, example))
    import_.import_program(save(module, example, tmp_path / "fixed.pt2"), tmp_path / "fixed")
    assert load_net(tmp_path / "fixed.prototxt").layer[0].input_param.shape[0].dim[0] == 2


class Twice(nn.Module):
    """A module that is called twice, in-place operations, an output that is read, an input that is not, two inputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x, y, z):
        first = self.conv(x)
        second = self.conv(first * y)
        second += 1
        second.relu_()
        return first, second, y


def test_several_inputs_and_outputs():
    torch.manual_seed(1)
    module, examples = Twice().eval(), tuple(torch.randn(3, 2, 4, 5, 6))
    with exported.quiet():
        made = import_.import_module(module, examples)
    net = Net(prepare_net(made.net, TEST))
    weights.copy(net, made.weights, "import")
    assert made.inputs == net.inputs == ["x", "y", "z"]
    with torch.no_grad():
        tops = net(dict(zip(made.inputs, examples, strict=True)))
        expected = module(*examples)
    for name, value in zip(made.outputs, expected, strict=True):
        np.testing.assert_allclose(tops[name], value, atol=1e-6)


def test_half_precision_and_views_among_weights(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.randn(2, 6)
            self.register_buffer("one", whole[0])
            self.register_buffer("two", whole[1, ::2])
            self.register_buffer("short", torch.randn(3).bfloat16())

        def forward(self, x):
            return (x * self.one)[:, :3] * self.two + self.short.float()

    module, example = Odd().eval(), torch.randn(2, 6)
    agree(outputs(imported(module, example), example), wanted(module, example))


def test_what_caffe_has_not_is_named_all_at_once(tmp_path):
    class Wild(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.Hardshrink()
            self.pad = nn.ConstantPad2d(1, 2.0)
            self.drop = nn.Dropout()

        def forward(self, x):
            x = self.pad(self.act(x)).cumsum(1)
            return F.hardshrink(x).permute(0, 3, 2, 1)

    path = save(Wild(), torch.randn(2, 3, 4, 4), tmp_path / "m.pt2")
    with pytest.raises(SpecError) as caught:
        import_.import_program(path, tmp_path / "net")
    error = str(caught.value)
    assert error.startswith(f"'{path}' cannot be imported, as Caffe has no counterpart: ")
    assert "aten.hardshrink (no such layer) at 'act', 'hardshrink_1'; " in error
    assert (
        "aten.pad (it pads by constant 2.0; Caffe pads with zeros) at 'pad'; aten.cumsum (no such layer) at 'cumsum'; "
        in error
    )
    assert error.endswith(
        "aten.permute (its axes change places, [0, 3, 2, 1]; Caffe has no Permute; OpenCV and forks have (--for "
        "opencv, --for forks)) at 'permute'"
    )
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == [path]


def unpooled(x):
    """The one half of SegNet, and the other."""
    small, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(2 * small, places, 2, output_size=x.shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: F.max_pool2d(x, 2, dilation=2), "Caffe's windows have no dilation"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[1] * 1.0,
            "its indices are read, and Caffe has more windows"),
        (unpooled, r"aten\.max_unpool2d \(of Caffe's only forks have Upsample \(--for forks\)\)"),
        (lambda x: F.adaptive_max_pool2d(x, 5), r"its windows, from \[9, 8\] to \[5, 5\], are not of one size"),
        (lambda x: x.transpose(2, 3) @ x, "its other is computed from the net's input; Caffe's weights are fixed"),
        (lambda x: F.dropout(x), "it is in training mode; call model.eval"),
        (lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6), training=True),
            "it is in training mode; call model.eval"),
        (lambda x: F.interpolate(x[:, :, :, :, None], size=(10, 12, 3)),
            r"from \[9, 8, 1\] to \[10, 12, 3\]; Caffe enlarges volumes by whole numbers"),
        (lambda x: x.amax((1, 2)), r"over axes \[1, 2\] of 4; Caffe has it over whole images, axes 2 and 3"),
        (lambda x: x.argmax().float(), "over all axes, the batch too"),
        (lambda x: x.sum((0, 1)), "Caffe reduces the axes of items"),
        (lambda x: F.conv2d(x[0], torch.ones(2, 6, 1, 1)), "its input has no batch axis"),
        (lambda x: F.conv2d(F.pad(x, (0, 1, 0, 0)), torch.ones(2, 6, 3, 3), dilation=2), "differs between the sides"),
        (lambda x: torch.cat([x, torch.ones(2, 1, 9, 8)], 1), "one of its parts does not depend on the net's input"),
        (lambda x: x + torch.arange(2.0).view(2, 1, 1, 1), "an array that differs along the batch"),
        (lambda x: x + torch.zeros(5, 1, 1, 1, 1),
            r"an array of \(5, 1, 1, 1, 1\) makes \(5, 2, 6, 9, 8\) of \(2, 6, 9, 8\)"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "it rounds"),
        (lambda x: (-2.0) ** x, "its base is -2.0; Caffe's Exp has one above 0"),
        (lambda x: torch.ones(3), "it does not depend on the net's input"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_reasons(function, why):
    with pytest.raises(SpecError, match=why):
        imported(Wrapped(function), torch.randn(2, 6, 9, 8))


def test_in_place_into_a_part(tmp_path):
    class Part(nn.Module):
        def forward(self, x):
            y = x * 2
            y[:, 0].relu_()
            return y

    path = save(Part(), torch.randn(2, 3), tmp_path / "m.pt2")
    with pytest.raises(
        SpecError, match=r"m\.pt2' cannot be imported: aten\.relu_ at 'relu_' writes in place into a part of 'mul'"
    ):
        import_.import_program(path, tmp_path / "net")


def test_forks_have_more(tmp_path):
    module = Wrapped(
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    )
    example = torch.randn(2, 6, 9, 8)
    made = imported(module, example, "forks")
    assert [layer.type for layer in made.net.layer] == ["Input", "Interp", "Permute"]
    agree(outputs(made, example), wanted(module, example))


def test_places_of_a_max_pooling():
    for x in (torch.randn(2, 6, 9, 8), torch.randn(2, 6, 4, 8)):
        made = imported(Wrapped(unpooled), x, "forks")
        assert [layer.type for layer in made.net.layer] == ["Input", "Pooling", "Power", "Upsample"]
        agree(outputs(made, x), wanted(Wrapped(unpooled), x))


def test_a_linear_taken_apart_comes_together(tmp_path):
    module, x = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)), torch.randn(2, 6, 9, 8)
    with exported.quiet(), torch.no_grad():
        torch.export.save(torch.export.export(module, (x,)).run_decompositions(), tmp_path / "m.pt2")
    made = import_.convert(archive.read(tmp_path / "m.pt2"), "net")
    assert [(layer.type, layer.inner_product_param.axis) for layer in made.net.layer[1::2]] == [("InnerProduct", 3)] * 2
    agree(outputs(made, x), wanted(module, x))


def test_a_module_that_cannot_be_traced():
    with pytest.raises(SpecError, match=r"Wrapped cannot be traced by torch\.export: "), exported.quiet():
        import_.import_module(Wrapped(lambda x: x if x.sum() > 0 else -x), (torch.randn(2),))


@pytest.mark.slow
def test_the_page_runs_and_prints_what_it_shows(tmp_path):
    (tmp_path / "models").symlink_to(ROOT / "models")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "0"}
    command = [sys.executable, "-W", "error", str(ROOT / "scripts/tutorial.py"), str(ROOT / "docs/from-pytorch.md")]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
