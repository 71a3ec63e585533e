"""convert_weights: from one form of file to another: caffemodel (binary, HDF5, NVIDIA's), npz, safetensors.

Values stay bit for bit; those of 64 bits become the nearest of 32, as when Caffe reads them, and those for NVIDIA's
FLOAT16 the nearest of 16.

npz and safetensors name each array ``<layer>.<blob>``: ``conv1.weight``, ``conv1.bias``, ``bn1.mean``, as the layers'
classes call them and ``export`` writes them; by number, ``mine1.0``, for types that have no class here. Beside the
arrays they keep the net's definition (``caffe.net``) and each layer's names of blobs in Caffe's order
(``caffe.blobs``), so that a caffemodel comes back as it was. HDF5 files hold no definition.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import FormatError, SpecError
from caffecli.formats import bounds, caffemodel, hdf5, npy, safetensors
from caffecli.formats.atomic import read_bytes, replacing
from caffecli.formats.caffemodel import Weights
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.spec import text
from caffecli.spec.load import load_net
from caffecli.spec.upgrade import upgrade_net

Path_ = str | os.PathLike[str]
Arrays = Mapping[str, NDArray[Any]]

FORMS = ".caffemodel, .h5, .npz or .safetensors"


def convert_weights(
    source: Path_, target: Path_, net: Path_ | None = None, nvidia: str | None = None, layers: Iterable[str] = ()
) -> None:
    """Write the weights in ``source`` in the form that the name of ``target`` ends with.

    ``net`` is a prototxt whose definition the file shall have, for sources without one. ``nvidia``, FLOAT, FLOAT16 or
    DOUBLE, makes a .caffemodel such as NVIDIA's Caffe writes, of numbers of that type. ``layers``: modules of the
    user's own that register layers, by whose classes blobs are called. Raises FormatError, SpecError.
    """
    if not os.fspath(target).endswith((".caffemodel", ".h5", ".npz", ".safetensors")):
        raise FormatError(f"{str(target)!r}: what form of weights shall it have? Choose a name that ends in {FORMS}")
    if nvidia is not None and not os.fspath(target).endswith(".caffemodel"):
        raise FormatError(
            f"{str(target)!r}: NVIDIA's form is one of binary caffemodels; choose a name that ends in .caffemodel"
        )
    if layers or os.environ.get("CAFFECLI_LAYERS"):
        from caffecli.layers import user_modules  # takes the time of loading torch

        user_modules.load(layers)
    definition, weights = read(source)
    if net is not None:
        definition = load_net(net)
        known = {layer.name for layer in definition.layer}
        strange = [name for name, arrays in weights.items() if arrays and name not in known]
        if strange:
            raise SpecError(
                f"{str(net)!r} has no layer {strange[0]!r}, for which {str(source)!r} has weights; give its own net"
            )
        weights = {name: arrays for name, arrays in weights.items() if name in known}
    write(target, definition, weights, nvidia)


def read(path: Path_) -> tuple[NetParameter, Weights]:
    """The definition and the weights in a file of any form. Raises FormatError.

    A file without definition gives one of layers without type.
    """
    if os.fspath(path).endswith(".safetensors"):
        return _from_arrays(path, *safetensors.read(path))
    if read_bytes(path, 4) == b"PK\x03\x04":
        return _from_arrays(path, *_read_npz(path))
    definition, weights = caffemodel.read_with_net(path)
    if definition is None:
        return _bare(weights), weights
    return upgrade_net(definition, str(path)), weights


def write(path: Path_, definition: NetParameter, weights: Weights, nvidia: str | None = None) -> None:
    """Write weights in the form that the name asks for; ``nvidia`` as for ``convert_weights``. Raises FormatError."""
    name = os.fspath(path)
    if name.endswith((".npz", ".safetensors")):
        names = blob_names(definition, weights)
        arrays = {
            f"{layer}.{blob}": array
            for layer, blobs in names.items()
            for blob, array in zip(blobs, weights.get(layer, []), strict=True)
            if not caffemodel.is_absent(array)
        }
        texts = {"caffe.net": text.format(definition), "caffe.blobs": json.dumps(names)}
        if name.endswith(".npz"):
            _write_npz(path, arrays, texts)
        else:
            safetensors.write(path, arrays, texts)
    elif hdf5.is_hdf5_name(path):
        caffemodel.write(path, definition, weights)
    else:
        caffemodel.write(path, definition, _owners_filled_in(path, definition, weights), raw_type=nvidia)


def blob_names(definition: NetParameter, weights: Weights) -> dict[str, list[str]]:
    """What each layer's blobs are called in npz and safetensors files: by their class, else by number."""
    named: dict[str, list[str]] = {}
    for layer in definition.layer:
        count = len(weights.get(layer.name, []))
        if count or layer.name not in named:
            names = _names_by_class(layer, count) if count else ()
            named[layer.name] = list(names) if len(names) == count else [str(i) for i in range(count)]
    return named


def _names_by_class(layer: LayerParameter, count: int) -> Sequence[str]:
    from caffecli.layers import layer_class  # takes the time of loading torch, which other conversions do without

    cls = layer_class(layer.type)
    return () if cls is None else cls.names_of_blobs(layer, count)


def _bare(weights: Weights) -> NetParameter:
    """A definition that has the layers' names and nothing else."""
    return NetParameter(layer=[LayerParameter(name=name) for name in weights])


def _owners_filled_in(path: Path_, definition: NetParameter, weights: Weights) -> Weights:
    """The weights with the blobs that an HDF5 file leaves out because an earlier layer shares them."""
    owners: dict[str, NDArray[Any]] = {}
    filled: Weights = {}
    specs = {layer.name: layer.param for layer in definition.layer if layer.param}
    for layer, arrays in weights.items():
        filled[layer] = []
        for index, array in enumerate(arrays):
            name = specs[layer][index].name if layer in specs and index < len(specs[layer]) else ""
            if caffemodel.is_absent(array):
                if name not in owners:
                    what = f"layer {layer!r}, blob {index}: the file leaves it out, as another layer has it"
                    raise FormatError(
                        f"cannot write {str(path)!r}: {what}; say which one by giving the net's prototxt (--net)"
                    )
                array = owners[name]
            elif name:
                owners.setdefault(name, array)
            filled[layer].append(array)
    return filled


def _read_npz(path: Path_) -> tuple[Arrays, dict[str, str]]:
    arrays = npy.read_npz(path)
    texts: dict[str, str] = {name: str(arrays.pop(name)) for name in ("caffe.net", "caffe.blobs") if name in arrays}
    return arrays, texts


def _write_npz(path: Path_, arrays: Arrays, texts: Mapping[str, str]) -> None:
    cut = next((name for name in arrays if "\0" in name), None)
    if cut is not None:  # which a zip archive would end the name at
        raise FormatError(f"cannot write {str(path)!r}: array {cut!r} has a NUL in its name; choose another form")
    with replacing(path) as file:
        np.savez(file, **{name: np.array(value) for name, value in texts.items()}, **arrays)  # type: ignore[arg-type]


def _from_arrays(path: Path_, arrays: Arrays, texts: Mapping[str, str]) -> tuple[NetParameter, Weights]:
    not_numbers = [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]
    if not_numbers:
        first = not_numbers[0]
        raise FormatError(f"{str(path)!r}: array {first!r} holds no numbers but {arrays[first].dtype}")
    try:
        if "caffe.net" in texts and "caffe.blobs" in texts:
            return _described(arrays, text.parse(texts["caffe.net"], NetParameter()), json.loads(texts["caffe.blobs"]))
    except (ValueError, AttributeError, TypeError, SpecError) as error:
        raise FormatError(f"{str(path)!r}: its description of the net is damaged ({error}); write it again") from error
    by_layer: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        layer, _, blob = name.rpartition(".")
        by_layer.setdefault(layer, {})[blob] = array
    weights: Weights = {}
    for layer, blobs in by_layer.items():
        order = _order_of([blob for blob in blobs if not blob.isdecimal()])
        for blob, array in blobs.items():
            if not layer or not (blob.isdecimal() or blob in order):
                name, known = f"{layer}.{blob}" if layer else blob, ", ".join(_known_names())
                expected = f"Expected LAYER.NUMBER, or after the layer one of {known}"
                raise FormatError(f"{str(path)!r}: which blob is {name!r}? {expected}")
            index = int(blob) if blob.isdecimal() else order.index(blob)
            if index >= bounds.BLOBS:
                raise FormatError(f"{str(path)!r}: no layer has a blob of the number in {name!r}; it is damaged")
            placed = weights.setdefault(layer, [])
            placed += [caffemodel.ABSENT] * (index + 1 - len(placed))
            placed[index] = np.asarray(array, np.float32)
    return _bare(weights), weights


def _order_of(names: Sequence[str]) -> Sequence[str]:
    """The names of all blobs, in Caffe's order, of a layer that has these among them; empty where no class has."""
    if not names:
        return ()
    from caffecli.layers.registry import classes

    same_names = [
        order for cls in classes() if set(order := cls.names_of_blobs(LayerParameter(), len(names))) == set(names)
    ]
    if len(names) > 1 and same_names:
        return same_names[0]
    orders = [cls.blob_order for cls in classes() if set(names) <= set(cls.blob_order)]
    # a lone bias, say, is more often that of a layer whose weight is elsewhere than that of a Bias layer
    return min(orders, key=lambda order: (len(order) == 1, len(order)), default=())


def _known_names() -> Sequence[str]:
    from caffecli.layers.registry import classes

    return list(dict.fromkeys(name for cls in classes() for name in cls.blob_order))


def _described(arrays: Arrays, definition: NetParameter, names: dict[str, list[str]]) -> tuple[NetParameter, Weights]:
    """The weights by the file's own description. ``export`` writes a dot in a layer's name as an underscore."""
    dotted = {layer.name.replace(".", "_"): layer.name for layer in reversed(definition.layer)}
    known = {layer.name for layer in definition.layer}
    weights: Weights = {}
    for layer, blobs in names.items():
        named = [arrays.get(f"{layer}.{blob}", caffemodel.ABSENT) for blob in blobs]
        weights[layer if layer in known else dotted.get(layer, layer)] = [
            np.asarray(array, np.float32) for array in named
        ]
    return definition, weights
