"""HDF5Output: rows of several batches, one file, complete under its name or not there."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import FormatError, ShapeError, SpecError
from caffecli.formats.hdf5_rows import RowWriter
from caffecli.layers import registry
from caffecli.layers.hdf5_output import HDF5Output
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, LayerParameter, NetParameter
from caffecli.spec import text
from tests.sources.opening import opened


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def layer(name: str = "o.h5", shapes: tuple[tuple[int, ...], ...] = ((4, 3), (4,))) -> HDF5Output:
    param = f'name: "o" type: "HDF5Output" bottom: "x" bottom: "y" hdf5_output_param {{ file_name: "{name}" }}'
    made = registry.create(text_format.Parse(param, LayerParameter()))
    assert isinstance(made, HDF5Output)
    made.check_wiring(made.param.bottom, made.param.top)
    made.setup(list(shapes))
    assert made.reshape(list(shapes)) == []
    return made


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def read(name: str = "o.h5") -> dict[str, np.ndarray]:
    with h5py.File(name) as file:
        return {key: dataset[()] for key, dataset in file.items()}


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 5), (4, 3, 2, 5, 2)])
def test_datasets_are_the_references(shape: tuple[int, ...]) -> None:
    made = layer(shapes=(shape, (4,)))
    x, y = torch.randn(shape).double().requires_grad_(), torch.arange(4.0)
    assert made(x, y) == ()
    made.close()
    got = read()
    assert sorted(got) == ["data", "label"]
    four = x.detach().float().numpy().reshape(*shape, *[1] * (4 - len(shape)))
    np.testing.assert_array_equal(got["data"], four, strict=True)
    np.testing.assert_array_equal(got["label"], y.numpy().reshape(4, 1, 1, 1), strict=True)


def test_batches_follow_each_other() -> None:
    made = layer()
    batches = [(torch.randn(4, 3), torch.randn(4)) for _ in range(7)] + [(torch.randn(2, 3), torch.randn(2))]
    for batch in batches:
        made(*batch)
    made.close()
    made.close()
    np.testing.assert_array_equal(read()["data"][..., 0, 0], torch.cat([x for x, _ in batches]))
    np.testing.assert_array_equal(read()["label"].ravel(), torch.cat([y for _, y in batches]))
    with pytest.raises(RuntimeError, match="has been closed"):
        made(*batches[0])


def test_rows_laid_out_channels_last() -> None:
    made = layer(shapes=((2, 3, 4, 5), (2,)))
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    made(x, torch.zeros(2))
    made.close()
    np.testing.assert_array_equal(read()["data"], x)


def test_the_old_file_stays_until_the_new_one_is_whole(in_tmp: Path) -> None:
    Path("o.h5").write_text("old")
    made = layer()
    made(torch.zeros(4, 3), torch.zeros(4))
    assert Path("o.h5").read_text() == "old"
    made.close()
    assert read()["data"].shape == (4, 3, 1, 1)
    layer().close()  # no rows: no file
    assert read()["data"].shape == (4, 3, 1, 1)
    assert names() == ["o.h5"]


def test_a_forgotten_layer_closes_its_file() -> None:
    made = layer()
    made(torch.zeros(4, 3), torch.zeros(4))
    del made
    gc.collect()
    assert read()["label"].shape == (4, 1, 1, 1)


@pytest.mark.parametrize(
    ("end", "expected"),
    [("", 8), ("raise KeyboardInterrupt", 8), ("os.kill(os.getpid(), 9)", None)],
    ids=["exit", "error", "kill"],
)
def test_how_a_program_ends(end: str, expected: int | None) -> None:
    program = f"""
        import os, torch
        from caffecli.net.net import Net
        from caffecli.proto.caffe_pb2 import NetParameter
        from caffecli.spec import text
        net = Net(text.parse('''
            layer {{ name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {{ shape {{ dim: 4 }} }} }}
            layer {{ name: "o" type: "HDF5Output" bottom: "x" bottom: "y" hdf5_output_param {{ file_name: "o.h5" }} }}
        ''', NetParameter()))
        net(); net()
        {end}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert "h5py" not in done.stderr, done.stderr
    assert "HDF5" not in done.stderr, done.stderr
    assert Path("o.h5").exists() == bool(expected)
    layer().close()  # sweeps up after one that was killed
    assert names() == (["o.h5"] if expected else [])
    if expected:
        assert read()["label"].shape == (expected, 1, 1, 1)


def test_a_disk_that_fills_up() -> None:
    program = """
        import resource, torch
        from caffecli.errors import FormatError
        from caffecli.formats.hdf5_rows import RowWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        writer = RowWriter("o.h5")
        try:
            for _ in range(100):
                writer.append({"data": torch.zeros(10, 1000).numpy(), "label": torch.zeros(10).numpy()})
        except FormatError as error:
            print(error)
        writer.close()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith("cannot write 'o.h5': File too large; raise the limit on file sizes")
    assert names() == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "none/o.h5",
            "layer 'o' (HDF5Output): cannot write 'none/o.h5': No such file or directory; "
            "create the folder 'none' first",
        ),
        (".", "cannot write '.': Is a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_places_that_cannot_be_written_are_refused_at_once(name: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        layer(name)
    assert words in str(caught.value)


def test_wrong_settings() -> None:
    with pytest.raises(SpecError, match="hdf5_output_param names no file"):
        layer("")
    with pytest.raises(ShapeError, match="expected as many labels as rows of data, got 5 and 4"):
        layer(shapes=((4, 3), (5,)))
    made = layer()
    made(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(
        FormatError, match=r"'o\.h5', dataset 'data': expected rows of shape \(3, 1, 1\), got \(2, 1, 1\)"
    ):
        made(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(FormatError, match=r"'\./o\.h5' is being written by another layer"):
        RowWriter("./o.h5")
    made.close()


def test_what_is_written_is_read_by_hdf5_data() -> None:
    net = Net(
        text.parse(
            """
            layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
              shape { dim: 4 dim: 3 dim: 2 dim: 5 } shape { dim: 4 } data_filler { type: "gaussian" } } }
            layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y" hdf5_output_param { file_name: "o.h5" } }
            """,
            NetParameter(),
        )
    )
    for _ in range(3):
        assert Whole(net).forward().outputs == {}
    written = net.layer("o")
    assert isinstance(written, HDF5Output)
    written.close()
    Path("list.txt").write_text("o.h5")
    param = 'name: "h" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 12 }'
    source = opened(text_format.Parse(param, LayerParameter()), TEST, 0)
    data, label = source.next().arrays
    source.close()
    np.testing.assert_array_equal(data, read()["data"])
    assert len(np.unique(data)) == data.size
    assert label.shape == (12, 1, 1, 1)
