"""``caffecli extract_features``: blobs of a trained net, record by record, into databases, HDF5 or npy files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import torch

from caffecli import logs
from caffecli.errors import FormatError, ShapeError, SpecError
from caffecli.formats import atomic, datum, db
from caffecli.formats.blob import Array
from caffecli.formats.hdf5_rows import RowWriter
from caffecli.net import devices
from caffecli.net.records import record_count
from caffecli.net.runners.whole import Whole
from caffecli.tools import preprocessing
from caffecli.tools.blobs import find_blob, run_and_observe
from caffecli.tools.open import open_net, split_names

Format = Literal["lmdb", "leveldb", "hdf5", "npy"]

#: takes the rows of a batch, and the key of each
Add = Callable[[Array, Sequence[str]], None]

_SOURCE = "extract_features.cpp"
#: the dataset of an HDF5 file that holds the records' keys
KEYS = "key"


@dataclass(frozen=True)
class FeatureOptions:
    """What to extract.

    ``outputs`` has a database or file for each of ``blobs``; ``weights`` are files separated by commas.

    ``batches`` is how many batches to run; None takes each record of the net's source exactly once. ``layers``: modules
    of the user's own that register layers. ``as_caffe``: tell of the progress at level E, as Caffe does; else at I.
    """

    weights: str
    model: Path
    blobs: tuple[str, ...]
    outputs: tuple[str, ...]
    batches: int | None
    format: Format
    gpu: str | None = None
    layers: tuple[str, ...] = ()
    as_caffe: bool = True


@dataclass
class _Feature:
    """A blob, its output, and how many rows have been written."""

    blob: str
    slot: int
    output: str
    log: Callable[[str, str], None]
    add: Add = field(init=False)
    count: int = 0

    def take(self, rows: Array, keys: Sequence[str]) -> None:
        if len(keys) != len(rows):  # the records have no keys, or the blob's rows are not the records
            keys = [f"{self.count + i:010d}" for i in range(len(rows))]
        self.add(rows, keys)
        before, self.count = self.count, self.count + len(rows)
        for thousands in range(before // 1000 + 1, self.count // 1000 + 1):
            self._say(165, thousands * 1000)

    def finish(self) -> None:
        self._say(176, self.count)

    def _say(self, line: int, count: int) -> None:
        self.log(f"{_SOURCE}:{line}", f"Extracted features of {count} query images for feature blob {self.blob}")


@torch.no_grad()
def extract_features(options: FeatureOptions) -> None:
    """Run the net and write the blobs; logs Caffe's lines.

    A row of a blob becomes a datum of floats, its key the number of the row (``%010d``), as Caffe has it; or a row of
    an array beside the record's own key: dataset ``key`` of the HDF5 file, ``NAME.keys.npy`` beside ``NAME.npy``.

    Raises FormatError for an output that exists, SpecError for a blob that the net does not have, ShapeError for one
    that does not fit.
    """
    device = devices.choose(options.gpu, options.gpu is None)
    log = logs.error if options.as_caffe else logs.info
    if device.type == "cuda":
        log(f"{_SOURCE}:52", "Using GPU")
        log(f"{_SOURCE}:58", f"Using Device_id={device.index}")
    else:
        log(f"{_SOURCE}:62", "Using CPU")
    for output in options.outputs:
        for path in (output, keys_path(output)) if options.format == "npy" else (output,):
            atomic.refuse_existing(path, file=options.format in ("hdf5", "npy"))
    runner = open_net(options.model, Whole, layers=options.layers, device=device, weights=split_names(options.weights))
    with contextlib.closing(runner.net) as net:
        preprocessing.warn_of_other_pixels((node.layer.param for node in net.nodes), options.weights)
        features = [
            _Feature(b, find_blob(net, b), out, log) for b, out in zip(options.blobs, options.outputs, strict=True)
        ]
        records = record_count(net) if options.batches is None else None
        _run(runner, features, options, records)
    log(f"{_SOURCE}:181", "Successfully extracted the features!")


def _run(runner: Whole, features: list[_Feature], options: FeatureOptions, records: int | None) -> None:
    net = runner.net
    layers = list(net.source_layers.values())
    size = layers[0].reshape([])[0][0] if layers else 0
    batches = (options.batches or 0) if records is None else math.ceil(records / size)
    with ExitStack() as outputs:
        for feature in features:
            logs.info(f"{_SOURCE}:125", f"Opening dataset {feature.output}")
            shape = tuple(net.shape(feature.blob)) or (1,)
            if records is not None and shape[0] != size:
                raise ShapeError(
                    f"blob {feature.blob!r} of shape {tuple(net.shape(feature.blob))} has no row for each of the "
                    f"{size} records of a batch; leave --all, or take another blob"
                )
            rows = records if records is not None else batches * shape[0]
            feature.add = outputs.enter_context(_open(feature, options.format, (rows, *shape[1:])))
        features[0].log(f"{_SOURCE}:133", "Extracting Features")
        with logs.Bar(batches, unit="batch") as bar:
            for i in range(batches):
                _, blobs = run_and_observe(runner, [feature.slot for feature in features])
                keys = layers[0].batch.keys if layers and layers[0].batch else ()
                stop = None if records is None else min(size, records - i * size)
                for feature, blob in zip(features, blobs, strict=True):
                    array = blob.detach().float().cpu().numpy()
                    feature.take((array if array.ndim else array[None])[:stop], keys[:stop])
                bar.advance()
        for feature in features:
            feature.finish()


def keys_path(path: str) -> str:
    """The file of the records' keys beside an npy file: ``a.keys.npy`` for ``a.npy``."""
    return f"{path.removesuffix('.npy')}.keys.npy"


# -- where the rows go -------------------------------------------------------------------------------------------------


def _open(feature: _Feature, kind: Format, shape: tuple[int, ...]) -> AbstractContextManager[Add]:
    """A new output for the rows of an array of ``shape``; it appears under its
    name when the block ends without an error.
    """
    if kind == "hdf5":
        return _HDF5(feature)
    if kind == "npy":
        return _npy(feature, shape)
    if len(shape) > 4:
        raise ShapeError(
            f"blob {feature.blob!r} has {len(shape)} axes, {shape}; a datum holds channels, height and width: write "
            "hdf5 or npy"
        )
    return _database(feature, kind)


@contextlib.contextmanager
def _database(feature: _Feature, backend: db.Backend) -> Iterator[Add]:
    with db.open_writer(feature.output, backend) as writer:

        def add(rows: Array, keys: Sequence[str]) -> None:
            datums = rows.reshape(*rows.shape, *[1] * (4 - rows.ndim))
            for i, row in enumerate(datums, feature.count):
                writer.put(b"%010d" % i, datum.from_array(row).SerializeToString())

        yield add


@contextlib.contextmanager
def _npy(feature: _Feature, shape: tuple[int, ...]) -> Iterator[Add]:
    every: list[str] = []
    with atomic.replacing(keys_path(feature.output)) as beside, atomic.replacing(feature.output) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})

        def add(rows: Array, keys: Sequence[str]) -> None:
            if rows.shape[1:] != shape[1:] or len(every) + len(rows) > shape[0]:
                raise _unlike(feature, shape[1:], rows.shape[1:])
            file.write(np.ascontiguousarray(rows, "<f4").data)
            every.extend(keys)

        yield add
        if len(every) != shape[0]:
            raise _unlike(feature, shape, (len(every), *shape[1:]))
        np.save(beside, np.array(every))


class _HDF5(RowWriter):
    """Dataset ``blob`` of the rows, dataset ``key`` of the records' keys;
    nothing is left when the block ends with an error.
    """

    def __init__(self, feature: _Feature) -> None:
        if feature.blob == KEYS:
            raise SpecError(f"blob {KEYS!r} has the name of the dataset of the records' keys; write npy")
        super().__init__(feature.output)
        self._feature = feature
        self._keys: list[str] = []

    def __enter__(self) -> Add:
        return self._add

    def _add(self, rows: Array, keys: Sequence[str]) -> None:
        self.append({self._feature.blob: rows})
        self._keys.extend(keys)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import h5py

        if self.closed:
            return
        if error is None:
            self._file.create_dataset(KEYS, data=self._keys, dtype=h5py.string_dtype())
            self.close()
        else:
            self._file.close()
            self._end(FormatError("not all rows came"))


def _unlike(feature: _Feature, expected: tuple[int, ...], came: tuple[int, ...]) -> ShapeError:
    return ShapeError(
        f"blob {feature.blob!r} changes its shape: expected {expected}, got {came}; "
        "an npy file has rows of one shape: write lmdb"
    )
