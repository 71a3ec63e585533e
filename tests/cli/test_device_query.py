"""device_query: with a driver that stands in for CUDA's, and without any."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from caffecli.cli import main
from caffecli.tools import device_query

VALUES = {75: 9, 76: 0, 8: 49152, 12: 65536, 10: 32, 11: 2147483647, 1: 1024, 2: 1024, 3: 1024, 4: 64}
VALUES |= {5: 2147483647, 6: 65535, 7: 65535, 13: 1980000, 9: 65536, 14: 512, 15: 1, 16: 132, 17: 0}


class Driver:
    """Two devices."""

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA H200"[: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = 150 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, device: Any) -> int:
        value._obj.value = VALUES[number]
        return 0


def run(monkeypatch: pytest.MonkeyPatch, driver: object, *args: str) -> int:
    monkeypatch.setattr(device_query, "_driver", lambda: driver)
    monkeypatch.setattr(sys, "argv", ["caffecli", "device_query", *args])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_caffes_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, Driver(), "-gpu", "1") == 0
    assert [line.split(" ", 3)[3] for line in capsys.readouterr().err.splitlines()] == [
        "caffe.cpp:138] Querying GPUs 1",
        "common.cpp:178] Device id:                     1",
        "common.cpp:179] Major revision number:         9",
        "common.cpp:180] Minor revision number:         0",
        "common.cpp:181] Name:                          NVIDIA H200",
        "common.cpp:182] Total global memory:           161061273600",
        "common.cpp:183] Total shared memory per block: 49152",
        "common.cpp:184] Total registers per block:     65536",
        "common.cpp:185] Warp size:                     32",
        "common.cpp:186] Maximum memory pitch:          2147483647",
        "common.cpp:187] Maximum threads per block:     1024",
        "common.cpp:188] Maximum dimension of block:    1024, 1024, 64",
        "common.cpp:191] Maximum dimension of grid:     2147483647, 65535, 65535",
        "common.cpp:194] Clock rate:                    1980000",
        "common.cpp:195] Total constant memory:         65536",
        "common.cpp:196] Texture alignment:             512",
        "common.cpp:197] Concurrent copy and execution: Yes",
        "common.cpp:199] Number of multiprocessors:     132",
        "common.cpp:200] Kernel execution timeout:      No",
    ]


@pytest.mark.parametrize("args", [[], ["--gpu", "all"], ["--gpu=0,1"]])
def test_all_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    assert run(monkeypatch, Driver(), *args) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[-1] for line in lines if "Device id" in line] == ["0", "1"]


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, Driver(), "--gpu", "2") == 1
    assert (
        capsys.readouterr().err.splitlines()[-1] == "Error: --gpu 2: there is no device 2; there are 2, counted from 0"
    )


def test_a_device_that_gives_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    driver = Driver()
    monkeypatch.setattr(driver, "cuDeviceTotalMem_v2", lambda *args: 999, raising=False)
    assert run(monkeypatch, driver) == 1
    words = "Error: the CUDA driver gives error 999 for device 0; see what nvidia-smi says of it"
    assert capsys.readouterr().err.splitlines()[-1] == words


def test_no_cuda(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert device_query._driver() is None
    assert run(monkeypatch, None, "--gpu", "0") == 1
    words = "Error: there is no CUDA device on this machine; train and test with --cpu"
    assert capsys.readouterr().err.splitlines()[-1] == words
