"""The ``ImageData`` layer's records: pictures named in a text file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import picture
from caffecli.formats.atomic import read_file
from caffecli.formats.list_file import Entry, read_list, why_not_there
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.base import Floats, Pixels
from caffecli.sources.records import RecordSource
from caffecli.wording import does_not_exist


class ImageListSource(RecordSource):
    """Reads ``image_data_param { source root_folder batch_size shuffle rand_skip new_height new_width is_color }``.

    ``shuffle`` puts the pictures in a new order each epoch. A path is ``root_folder`` followed by the list's, as in
    Caffe, with no slash put between.

    Raises SpecError for settings that are missing or wrong, FormatError for a list that cannot be read, DataError for a
    picture that cannot be used.
    """

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        self._param = param.image_data_param
        super().__init__(param, phase, self._param.batch_size, self._param.rand_skip, seed, shard)
        if not self._param.source:
            raise SpecError(f'{self.where}: image_data_param names no list; set source: "list.txt"')
        if (self._param.new_height > 0) != (self._param.new_width > 0):
            raise SpecError(
                f"{self.where}: expected new_height and new_width together, "
                f"got {self._param.new_height} and {self._param.new_width}; set both or none"
            )
        self._entries = self._read_list()
        self._order: tuple[tuple[int, int], NDArray[np.int64]] | None = None
        first = self._entry(0)
        picture = self._load(first, 0)
        self._start(self._transformer.shape(picture.shape, self._name(first)))

    def count(self, quick: bool = False) -> int:
        return len(self._entries)

    def spread_labels(self, count: int) -> list[int]:
        if self._param.shuffle:
            return []
        total = len(self._entries)
        count = min(count, total)
        return [self._entries[i * total // count].label for i in range(count)]

    def label_counts(self) -> Counter[int] | None:
        return Counter(entry.label for entry in self._entries)

    def _read_list(self) -> list[Entry]:
        source = self._param.source
        if not Path(source).exists():
            raise FormatError(does_not_exist(f"{self.where}: source", source, "make the list first"))
        logs.info("image_data_layer.cpp:38", f"Opening file {source}")
        try:
            entries = [entry for entry in read_list(source) if entry.path]
        except (DataError, FormatError) as error:
            raise type(error)(f"{self.where}: {error}") from error
        if self._param.shuffle:
            logs.info("image_data_layer.cpp:53", "Shuffling data")
        logs.info("image_data_layer.cpp:63", f"A total of {len(entries)} images.")
        if self._param.rand_skip:
            logs.info("image_data_layer.cpp:70", f"Skipping first {self._skip} data points.")
            if self._skip >= len(entries):
                raise SpecError(
                    f"{self.where}: rand_skip: {self._rand_skip} would skip {self._skip} of the {len(entries)} "
                    f"pictures of {source!r}; lower it"
                )
        return entries

    def _entry(self, position: int) -> Entry:
        """The entry at a position of the endless sequence, shuffled or not."""
        epoch, index = divmod(self._skip + position, len(self._entries))
        if not self._param.shuffle:
            return self._entries[index]
        key = (self._draws.seed, epoch)
        if self._order is None or self._order[0] != key:
            self._order = (key, self._draws.order(epoch, len(self._entries)))
        return self._entries[self._order[1][index]]

    def _read(self) -> tuple[Floats, list[int], tuple[str, ...]]:
        first = self._position + self._rank
        entries = [self._entry(first + i * self._ranks) for i in range(self._batch_size)]
        data = self._fill(lambda i: self._load(entries[i], i), lambda i: self._name(entries[i]))
        return data, [entry.label for entry in entries], tuple([entry.path for entry in entries])

    def _load(self, entry: Entry, index: int) -> Pixels:
        return self._augmented(self._picture(entry), index, self._name(entry))[0]

    def _picture(self, entry: Entry) -> Pixels:
        path = self._param.root_folder + entry.path
        try:
            image: Pixels = picture.decode(read_file(path), self._param.is_color)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            what = f"; {why_not_there(entry.path, self._param.root_folder)}" if gone else ""
            raise DataError(
                f"{self.where}: cannot read {self._name(entry)}, {path!r}: {error.strerror}{what}"
            ) from error
        except DataError as error:
            raise DataError(f"{self.where}: {self._name(entry)}, {path!r}, {error}") from error
        if self._param.new_height:
            import cv2

            image = cv2.resize(image, (self._param.new_width, self._param.new_height))
        return image.transpose(2, 0, 1) if image.ndim == 3 else image[None]

    def _name(self, entry: Entry) -> str:
        return f"{entry.path!r} ({self._param.source!r}, line {entry.line})"
