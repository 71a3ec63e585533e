"""Update rules against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import SolverError
from caffecli.layers.linear import InnerProduct
from caffecli.net import params
from caffecli.proto.caffe_pb2 import LayerParameter, SolverParameter
from caffecli.solver import rules


def setting(solver: str, specs: str = "") -> tuple[rules.Rule, torch.Tensor, torch.Tensor]:
    """A rule over a layer of a (2, 3) weight and a (2,) bias."""
    text = f'name: "ip" type: "InnerProduct" inner_product_param {{ num_output: 2 }} {specs}'
    layer = InnerProduct(text_format.Parse(text, LayerParameter()))
    layer.setup([(5, 3)])
    found: list[params.Param] = []
    params.add(found, layer)
    layer.materialize()
    weight, bias = layer.blobs
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -0.25]]))
        bias.copy_(torch.tensor([0.1, -0.2]))
    return rules.create(text_format.Parse(solver, SolverParameter()), found), weight, bias


def set_grads(weight: torch.Tensor, bias: torch.Tensor, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    weight.grad = scale * torch.tensor([[0.3, 0.1, -0.2], [0.0, 0.4, 0.6]])
    bias.grad = scale * torch.tensor([1.0, -1.0])
    return weight.grad.numpy().copy(), bias.grad.numpy().copy()


def test_sgd_two_steps_with_a_rate_that_falls() -> None:
    rule, weight, bias = setting("momentum: 0.9")
    w, b = weight.detach().numpy().copy(), bias.detach().numpy().copy()
    v, u = np.zeros_like(w), np.zeros_like(b)
    for rate in (0.1, 0.01):
        g, h = set_grads(weight, bias)
        rule.update(rate)
        v, u = 0.9 * v + rate * g, 0.9 * u + rate * h
        w, b = w - v, b - u
    np.testing.assert_allclose(weight.detach(), w, rtol=1e-6)
    np.testing.assert_allclose(bias.detach(), b, rtol=1e-6)
    np.testing.assert_allclose(rule.history[0], v, rtol=1e-6)


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_multipliers_and_decay(kind: str) -> None:
    specs = "param { lr_mult: 2 decay_mult: 3 } param { lr_mult: 5 decay_mult: 0 }"
    rule, weight, bias = setting(f'momentum: 0 weight_decay: 0.01 regularization_type: "{kind}"', specs)
    w, b = weight.detach().numpy().copy(), bias.detach().numpy().copy()
    g, h = set_grads(weight, bias)
    rule.update(0.1)
    pull = w if kind == "L2" else np.sign(w)
    np.testing.assert_allclose(weight.detach(), w - 0.2 * (g + 0.03 * pull), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias.detach(), b - 0.5 * h, rtol=1e-5)


def test_frozen_blobs_stay() -> None:
    rule, weight, bias = setting("momentum: 0.9 weight_decay: 0.1", "param { lr_mult: 0 } param { lr_mult: 1 }")
    before = weight.detach().clone()
    assert not weight.requires_grad
    set_grads(weight, bias)
    rule.update(0.1)
    assert torch.equal(weight, before)
    assert not rule.history[0].any()


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_by_the_global_norm_before_iter_size(limit: float) -> None:
    rule, weight, bias = setting(f"momentum: 0 clip_gradients: {limit} iter_size: 4")
    w = weight.detach().numpy().copy()
    g, h = set_grads(weight, bias)
    norm = np.sqrt((g**2).sum() + (h**2).sum())
    rule.update(0.1)
    np.testing.assert_allclose(weight.detach(), w - 0.1 * g * min(1.0, limit / norm) / 4, rtol=1e-5)


def test_decay_works_without_a_gradient() -> None:
    rule, weight, bias = setting("momentum: 0 weight_decay: 0.5")
    w = weight.detach().numpy().copy()
    weight.grad = bias.grad = None
    rule.update(0.1)
    np.testing.assert_allclose(weight.detach(), 0.95 * w, rtol=1e-6)


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        ('type: "SGDD"', "solver type 'SGDD' is not known; did you mean 'SGD'"),
        ('regularization_type: "L3"', "regularization_type: expected 'L1' or 'L2', got 'L3'"),
    ],
)
def test_wrong_settings(solver: str, words: str) -> None:
    with pytest.raises(SolverError, match=words):
        setting(solver)
