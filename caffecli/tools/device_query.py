"""``caffecli device_query``: what the CUDA driver says about the devices.

Neither PyTorch nor the CUDA toolkit is needed.
"""

from __future__ import annotations

import ctypes

from caffecli import logs
from caffecli.errors import CaffeError

# the driver's numbers (CUdevice_attribute) of what Caffe prints, with its lines in common.cpp
_ATTRIBUTES = [
    (179, "Major revision number:         ", [75]),
    (180, "Minor revision number:         ", [76]),
    (183, "Total shared memory per block: ", [8]),
    (184, "Total registers per block:     ", [12]),
    (185, "Warp size:                     ", [10]),
    (186, "Maximum memory pitch:          ", [11]),
    (187, "Maximum threads per block:     ", [1]),
    (188, "Maximum dimension of block:    ", [2, 3, 4]),
    (191, "Maximum dimension of grid:     ", [5, 6, 7]),
    (194, "Clock rate:                    ", [13]),
    (195, "Total constant memory:         ", [9]),
    (196, "Texture alignment:             ", [14]),
    (197, "Concurrent copy and execution: ", [15]),
    (199, "Number of multiprocessors:     ", [16]),
    (200, "Kernel execution timeout:      ", [17]),
]
_YES_OR_NO = {15, 17}


def device_query(gpu: str | None) -> None:
    """Log Caffe's lines about the devices that ``gpu`` names (0, or several as in 0,1), else all. Raises CaffeError."""
    asked = gpu or "all"
    logs.info("caffe.cpp:138", f"Querying GPUs {asked}")
    driver = _driver()
    count = ctypes.c_int()
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        raise CaffeError("there is no CUDA device on this machine; train and test with --cpu")
    ids = range(count.value) if asked == "all" else [int(part) for part in asked.split(",")]
    for index in ids:
        if index >= count.value:
            raise CaffeError(f"--gpu {asked}: there is no device {index}; there are {count.value}, counted from 0")
        for line, text in _describe(driver, index):
            logs.info(f"common.cpp:{line}", text)


def _driver() -> ctypes.CDLL | None:
    """The CUDA driver, initialized; None where there is no driver or no device."""
    for name in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        return driver if driver.cuInit(0) == 0 else None
    return None


def _describe(driver: ctypes.CDLL, index: int) -> list[tuple[int, str]]:
    """Caffe's lines about one device, each with its line in common.cpp."""
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    memory = ctypes.c_size_t()
    _check(driver.cuDeviceGet(ctypes.byref(device), index), index)
    _check(driver.cuDeviceGetName(name, len(name), device), index)
    _check(driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device), index)

    def attribute(number: int) -> str:
        value = ctypes.c_int()
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), number, device), index)
        return ("Yes" if value.value else "No") if number in _YES_OR_NO else str(value.value)

    lines = [
        (178, f"Device id:                     {index}"),
        (181, f"Name:                          {name.value.decode(errors='replace')}"),
        (182, f"Total global memory:           {memory.value}"),
    ]
    lines += [(line, what + ", ".join(map(attribute, numbers))) for line, what, numbers in _ATTRIBUTES]
    return sorted(lines)


def _check(code: int, index: int) -> None:
    if code != 0:
        raise CaffeError(f"the CUDA driver gives error {code} for device {index}; see what nvidia-smi says of it")
