"""``caffecli detect`` of windows: their classes, as Caffe's ``detect.py`` has them."""

from __future__ import annotations

import csv
import io as text_io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe import io
from caffe.detector import Detector
from caffecli import logs
from caffecli.errors import DataError
from caffecli.formats.atomic import replacing
from caffecli.tools.picture_options import PictureOptions

#: about how many windows are in memory at the same time
CHUNK = 256
_EDGES = ("ymin", "xmin", "ymax", "xmax")


@dataclass(frozen=True, kw_only=True)
class WindowOptions(PictureOptions):
    """``input_file``: a .csv with the columns filename, ymin, xmin, ymax, xmax, or a .txt of file names.

    ``crop_mode``: "list" for the windows in the .csv, or "selective_search". ``output_file``: a .csv, or HDF5 by any
    other name.
    """

    input_file: str
    output_file: str
    crop_mode: str = "selective_search"
    context_pad: int | None = 16


def detect_windows(options: WindowOptions) -> None:
    """Predict the classes of windows of pictures, and write them."""
    start = time.time()
    print("GPU mode" if options.gpu and not options.cpu else "CPU mode")
    prepared = options.prepare(windows=True)
    net = Detector(
        options.model,
        options.weights,
        mean=None if prepared.mean is None else channel_mean(prepared.mean),
        input_scale=prepared.input_scale,
        raw_scale=prepared.raw_scale,
        channel_swap=prepared.channel_swap,
        context_pad=options.context_pad,
    )
    print("Loading input...", flush=True)
    if options.crop_mode == "list":
        detections: list[dict[str, Any]] = []
        pending: list[tuple[str, list[list[int]]]] = []
        every = read_windows(options.input_file)
        readable = {name: windows for name, windows in every.items() if can_be_read(name)}
        if not readable and every:
            raise DataError(f"none of the {len(every)} pictures in {options.input_file!r} can be read")
        if len(readable) < len(every):
            print(f"Left out {len(every) - len(readable)} of {len(every)} pictures, which cannot be read.")
        for filename, windows in readable.items():
            pending.append((filename, windows))
            if sum(len(windows) for _, windows in pending) >= CHUNK:
                detections += net.detect_windows(pending)
                pending = []
        detections += net.detect_windows(pending)
    else:
        detections = net.detect_selective_search(read_names(options.input_file))
    print(f"Processed {len(detections)} windows in {time.time() - start:.3f} s.")
    start = time.time()
    (_write_csv if options.output_file.lower().endswith(".csv") else _write_hdf5)(options.output_file, detections)
    print(f"Saved to {options.output_file} in {time.time() - start:.3f} s.")


def can_be_read(picture: str) -> bool:
    """Whether a picture can be read; one that cannot is named in a warning."""
    try:
        io.load_image(picture)
    except (DataError, OSError) as error:
        logs.warning("io.py:303", f"{error}; left out")
        return False
    return True


def channel_mean(mean: NDArray[Any]) -> NDArray[Any]:
    """The mean of each channel of a mean of (C, H, W) or (1, C, H, W)."""
    return mean if mean.ndim == 1 else np.asarray(mean.reshape(-1, *mean.shape[-2:]).mean((1, 2)))


def read_windows(path: str) -> dict[str, list[list[int]]]:
    """The windows (ymin, xmin, ymax, xmax) of each picture in a .csv whose head names the columns. Raises DataError."""
    windows: dict[str, list[list[int]]] = {}
    rows = csv.DictReader(text_io.StringIO(_text(path)), skipinitialspace=True)
    missing = [
        name for name in ("filename", *_EDGES) if name not in [column.strip() for column in rows.fieldnames or ()]
    ]
    if missing:
        raise DataError(
            f"{path!r}: the head lacks {', '.join(missing)}; it is filename,ymin,xmin,ymax,xmax in any order"
        )
    for raw in rows:
        row = {(key or "").strip(): value for key, value in raw.items()}
        try:
            window = [int(float(row[edge])) for edge in _EDGES]
        except (TypeError, ValueError):
            raise DataError(f"{path!r}, line {rows.line_num}: expected a file's name and four numbers") from None
        windows.setdefault(row["filename"].strip(), []).append(window)
    return windows


def read_names(path: str) -> list[str]:
    """The names in a .txt, or in the column filename of a .csv."""
    if path.lower().endswith(".csv"):
        return list(read_windows(path))
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except UnicodeDecodeError as error:
        raise DataError(f"{path!r} is no text; give a .csv of windows, or a .txt of the names of pictures") from error


def _write_csv(path: str, detections: list[dict[str, Any]]) -> None:
    classes = np.size(detections[0]["prediction"]) if detections else 0
    with replacing(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["filename", *_EDGES, *(f"class{i}" for i in range(classes))])
        for found in detections:
            writer.writerow([found["filename"], *found["window"], *np.ravel(found["prediction"]).tolist()])


def _write_hdf5(path: str, detections: list[dict[str, Any]]) -> None:
    import h5py

    whole = text_io.BytesIO()
    with h5py.File(whole, "w") as h5:
        h5.create_dataset("filename", data=[str(found["filename"]) for found in detections], dtype=h5py.string_dtype())
        h5.create_dataset("window", data=np.array([found["window"] for found in detections], np.int64).reshape(-1, 4))
        predictions = np.array([np.ravel(found["prediction"]) for found in detections], np.float32)
        h5.create_dataset(
            "prediction", data=predictions.reshape(len(detections), -1) if detections else np.zeros((0, 0))
        )
    with replacing(path) as file:
        file.write(whole.getbuffer())
