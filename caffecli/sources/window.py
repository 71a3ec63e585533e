"""The ``WindowData`` layer's records: windows of pictures, some on objects and some beside them, as R-CNN samples them.

A window file names the pictures, each with its windows and how much these overlap an object::

    # 0                            a new picture, and its number
    pictures/cat.jpg
    3                              channels
    375                            height
    500                            width
    2                              how many windows follow
    8 1.0 23 40 210 300            class, overlap, x1, y1, x2, y2: the last column and row belong to the window
    8 0.31 0 0 99 120
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import picture
from caffecli.formats.atomic import cannot_read, read_bytes, read_file
from caffecli.formats.foreign import describe
from caffecli.formats.list_file import refuse_utf16, why_not_there
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.augment import Augmenter
from caffecli.sources.base import Buffers, Floats, Pixels, Workers
from caffecli.sources.records import NumberedSource
from caffecli.sources.transformer import Transformer
from caffecli.wording import dimensions, does_not_exist

#: rows of (picture, class, x1, y1, x2, y2)
Windows = NDArray[np.int32]
#: rows of (class, overlap, x1, y1, x2, y2)
Table = NDArray[np.float64]

_ROW = re.compile(r"[+-]?\d+\s+[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(\s+[+-]?\d+){4}")


class Extent(NamedTuple):
    """Along one axis of a crop: ``before`` zeros, the picture's pixels ``low`` … ``high`` resized to ``size``,
    ``after`` zeros.
    """

    low: int
    high: int
    size: int
    before: int
    after: int


def extent(low: int, high: int, half: np.float32, limit: int, crop: int, pad: int) -> Extent:
    """Which pixels fill a crop: the window ``low`` … ``high``, made 2 ``half`` wide about its middle, with its context.

    The context becomes ``pad`` pixels on each side; what lies outside of the picture's 0 … ``limit`` - 1 is cut off and
    left empty. In float32, rounded as Caffe does.
    """
    middle = np.float32(low) + np.float32(high - low + 1) / np.float32(2)
    reach = half * (np.float32(crop) / np.float32(crop - 2 * pad))
    low, high = _round(middle - reach), _round(middle + reach)
    scale = np.float32(crop) / np.float32(high - low + 1)
    before, after = max(0, -low), max(0, high - limit + 1)
    low, high = low + before, high - after
    sizes = [_round(np.float32(size) * scale) for size in (high - low + 1, before, after)]
    return Extent(low, high, *sizes)


def _round(value: np.float32) -> int:
    """To the nearest, halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


class WindowSource(NumberedSource):
    """Each batch has ``batch_size`` · ``fg_fraction`` windows, rounded down, that overlap an object by ``fg_threshold``
    or more, after others that do so by less than ``bg_threshold`` and get the label 0; any of either with equal chance,
    again and again.

    Raises SpecError for settings that are missing or wrong, FormatError for a window file that cannot be read,
    DataError for one with mistakes, and for pictures and windows that cannot be used.
    """

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        self._param = param.window_data_param
        super().__init__(param, self._param.batch_size, seed, shard)
        self._crop = param.transform_param.crop_size
        self._mirror = param.transform_param.mirror
        self._check_settings(param)
        self._pad = self._param.context_pad
        self._square = self._param.crop_mode == "square"
        self._scale = np.float32(self._param.scale)
        self._from_objects = int(np.float32(self._batch_size) * np.float32(self._param.fg_fraction))
        self._shape = (3, self._crop, self._crop)
        self.shapes = ((self._batch_size, *self._shape), (self._batch_size,))
        self._mean = self._read_mean(Transformer(param.transform_param, phase, param.name))
        self._log_settings()
        self._paths: list[str] = []
        self._foreground, self._background = self._read_windows()
        logs.info("window_data_layer.cpp:165", f"Amount of context padding: {self._pad}")
        logs.info("window_data_layer.cpp:168", f"Crop mode: {self._param.crop_mode}")
        self._files: dict[str, bytes] = {}  # the files' bytes, with cache_images
        self._buffers = Buffers()
        self._workers = Workers()

    # -- before the first batch ------------------------------------------------------------------------------------

    def _check_settings(self, param: LayerParameter) -> None:
        settings = self._param
        if not settings.source:
            raise SpecError(f'{self.where}: window_data_param names no window file; set source: "windows.txt"')
        if not self._crop:
            raise SpecError(
                f"{self.where}: WindowData needs transform_param {{ crop_size: ... }}, the size of its windows"
            )
        if not 0 <= settings.fg_fraction <= 1:
            raise SpecError(f"{self.where}: expected fg_fraction between 0 and 1, got {settings.fg_fraction:g}")
        if settings.crop_mode not in ("warp", "square"):
            raise SpecError(f"{self.where}: expected crop_mode 'warp' or 'square', got {settings.crop_mode!r}")
        if 2 * settings.context_pad >= self._crop:
            raise SpecError(
                f"{self.where}: context_pad {settings.context_pad} on both sides fills crop_size {self._crop}; lower it"
            )
        if Augmenter(param.transform_param, param.name):
            logs.warning(
                "window_data_layer.cpp:237", f"{param.name}: WindowData reads none of SSD's settings in transform_param"
            )
        if param.transform_param.scale != 1:
            logs.warning(
                "window_data_layer.cpp:237", f"{param.name}: WindowData scales by window_data_param's scale alone"
            )

    def _read_mean(self, transformer: Transformer) -> Floats | None:
        """What is subtracted, for each place of a window."""
        mean = transformer.mean
        if mean is None:
            return None
        if not transformer.mean_file:
            if len(mean) not in (1, 3):
                raise SpecError(
                    f"{self.where}: expected one mean_value, or one for each of 3 channels, got {len(mean)}"
                )
            return np.broadcast_to(mean, self._shape)
        off = (mean.shape[2] - self._crop) // 2  # as in Caffe, from the width for both axes
        part = mean[:, off : off + self._crop, off : off + self._crop] if off >= 0 else mean
        if part.shape != self._shape:
            raise DataError(
                f"{self.where}: expected a mean_file of 3 channels and at least {self._crop} × {self._crop}, "
                f"{transformer.mean_file!r} is {dimensions(mean.shape)}"
            )
        return part

    def _log_settings(self) -> None:
        settings = self._param
        logs.block(
            "window_data_layer.cpp:53",
            "Window data layer:",
            f"  foreground (object) overlap threshold: {logs.number(settings.fg_threshold)}\n"
            f"  background (non-object) overlap threshold: {logs.number(settings.bg_threshold)}\n"
            f"  foreground sampling fraction: {logs.number(settings.fg_fraction)}\n"
            f"  cache_images: {int(settings.cache_images)}\n"
            f"  root_folder: {settings.root_folder}",
        )

    def _read_windows(self) -> tuple[Windows, Windows]:
        source = self._param.source
        if not Path(source).exists():
            raise FormatError(does_not_exist(f"{self.where}: source", source, "make the window file first"))
        foreground: list[Windows] = []
        background: list[Windows] = []
        classes: Counter[int] = Counter({0: 0})
        try:
            for index, picture in enumerate(read_pictures(source)):
                self._paths.append(self._param.root_folder + picture.path)
                objects, others = self._sort(index, picture)
                foreground.append(objects)
                background.append(others)
                classes.update(objects[:, 1].tolist())
                classes[0] += len(others)
                if index % 100 == 0:
                    size = f"{picture.channels} {picture.height} {picture.width}"
                    text = f"num: {index} {self._paths[-1]} {size} windows to process: {len(picture.windows)}"
                    logs.info("window_data_layer.cpp:148", text)
        except (DataError, FormatError) as error:
            raise type(error)(f"{self.where}: {error}") from error
        logs.info("window_data_layer.cpp:157", f"Number of images: {len(self._paths)}")
        for label, count in sorted(classes.items()):
            logs.info("window_data_layer.cpp:161", f"class {label} has {count} samples")
        found = np.concatenate(foreground), np.concatenate(background)
        for kind, windows, wanted in zip(("fg", "bg"), found, self._wanted(), strict=True):
            if wanted and not len(windows):
                limit = (
                    "overlap an object by fg_threshold" if kind == "fg" else "overlap objects by less than bg_threshold"
                )
                raise DataError(
                    f"{self.where}: no window of {source!r} does {limit}, {getattr(self._param, kind + '_threshold'):g}"
                )
        return found

    def _wanted(self) -> tuple[int, int]:
        """How many foreground and background windows a batch has."""
        return self._from_objects, self._batch_size - self._from_objects

    def _sort(self, index: int, picture: Picture) -> tuple[Windows, Windows]:
        """The picture's windows on objects, and the background ones, labelled 0. Others are not used."""
        table = picture.windows
        overlaps = table[:, 1].astype(np.float32)
        on = overlaps >= np.float32(self._param.fg_threshold)
        beside = ~on & (overlaps < np.float32(self._param.bg_threshold))
        x1, y1, x2, y2 = table[:, 2:].T
        for wrong, why in (
            (on & (table[:, 0] < 1), "a window on an object needs a class of at least 1"),
            ((on | beside) & ((x2 < x1) | (y2 < y1)), "a window needs x1 <= x2 and y1 <= y2"),
        ):
            if wrong.any():
                row = int(wrong.argmax())
                got = " ".join(f"{number:g}" for number in table[row])
                raise DataError(f"{self._param.source!r}, line {picture.lines[row]}: {why}, got {got!r}")
        windows = np.empty((len(table), 6), np.int32)
        windows[:, 0], windows[:, 1], windows[:, 2:] = index, np.where(on, table[:, 0], 0), table[:, 2:]
        return windows[on], windows[beside]

    # -- batches ---------------------------------------------------------------------------------------------------

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        numbers = self._numbers()
        first = self._batch_size - self._from_objects
        pools = [self._background] * first + [self._foreground] * self._from_objects
        windows = np.stack([pool[n % len(pool)] for pool, n in zip(pools, numbers[:, 1], strict=True)])
        data = self._buffers.take(self.shapes[0])

        def task(i: int) -> None:
            self._cut(windows[i], bool(self._mirror and numbers[i, 0] % 2), data[i])

        self._workers.run(task, self._batch_size)
        keys = [f"{self._paths[index]}:{x1},{y1},{x2},{y2}" for index, _, x1, y1, x2, y2 in windows.tolist()]
        return (data, windows[:, 1].astype(np.float32)), tuple(keys)

    def _cut(self, window: Windows, mirror: bool, out: Floats) -> None:
        """Put a window, warped to the crop size, into ``out``; zeros where it reaches beyond the picture."""
        import cv2

        index, _, *corners = window.tolist()
        picture = self._picture(self._paths[index])
        x, y = self._extents(*corners, *picture.shape[:2])
        if (
            x.low < 0
            or y.low < 0
            or x.low > x.high
            or y.low > y.high
            or x.high >= picture.shape[1]
            or y.high >= picture.shape[0]
        ):
            raise DataError(
                f"{self.where}: window {' '.join(map(str, corners))} (x1 y1 x2 y2) lies outside of "
                f"{self._paths[index]!r}, which is {picture.shape[1]} × {picture.shape[0]} (width × height); "
                f"mend {self._param.source!r}"
            )
        left, top = x.after if mirror else x.before, y.before
        width, height = min(x.size, self._crop - left), min(y.size, self._crop - top)
        out.fill(0)
        if width < 1 or height < 1:
            return
        pixels = cv2.resize(picture[y.low : y.high + 1, x.low : x.high + 1], (width, height))
        place = (slice(None), slice(top, top + height), slice(left, left + width))
        out[place] = (pixels[:, ::-1] if mirror else pixels).transpose(2, 0, 1)
        if self._mean is not None:
            out[place] -= self._mean[place]
        if self._scale != 1:
            out[place] *= self._scale

    def _extents(self, x1: int, y1: int, x2: int, y2: int, rows: int, columns: int) -> tuple[Extent, Extent]:
        if not (self._pad or self._square):
            return Extent(x1, x2, self._crop, 0, 0), Extent(y1, y2, self._crop, 0, 0)
        across, down = (np.float32(length) / np.float32(2) for length in (x2 - x1 + 1, y2 - y1 + 1))
        if self._square:
            across = down = max(across, down)
        return extent(x1, x2, across, columns, self._crop, self._pad), extent(y1, y2, down, rows, self._crop, self._pad)

    def _picture(self, path: str) -> Pixels:
        data = self._files.get(path)
        try:
            if data is None:
                data = read_file(path)
            if self._param.cache_images:
                self._files[path] = data
            return picture.decode(data)
        except OSError as error:
            root = self._param.root_folder
            gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            what = f"; {why_not_there(path.removeprefix(root), root)}" if gone else ""
            raise DataError(
                f"{self.where}: cannot read {path!r}, which {self._param.source!r} names: {error.strerror}{what}"
            ) from error
        except DataError as error:
            raise DataError(f"{self.where}: {path!r}, which {self._param.source!r} names, {error}") from error

    def close(self) -> None:
        self._files.clear()
        self._workers.close()


class Picture(NamedTuple):
    """A picture of a window file; ``windows`` has a row (class, overlap, x1, y1, x2, y2) for each,
    ``lines`` their lines.
    """

    path: str
    channels: int
    height: int
    width: int
    windows: Table
    lines: list[int]


def read_pictures(path: str) -> Iterator[Picture]:
    """The pictures of a window file, one by one. Empty lines are left out, the pictures' numbers not looked at.

    Raises FormatError for a file that cannot be read, is empty or something else, DataError, naming the line, for a
    mistake.
    """
    head = read_bytes(path, 4096)
    refuse_utf16(path, head)
    if not head.strip():
        raise FormatError(
            f"{path!r} names no pictures; expected '# 0', a path, channels, height, width, the count of windows"
        )
    if b"\0" in head:
        raise describe(path, head, "a window file")
    try:
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from _Parser(path, file).pictures()
    except OSError as error:
        raise cannot_read(path, error) from error


class _Parser:
    def __init__(self, path: str, file: Iterator[str]) -> None:
        self._path = path
        self._line = 0
        self._lines = ((number, line.strip()) for number, line in enumerate(file, 1) if line.strip())

    def pictures(self) -> Iterator[Picture]:
        for line, text in self._lines:
            self._line = line
            if not re.fullmatch(r"#\s*\d+", text):
                raise self._error("'#' and a picture's number", text)
            path = self._next("the path of a picture")
            channels = self._number("the picture's channels")
            if channels != 3:
                raise self._error("3 channels, for pictures are read in color", str(channels))
            height, width, count = map(
                self._number, ("the picture's height", "the picture's width", "the count of its windows")
            )
            lines, rows = [], []
            for number, row in islice(self._lines, count):
                lines.append(number)
                rows.append(row)
            if len(rows) < count:
                raise DataError(
                    f"{self._path!r}: expected {count} windows for {path!r}, the file ends after {len(rows)}"
                )
            yield Picture(path, channels, height, width, self._table(lines, rows), lines)

    def _next(self, wanted: str) -> str:
        self._line, text = next(self._lines, (0, ""))
        if not self._line:
            raise DataError(f"{self._path!r}: expected {wanted}, the file ends; it may be cut off")
        return text

    def _number(self, wanted: str) -> int:
        text = self._next(wanted)
        if not re.fullmatch(r"\d+", text):
            raise self._error(wanted, text)
        return int(text)

    def _table(self, lines: list[int], rows: list[str]) -> Table:
        if not rows:
            return np.empty((0, 6))
        try:
            table = np.loadtxt(rows, comments=None, ndmin=2)
            if table.shape == (len(rows), 6) and np.isfinite(table).all() and not (np.delete(table, 1, 1) % 1).any():
                return table
        except ValueError:
            pass
        for line, row in zip(lines, rows, strict=True):
            self._line = line
            if not _ROW.fullmatch(row):
                raise self._error("a window (class overlap x1 y1 x2 y2, '8 0.71 23 40 210 300')", row)
        raise self._error("windows of a class, an overlap and four coordinates", rows[0])

    def _error(self, wanted: str, got: str) -> DataError:
        return DataError(f"{self._path!r}, line {self._line}: expected {wanted}, got {got[:80]!r}")
