"""How a picture comes into a detector's net, and the boxes back: as the net was trained, as its weights' file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caffecli.errors import DataError, SpecError
from caffecli.layers.forks.ssd.originals import Original, in_pixels
from caffecli.proto.caffe_pb2 import ResizeParameter
from caffecli.sources import augment
from caffecli.tools import preprocessing
from caffecli.tools.preprocessing import Trained

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
    mean: str | None,
    like: str | None,
    input_scale: float | None,
    resize_mode: str | None,
    bgr: bool,
) -> Preparation:
    """As typed, for what is None as the net of the file ``weights`` was trained, else as SSD's scripts have it; the log
    tells. ``shape`` is that of the net's input.

    Raises SpecError where the mean does not fit the input, or its file is not there.
    """
    height, width = shape[2:]
    told = preprocessing.trained(weights, like)
    trained = None if told is None else told.transform
    resize = ResizeParameter()
    if trained is not None and trained.HasField("resize_param"):
        resize.CopyFrom(trained.resize_param)
    if resize_mode is not None:
        resize.resize_mode = MODES[resize_mode]
    if len(resize.interp_mode) != 1:  # training draws one of several
        resize.interp_mode[:] = [ResizeParameter.LINEAR]
    resize.height, resize.width = height, width
    made, what = _mean(told, mean, shape)
    scale = input_scale if input_scale is not None else trained.scale if trained is not None else 1.0
    guessed = told is None and (mean is None or input_scale is None)
    if mean is not None and input_scale is not None and resize_mode is not None:
        whence = "as told"
    elif told is not None:
        whence = f"where not told, as {told.whence} has it"
    else:
        whence = f"where not told, as SSD's scripts have it: {Path(weights).name!r} has no data layer"
    if guessed:
        whence += f"; if the net was trained otherwise, {preprocessing.hint(weights)}"
    mode = ResizeParameter.Resize_mode.Name(resize.resize_mode)
    preprocessing.tell(
        f"Pictures: {mode} to {height} × {width} (height × width), less {what}, times {scale:g}; {whence}",
        known=not guessed,
    )
    return Preparation(made, scale, resize, bgr)


def _mean(told: Trained | None, typed: str | None, shape: tuple[int, ...]) -> tuple[Floats, str]:
    """What is subtracted, and words for it."""
    channels, height, width = shape[1:]
    if typed is not None:
        mean = preprocessing.typed_mean(typed)
        array, words = (np.zeros(1, np.float32), "0") if mean is None else (np.asarray(mean, np.float32), repr(typed))
    elif told is not None:
        array, words = told.mean()
    else:
        array = np.array(_MEAN if channels == 3 else [0.0], np.float32)
    if array.ndim == 1:
        preprocessing.check_count(array, channels, "--mean" if typed is None else f"--mean {typed!r}")
        return array.reshape(-1, 1, 1), ",".join(f"{value:g}" for value in array.tolist())
    array = array.reshape(-1, *array.shape[-2:])
    if len(array) != channels:
        raise SpecError(f"the mean {words} has {len(array)} channels, the net's input {channels}")
    if array.shape[1:] == (height, width):
        return array, words
    return array.mean((1, 2), keepdims=True), f"the mean of each channel of {words}"


def check_numbers(name: str, rows: Floats) -> None:
    """Raise DataError where what a net finds in the picture ``name`` has no numbers."""
    if not np.isfinite(rows).all():
        raise DataError(
            f"{name}: the net finds a box whose numbers are none (NaN or infinite): its weights are damaged"
        )
