"""Pictures and records for a net: ``Transformer``, ``load_image``, ``resize_image``, ``oversample``;
arrays to protos and back.

Images are float32 (height, width, channels) arrays, RGB in [0, 1]; a net wants (channels, height, width), for most
published nets BGR in [0, 255] less a mean, which ``Transformer`` makes of them. Numbers are those of pycaffe 1.0 on
scikit-image 0.19.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caffe.errors import URLError
from caffe.resize import ArrayShapeError, resize_cells, zoom_points
from caffecli import logs
from caffecli.errors import CaffeError, DataError
from caffecli.formats import atomic, picture
from caffecli.formats import datum as datums
from caffecli.proto import caffe_pb2

with contextlib.suppress(ImportError):
    importlib.import_module("PIL.Image")  # pycaffe's own imports did: programs use it after `import PIL` alone

Array = NDArray[Any]

#: Whether ``resize_image`` smooths an image of one or three channels before it shrinks it, as scikit-image does since
#: 0.15. False gives the numbers of older versions, with which Caffe's users worked.
ANTI_ALIASING = True


class ByteStream(Protocol):
    """An open file, an upload, a pipe."""

    def read(self, size: int, /) -> bytes: ...


#: what a URL begins with; as in scikit-image, where ftp: went too
_SCHEMES = ("http://", "https://", "file://")
#: bytes of a stream or a URL
_MOST = 2**28

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # of red, green, blue: ITU-R BT.709


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Array:
    """The data (or the diff) of a BlobProto as a float64 array of its shape, four-dimensional in its old form.

    Raises ValueError when the numbers do not fill the shape.
    """
    data = (blob.diff or blob.double_diff) if return_diff else (blob.data or blob.double_data)
    old = any(blob.HasField(field) for field in ("num", "channels", "height", "width"))
    shape = (blob.num, blob.channels, blob.height, blob.width) if old else tuple(blob.shape.dim)
    array = np.array(data, np.float64)
    if array.size != np.prod(shape, dtype=np.int64):
        raise ArrayShapeError(
            f"the BlobProto has shape {shape}, but {array.size} numbers; give it a shape that they fill"
        )
    return array.reshape(shape)


def array_to_blobproto(arr: Array, diff: Array | None = None) -> Any:
    """A BlobProto of ``arr``'s shape and numbers, and of those of ``diff``."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(np.asarray(arr, np.float64).ravel())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float64).ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[Array]) -> bytes:
    """The arrays as a serialized BlobProtoVector."""
    return caffe_pb2.BlobProtoVector(blobs=[array_to_blobproto(arr) for arr in arraylist]).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:
    """The arrays in a serialized BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: Array, label: int | None = None) -> Any:
    """A Datum of a (channels, height, width) array: bytes for uint8, floats for any other type. Raises ValueError."""
    if arr.ndim != 3:
        raise ArrayShapeError(f"Incorrect array shape. A datum takes (channels, height, width), not {arr.shape}")
    return datums.from_array(arr, None if label is None else int(label))


def datum_to_array(datum: Any) -> Array:
    """A Datum's (channels, height, width) array: uint8 of its bytes, or of the picture file in it;
    float64 of its floats.
    """
    if datum.encoded:
        return datums.to_array(datum)
    array = np.frombuffer(datum.data, np.uint8).copy() if datum.data else np.array(datum.float_data, np.float64)
    shape = (datum.channels, datum.height, datum.width)
    if array.size != np.prod(shape):
        raise ArrayShapeError(f"the Datum has shape {shape}, but {array.size} numbers; the record is damaged")
    return array.reshape(shape)


class Transformer:
    """Makes images fit for a net's inputs, and its blobs images again.

    ``inputs``: name of an input -> its shape (batch, channels, height, width), as in
    ``{"data": net.blobs["data"].data.shape}``. What is not set is not done. ``preprocess``: resize, transpose, swap
    channels, multiply by the raw scale, subtract the mean, multiply by the input scale. An unknown input raises an
    Exception.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, Any] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, Any] = {}
        #: the inputs whose mean was given as before August 2014, when the input scale came before the mean
        self._scaled_first: set[str] = set()
        self._told: set[str] = set()

    def preprocess(self, in_: str, data: Array) -> Array:
        """The (H, W, K) image ``data``, which stays as it is, as a float32 (K, h, w) array for the input ``in_``."""
        shape = self._shape(in_)
        caffe_in = np.array(data, np.float32)
        if caffe_in.shape[:2] != shape[2:]:
            caffe_in = resize_image(caffe_in, shape[2:])
        if in_ in self.transpose:
            caffe_in = caffe_in.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            caffe_in = caffe_in[list(self.channel_swap[in_]), :, :]
        raw_scale, input_scale = self._scales(in_)
        if raw_scale is not None:
            caffe_in *= raw_scale
        if in_ in self.mean:
            caffe_in -= self.mean[in_]
        if input_scale is not None:
            caffe_in *= input_scale
        return caffe_in

    def deprocess(self, in_: str, data: Array) -> Array:
        """The image from which ``preprocess`` made ``data``, at the net's input size."""
        self._shape(in_)
        image = data.copy().squeeze()
        if image.ndim < 3 <= data.ndim and (in_ in self.transpose or in_ in self.channel_swap):
            image = data.copy().reshape(data.shape[-3:])  # a single channel's axis may be gone, after squeeze()
        raw_scale, input_scale = self._scales(in_)
        if input_scale is not None:
            image /= input_scale
        if in_ in self.mean:
            image += self.mean[in_]
        if raw_scale is not None:
            image /= raw_scale
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_]), :, :]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of the image's axes that the net wants: (2, 0, 1) makes (C, H, W) of (H, W, C)."""
        if len(order) != len(self._shape(in_)) - 1:
            raise ArrayShapeError(
                "Transpose order needs to have the same number of dimensions as the input: "
                f"input {in_!r} has {len(self.inputs[in_]) - 1} besides the batch, the order {tuple(order)} has "
                f"{len(order)}"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of the channels, the first axis once transposed: (2, 1, 0) makes BGR of RGB."""
        if len(order) != self._shape(in_)[1]:
            raise ArrayShapeError(
                "Channel swap needs to have the same number of dimensions as the input channels: "
                f"input {in_!r} has {self.inputs[in_][1]}, the order {tuple(order)} has {len(order)}"
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: Any) -> None:
        """The factor before the mean is subtracted: 255 for nets that were trained on bytes."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """What to subtract: (C,) for each channel, or (C, H, W), or (H, W) for one channel,
        resized where it does not fit.

        A mean of (1, C, H, W), as ``compute_image_mean`` writes it, loses its first dimension, and a warning says so.
        Raises ValueError for other shapes.
        """
        shape = self._shape(in_)
        if mean.ndim == 4 and mean.shape[0] == 1:
            logs.warning(
                "io.py:256", f"The mean of input {in_!r} has shape {mean.shape}; taking it as {mean.shape[1:]}"
            )
            mean = mean[0]
        if mean.ndim == 1:
            if mean.shape[0] != shape[1]:
                raise ArrayShapeError(
                    f"Mean channels incompatible with input. Input {in_!r} has {shape[1]}, the mean {mean.shape[0]}"
                )
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            if mean.ndim not in (2, 3):
                raise ArrayShapeError(f"Mean shape invalid. Expected (C,), (H, W) or (C, H, W), got {mean.shape}")
            if (1, *mean.shape)[-3:] != shape[1:]:
                if mean.ndim == 3 and mean.shape[0] not in (1, shape[1]):
                    raise ArrayShapeError(
                        f"Mean shape invalid. Input {in_!r} has {shape[1]} channels, the mean {mean.shape[0]}"
                    )
                mean = _resized_mean(mean.reshape(-1, *mean.shape[-2:]), shape[2:])
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: Any) -> None:
        """The factor after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _scales(self, in_: str) -> tuple[Any, Any]:
        """The factors before and after the mean is subtracted, None for none.

        Until August 2014 there was no raw scale, the input scale came before the mean, and the mean was given as a
        file's name. So it is meant where an input scale comes with such a mean and without a raw scale.
        """
        raw_scale, input_scale = self.raw_scale.get(in_), self.input_scale.get(in_)
        if in_ not in self._scaled_first or raw_scale is not None or input_scale is None:
            return raw_scale, input_scale
        if in_ not in self._told:
            self._told.add(in_)
            logs.warning(
                "io.py:187",
                f"Input {in_!r} has an input_scale of {input_scale:g}, the file of a mean and no raw_scale: "
                "multiplying before the mean is subtracted, as until August 2014; call it raw_scale",
            )
        return input_scale, None

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise CaffeError(f"{in_} is not one of the net inputs: {', '.join(self.inputs)}")
        return tuple(self.inputs[in_])


def _resized_mean(mean: Array, dims: Sequence[int]) -> Array:
    low, high = float(mean.min()), float(mean.max())
    if low == high:
        return np.full((len(mean), *dims), low, np.float32)
    unit = (mean - low) / (high - low)
    return resize_image(unit.transpose(1, 2, 0), dims).transpose(2, 0, 1) * (high - low) + low


def load_image(filename: str | os.PathLike[str] | ByteStream, color: bool = True) -> Array:
    """The picture in a file as float32 in [0, 1]: (H, W, 3), RGB, its alpha dropped;
    (H, W, 1), luminance, unless ``color``.

    ``filename``: also an open file, or another stream of bytes, or a URL that begins with http:, https: or file:.
    A JPEG stands upright, as its EXIF data say. Raises OSError for a file or URL that cannot be read, DataError for no
    picture, and for a stream or URL of more than 256 MiB.
    """
    data, name = _picture_bytes(filename)
    try:
        pixels: Array = picture.decode_as_stored(data)
    except DataError as error:
        raise DataError(f"{name} ({len(data)} bytes) {error}") from error
    if pixels.dtype.kind in "iu":
        pixels = pixels / np.iinfo(pixels.dtype).max
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
        return np.array(np.tile(pixels, (1, 1, 3)) if color else pixels, np.float32)
    pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    if color:
        return np.array(pixels[:, :, :3], np.float32)
    if pixels.shape[2] == 4:  # on white
        alpha = pixels[:, :, 3:]
        pixels = pixels[:, :, :3] * alpha + (1 - alpha)
    return np.array((pixels @ _LUMINANCE)[:, :, np.newaxis], np.float32)


def _picture_bytes(source: str | os.PathLike[str] | ByteStream) -> tuple[bytes, str]:
    """What a file, a stream or a URL holds, and what to call it."""
    if isinstance(source, str) and source.startswith(_SCHEMES):
        from http.client import HTTPException
        from urllib.request import Request, urlopen

        try:
            with urlopen(Request(source, headers={"User-Agent": "caffecli"}), timeout=60) as answer:
                return _read(answer, repr(source)), repr(source)
        except (OSError, ValueError, HTTPException) as error:
            code = getattr(error, "code", None)
            reason = " ".join(str(getattr(error, "reason", error)).split())
            raise URLError(f"{source!r} cannot be read: {f'HTTP {code}, ' if code else ''}{reason}") from error
    if isinstance(source, str | os.PathLike):
        return atomic.read_file(source), repr(os.fspath(source))
    name = getattr(source, "name", None)
    called = repr(name) if isinstance(name, str) else "the stream"
    with contextlib.suppress(AttributeError, OSError):  # a pipe cannot
        source.seek(0)  # type: ignore[attr-defined]  # so that what has just been written into it can be read
    return _read(source, called), called


def _read(stream: ByteStream, name: str) -> bytes:
    """All bytes of a stream."""
    if not hasattr(stream, "read"):
        raise TypeError(f"load_image takes a file's name, a URL or a stream of bytes, not {type(stream).__name__}")
    data = bytearray()
    while part := stream.read(_MOST + 1 - len(data)):
        if not isinstance(part, bytes):
            raise DataError(f'{name} gives {type(part).__name__}, not bytes; open it with mode "rb"')
        data += part
        if len(data) > _MOST:
            raise DataError(f"{name} has more than {_MOST} bytes; save it to a file to read it all the same")
    return bytes(data)


def resize_image(im: Array, new_dims: Sequence[int] | Array, interp_order: int = 1) -> Array:
    """The (H, W, K) image ``im`` at ``new_dims`` = (height, width), float32, by a spline of ``interp_order``,
    1 for linear.

    With one or three channels as ``skimage.transform.resize(mode="constant")``, whose borders fade towards the image's
    lowest value when it grows; with any other number as ``scipy.ndimage.zoom``. See ``caffe.resize``.
    """
    height, width = (int(dim) for dim in new_dims)
    if im.shape[-1] not in (1, 3):
        zoomed = zoom_points(_floating(im), (height, width), interp_order)
        return (np.floor(zoomed + 0.5) if im.dtype.kind in "iu" else zoomed).astype(np.float32)
    low, high = float(im.min()), float(im.max())
    if not high > low:
        return np.full((height, width, im.shape[-1]), low, np.float32)
    unit = _floating((im - low) / (high - low))
    resized: Array = resize_cells(unit, (height, width), interp_order, smooth=ANTI_ALIASING) * (high - low) + low
    return resized.astype(np.float32)


def _floating(array: Array) -> Array:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def oversample(images: Iterable[Array], crop_dims: Sequence[int] | Array) -> Array:
    """Ten crops of each of N (H, W, K) images of one size: the four corners, the centre, and the five mirrored.

    Returns float32 (10 N, height, width, K), ``crop_dims`` = (height, width).
    """
    images = list(images)
    height, width = (int(dim) for dim in crop_dims)
    if not images or images[0].shape[0] < height or images[0].shape[1] < width:
        came = f"the images have {images[0].shape[0]} x {images[0].shape[1]}" if images else "there are none"
        raise ArrayShapeError(f"oversample takes crops of {height} x {width} out of images at least as large; {came}")
    bottom, right = images[0].shape[0] - height, images[0].shape[1] - width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = np.empty((len(images), 10, height, width, images[0].shape[2]), np.float32)
    for image, ten in zip(images, crops, strict=True):
        for (y, x), crop in zip(corners, ten, strict=False):
            crop[...] = image[y : y + height, x : x + width]
        ten[5:] = ten[:5, :, ::-1]
    return crops.reshape(-1, *crops.shape[2:])


__all__ = [
    "ANTI_ALIASING", "ArrayShapeError", "Transformer", "array_to_blobproto", "array_to_datum",
        "arraylist_to_blobprotovector_str",
    "blobproto_to_array", "blobprotovector_str_to_arraylist", "datum_to_array", "load_image", "oversample",
        "resize_image",
]  # fmt: skip
