"""How a picture comes into a detector's net, and the boxes back: as the net was trained, as its weights' file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import caffemodel, mean
from caffecli.layers.forks.ssd.originals import Original, in_pixels
from caffecli.proto.caffe_pb2 import NetParameter, ResizeParameter, TransformationParameter
from caffecli.sources import augment
from caffecli.spec import upgrade

Floats = NDArray[np.float32]
MODES = {value.name: value.number for value in ResizeParameter.Resize_mode.DESCRIPTOR.values}
#: what SSD's scripts subtract, blue, green, red, where nothing says otherwise
_MEAN = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class Preparation:
    """A pixel of 0 to 255, blue first where ``bgr``, is (pixel - ``mean``) * ``scale`` in the net; ``mean`` is
    (1 or channels, 1, 1), or of the picture's size in the net. ``resize`` is how that size is reached.
    """

    mean: Floats
    scale: float
    resize: ResizeParameter
    bgr: bool

    def picture(self, image: NDArray[np.uint8], channels: int) -> Floats:
        """What the net sees of a picture (height, width, 3), blue first: (channels, height, width)."""
        import cv2

        seen = augment.resize(image, self.resize, np.random.default_rng(0))
        if channels == 1:
            seen = cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY)[..., None]
        elif not self.bgr:
            seen = seen[..., ::-1]
        pixels = seen.transpose(2, 0, 1).astype(np.float32)
        return np.asarray((pixels - self.mean) * np.float32(self.scale), np.float32)

    def boxes(self, corners: Floats, height: int, width: int) -> Floats:
        """Boxes (n, 4), as parts of what the net saw, in pixels of the picture, within it."""
        found = in_pixels(torch.from_numpy(corners.astype(np.float64)), Original("", height, width), self.resize)
        return np.asarray(found.numpy())


def preparation(
    weights: str,
    shape: tuple[int, ...],
    *,
    mean_value: tuple[float, ...] | None,
    input_scale: float | None,
    resize_mode: str | None,
    bgr: bool,
) -> Preparation:
    """As typed, for what is None as the net of the file ``weights`` was trained, else as SSD's scripts have it; the log
    tells. ``shape`` is that of the net's input.

    Raises SpecError where the mean does not fit the input, or its file is not there.
    """
    height, width = shape[2:]
    layer, trained = _trained(weights)
    resize = ResizeParameter()
    if trained is not None and trained.HasField("resize_param"):
        resize.CopyFrom(trained.resize_param)
    if resize_mode is not None:
        resize.resize_mode = MODES[resize_mode]
    if len(resize.interp_mode) != 1:  # training draws one of several
        resize.interp_mode[:] = [ResizeParameter.LINEAR]
    resize.height, resize.width = height, width
    made, what = _mean(trained, mean_value, shape)
    scale = input_scale if input_scale is not None else trained.scale if trained is not None else 1.0
    guessed = trained is None and (mean_value is None or input_scale is None)
    whence = f"where not told, as layer {layer!r} of {Path(weights).name!r} has it"
    if trained is None:
        whence = f"where not told, as SSD's scripts have it: {Path(weights).name!r} has no data layer"
    if guessed:
        whence += "; if the net was trained otherwise, give --mean_value and --input_scale"
    if mean_value is not None and input_scale is not None and resize_mode is not None:
        whence = "as told"
    mode = ResizeParameter.Resize_mode.Name(resize.resize_mode)
    (logs.warning if guessed else logs.info)(
        "data_transformer.cpp:1",
        f"Pictures: {mode} to {height} × {width} (height × width), less {what}, times {scale:g}; {whence}",
    )
    return Preparation(made, scale, resize, bgr)


def _mean(
    trained: TransformationParameter | None, typed: tuple[float, ...] | None, shape: tuple[int, ...]
) -> tuple[Floats, str]:
    """What is subtracted, and words for it."""
    channels, height, width = shape[1:]
    if typed is None and trained is not None and trained.HasField("mean_file"):
        path = trained.mean_file
        if not Path(path).is_file():
            raise SpecError(
                f"the net was trained with the mean_file {path!r}, which is not there; bring it there, or give "
                "--mean_value"
            )
        image = np.asarray(mean.read(path), np.float32)
        if image.shape[0] != channels:
            raise SpecError(f"the mean_file {path!r} has {image.shape[0]} channels, the net's input {channels}")
        if image.shape[1:] == (height, width):
            return image, repr(path)
        return image.mean((1, 2), keepdims=True), f"the mean of each channel of {path!r}"
    values = typed
    if values is None:
        values = _MEAN if trained is None else tuple(trained.mean_value) or (0.0,)
        if trained is None and channels == 1:
            values = (0.0,)
    if len(values) not in (1, channels):
        raise SpecError(
            f"expected one mean_value, or one for each of the {channels} channel(s) of the net's input, got "
            f"{len(values)}"
        )
    return np.array(values, np.float32).reshape(-1, 1, 1), ",".join(f"{value:g}" for value in values)


def _trained(weights: str) -> tuple[str, TransformationParameter | None]:
    """The name and the ``transform_param`` of the data layer in a caffemodel; "" and None where it has none."""
    net = definition(weights)
    for layer in net.layer if net is not None else ():
        if layer.top and not layer.bottom and layer.HasField("transform_param"):
            return layer.name, layer.transform_param
    return "", None


def definition(weights: str) -> NetParameter | None:
    """The net that was trained, as its weights' file defines it; None for HDF5, and for several files."""
    try:
        with logs.quiet():
            return upgrade.upgrade_net(caffemodel.read_net(weights), weights)
    except (FormatError, SpecError):
        return None


def check_numbers(name: str, rows: Floats) -> None:
    """Raise DataError where what a net finds in the picture ``name`` has no numbers."""
    if not np.isfinite(rows).all():
        raise DataError(
            f"{name}: the net finds a box whose numbers are none (NaN or infinite): its weights are damaged"
        )
