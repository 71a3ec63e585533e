"""Boxes drawn into pictures, and videos of pictures."""

from __future__ import annotations

import os
import re
import unicodedata
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import DataError
from caffecli.formats.atomic import cannot_write

Pixels = NDArray[np.uint8]

#: colours of boxes, blue first, in turn by class
_COLORS = ((66, 66, 230), (60, 180, 75), (200, 130, 0), (48, 130, 245), (180, 30, 145), (180, 180, 0), (240, 50, 240))


def with_boxes(frame: Pixels, boxes: Iterable[tuple[Sequence[float], str, int]]) -> Pixels:
    """A copy of a picture, blue first, with boxes drawn in, and words above them; the last on top.

    A box is (xmin, ymin, xmax, ymax) in pixels, its words, and the number of its class, which has a colour.
    """
    import cv2

    drawn = frame.copy()
    thick = max(1, round(min(frame.shape[:2]) / 200))
    size = max(0.4, min(frame.shape[:2]) / 700)
    for corners, words, label in boxes:
        words = _ascii(words, label)
        color = _COLORS[label % len(_COLORS)]
        left, top, right, bottom = (round(value) for value in corners)
        cv2.rectangle(drawn, (left, top), (right, bottom), color, thick)
        (wide, high), below = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        base = top - below if top > high + below else top + high + below
        cv2.rectangle(drawn, (left, base - high - below // 2), (left + wide, base + below), color, -1)
        white = (255, 255, 255)
        cv2.putText(drawn, words, (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, white, 1, cv2.LINE_AA)
    return drawn


def _ascii(words: str, label: int) -> str:
    """Words in the letters that OpenCV draws: accents are taken off, and the class's number is for other letters."""
    plain = unicodedata.normalize("NFKD", words.replace("ß", "ss"))
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return re.sub(r"[^ -~]+", str(label), plain)


class VideoFile:
    """A video, written picture by picture, all of one size; it is complete under its name when it is closed."""

    def __init__(self, path: Path, code: str, rate: float) -> None:
        """``code``: of four letters, what encodes it; ``rate``: pictures in a second. The first picture opens it."""
        self.path, self._code, self._rate = path, code, rate
        self._whole = path.absolute()
        self._hidden = self._whole.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        self._writer: Any = None
        self._shape: tuple[int, ...] = ()
        self._at_exit: Any = None

    def add(self, frame: Pixels) -> None:
        """Raises DataError where it cannot be written, or the picture is of another size."""
        import cv2

        if self._writer is None:
            height, width = self._shape = frame.shape[:2]
            writer = cv2.VideoWriter(
                str(self._hidden), cv2.VideoWriter.fourcc(*self._code), self._rate, (width, height)
            )
            if not writer.isOpened():
                self._hidden.unlink(missing_ok=True)
                raise DataError(f"cannot write the video {str(self.path)!r}; check the folder, and the ending (.avi)")
            self._writer = writer
            self._at_exit = weakref.finalize(self, _complete, writer, self._hidden, self._whole)
        if frame.shape[:2] != self._shape:
            sizes = [f"{height} x {width}" for height, width in (frame.shape[:2], self._shape)]
            raise DataError(f"the video {str(self.path)!r} is of pictures of {sizes[1]}, one of {sizes[0]} came")
        self._writer.write(frame)

    def close(self, keep: bool = True) -> None:
        """``keep``: False leaves what lay under its name before."""
        if self._writer is None:
            return
        if keep:
            try:
                self._at_exit()
            except OSError as error:
                raise cannot_write(self.path, error) from error
        else:
            self._at_exit.detach()
            self._writer.release()
            self._hidden.unlink(missing_ok=True)
        self._writer = None


def _complete(writer: Any, hidden: Path, path: Path) -> None:
    writer.release()
    hidden.replace(path)
