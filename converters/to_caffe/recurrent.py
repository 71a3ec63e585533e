"""Rules of recurrent operations: PyTorch's LSTM, and Caffe's LSTM and RNN as ``recompose`` finds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.program import Array, Shape, as_float32
from converters.to_caffe.shapes import crop, permute_axes, slice_axis


class _InitialStates(NamedTuple):
    """The states before the first step, one for each layer and direction.

    ``h`` and ``c`` are empty where the states are zeros and no blob is needed for them; ``given``: they are the net's
    inputs.
    """

    h: list[str]
    c: list[str]
    given: bool


@rule("lstm")
def lstm(b: Builder) -> list[str]:
    """A Caffe LSTM for each layer and direction.

    All sequences begin at the first step; the net makes its own ``cont`` blob for that. ``expose_hidden`` is set where
    the initial states are inputs, or where the last cells are read.
    """
    _check(b)
    bidirectional = bool(b.arg("bidirectional"))
    value = b.bottom("input")
    if b.arg("batch_first"):
        value = permute_axes(b, value, [1, 0, 2], suffix="time_first")
    time, streams, _ = b.shape(value)
    count = b.arg("num_layers") * (1 + bidirectional)
    weights = _weights(b, count)
    initial = _initial_states(b, count, (1, streams, weights[0][2].shape[1]))
    cont = _cont(b, time, streams, initial.given)
    last_h: list[str] = []
    last_c: list[str] = []
    for layer in range(b.arg("num_layers")):
        tops = []
        for backward in range(1 + bidirectional):
            index = layer * (1 + bidirectional) + backward
            suffix = f"l{layer}{'_reverse' * backward}" if count > 1 else ""
            bottom = _reverse_time(b, value, suffix=f"{suffix}_from") if backward else value
            y, h, c = _lstm_layer(b, [bottom, cont], initial, index, weights[index], suffix)
            last_h.append(h)
            last_c.append(c)
            is_read = layer + 1 < b.arg("num_layers") or b.op.outputs[0] in b.used_outputs
            tops.append(_reverse_time(b, y, suffix=f"{suffix}_to") if backward and is_read else y)
        if bidirectional and is_read:
            shape = (time, streams, 2 * b.shape(tops[0])[2])
            value = b.layer("Concat", *tops, shape=shape, suffix=f"l{layer}_both", concat_param={"axis": 2})
        else:
            value = tops[0]
    return _results(b, value, last_h, last_c)


def _check(b: Builder) -> None:
    if "data" in b.op.args:
        raise Unsupported("of packed sequences; Caffe's are told apart by cont, give sequences of one length")
    if b.arg("train") and b.arg("dropout"):
        raise Unsupported("it is in training mode; call model.eval() before torch.export.export")
    if len(b.arg("params")) != b.arg("num_layers") * (1 + bool(b.arg("bidirectional"))) * (
        4 if b.arg("has_biases") else 2
    ):
        raise Unsupported("it projects its states; Caffe's LSTM has no weights for that")


def _weights(b: Builder, count: int) -> list[list[Array]]:
    """Caffe's blobs for each layer and direction: rows in the order i, f, o, g (PyTorch: i, f, g, o), one bias."""
    arrays = [b.constant(item) for item in b.arg("params")]
    if any(array is None for array in arrays):
        raise Unsupported("its weights are computed from the net's input; Caffe's are fixed")
    params = [as_float32(array) for array in arrays if array is not None]
    each = len(params) // count
    blobs = []
    for wx, wh, *biases in (params[i : i + each] for i in range(0, len(params), each)):
        bias = biases[0] + biases[1] if biases else np.zeros(len(wx), np.float32)
        wx, bias, wh = (np.concatenate([np.split(array, 4)[gate] for gate in (0, 1, 3, 2)]) for array in (wx, bias, wh))
        blobs.append([wx, bias, wh])
    return blobs


def _initial_states(b: Builder, count: int, one: Shape) -> _InitialStates:
    """The initial states: inputs of the net, or zeros, which are blobs only where the last cells are read."""
    states = b.arg("hx")
    arrays = [b.constant(state) for state in states]
    if all(array is not None and not array.any() for array in arrays):
        if b.op.outputs[2] not in b.used_outputs:
            return _InitialStates([], [], False)
        (zeros,) = _constants(b, [one], [0], "zeros")
        return _InitialStates([zeros] * count, [zeros] * count, False)
    if any(array is not None for array in arrays):
        raise Unsupported("its first state is fixed, but not zeros; take zeros, or make it an input of the model")
    ends = range(1, count + 1)
    h, c = (slice_axis(b, state.name, 0, ends, suffix=f"{name}_0") for name, state in zip("hc", states, strict=True))
    return _InitialStates(h, c, True)


def _cont(b: Builder, time: int, streams: int, given: bool) -> str:
    """The ``cont`` blob: 1 where a step continues its sequence; the first step does so only from given states."""
    if given or time == 1:
        return _constants(b, [(time, streams)], [int(given)], "cont")[0]
    parts = _constants(b, [(1, streams), (time - 1, streams)], [0, 1], "begin")
    return b.layer("Concat", *parts, shape=(time, streams), suffix="cont", concat_param={"axis": 0})


def _constants(b: Builder, shapes: Sequence[Shape], values: Sequence[float], suffix: str) -> list[str]:
    """Blobs of these shapes, each filled with a number."""
    param = {
        "shape": [{"dim": list(shape)} for shape in shapes],
        "data_filler": [{"type": "constant", "value": float(value)} for value in values],
    }
    return b.layers("DummyData", shapes=shapes, suffix=suffix, dummy_data_param=param)


def _lstm_layer(
    b: Builder, bottoms: list[str], initial: _InitialStates, index: int, blobs: list[Array], suffix: str
) -> tuple[str, str, str]:
    """An LSTM layer: its output y, and the last h and c, which are empty where nothing reads them."""
    time, streams, _ = b.shape(bottoms[0])
    width = blobs[2].shape[1]
    shapes: list[Shape] = [(time, streams, width)]
    if initial.h:
        param = {"num_output": width, "expose_hidden": True}
        bottoms, shapes = [*bottoms, initial.h[index], initial.c[index]], [*shapes, *[(1, streams, width)] * 2]
        y, h, c = b.layers("LSTM", *bottoms, shapes=shapes, blobs=blobs, suffix=suffix, recurrent_param=param)
        return y, h, c
    y = b.layer("LSTM", *bottoms, shape=shapes[0], blobs=blobs, suffix=suffix, recurrent_param={"num_output": width})
    if b.op.outputs[1] not in b.used_outputs:
        return y, "", ""
    return y, crop(b, y, [(0, time - 1, time)], suffix=f"{suffix}_last".removeprefix("_")), ""


def _reverse_time(b: Builder, value: str, suffix: str) -> str:
    """The time steps in reverse order."""
    shape = b.shape(value)
    steps = slice_axis(b, value, 0, range(1, shape[0] + 1), suffix=f"{suffix}_steps")
    return (
        b.layer("Concat", *steps[::-1], shape=shape, suffix=suffix, concat_param={"axis": 0})
        if len(steps) > 1
        else value
    )


def _results(b: Builder, y: str, last_h: list[str], last_c: list[str]) -> list[str]:
    """The operation's outputs, as far as they are read; a Silence layer reads the tops that are left over."""
    results = list(b.op.outputs)
    if results[0] in b.used_outputs:
        results[0] = permute_axes(b, y, [1, 0, 2], suffix="batch_first") if b.arg("batch_first") else y
    for i, (parts, suffix) in enumerate(((last_h, "h"), (last_c, "c")), 1):
        if results[i] in b.used_outputs:
            shape = (len(parts), *b.shape(parts[0])[1:])
            results[i] = (
                b.layer("Concat", *parts, shape=shape, suffix=suffix, concat_param={"axis": 0})
                if len(parts) > 1
                else parts[0]
            )
    read = {bottom for layer in b.new_layers for bottom in layer.bottoms} | set(results)
    b.silence([top for layer in b.new_layers for top in layer.tops if top not in read])
    return results


@rule("gru", "gru_cell", "lstm_cell", "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell")
def unsupported_cells(b: Builder) -> str:
    """Recurrent operations for which Caffe has no layer: the reason, and what to use instead."""
    if b.op.short == "lstm_cell":
        raise Unsupported("a step by itself; take nn.LSTM over all steps, or over one with its states as inputs")
    if "gru" in b.op.short:
        raise Unsupported("Caffe has no GRU; train an LSTM")
    raise Unsupported("Caffe's RNN has one more matrix and tanh behind each step; train an LSTM")


@rule("caffe.lstm", "caffe.rnn")
def caffe_recurrent(b: Builder) -> list[str]:
    """Caffe's LSTM or RNN, found by ``recompose``: its states are inputs and outputs of the net."""
    bottoms = [b.bottom(name) for name in ("x", "cont", "static", "h", "c") if name in b.op.args]
    blobs = [array for name in ("wx", "bias", "ws", "wh", "wo", "bias_o") if (array := b.weights(name)) is not None]
    time, streams = b.shape(bottoms[0])[:2]
    width = b.top_shape[2]
    shapes = [(time, streams, width), *[(1, streams, width)] * (len(b.op.outputs) - 1)]
    param = {"num_output": width, "expose_hidden": True}
    kind = b.op.short.removeprefix("caffe.").upper()
    tops = b.layers(kind, *bottoms, shapes=shapes, blobs=blobs, recurrent_param=param)
    b.silence([top for top, name in zip(tops, b.op.outputs, strict=True) if name not in b.used_outputs])
    return tops
