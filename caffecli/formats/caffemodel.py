"""caffemodel files: a net's weights by layer name, with its definition.

Binary ones are a NetParameter whose layers carry blobs: ``layer`` today, ``layers`` (V1) and ``layers { layer }`` (V0)
in old files. HDF5 ones hold ``data/<layer>/<i>``, and ``diff/<layer>/<i>`` when diffs were asked for.
Source: Caffe's ``Net::ToProto``, ``Net::ToHDF5`` and their CopyTrainedLayersFrom counterparts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from caffecli import logs
from caffecli.errors import FormatError
from caffecli.formats import blob as blobs
from caffecli.formats import bounds, hdf5
from caffecli.formats.atomic import read_bytes, replacing
from caffecli.formats.blob import Array
from caffecli.formats.foreign import describe
from caffecli.proto import encoding, wire
from caffecli.proto.caffe_pb2 import NetParameter

#: blobs by layer name, layers in the file's order. HDF5 files of Caffe leave out a blob that is shared with an earlier
#: layer: it stands here as ``ABSENT`` when a later blob of its layer is there.
Weights = dict[str, list[Array]]

ABSENT: Array = np.empty((0,), np.float32)


def is_absent(blob: Array) -> bool:
    """Whether this stands for a blob that the file leaves out."""
    return blob.shape == (0,)


def read(path: str | os.PathLike[str]) -> Weights:
    """The weights in ``path``, binary or HDF5, told apart by content. Layers without blobs have an empty list.

    Raises FormatError for a file that is missing, damaged, or something else, and says what it seems to be.
    """
    return read_with_net(path)[1]


def read_with_net(path: str | os.PathLike[str]) -> tuple[NetParameter | None, Weights]:
    """The net's definition, as old as it is and without blobs, and the weights. HDF5 files hold no definition.

    Settings that cannot be read, such as those of a fork that nobody here knows, are left out, with a line in the log.
    """
    if hdf5.starts_hdf5(read_bytes(path, 8)):
        return None, _read_hdf5(path)
    data = read_bytes(path)
    if len(data) > blobs.MAX_MESSAGE:
        raise FormatError(
            f"{str(path)!r} has {len(data) / 2**30:.1f} GB; a binary caffemodel ends at 2 GB, use HDF5 for larger ones"
        )
    net = blobs.parse(_NetTwin, data)
    if net is None or not (net.layer or net.layers) or not any(layer.name or layer.blobs for layer in _layers(net)):
        raise describe(path, data, "a caffemodel")
    weights: Weights = {}
    for layer in _layers(net):
        name, arrays = layer.name if isinstance(layer.name, str) else encoding.as_text(layer.name)[0], []
        for index, blob in enumerate(layer.blobs):
            try:
                arrays.append(blobs.twin_to_array(blob))
            except FormatError as error:
                raise FormatError(f"{str(path)!r}, layer {name!r}, blob {index}: {error}") from error
        layer.ClearField("blobs")  # gives the memory back early
        if arrays or name not in weights:
            weights[name] = arrays
    try:
        return _plain(net, path), weights
    except FormatError:
        return _readable(net, path), weights


def read_net(path: str | os.PathLike[str]) -> NetParameter:
    """The net's definition in a binary caffemodel, its blobs left out. Raises FormatError."""
    data = read_bytes(path)
    net = None if hdf5.starts_hdf5(data) else blobs.parse(_NetTwin, data)
    if net is None:
        raise describe(path, data, "a binary caffemodel, which holds the net's definition")
    for layer in _layers(net):
        layer.ClearField("blobs")
    return _plain(net, path)


def write(
    path: str | os.PathLike[str],
    net: NetParameter,
    weights: Weights,
    diffs: Weights | None = None,
    as_hdf5: bool | None = None,
    raw_type: str | None = None,
) -> None:
    """Write ``net`` (layers without blobs) and its ``weights``; HDF5 when the name ends in ``.h5``, or by ``as_hdf5``.

    ``diffs`` holds the blobs' gradients when those are wanted too (``snapshot_diff``). ``raw_type``, one of
    ``blob.RAW_TYPES``, makes the binary file one of NVIDIA's Caffe, which has no diffs.
    Raises FormatError when the file cannot be written, or would be larger than a binary one may be.
    """
    unknown = sorted(set(weights) - {layer.name for layer in net.layer})
    if unknown:
        raise FormatError(
            f"cannot write {str(path)!r}: the net has no layer {unknown[0]!r} for the weights of that name"
        )
    if hdf5.is_hdf5_name(path) if as_hdf5 is None else as_hdf5:
        _write_hdf5(path, net, weights, diffs)
        return
    size = {None: 4, "FLOAT": 4, "FLOAT16": 2, "DOUBLE": 8}[raw_type]
    blobs.check_size(
        path, sum(a.size * size for part in (weights, diffs or {}) for arrays in part.values() for a in arrays)
    )
    made = _NetTwin.FromString(_to_file(net.SerializeToString()))
    named: set[str] = set()
    for layer in made.layer:
        layer.ClearField("blobs")
        if layer.name in named:
            continue
        named.add(layer.name)
        gradients = diffs.get(layer.name, []) if diffs else []
        for index, array in enumerate(weights.get(layer.name, [])):
            blob = layer.blobs.add()
            try:
                blobs.fill_twin(blob, array, raw_type)
            except FormatError as error:
                raise FormatError(f"cannot write {str(path)!r}: layer {layer.name!r}, blob {index}: {error}") from error
            if index < len(gradients):
                blob.diff = np.asarray(gradients[index], "<f4").tobytes()
    data = made.SerializeToString()
    with replacing(path) as file:
        file.write(data)


_NetTwin = blobs.twin("NetParameter")
_to_file = functools.lru_cache(maxsize=2)(wire.to_file)  # every snapshot of a training has the same net


def _plain(net: Any, path: str | os.PathLike[str]) -> NetParameter:
    """A twin without blobs as a plain message."""
    try:
        plain = NetParameter.FromString(wire.from_file(net.SerializeToString()))
        encoding.repair_texts(plain)
        return plain
    except DecodeError as error:
        raise FormatError(f"{str(path)!r} is damaged: the settings of one of its layers cannot be read") from error


def _readable(net: Any, path: str | os.PathLike[str]) -> NetParameter:
    """``_plain`` without the settings of layers that cannot be read."""
    left_out = []
    for field in ("layer", "layers"):
        layers = getattr(net, field)
        of_net = net.DESCRIPTOR.fields_by_name[field].number
        for layer in layers:
            kept = b""
            for piece in encoding.pieces(layer.SerializeToString()):
                if wire.read_net(encoding.enclosed(of_net, kept + piece)) is None:
                    left_out.append(layer.name)
                else:
                    kept += piece
            layer.ParseFromString(kept)
    plain = _plain(net, path)
    names = ", ".join(map(repr, dict.fromkeys(left_out)))
    logs.warning("net.cpp:53", f"{str(path)!r}: settings that cannot be read are left out: those of {names}")
    return plain


def _layers(net: Any) -> Iterator[Any]:
    """The messages that have ``name`` and ``blobs``, of all three generations."""
    yield from net.layer
    for layer in net.layers:
        yield layer.layer if layer.HasField("layer") else layer


def _read_hdf5(path: str | os.PathLike[str]) -> Weights:
    with hdf5.reading(path) as file:
        if "data" not in file or hasattr(file["data"], "dtype"):
            what = (
                "a solverstate; the caffemodel beside it has the weights"
                if "history" in file
                else f"of other content ({', '.join(file) or 'nothing'})"
            )
            raise FormatError(f"{str(path)!r} is not a caffemodel: it lacks the group 'data' and seems to be {what}")
        weights: Weights = {}
        _collect(file["data"], "", weights)
        return weights


def _collect(group: Any, name: str, weights: Weights) -> None:
    """Add the layers in and below ``group``.

    A layer's blobs are datasets named by numbers; a ``/`` in its name makes groups.
    """
    inner = {key: group[key] for key in group}
    numbered = {int(key): item for key, item in inner.items() if key.isdecimal() and hasattr(item, "dtype")}
    if name and (numbered or not inner):
        if max(numbered, default=0) >= bounds.BLOBS:
            raise FormatError(
                f"{group.file.filename!r}: no layer has a blob {max(numbered)}, as {name!r} here; it is damaged"
            )
        arrays = [ABSENT] * (max(numbered, default=-1) + 1)
        for index, item in numbered.items():
            arrays[index] = hdf5.numbers(item)
        weights[name] = arrays
    for key, item in inner.items():
        if not hasattr(item, "dtype"):
            _collect(item, f"{name}/{key}" if name else key, weights)


def _write_hdf5(path: str | os.PathLike[str], net: NetParameter, weights: Weights, diffs: Weights | None) -> None:
    check_hdf5_names(path, net)
    with hdf5.writing(path) as file:
        for part, arrays_of in (("data", weights), ("diff", diffs)):
            if arrays_of is None:
                continue
            top = file.create_group(part)
            for layer in net.layer:
                arrays = arrays_of.get(layer.name, [])
                if not layer.name and not arrays:  # VanillaCNN's data layer
                    continue
                try:
                    group = top.require_group(layer.name)
                    for index, array in enumerate(arrays):
                        if not is_absent(array):
                            group.create_dataset(str(index), data=np.asarray(array, np.float32))
                except (TypeError, ValueError) as error:
                    raise _no_group(path, layer.name, error) from error


def check_hdf5_names(path: str | os.PathLike[str], net: NetParameter) -> None:
    """Raise FormatError where a layer's name cannot be that of a group: what HDF5 reads as a path, and NUL."""
    for layer in net.layer:
        if layer.name and not all(part.strip(".") for part in layer.name.split("/")):
            raise _no_group(path, layer.name, "between '/' a name is expected")
        if "\0" in layer.name:
            raise _no_group(path, layer.name, "it holds a NUL")


def _no_group(path: str | os.PathLike[str], name: str, why: object) -> FormatError:
    what = f"layer {name!r} cannot be a group in HDF5 ({why})"
    return FormatError(f"cannot write {str(path)!r}: {what}; rename it, or choose a binary file")
