"""Weights between nets and files, by layer name."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from caffecli import logs
from caffecli.errors import ShapeError, SpecError
from caffecli.formats import atomic, caffemodel
from caffecli.formats.caffemodel import is_absent
from caffecli.layers.base import Layer
from caffecli.net.graph import by_name
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, ParamSpec
from caffecli.spec.upgrade import upgrade_net
from caffecli.wording import nearest

Weights = Mapping[str, Sequence[np.ndarray]]


def export(net: Net, shared: bool = True) -> dict[str, list[np.ndarray]]:
    """Every layer's blobs as NumPy arrays in Caffe's shapes and memory order, by layer name.

    Without ``shared``, a blob that is shared with an earlier layer is left out, as in Caffe's HDF5 files.
    """
    owned = _owned(net)
    return {
        name: [
            to_numpy(blob) if shared or (layer, i) in owned else caffemodel.ABSENT for i, blob in enumerate(layer.blobs)
        ]
        for name, layer in by_name(net.nodes).items()
    }


def export_diffs(net: Net, diffs: Sequence[Tensor]) -> dict[str, list[np.ndarray]]:
    """The diffs of ``net.params``, in the form of ``export``; a shared blob's diff stands under each of its layers."""
    of = {place: diff for param, diff in zip(net.params, diffs, strict=True) for place in param.places}
    return {
        name: [to_numpy(of[layer, i]).reshape(tuple(blob.shape)) for i, blob in enumerate(layer.blobs)]
        for name, layer in by_name(net.nodes).items()
    }


def definition(net: Net) -> NetParameter:
    """What a caffemodel says of a net: its name and layers, with what Caffe settles while it builds them.

    That is: each layer's phase, a loss's weight of 1, and lr_mult 0 for blobs that are not learned.
    """
    param = NetParameter(name=net.name, layer=net.param.layer)
    for layer, node in zip(param.layer, net.nodes, strict=True):
        if not layer.HasField("phase"):
            layer.phase = net.phase
        if node.layer.is_loss and not layer.loss_weight:
            layer.loss_weight.append(1)
        learned = [isinstance(blob, nn.Parameter) for blob in node.layer.blobs]
        while not all(learned[len(layer.param) :]):
            layer.param.append(ParamSpec() if learned[len(layer.param)] else ParamSpec(lr_mult=0))
    return param


def _owned(net: Net) -> set[tuple[Layer, int]]:
    """The blobs, by layer and index, without those that are shared with an earlier layer."""
    return {param.places[0] for param in net.params}


def to_numpy(blob: Tensor) -> np.ndarray:
    """A blob's values as a C-contiguous float32 array; shares memory where it can."""
    return np.asarray(
        blob.detach().float().cpu().numpy(), order="C"
    )  # ascontiguousarray would give a blob of no axes one


def load(net: Net, path: str | Path) -> set[str]:
    """Give ``net`` the weights in a caffemodel, binary or HDF5, of any age; see ``copy``. Returns the names of the
    file's layers that have weights.
    """
    definition, weights = caffemodel.read_with_net(path)
    if definition is None:
        logs.info_once("hdf5.cpp:33", "Datatype class: H5T_FLOAT")
    else:
        try:
            upgrade_net(definition, str(path))  # for what it logs; weights go by layer name in all ages
        except SpecError as error:
            logs.warning("upgrade_proto.cpp:90", str(error))
    copy(net, weights, str(path), "net.cpp:801" if definition is None else "net.cpp:746")
    return {name for name, arrays in weights.items() if arrays}


def check_there(files: Iterable[str | Path]) -> None:
    """Raise FormatError, before a net is built for nothing, where one of the files of weights is not there."""
    for file in files:
        path = os.fspath(file)
        code = 0 if path and Path(path).exists() else errno.ENOENT
        if path and Path(path).is_dir():
            code = errno.EISDIR
        if code:
            raise atomic.cannot_read(path, OSError(code, os.strerror(code)))


def tell_lacking(learned: Iterable[LayerParameter], there: Container[str], source: str) -> None:
    """Warn where some of the layers that learn have no weights among the layers ``there``, those of ``source``."""
    layers = [layer for layer in learned if not any(each.name for each in layer.param)]  # else another may own them
    lacking = [layer.name for layer in layers if layer.name not in there]
    if 0 < len(lacking) < len(layers):  # of all, ``copy`` tells
        more = f" and {len(lacking) - 1} more layer{'s' if len(lacking) > 2 else ''}" if len(lacking) > 1 else ""
        logs.warning(
            "net.cpp:746",
            f"{source!r} has no weights for layer {lacking[0]!r}{more}, which keep{'' if more else 's'} random ones: "
            "are they another net's?",
        )


def copy(net: Net, weights: Weights, source: str, line: str = "net.cpp:746") -> None:
    """Give each layer of ``net`` the blobs that ``weights`` has under its name; ``source`` names the file in messages.

    Layers of the file that the net lacks are passed over, with a log line as of Caffe's ``line``; layers that the file
    lacks keep their fillers' values. Nothing is changed unless all fits: a ShapeError lists every mismatch.
    """
    pairs: list[tuple[Tensor, np.ndarray]] = []
    wrong: list[str] = []
    known = by_name(net.nodes)
    owned = _owned(net)
    for name, arrays in weights.items():
        if name not in known:
            logs.info(line, f"Ignoring source layer {name}")
            continue
        blobs = known[name].blobs
        there = {i for i, array in enumerate(arrays) if not is_absent(array)}
        if len(arrays) > len(blobs) or any((known[name], i) in owned for i in range(len(blobs)) if i not in there):
            wrong.append(f"layer {name!r}: expected {len(blobs)} blob(s), {source!r} has {len(arrays)}")
            continue
        for index, (blob, array) in enumerate(zip(blobs, arrays, strict=False)):
            if index not in there:
                continue
            if fits(tuple(blob.shape), array.shape):
                pairs.append((blob, array))
            else:
                wrong.append(
                    f"layer {name!r}, blob {index}: expected {tuple(blob.shape)}, {source!r} has {array.shape}"
                )
    if wrong:
        raise ShapeError("; ".join(wrong) + "; rename the layer to train it afresh")
    if not pairs and weights and any(known[n].blobs for n in known):
        first = itertools.islice(weights, 20)  # enough to see whether names were changed, in little time
        near = next(filter(None, (nearest(name, known) for name in first)), None)
        logs.warning(
            line, f"no layer of {source!r} has a counterpart in net {net.name!r}" + (f"; near: {near}" if near else "")
        )
    with torch.no_grad():
        for blob, array in pairs:
            if blob.is_cpu:
                np.copyto(blob.detach().numpy(), np.reshape(array, blob.shape), casting="same_kind")
            else:
                blob.copy_(torch.from_numpy(np.array(array, dtype=np.float32)).reshape(blob.shape))


def fits(expected: tuple[int, ...], found: tuple[int, ...]) -> bool:
    """Whether an array of shape ``found`` can fill a blob of shape ``expected``.

    The same shape; or, as files from before 2014 give four dimensions to all, the same after leading ones are put
    before; or, for a blob of no axes, (1,), as caffecli itself once wrote it.
    """
    if expected == found or (not expected and found == (1,)):
        return True
    return len(found) == 4 and len(expected) <= 4 and (1,) * (4 - len(expected)) + expected == found


def share(net: Net, trained: Net) -> None:
    """Make ``net`` use the tensors of ``trained`` wherever layers have the same name, as test nets do."""
    sources = by_name(trained.nodes)
    wrong: list[str] = []
    for node_name, layer in by_name(net.nodes).items():
        source = sources.get(node_name)
        if source is None:
            continue
        theirs, ours = source.blobs, layer.blobs
        if [b.shape for b in theirs] != [b.shape for b in ours]:
            shapes = [tuple(b.shape) for b in ours], [tuple(b.shape) for b in theirs]
            wrong.append(f"layer {node_name!r}: the test net has blobs {shapes[0]}, the train net {shapes[1]}")
            continue
        for name, blob in zip(layer.blob_names, theirs, strict=True):
            if not isinstance(getattr(type(layer), name, None), property):  # those of another shape follow their owner
                setattr(layer, name, blob)
    if wrong:
        raise ShapeError("; ".join(wrong) + "; give layers that differ different names")
