"""Picture files as a net takes them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from caffecli.errors import DataError
from caffecli.formats import mean as mean_files
from caffecli.formats import picture
from caffecli.formats.atomic import read_bytes
from caffecli.tools.visual.inspector import Array, Inspector, Path_


def load_picture(inspector: Inspector, path: Path_, mean: str = "", scale: float = 1.0, rgb: bool = False) -> Array:
    """The picture in ``path`` as the net takes it: (pixels - mean) * scale, of ``fit_picture``.

    Raises DataError, FormatError.

    ``mean`` is the name of a mean.binaryproto, or numbers separated by ``,``: one, or one a channel.
    """
    fitted = fit_picture(inspector, path, rgb)
    return (fitted - _mean(mean, fitted.shape)) * np.float32(scale)


def fit_picture(inspector: Inspector, path: Path_, rgb: bool = False) -> Array:
    """The pixels, 0 to 255, in the net's size and channels:
    (channels, height, width), grey, blue first, or red first.
    """
    channels, height, width = inspector.picture_shape
    if channels not in (1, 3):
        raise DataError(f"the net takes pictures of {channels} channels; expected 1 or 3")
    try:
        pixels = picture.decode(read_bytes(path), channels == 3)
    except DataError as error:
        raise DataError(f"{str(path)!r} {error}; give a PNG or JPEG") from error
    fitted = cv2.resize(
        pixels, (width, height), interpolation=cv2.INTER_AREA if pixels.shape[0] > height else cv2.INTER_LINEAR
    )
    planes = fitted.reshape(height, width, channels).transpose(2, 0, 1)
    return np.ascontiguousarray(planes[::-1] if rgb else planes, np.float32)


def _mean(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        values = [float(value) for value in text.split(",")] if text else [0.0]
    except ValueError:
        array = mean_files.read(text)
        if array.shape[0] != shape[0] or array.shape[1] < shape[1] or array.shape[2] < shape[2]:
            raise DataError(
                f"{text!r}: a mean of shape {array.shape} does not fit pictures of {shape}; give another"
            ) from None
        y, x = ((have - want) // 2 for have, want in zip(array.shape[1:], shape[1:], strict=True))
        return array[:, y : y + shape[1], x : x + shape[2]]
    if len(values) not in (1, shape[0]):
        raise DataError(
            f"--mean {text!r} has {len(values)} numbers; expected 1, or one for each of {shape[0]} channel(s)"
        )
    return np.array(values, np.float32).reshape(-1, 1, 1)
