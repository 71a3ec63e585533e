"""LSTMs of PyTorch as Caffe's, and what of recurrent layers has no counterpart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from caffecli.errors import SpecError
from caffecli.net import exported, weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec import text
from caffecli.spec.load import prepare_net
from converters import import_
from tests.converters.importing import agree
from tests.converters.torch_modules import Wrapped


class Read(nn.Module):
    """An LSTM of which some outputs are read: y, y's last step, h and c."""

    def __init__(self, reads, **given):
        super().__init__()
        self.reads = reads
        self.lstm = nn.LSTM(4, 3, **given)

    def forward(self, x, *states):
        y, (h, c) = self.lstm(x, states or None)
        last = y[:, -1] if self.lstm.batch_first else y[-1]
        return tuple({"y": y, "last": last, "h": h, "top h": h[-1], "c": c}[name] for name in self.reads)


def imported(module, examples, audience="both"):
    with exported.quiet():
        return import_.import_module(module.eval(), examples, audience=audience)


def ours(made, examples, times=1):
    net = Net(prepare_net(made.net, TEST))
    weights.copy(net, made.weights, "import")
    with torch.no_grad():
        for _ in range(times):
            tops = net(dict(zip(made.inputs, examples, strict=True)))
    assert set(tops) == set(made.outputs)
    return [tops[name].numpy() for name in made.outputs]


def theirs(module, examples):
    with torch.no_grad():
        return [value.numpy() for value in module(*examples)]


@pytest.mark.parametrize(
    ("reads", "given", "states"),
    [
        (["y"], {}, False),
        (["y", "last", "h"], {"bias": False}, False),
        (["top h"], {"num_layers": 2}, False),
        (["c"], {"num_layers": 2}, False),
        (["h", "c"], {}, True),
        (["y", "c"], {"num_layers": 2, "batch_first": True}, True),
        (["y", "h"], {"num_layers": 2, "bidirectional": True}, False),
        (["last"], {"bidirectional": True, "batch_first": True}, False),
        (["y"], {"num_layers": 2, "bidirectional": True}, True),
    ],
)
@pytest.mark.parametrize("time", [1, 4])
def test_lstm(reads, given, states, time):
    torch.manual_seed(1)
    module = Read(reads, **given)
    shape = (2, time, 4) if given.get("batch_first") else (time, 2, 4)
    count = given.get("num_layers", 1) * (1 + given.get("bidirectional", False))
    examples = [torch.randn(shape), *(torch.randn(count, 2, 3) for _ in range(2 * states))]
    made = imported(module, examples)
    agree(ours(made, examples, times=2), theirs(module, examples))


class CRNN(nn.Module):
    """A net that reads lines of text: the columns of a picture are time steps, for LSTMs of both directions."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2), nn.Conv2d(8, 6, (4, 3))
        )
        self.rnn = nn.ModuleList([nn.LSTM(6, 5, bidirectional=True), nn.LSTM(4, 5, bidirectional=True)])
        self.embedding = nn.ModuleList([nn.Linear(10, 4), nn.Linear(10, 7)])

    def forward(self, x):
        x = self.cnn(x).squeeze(2).permute(2, 0, 1)
        for rnn, embedding in zip(self.rnn, self.embedding, strict=True):
            y, _ = rnn(x)
            time, batch, values = y.size()
            x = embedding(y.view(time * batch, values)).view(time, batch, -1)
        return (x.log_softmax(2),)


@pytest.mark.parametrize("batch", [1, 2])
def test_crnn(batch):
    torch.manual_seed(1)
    module, example = CRNN().eval(), torch.randn(batch, 1, 8, 16)
    made = imported(module, (example,))
    agree(ours(made, (example,)), theirs(module, (example,)))
    (product,) = (layer for layer in made.net.layer if layer.name == "embedding.0")
    assert (product.type, product.inner_product_param.axis) == ("InnerProduct", 2)


def test_layers_and_weights():
    torch.manual_seed(1)
    module = nn.Sequential(Wrapped(lambda x: x), nn.LSTM(4, 3), Wrapped(lambda y: y[0]), nn.Linear(3, 2))
    made = imported(module, (torch.randn(5, 2, 4),))
    assert [(layer.name, layer.type) for layer in made.net.layer] == [
        ("input", "Input"),
        ("1/begin", "DummyData"),
        ("1/cont", "Concat"),
        ("1", "LSTM"),
        ("3", "InnerProduct"),
    ]
    begin, lstm = made.net.layer[1], made.net.layer[3]
    begun = begin.dummy_data_param
    assert [(list(shape.dim), filler.value) for shape, filler in zip(begun.shape, begun.data_filler, strict=True)] == [
        ([1, 2], 0),
        ([4, 2], 1),
    ]
    assert list(lstm.bottom) == ["input", "1/cont"]
    assert text.format(lstm.recurrent_param).split() == ["num_output:", "3"]
    wx, bias, wh = made.weights["1"]
    i, f, g, o = module[1].weight_ih_l0.detach().chunk(4)  # type: ignore[operator]
    np.testing.assert_array_equal(wx, torch.cat([i, f, o, g]))
    i, f, g, o = (module[1].bias_ih_l0 + module[1].bias_hh_l0).detach().chunk(4)  # type: ignore[operator]
    np.testing.assert_array_equal(bias, torch.cat([i, f, o, g]))
    i, f, g, o = module[1].weight_hh_l0.detach().chunk(4)  # type: ignore[operator]
    np.testing.assert_array_equal(wh, torch.cat([i, f, o, g]))


def test_axes_in_another_order():
    x = torch.randn(2, 6, 4, 3)
    for order in ([1, 0, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2], [2, 0, 1, 3], [0, 1, 3, 2]):
        module = Wrapped(lambda x, order=order: (x.permute(order) * 2,))
        for audience in ("both", "forks"):
            made = imported(module, (x,), audience)
            assert ("Permute" in {layer.type for layer in made.net.layer}) == (audience == "forks")
            agree(ours(made, (x,)), theirs(module, (x,)))


class FixedState(nn.LSTM):
    def forward(self, x):  # type: ignore[override]
        return super().forward(x, (torch.ones(1, 2, 3), torch.zeros(1, 2, 3)))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.LSTM(4, 3, proj_size=2), r"aten\.lstm \(it projects its states; Caffe's LSTM has no weights for that\)"),
        (nn.GRU(4, 3), r"aten\.gru \(Caffe has no GRU; train an LSTM\)"),
        (nn.RNN(4, 3), r"aten\.rnn_tanh \(Caffe's RNN has one more matrix and tanh behind each step"),
        (FixedState(4, 3), "its first state is fixed, but not zeros; take zeros, or make it an input of the model"),
    ],
)
def test_reasons(module, why):
    with pytest.raises(SpecError, match=why):
        imported(module, (torch.randn(5, 2, 4),))


def test_cells():
    why = r"aten\.lstm_cell \(a step by itself; take nn\.LSTM over all steps, or over one with its states as inputs\)"
    with pytest.raises(SpecError, match=why):
        imported(nn.LSTMCell(4, 3), (torch.randn(2, 4),))


def test_states_handed_from_one_to_another():
    class Translate(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.write = nn.LSTM(4, 3), nn.LSTM(4, 3)

        def forward(self, x, z):
            return (self.write(z, self.read(x)[1])[0],)

    torch.manual_seed(1)
    module, examples = Translate(), (torch.randn(5, 2, 4), torch.randn(3, 2, 4))
    agree(ours(made := imported(module, examples), examples, times=2), theirs(module, examples))
    assert [layer.recurrent_param.expose_hidden for layer in made.net.layer if layer.type == "LSTM"] == [True, True]


def test_dropout_in_training():
    with pytest.raises(SpecError, match=r"it is in training mode; call model\.eval"), exported.quiet():
        import_.import_module(nn.LSTM(4, 3, 2, dropout=0.5), (torch.randn(5, 2, 4),))


def test_a_free_batch_that_comes_first(tmp_path):
    with exported.quiet(), torch.no_grad():
        free = ({0: torch.export.Dim("batch")},)
        made = torch.export.export(nn.LSTM(4, 3, batch_first=True).eval(), (torch.randn(2, 5, 4),), dynamic_shapes=free)
        torch.export.save(made, tmp_path / "m.pt2")
    import_.import_program(tmp_path / "m.pt2", tmp_path / "net", batch=3)
