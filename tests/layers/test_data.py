"""The layers that bring data into a net: Data, ImageData, DummyData, Input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.layers import data, registry
from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter

PICTURES = np.random.default_rng(3).integers(0, 256, (7, 3, 6, 5), dtype=np.uint8)


def layer(text: str, phase: int = TRAIN) -> Layer:
    return registry.create(text_format.Parse(text, LayerParameter()), phase)


def tops(made: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[data.SourceLayer]:
    with open_writer(tmp_path / "db") as db:
        for i, picture in enumerate(PICTURES):
            db.put(b"%08d" % i, from_array(picture, i).SerializeToString())
    made = layer(
        f'name: "data" type: "Data" top: "data" top: "label" transform_param {{ crop_size: 3 mirror: true }} '
        f'data_param {{ source: "{tmp_path / "db"}" batch_size: 4 backend: LMDB }}'
    )
    assert isinstance(made, data.SourceLayer)
    yield made
    made.close()


def test_shapes_are_known_without_a_batch_consumed(reader: data.SourceLayer) -> None:
    reader.check_wiring(reader.param.bottom, reader.param.top)
    reader.setup([])
    assert reader.reshape([]) == [torch.Size((4, 3, 3, 3)), torch.Size((4,))]
    assert reader.batch is None
    assert reader.state()["record"] == 0
    _, labels = reader()
    assert labels.tolist() == [0, 1, 2, 3]


def test_tops_are_the_sources_arrays_uncopied(reader: data.SourceLayer) -> None:
    reader.setup([])
    pictures, labels = reader()
    assert (pictures.dtype, labels.dtype) == (torch.float32, torch.float32)
    assert reader.batch is not None
    assert pictures.data_ptr() == reader.batch.arrays[0].ctypes.data
    assert reader.batch.keys == ("00000000", "00000001", "00000002", "00000003")


def test_tensors_that_are_kept_stay_as_they_were(reader: data.SourceLayer) -> None:
    reader.context.seed = 1
    reader.setup([])
    kept = [reader()[0] for _ in range(20)]
    reader.open()
    assert all(torch.equal(tensor, reader()[0]) for tensor in kept)


def test_the_state_is_that_of_the_last_batch_served(reader: data.SourceLayer) -> None:
    reader.context.seed = 5
    reader.setup([])
    for _ in range(3):
        reader()
    state = json.loads(json.dumps(reader.state()))
    following = [reader() for _ in range(4)]
    reader.restore(state)
    for expected in following:
        assert all(map(torch.equal, expected, reader()))


def test_without_a_seed_runs_differ(reader: data.SourceLayer) -> None:
    runs = []
    for _ in range(2):
        reader.setup([])
        runs.append(torch.cat([reader()[0] for _ in range(5)]))
    assert not torch.equal(*runs)


def test_the_references_log_lines(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(golden / "tools")
    handler = logs.show()
    for case in ("data_scale_meanfile_crop", "imagedata"):
        made = registry.create(
            text_format.Parse(Path(f"data_layers/{case}.prototxt").read_text(), NetParameter()).layer[0], TEST
        )
        assert isinstance(made, data.SourceLayer)
        if case.startswith("data"):
            made.open()  # as a net does
        made.setup([])
        made.close()
    logs.hide(handler)
    assert [line.split(" ", 3)[3] for line in capsys.readouterr().err.splitlines()] == [
        "db_lmdb.cpp:35] Opened lmdb plain_lmdb",
        "data_transformer.cpp:25] Loading mean file from: plain_mean.binaryproto",
        "data_layer.cpp:45] output data size: 5,3,27,27",
        "image_data_layer.cpp:38] Opening file list_same_size.txt",
        "image_data_layer.cpp:63] A total of 6 images.",
        "image_data_layer.cpp:90] output data size: 4,3,40,48",
    ]


def test_after_close_it_says_so(reader: data.SourceLayer) -> None:
    reader.setup([])
    reader.close()
    reader.close()
    with pytest.raises(RuntimeError, match="'data' has not been set up, or has been closed"):
        reader()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_of_the_cpu(reader: data.SourceLayer) -> None:
    reader.context.seed = 5
    reader.setup([])
    expected = [reader() for _ in range(12)]
    reader.setup([])
    reader.context.device = torch.device("cuda")
    got = [reader() for _ in range(12)]
    assert got[0][0].is_cuda
    assert all(torch.equal(a, b.cpu()) for e, g in zip(expected, got, strict=True) for a, b in zip(e, g, strict=True))


@pytest.mark.parametrize("case", ["data_scale_meanfile_crop", "data_meanvalue_one", "imagedata_varying_size"])
def test_recorded_batches(golden: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(golden / "tools")
    param = text_format.Parse(Path(f"data_layers/{case}.prototxt").read_text(), NetParameter()).layer[0]
    recorded = np.load(f"data_layers/{case}.npz")
    made = registry.create(param, TEST)
    made.setup([])
    for i in range(4):
        for name, top in zip(param.top, tops(made()), strict=True):
            np.testing.assert_array_equal(top.numpy(), recorded[f"{i}/{name}"], strict=True)
    assert isinstance(made, data.SourceLayer)
    made.close()


def dummy(text: str, count: int = 2) -> Layer:
    names = " ".join(f'top: "t{i}"' for i in range(count))
    return layer(f'name: "d" type: "DummyData" {names} dummy_data_param {{ {text} }}')


def test_dummy_data_keeps_constants_and_refills_the_rest() -> None:
    made = dummy('shape { dim: 2 dim: 3 } shape { dim: 5 } data_filler { type: "gaussian" } data_filler { value: 2.5 }')
    made.setup([])
    assert made.reshape([]) == [torch.Size((2, 3)), torch.Size((5,))]
    (noise, constant), (noise2, constant2) = made(), made()
    assert constant.tolist() == [2.5] * 5
    assert constant2 is constant
    assert not torch.equal(noise, noise2)


def test_dummy_data_spells_shapes_in_two_ways_and_shares_one_among_tops() -> None:
    made = dummy("num: 2 num: 4 channels: 3 height: 7 width: 5", 2)
    made.setup([])
    assert made.reshape([]) == [torch.Size((2, 3, 7, 5)), torch.Size((4, 3, 7, 5))]
    assert all(top.shape == shape and not top.any() for top, shape in zip(made(), made.reshape([]), strict=True))
    made = dummy('shape { dim: 2 dim: 3 } data_filler { type: "uniform" min: 1 max: 2 }', 3)
    made.setup([])
    assert [top.shape for top in made()] == [torch.Size((2, 3))] * 3
    assert all(bool(((top >= 1) & (top <= 2)).all()) for top in made())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "shape { dim: 1 } num: 1",
            "layer 'd' (DummyData): dummy_data_param has both shape and num, channels, height, width",
        ),
        (
            "",
            "layer 'd' (DummyData): expected dummy_data_param to give shape once, or once for each of the 3 tops, got "
            "0",
        ),
        ("shape { dim: 1 } shape { dim: 2 }", "to give shape once, or once for each of the 3 tops, got 2"),
        ("num: 1 channels: 1 height: 1", "to give width once, or once for each of the 3 tops, got 0"),
        (
            "shape { dim: 1 } data_filler {} data_filler {}",
            "to give data_filler once, or once for each of the 3 tops, got 2",
        ),
        (
            'shape { dim: 1 } data_filler { type: "gausian" }',
            "layer 'd': unknown filler 'gausian'; did you mean 'gaussian'?",
        ),
    ],
)
def test_dummy_data_set_up_wrongly(text: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        dummy(text, 3).setup([])
    assert words in str(raised.value)


def test_input_gives_zeros_of_its_shapes() -> None:
    one = layer('name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } }')
    each = layer('name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } shape { dim: 4 dim: 1 } }')
    for made, shapes in ((one, [(2, 3), (2, 3)]), (each, [(2,), (4, 1)])):
        made.setup([])
        assert made.reshape([]) == [torch.Size(shape) for shape in shapes]
        assert [(tuple(top.shape), bool(top.any())) for top in made()] == [(shape, False) for shape in shapes]


@pytest.mark.parametrize("text", ["", "shape { dim: 1 } shape { dim: 1 }"])
def test_input_without_its_shapes(text: str) -> None:
    with pytest.raises(
        SpecError, match=r"layer 'in' \(Input\): expected input_param to give a shape for all tops, or one for each"
    ):
        layer(f'name: "in" type: "Input" top: "a" top: "b" top: "c" input_param {{ {text} }}').setup([])
