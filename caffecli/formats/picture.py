"""Picture files as OpenCV reads them: the one place where pictures are decoded."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli import host
from caffecli.errors import DataError
from caffecli.formats.foreign import WEB_PAGES

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"
_MAGICS = (
    (_JPEG, "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WebP"),
)


def decode(data: bytes, color: bool | None = True) -> NDArray[np.uint8]:
    """The pixels in the bytes of a picture file: height × width (× channels), blue first, 8 bits a channel.

    ``color``: True gives three channels, False one, None those that the picture has. Of 16 bits the upper 8 are kept,
    as OpenCV does it. A JPEG that lacks its end is read as far as it goes, the rest is grey.

    Raises DataError for what is no whole picture, one of more than ``host.PIXELS`` pixels, or not of whole numbers. Its
    text says what the file is, to follow its name: "is empty", "is a broken PNG".
    """
    cv2 = _opencv()
    image = _decode(
        data, cv2.IMREAD_UNCHANGED if color is None else cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"has {image.dtype} numbers, expected 8 bits a channel; convert it")
    return image


def decode_as_stored(data: bytes) -> NDArray[Any]:
    """``decode`` with the numbers and the channels of the file; a JPEG stands upright, as its EXIF data say."""
    cv2 = _opencv()
    upright = data.startswith(_JPEG)  # it has no alpha, which this flag drops
    return _decode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if upright else cv2.IMREAD_UNCHANGED)


def _decode(data: bytes, flag: int) -> NDArray[Any]:
    cv2 = _opencv()
    if data.startswith(_PNG) and _claims_too_much(data):
        raise DataError(_what(data))
    image: NDArray[Any] | None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
        if image is None and data.startswith(_JPEG):
            # OpenCV's reader of files goes on at the end of one as if this mark stood there; the one of bytes gives up
            image = cv2.imdecode(np.frombuffer(data + _END_OF_JPEG, np.uint8), flag)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise DataError(
                f"has more pixels than the bound, {host.pixels()}; set {host.PIXELS_VARIABLE} to a larger number if it "
                "is meant to be so large"
            ) from error
        image = None
    except MemoryError as error:
        raise DataError("does not fit into memory; make it smaller") from error
    if image is None:
        raise DataError(_what(data))
    return image


def _claims_too_much(data: bytes) -> bool:
    """Whether a part of a PNG says that it is longer than all the file, for which OpenCV would take memory first."""
    at = len(_PNG)
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if size > len(data):
            return True
        at += 12 + size  # the length, the part's name, the part, its checksum
    return False


def _opencv() -> Any:
    host.bound_pictures()
    import cv2

    return cv2


def _what(data: bytes) -> str:
    """What bytes are that do not decode."""
    if not data:
        return "is empty"
    if data[:512].lstrip().lower().startswith(WEB_PAGES):
        return "is a web page, saved instead of a picture; download it again"
    kind = next((name for magic, name in _MAGICS if data.startswith(magic)), None)
    return "is no picture that OpenCV reads" if kind is None else f"is a broken {kind}"
