"""Picture files as a net takes them."""

from __future__ import annotations

import cv2
import numpy as np

from caffecli.errors import DataError
from caffecli.formats import picture
from caffecli.formats.atomic import read_bytes
from caffecli.tools import preprocessing
from caffecli.tools.preprocessing import Trained
from caffecli.tools.visual.inspector import Array, Inspector, Path_


def load_picture(inspector: Inspector, path: Path_, mean: str = "", scale: float = 1.0, rgb: bool = False) -> Array:
    """The picture in ``path`` as the net takes it: (pixels - mean) * scale, of ``fit_picture``.

    ``mean``: see ``preprocessing.typed_mean``. Raises DataError, FormatError.
    """
    return prepare_picture(inspector, path, mean, scale, rgb, None)[0]


def prepare_picture(
    inspector: Inspector, path: Path_, mean: str | None, scale: float | None, rgb: bool, trained: Trained | None
) -> tuple[Array, str]:
    """``load_picture``, and words for how.

    What is None is as the net was ``trained``; nothing, and 1, where that is not told. Raises SpecError where the
    training's mean is not there.
    """
    fitted = fit_picture(inspector, path, rgb)
    if mean is None and trained is not None:
        array, words = trained.mean()
    else:
        typed = preprocessing.typed_mean(mean or "")
        array, words = (np.zeros(1, np.float32), "nothing") if typed is None else (typed, f"--mean {mean!r}")
    if scale is None:
        scale = 1.0 if trained is None else trained.transform.scale
    less = preprocessing.fitted_mean(array, fitted.shape, words)
    words = words.removeprefix("--mean ")
    if array.ndim == 1:
        words = "nothing" if not array.any() else ",".join(f"{value:g}" for value in array.tolist())
    size = f"{fitted.shape[1]} x {fitted.shape[2]}"
    order = "" if len(fitted) == 1 else ", red first" if rgb else ", blue first"
    return (fitted - less) * np.float32(scale), f"resized to {size}{order}, less {words}, times {scale:g}"


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
