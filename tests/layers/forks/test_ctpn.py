"""CTPN's layers: Lstm beside the fork's loops, forward and backward, Transpose, Reverse, and the proposals of text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.layers.base import Layer
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from tests.layers.oracle import build, check, distinct

FILLED = 'weight_filler { type: "uniform" min: -0.9 max: 0.9 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'
PROPOSALS = """module: "layers.text_proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" """
Loops = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def loops(
    x: np.ndarray,
    weights: list[np.ndarray],
    go_on: np.ndarray,
    states: list[np.ndarray],
    top_diff: np.ndarray,
    threshold: float,
) -> Loops:
    """The fork's, step by step and sequence by sequence: the top, the last c, the diffs of W_x, W_h, b, and x.

    ``go_on``: (T, N). ``states``: h and c of before.
    """
    w_x, w_h, b = weights
    steps, sequences = x.shape[:2]
    size = len(b) // 4
    part = [slice(k * size, (k + 1) * size) for k in range(4)]
    gates = np.zeros((steps, sequences, 4 * size))
    h, c = (np.zeros((steps + 1, sequences, size)) for _ in range(2))
    h[0], c[0] = states
    for t in range(steps):
        for n in range(sequences):
            sums = w_x @ x[t, n] + b + (w_h @ h[t, n] if go_on[t, n] else 0)
            for k in range(4):
                gates[t, n, part[k]] = sigmoid(sums[part[k]]) if k < 3 else np.tanh(sums[part[k]])
            if not go_on[t, n]:
                gates[t, n, part[1]] = 0
            i, f, o, g = (gates[t, n, p] for p in part)
            c[t + 1, n] = f * c[t, n] + i * g
            h[t + 1, n] = o * np.tanh(c[t + 1, n])
    dh, dc = np.zeros_like(h), np.zeros_like(c)
    dh[1:] = top_diff
    diff = np.zeros_like(gates)
    for t in reversed(range(steps)):
        for n in range(sequences):
            i, f, o, g = (gates[t, n, p] for p in part)
            tanh_c = np.tanh(c[t + 1, n])
            dc[t + 1, n] += dh[t + 1, n] * o * (1 - tanh_c**2)
            dc[t, n] = dc[t + 1, n] * f if go_on[t, n] else 0
            diff[t, n, part[0]] = dc[t + 1, n] * g * i * (1 - i)
            diff[t, n, part[1]] = (dc[t + 1, n] * c[t, n] if go_on[t, n] else 0) * f * (1 - f)
            diff[t, n, part[2]] = dh[t + 1, n] * tanh_c * o * (1 - o)
            diff[t, n, part[3]] = dc[t + 1, n] * i * (1 - g**2)
            if threshold > 0:
                diff[t, n] = np.clip(diff[t, n], -threshold, threshold)
            if go_on[t, n]:
                dh[t, n] += diff[t, n] @ w_h
    rows = diff.reshape(-1, 4 * size)
    to_h = diff[1:].reshape(-1, 4 * size).T @ h[1:-1].reshape(-1, size) + np.outer(diff[0, 0], h[0, 0])
    return h[1:], c[-1], rows.T @ x.reshape(len(rows), -1), to_h, rows.sum(0), diff @ w_x, h[-1]


def lstm(settings: str, *shapes: tuple[int, ...]) -> Layer:
    bottoms = " ".join(f'bottom: "{i}"' for i in range(len(shapes)))
    torch.manual_seed(5)
    return build(f'type: "Lstm" {bottoms} lstm_param {{ num_output: 4 {FILLED} {settings} }}', *shapes)


@pytest.mark.parametrize("threshold", [0, 0.05])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("form", ["CTPN", "caffe-lstm"])
def test_lstm_is_the_forks_loops(form: str, marked: bool, threshold: float) -> None:
    steps, sequences = 6, 3
    flat = form == "caffe-lstm"
    draws = np.random.default_rng(0)
    shape = (steps * sequences, 2, 5) if flat else (steps, sequences, 2, 5)
    settings = f"clipping_threshold: {threshold} {f'batch_size: {sequences}' if flat else ''}"
    made = lstm(settings, shape, *[(steps * sequences, 1)] * marked)
    weights = [blob.detach().numpy().astype(np.float64) for blob in made.blobs]
    assert [each.shape for each in weights] == [(16, 10), (16, 4), (16,)]
    states = [np.zeros((sequences, 4)), np.zeros((sequences, 4))]
    for batch in range(2):  # the second goes on from the first
        x, diff = draws.normal(size=(steps, sequences, 10)), draws.normal(size=(steps, sequences, 4))
        drawn, first = draws.integers(2, size=(steps, sequences)), np.arange(steps)[:, None] == 0
        go_on = drawn > 0 if marked else np.broadcast_to(~first, (steps, sequences))
        h, c, to_x, to_h, to_b, to_bottom, last = loops(x, weights, go_on, states, diff, threshold)
        states = [last, c] if marked else states
        bottom = torch.from_numpy(x.astype(np.float32)).reshape(shape).requires_grad_()
        markers = [torch.from_numpy(go_on.astype(np.float32)).reshape(-1, 1)] * marked
        top = made(bottom, *markers)
        assert top.shape == ((steps * sequences, 4) if flat else (steps, sequences, 4))
        np.testing.assert_allclose(top.detach().reshape(h.shape), h, atol=1e-6)
        top.backward(torch.from_numpy(diff.astype(np.float32)).reshape(top.shape))
        assert bottom.grad is not None
        np.testing.assert_allclose(bottom.grad.reshape(to_bottom.shape), to_bottom, atol=1e-5)
        for blob, expected in zip(made.blobs, (to_x, to_h, to_b), strict=True):
            assert blob.grad is not None
            np.testing.assert_allclose(blob.grad, expected, atol=1e-4, err_msg=f"batch {batch}")
            blob.grad = None
        if not marked:  # scoring alone takes another way
            with torch.no_grad():
                np.testing.assert_allclose(made(bottom).reshape(h.shape), h, atol=1e-6)


def test_lstm_differentiates_truly_where_one_sequence_is_not_cut() -> None:
    layer = lstm("", (5, 1, 3), (5,)).double()
    markers = torch.tensor([0.0, 1, 1, 1, 1])

    def run(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        layer.h = layer.c = torch.zeros(1, 4, dtype=torch.float64)
        return layer(x, markers)

    x = torch.from_numpy(distinct(5, 1, 3)).double().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


def test_lstm_by_its_bottoms() -> None:
    """Steps in one axis are caffe-lstm's, steps and sequences in two CTPN's; their values are alike."""
    flat, deep = lstm("", (6, 5)), lstm("", (6, 1, 5))
    deep.load_state_dict(flat.state_dict())
    x = torch.from_numpy(distinct(6, 5))
    assert flat(x).shape == (6, 4)
    torch.testing.assert_close(deep(x[:, None])[:, 0], flat(x))


def test_a_batch_of_other_sequences_begins_anew() -> None:
    layer = lstm("", (2, 3, 5), (2, 3))
    x = torch.from_numpy(distinct(2, 2, 5))
    layer(torch.ones(2, 3, 5), torch.ones(2, 3))
    layer.reshape([(2, 2, 5), (2, 2)])
    torch.testing.assert_close(layer(x, torch.ones(2, 2)), lstm("", (2, 2, 5))(x))


@pytest.mark.parametrize(
    ("kind", "settings", "shapes", "said"),
    [
        ("Lstm", "", [(3, 2, 4)], "expected lstm_param { num_output: N }, N at least 1"),
        ("Lstm", "lstm_param { num_output: 4 }", [(3,)], "expected (time, sequences, values), got 'x' (3,)"),
        ("Lstm", "lstm_param { num_output: 4 batch_size: 2 }", [(3, 4)], "the steps of 2 sequences (batch_size)"),
        ("Lstm", "lstm_param { num_output: 4 batch_size: 0 }", [(3, 4)], "a batch_size of at least 1, got 0"),
        ("Lstm", "lstm_param { num_output: 4 }", [(3, 2, 4), (3,)], "expected a marker for each of 6 steps as second"),
        ("Lstm", "lstm_param { num_output: 4 }", [(0, 2, 4)], "expected at least one step, got 'x' (0, 2, 4)"),
        ("Transpose", "transpose_param { dim: 1 }", [(3, 2)], "each axis of its bottom once as dim, 0 to 1, got [1]"),
        ("Transpose", "", [(3, 2)], "each axis of its bottom once as dim, 0 to 1, got []"),
        ("Reverse", "reverse_param { axis: 2 }", [(3, 2)], "axis 2 is out of range for a blob of 2 dimensions"),
        ("Reverse", "reverse_param { axis: -1 }", [(3, 2)], "expected an axis of 0 to 1, got -1"),
        ("Reverse", "", [(3, 2), (3, 2)], "expected 1 bottom blob(s), got 2"),
        (
            "Python",
            'python_param { module: "layers.text_proposal_layer" layer: "ProposalLayer" param_str: "feat_stride: 16" } '
            'top: "rois" top: "scores"',
            [(1, 18, 2, 2), (1, 36, 2, 2), (1, 3)],
            "expected scores and changes (1, 20, height, width) of 10 anchors, and im_info",
        ),
    ],
)
def test_errors(kind: str, settings: str, shapes: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(CaffeError) as error:
        build(f'type: "{kind}" {settings}', *shapes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_lstm_keeps_to_its_weights() -> None:
    layer = lstm("", (3, 2, 4))
    with pytest.raises(CaffeError, match=r"its blobs are for values 4, got 5 of '0' \(3, 2, 5\)"):
        layer.reshape([(3, 2, 5)])


def test_transpose_and_reverse() -> None:
    check('type: "Transpose" transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }', oracle=lambda x: x.transpose(3, 2, 0, 1))
    for axis in range(4):
        check(f'type: "Reverse" reverse_param {{ axis: {axis} }}', oracle=lambda x, axis=axis: np.flip(x, axis))
    check('type: "Reverse"', oracle=lambda x: x[::-1])


def proposals(change: np.ndarray, stride: int, picture: tuple[float, float]) -> np.ndarray:
    """Place by place, anchor by anchor, as CTPN's code reckons them in Python 2."""
    rows = []
    for y, x in np.ndindex(change.shape[2:]):
        for a, size in enumerate((11, 16, 23, 33, 48, 68, 97, 139, 198, 283)):
            ends = np.array([7.5 - 8, 7.5 - size // 2, 7.5 + 8, 7.5 + size // 2]).astype(np.int32)
            left, top, right, bottom = ends + np.array([x, y, x, y]) * stride
            tall = math.exp(change[0, 2 * a + 1, y, x]) * (bottom - top + 1)
            begin = change[0, 2 * a, y, x] * (bottom - top + 1) + (top + bottom) / 2 - tall / 2
            most = np.array([picture[1], picture[0]] * 2) - 1
            rows.append(np.clip([left, begin, right, begin + tall], 0, most))
    return np.array(rows)


def test_text_proposals() -> None:
    draws = np.random.default_rng(3)
    change, scores = draws.normal(size=(2, 1, 20, 3, 5)).astype(np.float32)
    info = torch.tensor([[45.0, 75, 1]])
    made = build(
        f'type: "Python" bottom: "a" bottom: "b" bottom: "c" top: "rois" top: "scores" python_param {{ {PROPOSALS} }}',
        (1, 20, 3, 5),
        (1, 20, 3, 5),
        (1, 3),
    )
    regions, probable = made(torch.from_numpy(scores), torch.from_numpy(change), info)
    np.testing.assert_allclose(regions, proposals(change, 16, (45, 75)), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(probable[:, 0], scores[0, 10:].transpose(1, 2, 0).flatten())


def test_ctpns_own_part_of_its_net() -> None:
    """From the features on as in its deploy.prototxt: the rows of the features are sequences."""
    net = text.parse(
        f"""force_backward: true
        layer {{ name: 'read' type: 'Input' top: 'conv5_3' top: 'im_info'
          input_param {{ shape {{ dim: 1 dim: 6 dim: 4 dim: 7 }} shape {{ dim: 1 dim: 3 }} }} }}
        layer {{ name: 'im2col' bottom: 'conv5_3' top: 'im2col' type: 'Im2col'
          convolution_param {{ pad: 1 kernel_size: 3 }} }}
        layer {{ name: 'turn' top: 'turned' bottom: 'im2col' type: 'Transpose'
          transpose_param {{ dim: 3 dim: 2 dim: 0 dim: 1 }} }}
        layer {{ name: 'in' type: 'Reshape' bottom: 'turned' top: 'in'
          reshape_param {{ shape {{ dim: -1 }} axis: 1 num_axes: 2 }} }}
        layer {{ name: 'lstm' type: 'Lstm' bottom: 'in' top: 'lstm'
          lstm_param {{ num_output: 5 clipping_threshold: 1 {FILLED} }} }}
        layer {{ name: 'back' type: 'Reverse' bottom: 'in' top: 'back' reverse_param {{ axis: 0 }} }}
        layer {{ name: 'rlstm' type: 'Lstm' bottom: 'back' top: 'rlstm' lstm_param {{ num_output: 5 {FILLED} }} }}
        layer {{ name: 'forth' type: 'Reverse' bottom: 'rlstm' top: 'forth' reverse_param {{ axis: 0 }} }}
        layer {{ name: 'both' type: 'Concat' bottom: 'lstm' bottom: 'forth' top: 'both' concat_param {{ axis: 2 }} }}
        layer {{ name: 'out' type: 'Reshape' bottom: 'both' top: 'out'
          reshape_param {{ shape {{ dim: -1 dim: 1 }} axis: 1 num_axes: 1 }} }}
        layer {{ name: 'features' type: 'Transpose' bottom: 'out' top: 'features'
          transpose_param {{ dim: 2 dim: 3 dim: 1 dim: 0 }} }}
        layer {{ name: 'cls' type: 'Convolution' bottom: 'features' top: 'cls'
          convolution_param {{ num_output: 20 kernel_size: 1 }} }}
        layer {{ name: 'box' type: 'Convolution' bottom: 'features' top: 'box'
          convolution_param {{ num_output: 20 kernel_size: 1 }} }}
        layer {{ name: 'proposal' type: 'Python' bottom: 'cls' bottom: 'box' bottom: 'im_info' top: 'rois' top: 'scores'
          python_param {{ {PROPOSALS} }} }}""",
        NetParameter(),
    )
    made = Net(net)
    assert tuple(made.shape("in")) == (7, 4, 54)
    assert tuple(made.shape("features")) == (1, 10, 4, 7)
    tops = made({"conv5_3": torch.randn(1, 6, 4, 7), "im_info": torch.tensor([[64.0, 112, 1]])})
    assert [tuple(tops[name].shape) for name in ("rois", "scores")] == [(280, 4), (280, 1)]
