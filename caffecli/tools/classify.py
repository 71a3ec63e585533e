"""``caffecli classify``: the classes of picture files."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe import io
from caffe.classifier import Classifier
from caffecli import logs
from caffecli.errors import DataError, FormatError
from caffecli.formats import npy
from caffecli.formats.atomic import replacing
from caffecli.tools.picture_options import PictureOptions

Array = NDArray[Any]

#: pictures that are in memory at the same time
CHUNK = 32
#: how many classes are printed for each picture
TOP = 5


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(PictureOptions):
    """``input_file``: a picture, a folder of ``*.ext``, or a .npy of (N, H, W, K); ``output_file``:
    a .npy, None for none.

    ``labels``: a file with a line for each class; the best five classes are printed when it is given, or no
    ``output_file``.
    """

    input_file: str
    output_file: str | None = None
    labels: str | None = None
    images_dim: tuple[int, ...] = (256, 256)
    center_only: bool = False
    ext: str = "jpg"


def classify(options: ClassifyOptions) -> None:
    """Predict the classes of pictures, print the best, write all as an (N, classes) array."""
    print("GPU mode" if options.gpu else "CPU mode")
    net = Classifier(image_dims=options.images_dim, **options.net())
    labels = None if options.labels is None else read_labels(options.labels)
    names, images = _inputs(options, 1 if net.blobs[net.inputs[0]].shape[1] == 1 else 3)
    print(f"Classifying {len(names)} inputs.", flush=True)
    start = time.time()
    rows: list[Array | None] = []  # of scores, one for each input; None: it cannot be read
    for first in range(0, len(names), CHUNK):
        chunk = list(itertools.islice(images, CHUNK))
        readable = [image for image in chunk if image is not None]
        found = iter(net.predict(readable, not options.center_only) if readable else ())
        for name, image in zip(names[first:], chunk, strict=False):
            rows.append(None if image is None else next(found))
            if rows[-1] is not None and (labels is not None or options.output_file is None):
                _print_best(name, rows[-1].ravel(), labels)
    print(f"Done in {time.time() - start:.2f} s.")
    read = [row for row in rows if row is not None]
    if not read:
        raise DataError(f"none of the {len(rows)} pictures in {options.input_file!r} can be read")
    if len(read) < len(rows):
        print(f"Left out {len(rows) - len(read)} of {len(rows)} pictures, which cannot be read; their rows are NaN.")
    if options.output_file is not None:
        path = options.output_file if options.output_file.endswith(".npy") else f"{options.output_file}.npy"
        print(f"Saving results into {path}")
        with replacing(path) as file:
            np.save(file, np.stack([np.full_like(read[0], np.nan) if row is None else row for row in rows]))


def read_labels(path: str) -> list[str]:
    """The lines of a file of labels, as in synset_words.txt. Raises FormatError."""
    try:
        return Path(path).read_text().splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise FormatError(f"cannot read the labels {path!r}: {error}; give a text of a line for each class") from error


def _inputs(options: ClassifyOptions, channels: int) -> tuple[list[str], Iterator[Array | None]]:
    """The inputs' names, and the inputs, each read when its turn comes; None for what a folder has unreadable."""
    path = Path(options.input_file).expanduser()
    if path.suffix == ".npy":
        print(f"Loading file: {path}")
        array = npy.read(path)
        if array.ndim != 4 or not len(array):
            raise DataError(
                f"{str(path)!r}: expected pictures of (count, height, width, channels), it has shape {array.shape}"
            )
        return [f"{path}[{i}]" for i in range(len(array))], iter(array)
    files = [path]
    if path.is_dir():
        print(f"Loading folder: {path}")
        every = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        files = [file for file in every if file.name.lower().endswith(f".{options.ext.lower()}")]
        if not files:
            raise DataError(f"the folder {str(path)!r} has no *.{options.ext}; say --ext png for other pictures")
        others = sorted({file.suffix for file in every if file not in files})
        if others:
            print(f"Left out {len(every) - len(files)} files that end in {', '.join(map(repr, others))}; see --ext.")
    else:
        print(f"Loading file: {path}")
    return [str(file) for file in files], _pictures(files, channels == 3, path.is_dir())


def _pictures(files: Iterable[Path], color: bool, go_on: bool) -> Iterator[Array | None]:
    """The pictures; ``go_on``: None for one that cannot be read, with a warning."""
    for file in files:
        try:
            yield io.load_image(file, color)
        except (DataError, OSError) as error:
            if not go_on:
                raise
            logs.warning("io.py:303", f"{error}; left out")
            yield None


def _print_best(name: str, scores: Array, labels: list[str] | None) -> None:
    if labels is not None and len(labels) != len(scores):
        raise DataError(f"there are {len(labels)} labels for {len(scores)} classes; give the labels of this net")
    print(f"---------- Prediction for {name} ----------")
    for best in np.argsort(-scores, kind="stable")[:TOP]:
        print(f"{scores[best]:.4f} - {best}" if labels is None else f'{scores[best]:.4f} - "{labels[best]}"')
