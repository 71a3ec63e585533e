"""Rules of what goes through time: PyTorch's LSTM, and Caffe's own recurrent layers, found again in programs of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.program import Array, Shape, as_float32
from converters.from_torch.shaped import cut, sliced, turned


class _First(NamedTuple):
    """The states before the first step, of all layers: none where they are zeros that nothing needs to name."""

    h: list[str]
    c: list[str]
    given: bool


@rule("lstm")
def lstm(b: Builder) -> list[str]:
    """An LSTM for each layer and direction. Where they begin is made within the net, for sequences that all begin at the first
    step; first states that are inputs, and last cells that are read, take ``expose_hidden``."""
    _check(b)
    two = bool(b.arg("bidirectional"))
    value = b.bottom("input")
    if b.arg("batch_first"):
        value = turned(b, value, [1, 0, 2], note="time_first")
    time, streams, _ = b.shape(value)
    count = b.arg("num_layers") * (1 + two)
    weights = _weights(b, count)
    first = _first(b, count, (1, streams, weights[0][2].shape[1]))
    cont = _cont(b, time, streams, first.given)
    last_h: list[str] = []
    last_c: list[str] = []
    for layer in range(b.arg("num_layers")):
        tops = []
        for backward in range(1 + two):
            at = layer * (1 + two) + backward
            note = f"l{layer}{'_reverse' * backward}" if count > 1 else ""
            bottom = _reversed(b, value, note=f"{note}_from") if backward else value
            y, h, c = _layer(b, [bottom, cont], first, at, weights[at], note)
            last_h.append(h)
            last_c.append(c)
            needed = layer + 1 < b.arg("num_layers") or b.op.outputs[0] in b.wanted
            tops.append(_reversed(b, y, note=f"{note}_to") if backward and needed else y)
        if two and needed:
            shape = (time, streams, 2 * b.shape(tops[0])[2])
            value = b.layer("Concat", *tops, shape=shape, note=f"l{layer}_both", concat_param={"axis": 2})
        else:
            value = tops[0]
    return _results(b, value, last_h, last_c)


def _check(b: Builder) -> None:
    if "data" in b.op.args:
        raise Unsayable("of packed sequences; Caffe's are told apart by cont, give sequences of one length")
    if b.arg("train") and b.arg("dropout"):
        raise Unsayable("it is in training mode; call model.eval() before torch.export.export")
    if len(b.arg("params")) != b.arg("num_layers") * (1 + bool(b.arg("bidirectional"))) * (4 if b.arg("has_biases") else 2):
        raise Unsayable("it projects its states; Caffe's LSTM has no weights for that")


def _weights(b: Builder, count: int) -> list[list[Array]]:
    """Caffe's blobs for each layer and direction: rows of i, f, o and g, not i, f, g and o, and one bias, not two."""
    arrays = [b.constant(item) for item in b.arg("params")]
    if any(array is None for array in arrays):
        raise Unsayable("its weights are computed from the net's input; Caffe's are fixed")
    known = [as_float32(array) for array in arrays if array is not None]
    each = len(known) // count
    made = []
    for wx, wh, *biases in (known[i : i + each] for i in range(0, len(known), each)):
        bias = biases[0] + biases[1] if biases else np.zeros(len(wx), np.float32)
        wx, bias, wh = (np.concatenate([np.split(array, 4)[gate] for gate in (0, 1, 3, 2)]) for array in (wx, bias, wh))
        made.append([wx, bias, wh])
    return made


def _first(b: Builder, count: int, one: Shape) -> _First:
    """The first states; those that are the net's inputs, or, where the last cells are read, zeros."""
    states = b.arg("hx")
    arrays = [b.constant(state) for state in states]
    if all(array is not None and not array.any() for array in arrays):
        if b.op.outputs[2] not in b.wanted:
            return _First([], [], False)
        (zeros,) = _constants(b, [one], [0], "zeros")
        return _First([zeros] * count, [zeros] * count, False)
    if any(array is not None for array in arrays):
        raise Unsayable("its first state is fixed, but not zeros; take zeros, or make it an input of the model")
    ends = range(1, count + 1)
    h, c = (sliced(b, state.name, 0, ends, note=f"{name}_0") for name, state in zip("hc", states, strict=True))
    return _First(h, c, True)


def _cont(b: Builder, time: int, streams: int, given: bool) -> str:
    """Whether each step goes on from the one before: the first does only from a state that is given."""
    if given or time == 1:
        return _constants(b, [(time, streams)], [int(given)], "cont")[0]
    parts = _constants(b, [(1, streams), (time - 1, streams)], [0, 1], "begin")
    return b.layer("Concat", *parts, shape=(time, streams), note="cont", concat_param={"axis": 0})


def _constants(b: Builder, shapes: Sequence[Shape], values: Sequence[float], note: str) -> list[str]:
    param = {
        "shape": [{"dim": list(shape)} for shape in shapes],
        "data_filler": [{"type": "constant", "value": float(value)} for value in values],
    }
    return b.layers("DummyData", shapes=shapes, note=note, dummy_data_param=param)


def _layer(b: Builder, bottoms: list[str], first: _First, at: int, blobs: list[Array], note: str) -> tuple[str, str, str]:
    """One LSTM: y, and the last h and c, empty where nothing reads them."""
    time, streams, _ = b.shape(bottoms[0])
    width = blobs[2].shape[1]
    shapes: list[Shape] = [(time, streams, width)]
    if first.h:
        param = {"num_output": width, "expose_hidden": True}
        bottoms, shapes = [*bottoms, first.h[at], first.c[at]], [*shapes, *[(1, streams, width)] * 2]
        y, h, c = b.layers("LSTM", *bottoms, shapes=shapes, blobs=blobs, note=note, recurrent_param=param)
        return y, h, c
    y = b.layer("LSTM", *bottoms, shape=shapes[0], blobs=blobs, note=note, recurrent_param={"num_output": width})
    return y, cut(b, y, [(0, time - 1, time)], note=f"{note}_last".removeprefix("_")) if b.op.outputs[1] in b.wanted else "", ""


def _reversed(b: Builder, value: str, note: str) -> str:
    """The steps in their opposite order."""
    shape = b.shape(value)
    steps = sliced(b, value, 0, range(1, shape[0] + 1), note=f"{note}_steps")
    return b.layer("Concat", *steps[::-1], shape=shape, note=note, concat_param={"axis": 0}) if len(steps) > 1 else value


def _results(b: Builder, y: str, last_h: list[str], last_c: list[str]) -> list[str]:
    """What of the outputs is read; the rest is kept from being outputs of the net."""
    made = list(b.op.outputs)
    if made[0] in b.wanted:
        made[0] = turned(b, y, [1, 0, 2], note="batch_first") if b.arg("batch_first") else y
    for i, (parts, note) in enumerate(((last_h, "h"), (last_c, "c")), 1):
        if made[i] in b.wanted:
            shape = (len(parts), *b.shape(parts[0])[1:])
            made[i] = b.layer("Concat", *parts, shape=shape, note=note, concat_param={"axis": 0}) if len(parts) > 1 else parts[0]
    read = {bottom for layer in b.made for bottom in layer.bottoms} | set(made)
    b.silence([top for layer in b.made for top in layer.tops if top not in read])
    return made


@rule("gru", "gru_cell", "lstm_cell", "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell")
def others(b: Builder) -> str:
    if b.op.short == "lstm_cell":
        raise Unsayable("a step by itself; take nn.LSTM over all steps, or over one with its states as inputs")
    if "gru" in b.op.short:
        raise Unsayable("Caffe has no GRU; train an LSTM")
    raise Unsayable("Caffe's RNN has one more matrix and tanh behind each step; train an LSTM")


@rule("caffe.lstm", "caffe.rnn")
def own(b: Builder) -> list[str]:
    """A layer of ours, with its states as inputs and outputs; see ``found.py``."""
    bottoms = [b.bottom(name) for name in ("x", "cont", "static", "h", "c") if name in b.op.args]
    blobs = [array for name in ("wx", "bias", "ws", "wh", "wo", "bias_o") if (array := b.weights(name)) is not None]
    time, streams = b.shape(bottoms[0])[:2]
    width = b.top[2]
    shapes = [(time, streams, width), *[(1, streams, width)] * (len(b.op.outputs) - 1)]
    param = {"num_output": width, "expose_hidden": True}
    kind = b.op.short.removeprefix("caffe.").upper()
    tops = b.layers(kind, *bottoms, shapes=shapes, blobs=blobs, recurrent_param=param)
    b.silence([top for top, name in zip(tops, b.op.outputs, strict=True) if name not in b.wanted])
    return tops
