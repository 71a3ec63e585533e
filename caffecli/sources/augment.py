"""The settings of ``transform_param`` that work on whole pictures, and the boxes in them, before Caffe's own.

In this order::

    distort_param     brightness, contrast, saturation, hue, the order of the channels, each with its probability
    expand_param      a larger canvas, the picture at a place of it, mean_value around
    batch_sampler     a part of the picture (AnnotatedData's, not transform_param's), or yolo_data_jitter
    resize_param      a new size: WARP, FIT_SMALL_SIZE or FIT_LARGE_SIZE_AND_PAD; of several the first, or as told
    noise_param       blur, equalized histograms and the like: always, ``prob`` is not looked at

They hold in both phases. Then ``sources.transformer`` crops, mirrors, subtracts the mean and scales.
``emit_constraint`` says which boxes stay wherever a part of the picture is cut or a canvas is put around it.

Source: SSD's ``data_transformer.cpp`` and ``im_transforms.cpp``; of several resize_param, eric612/MobileNet-YOLO's.
Differences: SSD encodes the picture as a JPEG of
quality 95 after distort_param, expand_param and the sampled crop, and decodes it again; here no pixel is lost so. It
distorts and resizes encoded pictures alone; here raw ones too. ``convert_to_lab`` gives Lab as numbers, which SSD
computes, and then reads as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import DataError, SpecError
from caffecli.formats import picture
from caffecli.formats.annotated import POLYGON, Boxes
from caffecli.proto.caffe_pb2 import (
    AnnotatedDataParameter,
    DistortionParameter,
    EmitConstraint,
    NoiseParameter,
    ResizeParameter,
    TransformationParameter,
)
from caffecli.sources import polygons
from caffecli.sources.base import Floats, Pixels
from caffecli.sources.boxes import CropSampler, Jitter, project

#: height × width (× channels), blue first: uint8, or float32
Image = NDArray[Any]
Bytes = NDArray[np.uint8]
Rng = np.random.Generator

NO_BOXES: Boxes = np.empty((0, 7), np.float32)


class Augmenter:
    """Applies the settings above. ``layer`` is the name for errors, ``annotated`` what AnnotatedData has of its own.

    Raises SpecError for settings that nothing can be drawn from.
    """

    def __init__(
        self, param: TransformationParameter, layer: str, annotated: AnnotatedDataParameter | None = None
    ) -> None:
        self._where = where = f"layer {layer!r}"
        self.emit = emit_constraint(param)
        self._distort = param.distort_param if param.HasField("distort_param") else None
        self._expand = param.expand_param if param.HasField("expand_param") else None
        self.resizes = [*([param.resize_param] if param.HasField("resize_param") else []), *param.resize_other]
        self._noise = param.noise_param if param.HasField("noise_param") else None
        annotated = annotated or AnnotatedDataParameter()
        self._sampler = CropSampler(list(annotated.batch_sampler), where)
        self._jitter = Jitter(annotated, where)
        self._fill = list(param.mean_value)
        if self._distort is not None:
            _check_distort(self._distort, where)
        if self._expand is not None and self._expand.max_expand_ratio <= 1:
            raise SpecError(
                f"{where}: expand_param: expected max_expand_ratio above 1, got {self._expand.max_expand_ratio:g}"
            )
        if self._expand is not None and param.HasField("mean_file"):
            raise SpecError(
                f"{where}: expand_param puts mean_value around the picture, and a mean_file is of one size: give "
                "mean_value in place of mean_file"
            )
        _check_sizes(self.resizes, where)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._sampler or self._jitter or self.resizes) or any(
            part is not None for part in (self._distort, self._expand, self._noise)
        )

    def draw_size(self, rng: Rng) -> int:
        """Which of several resize_param: each by its ``prob``."""
        if len(self.resizes) < 2:
            return 0
        ends = np.cumsum([resize.prob for resize in self.resizes])
        return int(np.searchsorted(ends, rng.random() * ends[-1], "right"))

    def record(
        self, picture: Pixels, name: str, rng: Rng, boxes: Boxes = NO_BOXES, size: int = 0
    ) -> tuple[Pixels, Boxes]:
        """``apply`` to a (channels, height, width) picture. Raises DataError, naming it ``name``."""
        image = picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
        try:
            image, boxes = self.apply(image, rng, boxes, size)
        except DataError as error:
            raise DataError(f"{self._where}: {name} {error}") from error
        return image.transpose(2, 0, 1) if image.ndim == 3 else image[None], boxes

    def apply(self, image: Image, rng: Rng, boxes: Boxes = NO_BOXES, size: int = 0) -> tuple[Image, Boxes]:
        """A picture and its boxes after all of it, with random numbers from ``rng``, and the resize_param ``size``.

        Raises DataError for a picture that a setting cannot work on; its text follows the picture's name.
        """
        if self._distort is not None:
            image = distort(image, self._distort, rng)
        if self._expand is not None and rng.random() <= self._expand.prob:
            image, boxes = self._expanded(image, boxes, self._expand.max_expand_ratio, rng)
        resized = self.resizes[size] if self.resizes else None
        window = None
        if self._sampler:
            window = self._sampler.draw(boxes, rng)
        elif self._jitter:
            pads = ResizeParameter.FIT_LARGE_SIZE_AND_PAD
            window = self._jitter.draw(rng, resized is not None and resized.resize_mode == pads)
        if window is not None:
            image, boxes = cut(image, window), project(boxes, window, self.emit)
        if resized is not None:
            boxes = resized_boxes(boxes, image.shape[:2], resized)
            image = resize(image, resized, rng)
        if self._noise is not None:
            image = noise(image, self._noise, rng)
        return image, boxes

    def _expanded(self, image: Image, boxes: Boxes, most: float, rng: Rng) -> tuple[Image, Boxes]:
        if most - 1 < 1e-2:  # as SSD has it
            return image, boxes
        height, width = image.shape[:2]
        ratio = np.float32(rng.uniform(1, most))
        rows, columns = int(height * ratio), int(width * ratio)
        top, left = int(rng.uniform(0, rows - height)), int(rng.uniform(0, columns - width))
        window = np.array([-left / width, -top / height, (columns - left) / width, (rows - top) / height], np.float32)
        canvas = expand(image, (rows, columns), (top, left), self._fill)
        return canvas, project(boxes, window, self.emit)


def _check_sizes(resizes: list[ResizeParameter], where: str) -> None:
    for resize in resizes:
        if not (resize.height and resize.width):
            raise SpecError(
                f"{where}: resize_param: expected height and width above 0, got {resize.height} and {resize.width}"
            )
    probs = [resize.prob for resize in resizes]
    if len(probs) > 1 and not (min(probs) >= 0 and abs(sum(probs) - 1) <= 0.01):
        raise SpecError(
            f"{where}: expected the prob of {len(probs)} resize_param to be 0 or more, and 1 together, got "
            f"{', '.join(f'{prob:g}' for prob in probs)}"
        )


def emit_constraint(param: TransformationParameter) -> EmitConstraint | None:
    """Which boxes stay; None: all that are seen."""
    return param.emit_constraint if param.HasField("emit_constraint") else None


# -- colours -----------------------------------------------------------------------------------------------------


def _check_distort(param: DistortionParameter, where: str) -> None:
    for name in ("brightness_delta", "hue_delta"):
        if getattr(param, name) < 0:
            raise SpecError(f"{where}: distort_param: expected {name} of at least 0, got {getattr(param, name):g}")
    for name in ("contrast", "saturation"):
        low, high = getattr(param, f"{name}_lower"), getattr(param, f"{name}_upper")
        if not 0 <= low <= high:
            raise SpecError(
                f"{where}: distort_param: expected 0 <= {name}_lower <= {name}_upper, got {low:g} and {high:g}"
            )


def distort(image: Image, param: DistortionParameter, rng: Rng) -> Image:
    """Change the colours of an 8-bit picture at random; contrast before saturation and hue, or after, evenly."""
    _of_bytes(image, "distort_param")

    def by_chance(change: Callable[[Image, float], Image], prob: float, low: float, high: float) -> None:
        nonlocal image
        if rng.random() < prob:
            image = change(image, rng.uniform(low, high))

    contrast_first = rng.random() > 0.5
    by_chance(brightness, param.brightness_prob, -param.brightness_delta, param.brightness_delta)
    if contrast_first:
        by_chance(contrast, param.contrast_prob, param.contrast_lower, param.contrast_upper)
    by_chance(saturation, param.saturation_prob, param.saturation_lower, param.saturation_upper)
    by_chance(hue, param.hue_prob, -param.hue_delta, param.hue_delta)
    if not contrast_first:
        by_chance(contrast, param.contrast_prob, param.contrast_lower, param.contrast_upper)
    if rng.random() < param.random_order_prob:
        _of_color(image, "distort_param's random_order_prob")
        image = image[..., rng.permutation(3)]
    return np.ascontiguousarray(image)


def brightness(image: Image, delta: float) -> Image:
    """Each number + delta, rounded, between 0 and 255."""
    return _look_up(image, _line(1, delta))


def contrast(image: Image, factor: float) -> Image:
    """Each number * factor, rounded, up to 255; not where the factor is 1 within a thousandth."""
    return _look_up(image, _line(factor, 0)) if abs(np.float32(factor) - 1) > 1e-3 else image


def saturation(image: Image, factor: float) -> Image:
    """The saturation * factor, up to 255, of OpenCV's HSV."""
    return _in_hsv(image, 1, _line(factor, 0), "saturation")


def hue(image: Image, delta: float) -> Image:
    """The hue + delta, where OpenCV's HSV has 180 for the whole circle; it does not go around below 0."""
    return _in_hsv(image, 0, _line(1, delta), "hue") if delta else image


def _in_hsv(image: Image, channel: int, line: Bytes, what: str) -> Image:
    import cv2

    _of_color(image, f"distort_param's {what}")
    table = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    table[..., channel] = line
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table), cv2.COLOR_HSV2BGR)


def _line(factor: float, delta: float) -> Bytes:
    """What each of the 256 numbers becomes, as OpenCV's convertTo computes it."""
    values = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(delta)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _look_up(image: Image, table: Bytes) -> Image:
    import cv2

    return cv2.LUT(image, table)


def _of_bytes(image: Image, what: str) -> None:
    if image.dtype != np.uint8:
        raise DataError(f"has {image.dtype} numbers; {what} works on 8-bit pictures")


def _of_color(image: Image, what: str) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        channels = image.shape[2] if image.ndim == 3 else 1
        raise DataError(
            f"has {channels} channel{'s' if channels > 1 else ''}; {what} works on three: set force_color, or leave "
            "it out"
        )


# -- places and sizes --------------------------------------------------------------------------------------------


def expand(image: Image, size: tuple[int, int], corner: tuple[int, int], fill: list[float]) -> Image:
    """The picture with its top left corner at ``corner`` of a canvas of ``size`` (height, width) of colour ``fill``.

    ``fill``: nothing for black, one number, or one for each channel.
    """
    channels = image.shape[2:]
    if len(fill) not in (0, 1, *channels):
        raise DataError(
            f"has {channels[0] if channels else 1} channel(s), and there are {len(fill)} values of mean_value"
        )
    (top, left), (height, width) = corner, image.shape[:2]
    down, across = size[0] - height - top, size[1] - width - left
    return _bordered(image, (top, down, left, across), fill or [0.0])


def _bordered(
    image: Image, border: tuple[int, int, int, int], fill: list[float], mode: int = ResizeParameter.CONSTANT
) -> Image:
    """The picture with so many pixels more above, below, to the left and to the right, by a ``pad_mode``."""
    import cv2

    by: dict[int, int] = {
        ResizeParameter.CONSTANT: cv2.BORDER_CONSTANT,
        ResizeParameter.MIRRORED: cv2.BORDER_REFLECT_101,
        ResizeParameter.REPEAT_NEAREST: cv2.BORDER_REPLICATE,
    }
    return cv2.copyMakeBorder(image, *border, by[mode], value=fill * 4 if len(fill) == 1 else fill)


def cut(image: Image, window: Floats) -> Image:
    """The part of the picture in a window that lies within it; at least a pixel."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = window.clip(0, 1) * np.array([width, height] * 2, np.float32)
    left, top = min(int(x1), width - 1), min(int(y1), height - 1)
    return image[top : top + max(1, int(y2 - y1)), left : left + max(1, int(x2 - x1))]


def resize(image: Image, param: ResizeParameter, rng: Rng) -> Image:
    """The picture in ``param``'s size; of several ``interp_mode`` one is drawn for it, without any it is LINEAR.

    FIT_SMALL_SIZE gives the shorter side its size and keeps the form, so that the longer one is larger; with
    FIT_LARGE_SIZE_AND_PAD all fits in, evenly padded (by ``pad_mode``: with ``pad_value`` (0), or mirrored, or with the
    pixels at the edges).
    """
    modes = list(param.interp_mode)
    mode = modes[rng.integers(len(modes))] if len(modes) > 1 else modes[0] if modes else ResizeParameter.LINEAR
    inner = _inner_size(image.shape[:2], param)
    image = scale(image, inner, mode)
    return _padded(image, param) if param.resize_mode == ResizeParameter.FIT_LARGE_SIZE_AND_PAD else image


def _inner_size(size: tuple[int, ...], param: ResizeParameter) -> tuple[int, int]:
    """The height and width that a picture of that size is scaled to, without what is padded."""
    height, width = param.height, param.width
    if param.resize_mode != ResizeParameter.WARP:
        aspect, wanted = np.float32(size[1]) / np.float32(size[0]), np.float32(width) / np.float32(height)
        pads = param.resize_mode == ResizeParameter.FIT_LARGE_SIZE_AND_PAD
        if aspect > wanted if pads else aspect < wanted:
            height = max(1, int(np.float32(width) / aspect))
        else:
            width = max(1, int(aspect * np.float32(height)))
    return height, width


def scale(image: Image, size: tuple[int, int], mode: int) -> Image:
    """The picture in another size (height, width), by an ``interp_mode``."""
    import cv2

    by: dict[int, int] = {
        ResizeParameter.LINEAR: cv2.INTER_LINEAR,
        ResizeParameter.AREA: cv2.INTER_AREA,
        ResizeParameter.NEAREST: cv2.INTER_NEAREST,
        ResizeParameter.CUBIC: cv2.INTER_CUBIC,
        ResizeParameter.LANCZOS4: cv2.INTER_LANCZOS4,
    }
    return cv2.resize(image, size[::-1], interpolation=by[mode])


def _padded(image: Image, param: ResizeParameter) -> Image:
    channels = image.shape[2] if image.ndim == 3 else 1
    values = list(param.pad_value) or [0.0]
    if len(values) not in (1, channels):
        raise DataError(
            f"has {channels} channel(s); resize_param: expected pad_value once, or once for each, got {len(values)}"
        )
    down, across = param.height - image.shape[0], param.width - image.shape[1]
    top, left = down // 2, across // 2
    return _bordered(image, (top, down - top, left, across - left), values, param.pad_mode)


def resized_boxes(boxes: Boxes, size: tuple[int, ...], param: ResizeParameter) -> Boxes:
    """The boxes of a picture of that size (height, width) in the one that ``resize`` makes of it.

    By way of pixels, in float32, as SSD computes it: where two priors overlap a box alike, the last bit decides.
    """
    if not len(boxes):
        return boxes
    old, wanted = np.array([size[1], size[0]], np.float32), np.array([param.width, param.height], np.float32)
    aspect, pads = old[0] / old[1], param.resize_mode == ResizeParameter.FIT_LARGE_SIZE_AND_PAD
    inner = wanted.copy()  # without what is padded
    if param.resize_mode != ResizeParameter.WARP:
        flat = aspect > wanted[0] / wanted[1] if pads else aspect < wanted[0] / wanted[1]
        inner = np.array([wanted[0], wanted[0] / aspect] if flat else [aspect * wanted[1], wanted[1]], np.float32)
    before = (wanted - inner) / 2 if pads else np.zeros(2, np.float32)
    whole = wanted if pads else inner
    moved = boxes.copy()
    low, high = (boxes[:, corner] * old * inner / old for corner in (slice(2, 4), slice(4, 6)))
    moved[:, 2:4] = (before + np.maximum(low, 0)) / whole
    moved[:, 4:6] = (before + np.minimum(high, whole)) / whole
    if boxes.shape[1] > POLYGON.start:
        points = polygons.from_the_top_left(boxes[:, POLYGON], old).reshape(-1, 4, 2)
        moved[:, POLYGON] = ((before + points * inner) / whole).reshape(-1, 8)
    return moved


# -- noise -------------------------------------------------------------------------------------------------------


def noise(image: Image, param: NoiseParameter, rng: Rng) -> Image:
    """All that ``noise_param`` names, in SSD's order, on an 8-bit picture."""
    import cv2

    _of_bytes(image, "noise_param")
    image = np.ascontiguousarray(image)
    for name in ("decolorize", "convert_to_hsv", "convert_to_lab"):
        if getattr(param, name):
            _of_color(image, f"noise_param's {name}")
    if param.decolorize:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if param.gauss_blur:
        image = cv2.GaussianBlur(image, (7, 7), 1.5)
    if param.hist_eq:
        image = _on_luminance(image, cv2.equalizeHist)
    if param.clahe:
        image = _on_luminance(image, cv2.createCLAHE(4).apply)
    if param.jpeg > 0:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(param.jpeg)])[1]
        image = picture.decode(encoded.tobytes(), image.ndim == 3)
    if param.erode:
        image = cv2.erode(image, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    if param.posterize:
        numbers = np.arange(256)
        image = cv2.LUT(image, (numbers // 64 * 64 + 32).astype(np.uint8))
    if param.inverse:
        image = cv2.bitwise_not(image)
    if param.saltpepper:
        image = _salted(image, param, rng)
    if param.convert_to_hsv:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if param.convert_to_lab:
        image = cv2.cvtColor(image.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_BGR2Lab)
    return image


def _on_luminance(image: Image, change: Callable[[Image], Image]) -> Image:
    """The picture with its luminance (of YCrCb) changed; a gray one itself."""
    import cv2

    if image.ndim == 2 or image.shape[2] == 1:
        return change(image)
    _of_color(image, "noise_param's hist_eq and clahe")
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    planes[..., 0] = change(np.ascontiguousarray(planes[..., 0]))
    return cv2.cvtColor(planes, cv2.COLOR_YCrCb2BGR)


def _salted(image: Image, param: NoiseParameter, rng: Rng) -> Image:
    """The picture with ``value`` at a ``fraction`` of its pixels, drawn evenly; one may be drawn again."""
    salt = param.saltpepper_param
    channels = image.shape[2] if image.ndim == 3 else 1
    if len(salt.value) not in (1, channels):
        raise DataError(
            f"has {channels} channel(s); saltpepper_param: expected value once, or once for each, got {len(salt.value)}"
        )
    count = int(np.float32(salt.fraction) * np.float32(image.shape[1]) * np.float32(image.shape[0]))
    image = image.copy()
    rows, columns = rng.integers(image.shape[0], size=count), rng.integers(image.shape[1], size=count)
    values = np.array(salt.value, np.float32).astype(np.int64).astype(np.uint8)
    image[rows, columns] = values if image.ndim == 3 else values[0]
    return image
