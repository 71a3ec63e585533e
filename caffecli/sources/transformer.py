"""``transform_param``: what happens to a picture on its way from a record to a blob.

::

    top[c, h, w] = (picture[c, y + h, x + w] - mean) * scale          in float32

crop_size   a square of that size: from the middle in TEST, from anywhere, evenly, in TRAIN; 0 (the default) for none
mirror      flips each picture left to right with probability 1/2, in both phases
mean        ``mean_file`` at the same pixel (c, y + h, x + w); or ``mean_value``, one for all channels or one for each
scale       1
force_color, force_gray    how encoded datums are decoded: to three channels, to one; neither: as the file is

Source: ``data_transformer.cpp``.
"""

from __future__ import annotations

import numpy as np

from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import mean as means
from caffecli.proto.caffe_pb2 import TRAIN, TransformationParameter
from caffecli.sources.base import Floats, Numbers, Pixels, Shape
from caffecli.wording import dimensions


class Transformer:
    """Applies a ``transform_param``. ``layer`` is the name for errors.

    Raises SpecError for settings that exclude each other, FormatError for a mean file that cannot be read.
    """

    def __init__(self, param: TransformationParameter, phase: int, layer: str) -> None:
        self._where = f"layer {layer!r}"
        self._crop = param.crop_size
        self._random_crop = bool(param.crop_size) and phase == TRAIN
        self._mirror = param.mirror
        self._scale = np.float32(param.scale)
        #: whether records need random numbers
        self.random = self._random_crop or self._mirror
        if param.force_color and param.force_gray:
            raise SpecError(f"{self._where}: transform_param has both force_color and force_gray; keep one")
        #: for encoded datums: decode to colour (True), to gray (False), or as the file is (None)
        self.color = True if param.force_color else False if param.force_gray else None
        self.mean_file = param.mean_file if param.HasField("mean_file") else None
        self._values = np.array(param.mean_value, np.float32).reshape(-1, 1, 1)
        self._image: Floats | None = None
        if self.mean_file is not None:
            self._image = self._read_mean(self.mean_file)
        self._checked: Shape | None = None

    @property
    def mean(self) -> Floats | None:
        """What is subtracted: the image of ``mean_file``, or the values of ``mean_value`` as (count, 1, 1);
        None without.
        """
        return self._image if self._image is not None else self._values if self._values.size else None

    def _read_mean(self, path: str) -> Floats:
        if len(self._values):
            raise SpecError(f"{self._where}: transform_param has both mean_file and mean_value; keep one")
        try:
            return np.ascontiguousarray(means.read(path), np.float32)
        except FormatError as error:
            raise FormatError(f"{self._where}, mean_file: {error}") from error

    def shape(self, picture: Shape, name: str) -> Shape:
        """The (channels, height, width) that a picture of that shape gets; ``name`` names it in errors.

        Raises DataError when it is smaller than the crop or unlike the mean file, SpecError for a wrong count of mean
        values.
        """
        channels, height, width = picture
        if picture != self._checked:
            self._check(picture, name)
            self._checked = picture
        return (channels, self._crop, self._crop) if self._crop else (channels, height, width)

    def _check(self, picture: Shape, name: str) -> None:
        channels, height, width = picture
        if self._crop > min(height, width):
            raise DataError(
                f"{self._where}: crop_size {self._crop} is larger than {name}, which is {height} × {width} (height × "
                "width); lower crop_size or resize the pictures"
            )
        if len(self._values) not in (0, 1, channels):
            raise SpecError(
                f"{self._where}: expected one mean_value, or one for each of the {channels} channel(s) of {name}, "
                f"got {len(self._values)}"
            )
        if self._image is not None and self._image.shape != picture:
            raise DataError(
                f"{self._where}: mean_file {self.mean_file!r} is {dimensions(self._image.shape)}, "
                f"{name} is {dimensions(picture)}; compute the mean of this data with compute_image_mean"
            )

    def one(self, picture: Pixels, draws: Numbers, out: Floats) -> None:
        """Transform a (channels, height, width) picture, checked by ``shape``, into ``out``.

        ``draws`` are its three numbers.
        """
        ((top, left),) = self._corners(picture.shape, draws[None])
        step = -1 if self._mirror and draws[0] % 2 else 1
        out[...] = np.ascontiguousarray(self._part(picture, top, left)[..., ::step])
        if self._image is not None:
            np.subtract(out, self._part(self._image, top, left)[..., ::step], out=out)
        self._scale_values(out)

    def many(self, pictures: Pixels, draws: Numbers, out: Floats) -> None:
        """Transform (count, channels, height, width) pictures at once: the quick way for small ones.

        ``draws`` is (count, 3).
        """
        if self._random_crop:
            for i, (top, left) in enumerate(self._corners(pictures.shape, draws)):
                out[i] = self._part(pictures[i], top, left)
                if self._image is not None:
                    out[i] -= self._part(self._image, top, left)
        else:
            ((top, left),) = self._corners(pictures.shape, draws[:1])
            out[...] = self._part(pictures, top, left)
            if self._image is not None:
                np.subtract(out, self._part(self._image, top, left), out=out)
        self._scale_values(out)
        if self._mirror:
            turned = np.flatnonzero(draws[:, 0] % 2)
            out[turned] = out[turned][..., ::-1]

    def _corners(self, shape: Shape, draws: Numbers) -> list[tuple[int, int]]:
        """The crop's top left corner for each row of ``draws``."""
        if not self._crop:
            return [(0, 0)] * len(draws)
        free_rows, free_columns = shape[-2] - self._crop, shape[-1] - self._crop
        if not self._random_crop:
            return [(free_rows // 2, free_columns // 2)] * len(draws)
        return list(
            zip((draws[:, 1] % (free_rows + 1)).tolist(), (draws[:, 2] % (free_columns + 1)).tolist(), strict=True)
        )

    def _part(self, pixels: Pixels, top: int, left: int) -> Pixels:
        return pixels[..., top : top + self._crop, left : left + self._crop] if self._crop else pixels

    def _scale_values(self, out: Floats) -> None:
        if self._values.size:
            np.subtract(out, self._values, out=out)
        if self._scale != 1:
            np.multiply(out, self._scale, out=out)
