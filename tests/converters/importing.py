"""What the tests of import share: programs and nets of modules, and whether they agree."""

from __future__ import annotations

import numpy as np
import torch

from caffecli.net import exported, weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec.load import prepare_net
from converters import import_
from tests.converters.torch_modules import MODULES, OPERATIONS, Wrapped, trained


def save(module, example, path, **given):
    """What a user does in PyTorch."""
    with exported.quiet(), torch.no_grad():
        torch.export.save(torch.export.export(module.eval(), (example,), **given), path)
    return path


def imported(module, example, audience="both"):
    with exported.quiet():
        return import_.import_module(module, (example,), audience=audience)


def wanted(module, example):
    with torch.no_grad():
        made = module(example.clone())
    return [value.numpy() for value in (made if isinstance(made, tuple) else (made,))]


def outputs(made, example):
    """What the net gives, in the order of the program's outputs."""
    net = Net(prepare_net(made.net, TEST))
    weights.copy(net, made.weights, "import")
    with torch.no_grad():
        tops = net({made.inputs[0]: example})
    assert set(tops) == set(made.outputs)
    return [tops[name].numpy() for name in made.outputs]


def agree(came, expected, tolerance=1e-6, share=1):
    """All values, or a share of them, are equal to ``tolerance`` of the largest, or of 1."""
    for ours, theirs in zip(came, expected, strict=True):
        assert ours.shape == theirs.shape
        largest = tolerance * max(1, np.abs(theirs).max())
        if share == 1:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=largest)
        assert np.quantile(np.abs(ours - theirs), share) <= largest


def module_of(name):
    torch.manual_seed(1)
    if name in MODULES:
        make, shape = MODULES[name]
        return trained(make()), torch.randn(shape)
    return Wrapped(OPERATIONS[name]), torch.randn(2, 6, 9, 8)
