"""``caffe.Net``: a net whose blobs and weights are NumPy arrays."""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from caffe import mode
from caffe.engine import Engine
from caffe.errors import ArgumentError, BlobNameError, LayerNameError, MissingFile, UsersErrors
from caffe.legacy import LegacyMethods
from caffe.vectors import DtypeVec, IntVec, LayerVec, StringVec
from caffecli import logs
from caffecli.formats import caffemodel
from caffecli.layers.base import Context
from caffecli.layers.blobs import Blob, BlobVec
from caffecli.layers.data import MemoryData
from caffecli.layers.memory import Floats
from caffecli.layers.python import Python, PythonLayerBase
from caffecli.net import net as core
from caffecli.net import weights
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetState
from caffecli.spec import load

StrPath = str | os.PathLike[str]


T = TypeVar("T")


class Named(OrderedDict[str, T]):
    """Things of a net by name, bottom to top."""

    def __missing__(self, name: str) -> T:
        raise BlobNameError(f"no {name!r} here; there are: {', '.join(self) or 'none'}")


class AnyLayer(Protocol):
    """What ``Net.layers`` holds: built-in layers, and the users' own Python layers themselves."""

    @property
    def type(self) -> str: ...
    @property
    def blobs(self) -> Sequence[Any]: ...


class BuiltIn(PythonLayerBase):
    """A layer of caffecli's, with its ``type`` and its learned ``blobs``."""

    def __init__(self, type_name: str, name: str, blobs: Iterable[Blob]) -> None:
        self.type = type_name
        self.name = name
        self.blobs = BlobVec(blobs)

    def __repr__(self) -> str:
        return f"<layer {self.name!r}, {self.type}>"


class Net(LegacyMethods):
    """The net of a prototxt.

    ``Net(network_file, phase, level=0, stages=None, weights=None)``, or as it was before:
    ``Net(network_file, weights, phase)``, and before that: ``Net(network_file, weights)``, for phase TEST unless
    ``set_phase_train`` was called. ``stages``: a list of names; ``weights``: a caffemodel.

    Blobs' ``data`` and ``diff`` are arrays that stay valid, see ``caffe.blob``. ``backward`` works where the net has a
    loss and something that learns, or ``force_backward: true``; elsewhere it does nothing, as in Caffe. Threads may
    each run a net.
    Raises RuntimeError (``MissingFile``) for a file that is not there, and ``CaffeError`` for all else that can be
    wrong.
    """

    _engine: Engine

    def __init__(
        self,
        network_file: StrPath,
        phase: int | StrPath | None = None,
        level: int | None = None,
        stages: Sequence[str] | None = None,
        weights: StrPath | None = None,
    ) -> None:
        if isinstance(phase, str | os.PathLike):
            logs.warning("_caffe.cpp:138", "DEPRECATION WARNING - deprecated use of Python interface")
            logs.warning(
                "_caffe.cpp:139", f"Net({str(network_file)!r}, phase, weights={str(phase)!r}) is the form to use"
            )
            weights, phase, level = phase, mode.phase() if level is None else level, 0
        if phase not in (TRAIN, TEST):
            raise ArgumentError(f"phase: expected caffe.TRAIN ({TRAIN}) or caffe.TEST ({TEST}), got {phase!r}")
        check_file(network_file)
        if weights is not None:
            check_file(weights)
        param = load.load_net(network_file)
        param.state.CopyFrom(NetState(phase=phase, level=level or 0, stage=stages or ()))  # type: ignore[arg-type]
        folder = Path(network_file).parent
        with UsersErrors():
            context = Context(mode.seed(), mode.shard() if phase == TRAIN else (0, 1), (folder,))
            self._take(Engine(core.Net(param, context)))
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def of(cls, engine: Engine) -> Net:
        """The net that ``engine`` runs: a solver's."""
        net = cls.__new__(cls)
        net._take(engine)
        return net

    def _take(self, engine: Engine) -> None:
        self._engine = engine
        net = engine.net
        weakref.finalize(self, net.close).atexit = False
        self._name = net.name
        self._blobs_dict = Named(engine.blobs)
        self._layer_names = StringVec(node.name for node in net.nodes)
        self._layers = LayerVec()
        for node in net.nodes:
            blobs = engine.params[node.layer]
            own = isinstance(node.layer, Python)
            self._layers.append(node.layer.user if own else BuiltIn(node.layer.type, node.name, blobs))
        self._params_dict = Named(
            (node.name, BlobVec(engine.params[node.layer])) for node in net.nodes if node.layer.blobs
        )

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The net's name; another one stays in Python, and goes into no file."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def blobs(self) -> Named[Blob]:
        """The blobs by name, bottom to top."""
        return self._blobs_dict

    @property
    def params(self) -> Named[BlobVec]:
        """The learned blobs of each layer that has some, by the layer's name."""
        return self._params_dict

    @property
    def layers(self) -> LayerVec:
        """The layers, each an ``AnyLayer``."""
        return self._layers

    @property
    def layer_dict(self) -> Named[AnyLayer]:
        return self._layer_dict

    @property
    def inputs(self) -> list[str]:
        """The blobs of Input layers."""
        return self._input_list

    @property
    def outputs(self) -> list[str]:
        """The blobs that no layer uses, sorted by name."""
        return self._output_list

    @cached_property
    def top_names(self) -> Named[list[str]]:
        return Named((node.name, list(node.tops)) for node in self._engine.net.nodes)

    @cached_property
    def bottom_names(self) -> Named[list[str]]:
        return Named((node.name, list(node.bottoms)) for node in self._engine.net.nodes)

    @property
    def blob_loss_weights(self) -> Named[float]:
        """By how much each blob counts in the loss."""
        return self._blob_loss_weights_dict

    # what pycaffe's own properties are made of, which programs use too

    @cached_property
    def _layer_dict(self) -> Named[AnyLayer]:
        return Named(zip(self._layer_names, self._layers, strict=True))

    @cached_property
    def _input_list(self) -> list[str]:
        return list(self._engine.net.inputs)

    @cached_property
    def _output_list(self) -> list[str]:
        return list(self._engine.net.outputs)

    @cached_property
    def _blob_loss_weights_dict(self) -> Named[float]:
        return Named(zip(self._blob_names, self._blob_loss_weights, strict=True))

    @cached_property
    def _blob_loss_weights(self) -> DtypeVec:
        weights = {name: w for n in self._engine.net.nodes for name, w in zip(n.tops, n.loss_weights, strict=True)}
        return DtypeVec(weights[name] for name in self._blobs_dict)

    @cached_property
    def _blobs(self) -> BlobVec:
        return BlobVec(self._blobs_dict.values())

    @cached_property
    def _blob_names(self) -> StringVec:
        return StringVec(self._blobs_dict)

    @cached_property
    def _inputs(self) -> IntVec:
        return self._ids(self._engine.net.inputs)

    @cached_property
    def _outputs(self) -> IntVec:
        return self._ids(self._engine.net.outputs)

    def _top_ids(self, layer: int) -> IntVec:
        return self._ids(self._engine.net.nodes[layer].tops)

    def _bottom_ids(self, layer: int) -> IntVec:
        return self._ids(self._engine.net.nodes[layer].bottoms)

    def _ids(self, blobs: Iterable[str]) -> IntVec:
        return IntVec(self._numbers[name] for name in blobs)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._blobs_dict)}

    # -- running ---------------------------------------------------------------------------------------------------

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> dict[str, Floats]:
        """Run the layers from ``start`` to ``end``, both named and included; returns the data of the last one's tops.

        By default all layers, and the net's outputs. ``blobs``: names of more to return. ``inputs``: values for all
        input blobs.
        """
        first = 0 if start is None else self._index(start)
        last = len(self._layers) - 1 if end is None else self._index(end)
        wanted = self._engine.net.outputs if end is None else self.top_names[end]
        if inputs:
            self._feed("Input", inputs, self.inputs, "data")
        self._forward(first, last)
        return {name: self._blobs_dict[name].data for name in (*wanted, *(blobs or ()))}

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **top_diffs: Any
    ) -> dict[str, Floats]:
        """Run the layers from ``start`` back to ``end``, both named and included;
        returns the diffs of the last one's bottoms.

        By default all layers, and the net's inputs. ``diffs``: names of more to return. ``top_diffs``: diffs for all
        outputs; without them those that the blobs hold, of a loss its weight. Diffs of parameters add up: see
        ``clear_param_diffs``.
        """
        first = len(self._layers) - 1 if start is None else self._index(start)
        last = 0 if end is None else self._index(end)
        wanted = self._engine.net.inputs if end is None else self.bottom_names[end]
        if top_diffs:
            self._feed("Top diff", top_diffs, self.outputs, "diff")
        self._backward(first, last)
        return {name: self._blobs_dict[name].diff for name in (*wanted, *(diffs or ()))}

    def _forward(self, start: int, end: int) -> float:
        """Layers by their numbers; returns the loss."""
        with UsersErrors():
            self._engine.to(mode.device())
            loss = self._engine.forward_layers(start, end)
            return 0.0 if loss is None else float(loss)

    def _backward(self, start: int, end: int) -> None:
        with UsersErrors():
            self._engine.to(mode.device())
            self._engine.backward_layers(start, end)

    def _index(self, layer: str) -> int:
        if layer not in self._layer_names:
            raise LayerNameError(
                f"net {self.name!r} has no layer {layer!r}; its layers: {', '.join(self._layer_names)}"
            )
        return self._layer_names.index(layer)

    def _feed(self, what: str, given: dict[str, Any], names: list[str], part: str) -> None:
        kind = "Input blob" if what == "Input" else what
        if set(given) != set(names):
            raise ArgumentError(
                f"{kind} arguments do not match net {'inputs' if what == 'Input' else 'outputs'}. "
                f"expected {', '.join(names) or 'none'}, got {', '.join(given)}"
            )
        for name, values in given.items():
            expected = self.blobs[name].shape
            if values.shape[:1] != expected[:1]:
                word = "Input" if what == "Input" else "Diff"
                raise ArgumentError(
                    f"{word} is not batch sized: {name!r} is {tuple(expected)}, got {tuple(values.shape)}"
                )
            getattr(self.blobs[name], part)[...] = values

    def reshape(self) -> None:
        """Let all blobs follow the shapes given to the inputs; the next forward would do it too."""
        with UsersErrors():
            self._engine.reshape()

    def clear_param_diffs(self) -> None:
        """Set the diffs of all parameters to 0."""
        for weight in self._engine.weights:
            weight.diff.clear()

    def set_input_arrays(self, data: Floats, labels: Floats) -> None:
        """Let the net's first layer, a MemoryData layer, serve these:
        (count, channels, height, width) and (count,), float32.
        """
        layer = self._engine.net.nodes[0].layer
        if not isinstance(layer, MemoryData):
            raise ArgumentError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        check_inputs(data, labels, self.blobs[self._engine.net.nodes[0].tops[0]].shape)
        layer.set_input_arrays(data, labels)

    _set_input_arrays = set_input_arrays

    # -- inputs larger than a batch --------------------------------------------------------------------------------

    def forward_all(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> dict[str, Floats]:
        """``forward`` on any number of items, batch by batch; the last batch is filled up with zeros.

        Returns what ``forward`` returns, one row for each item.
        """
        outputs = self.outputs if end is None else self.top_names[self._layer_names[self._index(end)]]
        parts: dict[str, list[Floats]] = {name: [] for name in {*outputs, *(blobs or ())}}
        for batch in self._batch(inputs):
            for name, values in self.forward(blobs, start, end, **batch).items():
                parts[name].extend(values.copy())
        return _cut(parts, inputs)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **values: Any
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """``forward_all``, and ``backward`` from the outputs' diffs, batch by batch.

        Returns the outputs, and ``blobs``; and the inputs' diffs, and ``diffs``.
        """
        all_blobs: dict[str, list[Floats]] = {name: [] for name in {*self.outputs, *(blobs or ())}}
        all_diffs: dict[str, list[Floats]] = {name: [] for name in {*self.inputs, *(diffs or ())}}
        inputs = self._batch({name: values[name] for name in self.inputs if name in values})
        top_diffs = self._batch({name: values[name] for name in self.outputs if name in values})
        nothing: dict[str, Any] = {}
        for fed, back in zip_longest(inputs, top_diffs, fillvalue=nothing):
            for name, data in self.forward(blobs, **fed).items():
                all_blobs[name].extend(data.copy())
            for name, diff in self.backward(diffs, **back).items():
                all_diffs[name].extend(diff.copy())
        return _cut(all_blobs, values), _cut(all_diffs, values)

    def _batch(self, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The values in batches of the net's size, which its first blob has; the last batch is filled up with zeros."""
        if not values:
            return
        count, size = len(next(iter(values.values()))), next(iter(self.blobs.values())).shape[0]
        for first in range(0, count, size):
            batch = {name: np.asarray(array[first : first + size]) for name, array in values.items()}
            short = size - min(size, count - first)
            if short:
                batch = {n: np.concatenate([a, np.zeros((short, *a.shape[1:]))]) for n, a in batch.items()}
            yield batch

    # -- weights: from files, to files, from other nets ------------------------------------------------------------

    def copy_from(self, trained_filename: StrPath) -> None:
        """Load the weights of all layers of the same name from a caffemodel of any age, binary or HDF5; others stay.

        Where blobs do not fit, nothing is changed: raises ShapeError, which lists every mismatch.
        """
        check_file(trained_filename)
        self._engine.push()
        weights.load(self._engine.net, str(trained_filename))
        self._engine.pull()

    def load_hdf5(self, filename: StrPath) -> None:
        """``copy_from``, for HDF5 files."""
        self.copy_from(filename)

    def share_with(self, other: Net) -> None:
        """Share the weights of ``other`` in all layers of the same name.

        Raises ShapeError where their shapes differ.
        """
        self._engine.to(other._engine.device)
        weights.share(self._engine.net, other._engine.net)
        self._engine.shared()

    def save(self, filename: StrPath) -> None:
        """Write a binary caffemodel, under any name."""
        self._write(filename, as_hdf5=False)

    def save_hdf5(self, filename: StrPath) -> None:
        """Write the weights in Caffe's HDF5 layout, under any name."""
        self._write(filename, as_hdf5=True)

    def _write(self, path: StrPath, as_hdf5: bool) -> None:
        self._engine.push()
        net = self._engine.net
        caffemodel.write(path, weights.definition(net), weights.export(net, shared=not as_hdf5), as_hdf5=as_hdf5)

    # -- callbacks --------------------------------------------------------------------------

    def before_forward(self, run: Callable[[int], Any]) -> None:
        """Call ``run`` with each layer's number before it runs."""
        self._engine.before_forward.append(run)

    def after_forward(self, run: Callable[[int], Any]) -> None:
        self._engine.after_forward.append(run)

    def before_backward(self, run: Callable[[int], Any]) -> None:
        self._engine.before_backward.append(run)

    def after_backward(self, run: Callable[[int], Any]) -> None:
        self._engine.after_backward.append(run)


def check_file(path: StrPath) -> None:
    """Raise MissingFile, a RuntimeError, for a file that cannot be opened."""
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise MissingFile(f"Could not open file {path}: {error.strerror}") from error


def _cut(parts: Mapping[str, list[Floats]], given: Mapping[str, Any]) -> dict[str, Floats]:
    """The collected items, without the zeros that filled up the last batch."""
    if not given:
        raise ArgumentError("nothing was given; name input blobs and their values")
    count = len(next(iter(given.values())))
    spare = len(next(iter(parts.values()))) - count if parts else 0
    return {name: np.asarray(items)[:-spare] if spare else np.asarray(items) for name, items in parts.items()}


def check_inputs(data: Floats, labels: Floats, top: Sequence[int]) -> None:
    """Raise ArgumentError, a RuntimeError, for arrays that a MemoryData layer
    cannot take whose top has shape ``top``.
    """
    batch, *size = top
    if labels.ndim == 1:
        labels = labels.reshape(-1, 1, 1, 1)
    for what, array, wanted in (("data array", data, size), ("labels array", labels, [1, 1, 1])):
        if not array.flags.c_contiguous:
            raise ArgumentError(f"{what} must be C contiguous")
        if array.ndim != 4:
            raise ArgumentError(f"{what} must be 4-d, got {array.ndim}")
        if array.dtype != np.float32:
            raise ArgumentError(f"{what} must be float32, got {array.dtype}")
        for name, got, need in zip(("number of channels", "height", "width"), array.shape[1:], wanted, strict=True):
            if got != need:
                raise ArgumentError(f"{what} has wrong {name}: expected {need}, got {got}")
    if len(data) != len(labels):
        raise ArgumentError(f"data and labels must have the same first dimension, got {len(data)} and {len(labels)}")
    if len(data) % batch:
        raise ArgumentError(
            f"first dimensions of input arrays must be a multiple of batch size {batch}, got {len(data)}"
        )
