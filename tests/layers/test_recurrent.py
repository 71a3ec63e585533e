"""LSTM, RNN and LSTMUnit against NumPy, the recorded answers, and their error texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import ShapeError, SpecError
from caffecli.layers import recurrent
from caffecli.layers.recurrent import Sequences, longest
from tests.layers.oracle import build, check, distinct, run_golden

T, N, H = 6, 3, 4
CONTS = {
    "one sequence a stream": np.vstack([np.zeros((1, N)), np.ones((T - 1, N))]),
    "sequences begin here and there": np.array([[0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 1], [1, 0, 1]]),
    "nothing goes on": np.zeros((T, N)),
    "parts of the state": np.array([[0, 0, 0], [0.5, 1, 0], [1, 0.25, 2], [1, 1, 1], [0, 1, 1], [1, 1, -1]]),
}
STATIC = {"no static input": (), "few static values": ((N, 2),), "many static values": ((N, 2, 5),)}


@pytest.mark.parametrize("case", ["lstm", "rnn", "rnn_expose"])
def test_recorded_answers(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


def text(kind: str, statics: int = 0, settings: str = "") -> str:
    bottoms = 'bottom: "x" bottom: "cont" ' + 'bottom: "s" ' * statics
    return (
        f'type: "{kind}" {bottoms} recurrent_param {{ num_output: {H} weight_filler {{ type: "xavier" }} {settings} }}'
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def inputs(x: np.ndarray, rest: tuple[np.ndarray, ...], after: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """What x, the static input where there is one, and the bias add at each step,
    and the ``after`` blobs behind theirs.

    ``rest``: the static input and the blobs.
    """
    before, behind = rest[:-after], rest[-after:]
    if len(before) == 4:
        static, wx, b, ws = before
        b = b + static.reshape(len(static), -1) @ ws.T
    else:
        wx, b = before
    return x.reshape(*x.shape[:2], -1) @ wx.T + b, behind


def lstm(x: np.ndarray, cont: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """The formula, step by step, from zero states."""
    sums, (wh,) = inputs(x, rest, 1)
    h = c = np.zeros((x.shape[1], H))
    hs = []
    for t in range(len(x)):
        go_on = cont[t][:, None]
        i, f, o, g = np.split(sums[t] + (go_on * h) @ wh.T, 4, 1)
        c = go_on * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hs.append(h)
    return np.stack(hs)


def rnn(x: np.ndarray, cont: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """The formula, step by step, from zero states."""
    sums, (wh, wo, bo) = inputs(x, rest, 3)
    h, ys = np.zeros((x.shape[1], H)), []
    for t in range(len(x)):
        h = np.tanh(sums[t] + (cont[t][:, None] * h) @ wh.T)
        ys.append(np.tanh(h @ wo.T + bo))
    return np.stack(ys)


@pytest.mark.parametrize("static", STATIC)
@pytest.mark.parametrize("cont", CONTS)
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_formula(kind: str, cont: str, static: str) -> None:
    shapes = ((T, N, 5, 2), (T, N), *STATIC[static])
    whole = cont != "parts of the state"
    layer = check(
        text(kind, len(STATIC[static])), *shapes, oracle={"LSTM": lstm, "RNN": rnn}[kind],
        inputs=[
            distinct(*shapes[0]), CONTS[cont].astype(np.float32), *(distinct(*shape, seed=5) for shape in shapes[2:]),
        ],
        gradient=[i for i in range(len(shapes)) if i != 1] if whole or kind == "RNN" else False, tolerance=1e-5,
    )  # fmt: skip
    assert not layer._buffers.keys() & layer.state_dict().keys()  # no file keeps the state


def test_blobs_and_fillers() -> None:
    torch.manual_seed(0)
    layer = build(text("LSTM", 1, "bias_filler { value: 0.5 }"), (T, N, 5, 2), (T, N), (N, 7))
    assert layer.blob_names == ["W_xc", "b_c", "W_xc_static", "W_hc"]
    assert [tuple(blob.shape) for blob in layer.blobs] == [(4 * H, 10), (4 * H,), (4 * H, 7), (4 * H, H)]
    assert (layer.blobs[1] == 0.5).all() and all(layer.blobs[i].std() > 0.1 for i in (0, 2, 3))
    layer = build(text("RNN", 1), (T, N, 5), (T, N), (N, 7))
    assert layer.blob_names == ["W_xh", "b_h", "W_xh_static", "W_hh", "W_ho", "b_o"]
    assert [tuple(blob.shape) for blob in layer.blobs] == [(H, 5), (H,), (H, 7), (H, H), (H, H), (H,)]


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_the_state_goes_on_from_batch_to_batch(kind: str) -> None:
    torch.manual_seed(0)
    layer = build(text(kind), (T, N, 5), (T, N))
    whole = build(text(kind), (2 * T, N, 5), (2 * T, N))
    whole.load_state_dict(layer.state_dict())
    x = torch.from_numpy(distinct(2 * T, N, 5))
    cont = torch.ones(2 * T, N)
    parts = torch.cat([layer(x[:T], cont[:T]), layer(x[T:], cont[T:])])
    torch.testing.assert_close(parts, whole(x, cont))
    parts[T:].sum().backward()  # and no gradient does: the second batch alone
    again = layer(x[T:], torch.zeros(T, N).index_fill(0, torch.arange(1, T), 1))
    fresh = build(text(kind), (T, N, 5), (T, N))
    fresh.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again, fresh(x[T:], cont[T:]))


def test_the_state_starts_anew_with_another_number_of_streams() -> None:
    layer = build(text("LSTM"), (T, N, 5), (T, N))
    x = torch.from_numpy(distinct(T, N, 5))
    first = layer(x[:, :2], torch.ones(T, 2))
    layer(x, torch.ones(T, N))
    torch.testing.assert_close(layer(x[:, :2], torch.ones(T, 2)), first)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_exposed_states(kind: str) -> None:
    names = ["h", "c"][: 2 if kind == "LSTM" else 1]
    ends = " ".join(f'top: "{name}_T"' for name in names)
    starts = " ".join(f'bottom: "{name}_0"' for name in names)
    torch.manual_seed(0)
    state = (1, N, H)
    layer = build(
        f'{text(kind, 0, "expose_hidden: true")} {starts} top: "y" {ends}', (T, N, 5), (T, N), *[state] * len(names)
    )
    whole = build(text(kind), (T, N, 5), (T, N))
    whole.load_state_dict(layer.state_dict())
    x, cont = torch.from_numpy(distinct(T, N, 5)), torch.ones(T, N)
    zeros = [torch.zeros(state, requires_grad=True) for _ in names]
    y1, *states = layer(x[:3], cont[:3], *zeros)
    y2, *last = layer(x[3:], cont[3:], *states)
    torch.testing.assert_close(torch.cat([y1, y2]), whole(x, cont))
    assert all(s.shape == state and not s.requires_grad for s in (*states, *last))
    y1.sum().backward()
    assert all(zero.grad is None for zero in zeros)
    assert layer.reshape([(T, N, 5), (T, N), *[state] * len(names)]) == [(T, N, H), *[state] * len(names)]


@pytest.mark.parametrize("static", STATIC)
@pytest.mark.parametrize("cont", list(CONTS)[:3])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_kernels_and_loop_agree(kind: str, cont: str, static: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shapes = ((T, N, 5), (T, N), *STATIC[static])
    layer = build(text(kind, len(shapes) - 2), *shapes)
    tops, grads = [], []
    for way in (None, "whole" if cont == "one sequence a stream" else "packed"):
        monkeypatch.setattr(type(layer), "_kernel_serves", lambda *args, way=way: way)
        x, *others = (torch.from_numpy(distinct(*shape)).requires_grad_() for shape in shapes)
        others[0] = torch.from_numpy(CONTS[cont]).float()
        layer.zero_grad()
        for name in layer.states:  # type: ignore[union-attr]
            getattr(layer, name).fill_(0.5)
        y = layer(x, *others)
        y.backward(torch.from_numpy(distinct(*y.shape)))
        tops.append([y.detach(), *(getattr(layer, name).clone() for name in layer.states)])  # type: ignore[union-attr]
        grads.append([x.grad, *(other.grad for other in others[1:]), *(blob.grad for blob in layer.blobs)])
    torch.testing.assert_close(*tops)
    torch.testing.assert_close(*grads)


def test_torchs_kernels_serve_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent.Recurrent, "_step_by_step", None)
    for kind in ("LSTM", "RNN"):
        layer = build(text(kind), (T, N, 5), (T, N))
        for first in (0, 1):
            layer(torch.zeros(T, N, 5), torch.ones(T, N).index_fill(0, torch.tensor([0]), first))
        layer(torch.zeros(T, N, 5), torch.zeros(T, N))
    build(text("LSTM", 1), (T, N, 5), (T, N), (N, 2))(torch.zeros(T, N, 5), torch.ones(T, N), torch.zeros(N, 2))


def test_sequences_take_as_many_steps_as_the_longest_has() -> None:
    cont = torch.from_numpy(CONTS["sequences begin here and there"])
    sequences = Sequences(cont, torch.device("cpu"))
    assert sequences.sizes.tolist() == [8, 5, 4, 1]
    assert longest(cont) == 4
    x = torch.from_numpy(distinct(T, N, 2))
    assert torch.equal(sequences.unpack(sequences.pack(x)), x)
    states = sequences.first_states(torch.ones(N, H))
    assert states.sum() == N * H and sequences.last_states(torch.arange(8.0)[:, None]).shape == (N, 1)


@pytest.mark.parametrize(
    ("settings", "shapes", "words"),
    [
        ("num_output: 0", ((T, N, 5), (T, N)), "num_output is missing; expected at least 1"),
        ("num_output: 4", ((T, N), (T, N)), "expected a first bottom of (time, streams, values), got 'x' (6, 3)"),
        ("num_output: 4", ((T, N, 5), (T, 2)), "expected a second bottom of (6, 3) (time, streams)"),
        ("num_output: 4", ((T, N, 5), (T, N), (2, 7)), "expected a static input of (3, values) as third bottom"),
        ("num_output: 4", ((T, N, 5), (T, N), (N,)), "expected a static input of (3, values) as third bottom"),
        (
            "num_output: 4",
            ((T, N, 5), (T, N), (N, 2), (N, 2)),
            "expected 2 bottoms (x, cont), or 3 with a static input after cont",
        ),
        (
            "num_output: 4 expose_hidden: true",
            ((T, N, 5), (T, N)),
            "expected 4 bottoms (x, cont, h_0, c_0), or 5 with a static input",
        ),
        (
            "expose_hidden: true",
            ((T, N, 5), (T, N), (1, N, H), (1, N, H)),
            "3 top(s) (y, h_T, c_T), got 4 bottom(s) and 1 top(s)",
        ),
        (
            'num_output: 4 expose_hidden: true } top: "y" top: "h" top: "c" relu_param {',
            ((T, N, 5), (T, N), (1, N, H), (1, N, 5)),
            "expected exposed states of (1, 3, 4), got",
        ),
    ],
)
def test_refusals(settings: str, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises((SpecError, ShapeError)) as caught:
        build(f'type: "LSTM" bottom: "x" bottom: "cont" recurrent_param {{ {settings} }}', *shapes)
    assert words in str(caught.value) and str(caught.value).startswith("layer 'l' (LSTM): ")


UNIT = 'type: "LSTMUnit" bottom: "c" bottom: "g" bottom: "cont" top: "c1" top: "h1"'


def test_lstm_unit() -> None:
    def oracle(c: np.ndarray, x: np.ndarray, cont: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, f, o, g = np.split(x, 4, 2)
        c = cont[..., None] * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return c, sigmoid(o) * np.tanh(c)

    shapes = ((1, 5, 3), (1, 5, 12), (1, 5))
    cont = np.array([[0, 1, 1, 0, 1]], np.float32)
    check(UNIT, *shapes, oracle=oracle, inputs=[distinct(*shapes[0]), distinct(*shapes[1]), cont], gradient=[0, 1])


def test_the_forget_gates_gradient_is_that_of_caffe() -> None:
    x = torch.zeros(1, 1, 4, requires_grad=True)
    c, _ = build(UNIT, (1, 1, 1), (1, 1, 4), (1, 1))(torch.full((1, 1, 1), 3.0), x, torch.tensor([[0.5]]))
    c.backward(torch.ones(1, 1, 1))
    assert x.grad[0, 0, 1] == pytest.approx(3 * 0.25 * 0.75)


def test_lstm_unit_refuses_bottoms_that_do_not_fit() -> None:
    for shapes in (((1, 5, 3), (1, 5, 9), (1, 5)), ((2, 5, 3), (2, 5, 12), (2, 5)), ((1, 5, 3), (1, 5, 12), (1, 5, 1))):
        with pytest.raises(ShapeError, match=r"expected bottoms of \(1, N, D\), \(1, N, 4 D\) and \(1, N\), got 'c'"):
            build(UNIT, *shapes)
