"""``caffecli classify``: the classes of picture files."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from caffe import io
from caffe.classifier import Classifier
from caffecli import logs
from caffecli.errors import DataError, FormatError
from caffecli.formats import npy
from caffecli.formats.atomic import replacing
from caffecli.proto.caffe_pb2 import LabelMap
from caffecli.spec import text
from caffecli.tools import picture_files
from caffecli.tools.picture_files import PICTURES
from caffecli.tools.picture_options import PictureOptions

__all__ = ["PICTURES", "RESULTS", "ClassifyOptions", "classify", "read_labels"]

Array = NDArray[Any]

#: pictures that are in memory at the same time
CHUNK = 32
#: what the names of files of results end in
RESULTS = (".csv", ".json", ".jsonl", ".npy")


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(PictureOptions):
    """``inputs``: pictures, folders of pictures, lists of their paths (.txt), arrays of (N, H, W, K) (.npy).

    ``output_file``: one of ``RESULTS``, or a .npy by a name without an ending; None for none. ``labels``: a file with a
    line for each class, or a label map. ``ext``: what the names of a folder's pictures end in; None: as pictures' do,
    or, as under Caffe, jpg for a .npy. The best ``top`` classes are written to other files, and printed when there is
    no ``output_file``, or a .npy and ``labels``.
    """

    inputs: tuple[str, ...]
    output_file: str | None = None
    labels: str | None = None
    images_dim: tuple[int, ...] | None = None
    center_only: bool | None = None
    ext: str | None = None
    top: int = 5


def classify(options: ClassifyOptions) -> None:
    """Predict the classes of pictures, print or write the best, or write all as an (N, classes) array."""
    print("GPU mode" if options.gpu and not options.cpu else "CPU mode")
    dims = None if options.images_dim is None else (options.images_dim[0], options.images_dim[1])
    prepared = options.prepare(dims, options.center_only)
    net = Classifier(
        options.model,
        options.weights,
        image_dims=prepared.dims,
        mean=prepared.mean,
        input_scale=prepared.input_scale,
        raw_scale=prepared.raw_scale,
        channel_swap=prepared.channel_swap,
    )
    labels = None if options.labels is None else read_labels(options.labels)
    inputs = [one for word in options.inputs for one in _inputs(word, options)]
    print(f"Classifying {sum(map(len, inputs))} inputs.", flush=True)
    start = time.time()
    with ExitStack() as files:
        writer = _writer(options, labels, files)
        color = net.blobs[net.inputs[0]].shape[1] != 1
        images = (image for one in inputs for image in one.images(color))
        while chunk := list(itertools.islice(images, CHUNK)):
            readable = [image for _, image in chunk if image is not None]
            found = iter(net.predict(readable, not prepared.centre) if readable else ())
            for name, image in chunk:
                writer.take(name, None if image is None else next(found).ravel())
        if not writer.read:
            named = ", ".join(map(repr, options.inputs[:3])) + (", ..." if len(options.inputs) > 3 else "")
            raise DataError(f"none of the {writer.broken} pictures in {named} can be read")
        print(f"Done in {time.time() - start:.2f} s.")
        writer.finish()
    if writer.broken:
        rows = "; their rows are NaN" if isinstance(writer, _Array) else ""
        print(f"Left out {writer.broken} of {writer.broken + writer.read} pictures, which cannot be read{rows}.")


def read_labels(path: str) -> list[str]:
    """The names of the classes: the lines of a file, as in synset_words.txt, or those of a label map. Raises
    FormatError.
    """
    try:
        words = Path(path).read_text()
    except (UnicodeDecodeError, OSError) as error:
        raise FormatError(f"cannot read the labels {path!r}: {error}; give a text of a line for each class") from error
    if not words.lstrip().startswith(("item {", "item{")):
        return words.splitlines()
    names = {item.label: item.display_name or item.name for item in text.read(path, LabelMap).item}
    return [names.get(number, "") for number in range(max(names, default=-1) + 1)]


# -- what is classified ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pictures:
    """Picture files; ``alone``: there is no other input, so that an error about it ends the command."""

    files: list[Path]
    alone: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def images(self, color: bool) -> Iterator[tuple[str, Array | None]]:
        """The pictures' names, and the pictures, each read when its turn comes; None for one that cannot be read, which
        a warning names.
        """
        for file in self.files:
            try:
                yield str(file), io.load_image(file, color)
            except (DataError, OSError) as error:
                if self.alone:
                    raise
                logs.warning("io.py:303", f"{error}; left out")
                yield str(file), None


@dataclass(frozen=True)
class _Arrays:
    """Pictures in an array."""

    path: Path
    array: Array

    def __len__(self) -> int:
        return len(self.array)

    def images(self, color: bool) -> Iterator[tuple[str, Array | None]]:
        return ((f"{self.path}[{i}]", image) for i, image in enumerate(self.array))


def _inputs(word: str, options: ClassifyOptions) -> list[_Pictures | _Arrays]:
    """What an argument names. Raises DataError, and OSError for what is not there."""
    path = Path(word).expanduser()
    picture_files.refuse_missing(path)
    kind = "folder" if path.is_dir() else "list" if picture_files.is_list(path) else "file"
    if len(options.inputs) == 1:
        print(f"Loading {kind}: {path}")
    if kind == "list":
        return [_Pictures([Path(name).expanduser() for name in picture_files.listed(path)])]
    if path.suffix == ".npy":
        array = npy.read(path)
        if array.ndim != 4 or not len(array):
            raise DataError(
                f"{str(path)!r}: expected pictures of (count, height, width, channels), it has shape {array.shape}"
            )
        return [_Arrays(path, array)]
    if kind == "file":
        return [_Pictures([path], alone=len(options.inputs) == 1)]
    caffes = options.output_file is not None and Path(options.output_file).suffix.lower() in ("", ".npy")
    ext = options.ext or ("jpg" if caffes else None)
    files, others = picture_files.in_folder(path, PICTURES if ext is None else (f".{ext.lower()}",))
    if others:
        endings = ", ".join(map(repr, sorted({file.suffix for file in others})))
        print(f"Left out {len(others)} files that end in {endings}; see --ext.")
    return [_Pictures(files)]


# -- what is written -------------------------------------------------------------------------------------------------


class _Writer:
    """Takes the scores of one picture after the other; this one prints the best classes."""

    def __init__(self, top: int, labels: list[str] | None, show: bool = True) -> None:
        self.top, self.labels, self._show = top, labels, show
        #: how many pictures could be read, and how many not
        self.read = self.broken = 0

    def take(self, name: str, scores: Array | None) -> None:
        if scores is None:
            self.broken += 1
            return
        self.read += 1
        if not np.isfinite(scores).all():
            logs.warning("classify.py:1", f"{name!r}: scores are NaN or infinite; look for them in the weights")
        if self.labels is not None and len(self.labels) != len(scores):
            raise DataError(
                f"there are {len(self.labels)} labels for {len(scores)} classes; give the labels of this net"
            )
        if self._show:
            print(f"---------- Prediction for {name} ----------")
            for number, called, score in self.best(scores):
                print(f"{score:.4f} - {number}" if self.labels is None else f'{score:.4f} - "{called}"')

    def best(self, scores: Array) -> list[tuple[int, str, float]]:
        """The best classes, their names ("" without labels), and scores."""
        order = np.argsort(-scores, kind="stable")[: self.top].tolist()
        return [(one, "" if self.labels is None else self.labels[one], float(scores[one])) for one in order]

    def finish(self) -> None:
        """Write what has waited for the end."""


class _Array(_Writer):
    """Writes all scores as an array (N, classes) .npy, NaN for pictures that cannot be read."""

    def __init__(self, path: str, file: IO[bytes], top: int, labels: list[str] | None) -> None:
        super().__init__(top, labels, labels is not None)
        self._path, self._file, self._rows = path, file, list[Array | None]()

    def take(self, name: str, scores: Array | None) -> None:
        super().take(name, scores)
        self._rows.append(scores)

    def finish(self) -> None:
        print(f"Saving results into {self._path}")
        blank = np.full_like(next(row for row in self._rows if row is not None), np.nan)
        np.save(self._file, np.stack([blank if row is None else row for row in self._rows]))


def _json_number(value: float) -> float | None:
    """JSON has no NaN and no infinity: null is what stands for them."""
    return value if math.isfinite(value) else None


class _Table(_Writer):
    """Writes the best classes, a row, or an object, for each picture that can be read."""

    def __init__(self, path: str, file: IO[str], top: int, labels: list[str] | None) -> None:
        super().__init__(top, labels, False)
        self._path, self._file, self._form = path, file, Path(path).suffix.lower()
        self._csv = csv.writer(file, lineterminator="\n")

    def take(self, name: str, scores: Array | None) -> None:
        super().take(name, scores)
        if scores is None:
            return
        name = os.fsencode(name).decode("utf-8", "replace")
        best = self.best(scores)
        if self._form == ".csv":
            if self.read == 1:
                words = [f"{word}_{i + 1}" for i in range(len(best)) for word in ("class", "name", "score")]
                self._csv.writerow(["file", *words])
            self._csv.writerow([name, *(value for one in best for value in one)])
            return
        classes = [
            {"class": number, **({"name": called} if self.labels is not None else {}), "score": _json_number(score)}
            for number, called, score in best
        ]
        line = json.dumps({"file": name, "classes": classes})
        before = "" if self._form == ".jsonl" else "[\n" if self.read == 1 else ",\n"
        self._file.write(before + line + ("\n" if self._form == ".jsonl" else ""))

    def finish(self) -> None:
        if self._form == ".json":
            self._file.write("\n]\n")
        print(f"Saving results into {self._path}")


def _writer(options: ClassifyOptions, labels: list[str] | None, files: ExitStack) -> _Writer:
    path = options.output_file
    if path is None:
        return _Writer(options.top, labels)
    ending = Path(path).suffix.lower()
    if ending in ("", ".npy"):
        path = path if ending else f"{path}.npy"
        return _Array(path, files.enter_context(replacing(path)), options.top, labels)
    if ending not in RESULTS:
        raise DataError(f"cannot write {path!r}: its name must end in one of {', '.join(RESULTS)}")
    return _Table(path, files.enter_context(replacing(path, "w")), options.top, labels)
