"""How a net was trained to see pictures, as the data layer says that it was trained with: sizes, mean, scale.

A caffemodel holds the net that was trained, its data layer with it; ``--like`` names a prototxt that has one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import CaffeError, DataError, FormatError, SpecError
from caffecli.formats import caffemodel, datum, db, npy
from caffecli.formats import mean as mean_files
from caffecli.proto.caffe_pb2 import TEST, LayerParameter, NetParameter, TransformationParameter
from caffecli.spec import load, upgrade
from caffecli.spec.filter import filter_net

Floats = NDArray[np.float32]
#: (height, width)
Size = tuple[int, int]

_SOURCE = "preprocessing.py:1"
#: a data layer's size may differ by so many pixels from what a net is given without a word
_NEAR = 2


@dataclass(frozen=True)
class Trained:
    """The data ``layer`` that a net was trained with, in the net of ``file``; ``scored``: the one of its TEST phase."""

    layer: LayerParameter
    file: str
    scored: bool

    @property
    def transform(self) -> TransformationParameter:
        return self.layer.transform_param

    @property
    def whence(self) -> str:
        """Words for where this stands."""
        return f"layer {self.layer.name!r} of {Path(self.file).name!r}"

    @property
    def crop(self) -> Size | None:
        """What is cut out of the pictures; None: nothing."""
        param = self.transform
        size = (param.crop_h, param.crop_w) if param.crop_h and param.crop_w else (param.crop_size,) * 2
        return size if all(size) else None

    @property
    def mirrored(self) -> bool:
        """Whether half of the pictures were mirrored."""
        return self.transform.mirror

    @functools.cached_property
    def source_size(self) -> Size | None:
        """The size of the pictures in the layer's source; None where that is not told: its database is not there."""
        image, resize = self.layer.image_data_param, self.transform.resize_param
        for size in ((image.new_height, image.new_width), (resize.height, resize.width)):
            if all(size):
                return size
        path = find(self.layer.data_param.source, self.file)
        return None if path is None else _first_picture(path)

    def mean(self, remedy: str = "--mean") -> tuple[NDArray[Any], str]:
        """What was subtracted, of each channel (C,) or each pixel (C, H, W), and words for it.

        Raises SpecError where a file of it is not there; ``remedy`` is the flag to give then.
        """
        name = self.transform.mean_file
        if not name:
            values = tuple(self.transform.mean_value) or (0.0,)
            return np.array(values, np.float32), ",".join(f"{value:g}" for value in values)
        path = find(name, self.file)
        if path is None:
            raise SpecError(
                f"the net was trained with the mean_file {name!r}, as {self.whence} has it, which is not there; bring "
                f"it there, or give {remedy}"
            )
        return np.asarray(mean_files.read(path), np.float32), repr(str(path))


def trained(weights: str, like: str | None = None, top: str = "") -> Trained | None:
    """How the net of the file ``weights`` was trained, or that of the prototxt ``like`` if given; None: not told.

    Of several data layers it is the one that fills ``top``, else the first. Raises SpecError for a ``like`` that has
    none in its TEST phase.
    """
    if like is None:
        net = definition(weights)
        layer = None if net is None else _data_layer(net.layer, top)
        return None if layer is None else Trained(layer, weights, False)
    with logs.quiet():
        net = load.load_net(like)
        net.state.phase = TEST
        layer = _data_layer(filter_net(net, net.state).layer, top)
    if layer is None:
        raise SpecError(
            f"--like {like!r} has no data layer in its TEST phase that says how pictures are made fit for the net; "
            "give the net that was trained, such as train_val.prototxt"
        )
    return Trained(layer, like, True)


def definition(weights: str, like: str | None = None) -> NetParameter | None:
    """The net that was trained, as the prototxt ``like`` or its weights' file defines it; None for HDF5, for several
    files, and for none.
    """
    if like is not None:
        with logs.quiet():
            return load.load_net(like)
    if not weights:
        return None
    try:
        with logs.quiet():
            return upgrade.upgrade_net(caffemodel.read_net(weights), weights)
    except (FormatError, SpecError):
        return None


def _data_layer(layers: Iterable[LayerParameter], top: str) -> LayerParameter | None:
    found = [
        layer
        for layer in layers
        if layer.top
        and not layer.bottom
        and any(map(layer.HasField, ("transform_param", "data_param", "image_data_param")))
    ]
    return next((layer for layer in found if top in layer.top), found[0] if found else None)


def find(name: str, file: str) -> Path | None:
    """What a net's definition in ``file`` calls ``name``: below the working folder, or one of those that hold the file,
    or beside it; None if it is nowhere.
    """
    if not name:
        return None
    folder = Path(file).resolve().parent
    places = [Path(name), *(parent / name for parent in (folder, *folder.parents)), folder / Path(name).name]
    return next((path for path in places if path.exists()), None)


def _first_picture(path: Path) -> Size | None:
    try:
        with logs.quiet(), db.open_reader(path) as reader:
            key, value = next(iter(reader.items()))
        height, width = datum.to_array(datum.decode(value, key), key=key).shape[1:]
    except (CaffeError, OSError, StopIteration):
        return None
    return height, width


def typed_mean(text: str) -> NDArray[Any] | None:
    """A mean as ``--mean`` names it: a file, .npy or .binaryproto, or numbers separated by ',', one or one a channel;
    None for ''. Raises FormatError, DataError.
    """
    if not text:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        path = Path(text).expanduser()
        if not path.exists():
            raise FormatError(
                f"there is no mean {text!r}; give a .npy or .binaryproto, numbers such as 104,117,123, or '' for none"
            ) from None
        return npy.read(path) if path.suffix == ".npy" else mean_files.read(path)
    if not all(map(math.isfinite, values)):
        raise DataError(f"--mean {text!r} is not numbers to subtract; give one, or one for each channel")
    return np.array(values, np.float32)


def numbers(text: str) -> tuple[float, ...]:
    """A mean that has to be numbers: see ``typed_mean``. Raises DataError."""
    mean = typed_mean(text)
    if mean is not None and mean.ndim > 1:
        raise DataError(f"--mean {text!r}: this net takes pictures of any size; give numbers, one or one a channel")
    return (0.0,) if mean is None else tuple(mean.tolist())


def check_count(mean: NDArray[Any], channels: int, words: str) -> None:
    """Raise DataError where there is neither one number nor one for each channel."""
    if len(mean) not in (1, channels):
        raise DataError(
            f"{words} has {len(mean)} numbers; expected 1, or one for each of {channels} channel(s) of the net's input"
        )


def fitted_mean(mean: NDArray[Any], shape: tuple[int, ...], words: str) -> Floats:
    """A mean for pictures (channels, height, width) in the net: of each channel, or of each pixel, the middle of a
    larger one, as in the TEST phase. Raises DataError for one that does not fit.
    """
    array = np.asarray(mean, np.float32)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 1:
        check_count(array, shape[0], words)
        return array.reshape(-1, 1, 1)
    if array.ndim != 3 or len(array) != shape[0] or array.shape[1] < shape[1] or array.shape[2] < shape[2]:
        raise DataError(f"{words}: a mean of shape {array.shape} does not fit pictures of {shape}; give another")
    y, x = ((have - want) // 2 for have, want in zip(array.shape[1:], shape[1:], strict=True))
    return array[:, y : y + shape[1], x : x + shape[2]]


def tell(words: str, known: bool) -> None:
    """Log how pictures are made fit for the net; a warning where that is a guess."""
    (logs.info if known else logs.warning)(_SOURCE, words)


def warn_of_sizes(what: str, size: Size, there: Size | None, whence: str) -> None:
    """Warn where sizes differ by more than a few pixels from those of the training."""
    if there is not None and any(abs(one - other) > _NEAR for one, other in zip(size, there, strict=True)):
        logs.warning(
            _SOURCE,
            f"{what} {size[0]} x {size[1]} (height x width), and {there[0]} x {there[1]} in training, as {whence} has "
            "it: what the net finds may be wrong",
        )


def warn_of_other_pixels(layers: Iterable[LayerParameter], weights: str) -> None:
    """Warn where the data layer among ``layers`` makes other numbers of pixels than that which the net of the file
    ``weights`` was trained with: scores are wrong then, and nothing else tells.
    """
    own = _data_layer(layers, "")
    told = None if own is None else trained(weights, top=own.top[0])
    if own is None or told is None:
        return
    mine, theirs = own.transform_param, told.transform
    values = tuple(mine.mean_value), tuple(theirs.mean_value)
    # two files of means may be the same, wherever they are
    means = all(param.mean_file for param in (mine, theirs)) or (values[0] or (0.0,)) == (values[1] or (0.0,))
    if mine.scale != theirs.scale or not means or bool(mine.mean_file) != bool(theirs.mean_file):
        logs.warning(
            _SOURCE,
            f"layer {own.name!r} gives pictures {_pixels(mine)}; the net was trained with {_pixels(theirs)}, as "
            f"{told.whence} has it: what it finds may be wrong",
        )


def _pixels(param: TransformationParameter) -> str:
    less = repr(param.mean_file) if param.mean_file else ",".join(f"{value:g}" for value in param.mean_value or (0,))
    return f"less {less}, times {param.scale:g}"


def hint(weights: str) -> str:
    """What to do where nothing says how the net of ``weights`` was trained."""
    beside = sorted(path for path in Path(weights).resolve().parent.glob("*train*.prototxt"))
    named = repr(str(beside[0])) if len(beside) == 1 else "train_val.prototxt"
    return f"give --like {named}, the net that was trained, or --mean and --scale"
