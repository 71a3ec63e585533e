"""Files that ask for more memory than they should, read other files, or are damaged in odd ways: one line each."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf import text_format

from caffecli.errors import FormatError
from caffecli.formats import bounds, caffemodel, mean, npy, safetensors, solverstate
from caffecli.formats.blob import to_array
from caffecli.proto.caffe_pb2 import BlobProto, LayerParameter
from converters.convert_weights import read as read_weights
from converters.from_torch import archive
from tests.sources.opening import opened

GB = 2**30


def npy_head(shape: str, description: str = "'<f4'") -> bytes:
    head = f"{{'descr': {description}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head


def bomb(path: Path, name: str, head: bytes = b"", size: int = 2 * GB) -> None:
    """A zip file of 2 MB that unpacks to 2 GB; only its directory says so, the bytes are not there."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, head)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    path.write_bytes(data)


def test_the_bound_grows_with_the_file_and_is_set_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    bounds.check_unpacked(tmp_path / "x", GB)
    with pytest.raises(FormatError, match=r"/x' unpacks to 1.5 GB, the bound for it is 1.0; .* set CAFFECLI_MAX_GB=2"):
        bounds.check_unpacked(tmp_path / "x", 3 * GB // 2)
    monkeypatch.setenv(bounds.VARIABLE, "2")
    bounds.check_unpacked(tmp_path / "x", 3 * GB // 2)
    monkeypatch.setenv(bounds.VARIABLE, "much")
    with pytest.raises(FormatError, match="CAFFECLI_MAX_GB is 'much'; expected a number of GB"):
        bounds.check_unpacked(tmp_path / "x", 1)
    monkeypatch.delenv(bounds.VARIABLE)
    with (tmp_path / "x").open("r+b") as file:
        file.truncate(GB)  # takes no space on the disk
    bounds.check_unpacked(tmp_path / "x", 32 * GB)


def test_archives_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    bomb(tmp_path / "w.npz", "ip.0.npy", npy_head("(1, 30000, 30000)"))
    with pytest.raises(FormatError, match=r"w.npz' unpacks to 2.0 GB"):
        read_weights(tmp_path / "w.npz")
    bomb(tmp_path / "p.pt2", "x/models/model.json")
    with pytest.raises(FormatError, match=r"p.pt2' unpacks to 2.0 GB"):
        archive.read(tmp_path / "p.pt2")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("data/ip/0", (60000, 60000), "f4", chunks=(1000, 1000), compression="gzip")
    with pytest.raises(FormatError, match=r"w.h5' unpacks to 13.4 GB"):
        caffemodel.read(tmp_path / "w.h5")


@pytest.mark.parametrize("number", [10_000, 100_000_000])
def test_no_layer_has_blobs_without_end(tmp_path: Path, number: int) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file[f"data/ip/{number}"] = np.zeros(3)
    with pytest.raises(FormatError, match=rf"w.h5': no layer has a blob {number}, as 'ip' here; it is damaged"):
        caffemodel.read(tmp_path / "w.h5")
    np.savez(tmp_path / "w.npz", **{f"ip.{number}": np.zeros(3)})  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=rf"w.npz': no layer has a blob of the number in 'ip.{number}'"):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "content",
    [
        npy_head("(3, -1, 8)"),
        npy_head("(" * 150 + ")" * 150),
        npy_head("(3, 1073741824, 1073741824)"),
        npy_head("(1, 100000, 100000)"),
        npy_head("(3, 2, "),
        npy_head("(3,)", "'|O'"),
        npy_head("(3,)", "nonsense"),
        b"\x93NUMPY\1\0\x20\0{'descr': \\\n'(",
        b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + b" " * 100,
        b"\x93NUMPY\7\0",
    ],
)
def test_broken_arrays_of_numpy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.npy").write_bytes(content)
    with pytest.raises(FormatError, match=r"m.npy' is no .npy file of numbers, or damaged \(.*\)") as caught:
        npy.read(tmp_path / "m.npy")
    assert "\n" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as file:
        file.writestr("ip.0.npy", content)
    with pytest.raises(FormatError) as caught:
        read_weights(tmp_path / "w.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        {"x": ("F32", [1], [0, 4]), "y": ("F32", [1], [0, 4])},
        {"x": ("F32", [1], [-4, 0]), "y": ("F32", [2], [0, 8])},
        {"x": ("F32", [1], [4, 8])},
        {"x": ("F32", [-1, -2], [0, 8])},
        {"x": ("F32", [0, 2**62], [0, 0])},
        {"x": ("F32", [2.0], [0, 8])},
    ],
)
def test_broken_safetensors(tmp_path: Path, head: bytes | dict[str, tuple[str, list[float], list[int]]]) -> None:
    if isinstance(head, dict):
        names = ("dtype", "shape", "data_offsets")
        entries = {name: dict(zip(names, entry, strict=True)) for name, entry in head.items()}
        body = bytes(max(entry[2][1] for entry in head.values()))
        head = json.dumps(entries).encode()
    else:
        body = b""
    (tmp_path / "x").write_bytes(len(head).to_bytes(8, "little") + head + body)
    with pytest.raises(FormatError, match="is not a safetensors file, or damaged: ") as caught:
        safetensors.read(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_sides_are_not_negative(tmp_path: Path) -> None:
    blob = BlobProto(num=1, channels=3, height=-2, width=-2, data=[0] * 12)
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    with pytest.raises(FormatError, match=r"a blob has the shape \(1, 3, -2, -2\); the file is damaged"):
        mean.read(tmp_path / "mean.binaryproto")
    with pytest.raises(FormatError, match="the file is damaged"):
        to_array(blob)


@pytest.mark.parametrize("kind", ["c8", [("a", "f4")], "S4", h5py.ref_dtype, "empty", "type"])
def test_weights_are_numbers(tmp_path: Path, kind: object) -> None:
    def write(name: str, place: str) -> None:
        with h5py.File(tmp_path / name, "w") as file:
            if kind == "empty":
                file[place] = h5py.Empty("f4")
            elif kind == "type":
                file[place] = np.dtype("f4")
            else:
                file.create_dataset(place, (2, 3), kind)
            if name == "s.h5":
                file["iter"], file["current_step"] = np.int32(1), np.int32(0)

    write("w.h5", "data/ip/0")
    write("s.h5", "history/0")
    readers: dict[str, Callable[[Path], object]] = {"w.h5": caffemodel.read, "s.h5": solverstate.read}
    for name, read in readers.items():
        with pytest.raises(FormatError, match=rf"{name}': '/.*/0' holds .*, expected numbers"):
            read(tmp_path / name)


# -- HDF5 files that read others ---------------------------------------------------------------------------------------


def external_link(file: h5py.File, name: str) -> None:
    file[name] = h5py.ExternalLink("other.h5", "/x")


def external_storage(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (4, 5), "f4", external=[("raw", 0, 80)])


def virtual(file: h5py.File, name: str) -> None:
    layout = h5py.VirtualLayout((4, 5), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4, 5))
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (external_link, "the external link"),
        (external_storage, "the external storage of"),
        (virtual, "the virtual dataset"),
    ],
)
def test_other_files_are_read_only_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[h5py.File, str], None], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    numbers = np.arange(20, dtype=np.float32).reshape(4, 5)
    with h5py.File("other.h5", "w") as file:
        file["x"] = numbers
    Path("raw").write_bytes(numbers.tobytes())
    with h5py.File("w.h5", "w") as file:
        make(file, "data/ip/0")
    with h5py.File("d.h5", "w") as file:
        make(file, "data")
    Path("list.txt").write_text("d.h5\n")
    param = data_param()
    for read in (lambda: caffemodel.read("w.h5"), lambda: opened(param, 0, 0).close()):
        monkeypatch.delenv("CAFFECLI_EXTERNAL_FILES", raising=False)
        with pytest.raises(FormatError, match=rf"5' reads another file, by {what} 'data.*'; set CAFFECLI_EXTERNAL"):
            read()
        monkeypatch.setenv("CAFFECLI_EXTERNAL_FILES", "1")
        read()
    np.testing.assert_array_equal(caffemodel.read("w.h5")["ip"][0], numbers)


def data_param() -> LayerParameter:
    return text_format.Parse(
        'name: "d" type: "HDF5Data" top: "data" hdf5_data_param { source: "list.txt" batch_size: 2 }', LayerParameter()
    )


@pytest.mark.parametrize("gone", ["file", "dataset"])
def test_parts_of_virtual_datasets_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """HDF5 itself reads zeros in their place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAFFECLI_EXTERNAL_FILES", "1")
    if gone == "dataset":
        with h5py.File("other.h5", "w") as file:
            file["y"] = 1
    with h5py.File("d.h5", "w") as file:
        virtual(file, "data")
    Path("list.txt").write_text("d.h5\n")
    with pytest.raises(
        FormatError, match=r"the virtual dataset 'data' takes '/?x' of 'other.h5', which is not there; copy it beside"
    ):
        opened(data_param(), 0, 0)


def test_a_virtual_dataset_of_its_own_file_is_read(tmp_path: Path) -> None:
    numbers = np.arange(20, dtype=np.float32).reshape(4, 5)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["x"] = numbers
        layout = h5py.VirtualLayout((4, 5), "f4")
        layout[:] = h5py.VirtualSource(file["x"])
        file.create_virtual_dataset("data/ip/0", layout)
    np.testing.assert_array_equal(caffemodel.read(tmp_path / "w.h5")["ip"][0], numbers)
