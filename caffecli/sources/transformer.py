"""``transform_param``: what happens to a picture on its way from a record to a blob.

::

    top[c, h, w] = (picture[c, y + h, x + w] - mean) * scale          in float32

crop_size   a square of that size: from the middle in TEST, from anywhere, evenly, in TRAIN; 0 (the default) for none
crop_h, crop_w      in its place, both, a rectangle (SSD's)
mirror      flips each picture left to right with probability 1/2, in both phases
mean        ``mean_file`` at the same pixel (c, y + h, x + w); or ``mean_value``, one for all channels or one for each
scale       1
force_color, force_gray    how encoded datums are decoded: to three channels, to one; neither: as the file is

What SSD adds, ``resize_param`` and the like, has been done by then: ``sources.augment``.

Source: ``data_transformer.cpp``.
"""

from __future__ import annotations

import numpy as np

from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import mean as means
from caffecli.formats.annotated import CORNERS, POLYGON, Boxes
from caffecli.proto.caffe_pb2 import TRAIN, ResizeParameter, TransformationParameter
from caffecli.sources import polygons
from caffecli.sources.augment import emit_constraint
from caffecli.sources.base import Floats, Numbers, Pixels, Shape
from caffecli.sources.boxes import project
from caffecli.wording import dimensions


class Transformer:
    """Applies a ``transform_param``. ``layer`` is the name for errors.

    Raises SpecError for settings that exclude each other, FormatError for a mean file that cannot be read.
    """

    def __init__(self, param: TransformationParameter, phase: int, layer: str) -> None:
        self._where = f"layer {layer!r}"
        self._crop = self._crop_of(param)
        self._random_crop = self._crop is not None and phase == TRAIN
        self._mirror = param.mirror
        self._scale = np.float32(param.scale)
        self._emit = emit_constraint(param)
        #: what boxes are parts of instead of the crop's size (height, width), where resize_param says so
        self._of: tuple[int, int] | None = None
        resize = param.resize_param
        if resize.resize_mode == ResizeParameter.FIT_SMALL_SIZE and resize.height_scale and resize.width_scale:
            self._of = resize.height_scale, resize.width_scale
        #: whether records need random numbers
        self.random = self._random_crop or self._mirror
        #: whether boxes are elsewhere in the picture that comes out
        self.moves_boxes = self._crop is not None or self._mirror or self._of is not None
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

    def _crop_of(self, param: TransformationParameter) -> tuple[int, int] | None:
        """The height and width of the crop; None: there is none."""
        if param.crop_size:
            return param.crop_size, param.crop_size
        if bool(param.crop_h) != bool(param.crop_w):
            raise SpecError(
                f"{self._where}: expected crop_h and crop_w together, got {param.crop_h} and {param.crop_w}; set both "
                "or none"
            )
        return (param.crop_h, param.crop_w) if param.crop_h else None

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
        return (channels, *self._crop) if self._crop else (channels, height, width)

    def _check(self, picture: Shape, name: str) -> None:
        channels, height, width = picture
        if self._crop and (self._crop[0] > height or self._crop[1] > width):
            square = self._crop[0] == self._crop[1]
            what, size = ("crop_size", self._crop[0]) if square else ("crop_h × crop_w", dimensions(self._crop))
            raise DataError(
                f"{self._where}: {what} {size} is larger than {name}, which is {height} × {width} (height × "
                f"width); lower {what} or resize the pictures"
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

    def boxes(self, boxes: Boxes, picture: Shape, draws: Numbers) -> Boxes:
        """The boxes of a picture of that shape in what ``one`` makes of it: cropped as it is, and mirrored."""
        height, width = picture[1:]
        (corner,) = self._corners(picture, draws[None])
        part = self._crop or (height, width)
        start = np.array([corner[1] / width, corner[0] / height], np.float32)
        end = np.array([(corner[1] + part[1]) / width, (corner[0] + part[0]) / height], np.float32)
        seen = project(boxes, np.concatenate([start, end]), self._emit)
        if self._mirror and draws[0] % 2:
            left, right = seen[:, CORNERS.start].copy(), seen[:, CORNERS.start + 2].copy()
            seen[:, CORNERS.start], seen[:, CORNERS.start + 2] = 1 - right, 1 - left
            if seen.shape[1] > POLYGON.start:
                seen[:, POLYGON] = polygons.mirrored(seen[:, POLYGON])
        if self._of:
            scale = np.array([part[1] / self._of[1], part[0] / self._of[0]], np.float32)
            seen[:, CORNERS] *= np.tile(scale, 2)
            seen[:, POLYGON] *= np.tile(scale, 4)[: seen.shape[1] - POLYGON.start]
        return seen

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
        free_rows, free_columns = shape[-2] - self._crop[0], shape[-1] - self._crop[1]
        if not self._random_crop:
            return [(free_rows // 2, free_columns // 2)] * len(draws)
        return list(
            zip((draws[:, 1] % (free_rows + 1)).tolist(), (draws[:, 2] % (free_columns + 1)).tolist(), strict=True)
        )

    def _part(self, pixels: Pixels, top: int, left: int) -> Pixels:
        return pixels[..., top : top + self._crop[0], left : left + self._crop[1]] if self._crop else pixels

    def _scale_values(self, out: Floats) -> None:
        if self._values.size:
            np.subtract(out, self._values, out=out)
        if self._scale != 1:
            np.multiply(out, self._scale, out=out)
