"""new: a folder of class folders -> databases, mean, the classes' names, nets and a solver that fit."""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffecli import logs
from caffecli.errors import DataError
from caffecli.formats import atomic, mean
from caffecli.spec import text
from converters import class_folders, starting_nets
from converters.class_folders import ClassFolders
from converters.compute_image_mean import compute_image_mean
from converters.convert_imageset import Options as ImagesetOptions
from converters.convert_imageset import convert_imageset
from converters.starting_nets import Data, Nets

_LOG = "new.py"
#: the most records of a batch, to train and to score; of a net of models/
_BATCHES, _LARGE_BATCHES = (32, 100), (32, 25)
#: how many times as many pictures as another class one has where the classes are unbalanced
_UNBALANCED = 3


@dataclass(frozen=True)
class NewOptions:
    """``folder``: see ``class_folders.find``; ``out``: the folder to make, by default FOLDER's name with ``_net``.

    ``size``: of the pictures in the databases, in pixels, by default 32, or what the ``model`` was trained with.
    ``model``: a net of models/ to fine-tune. ``val``: the part of the pictures to score by. ``epochs``: how often
    training sees each picture; by default see ``starting_nets.solver``.
    """

    folder: Path
    out: Path | None = None
    size: int | None = None
    model: str | None = None
    val: float = 0.2
    epochs: int | None = None


def new(options: NewOptions) -> str:
    """Make the folder; returns what it holds, and the commands that go on from there, for a user to read.

    Raises DataError for pictures that are no two classes, SpecError for a model that is not for this, FormatError where
    the folder is there already.
    """
    out = options.out or Path(f"{options.folder.resolve().name}_net")
    atomic.refuse_existing(out)
    if options.folder.resolve() in out.resolve().parents:
        raise DataError(f"{str(out)!r} would lie among the class folders; give --out a folder elsewhere")
    starting_nets.quoted(str(out))
    model = None if options.model is None else starting_nets.model(options.model)
    size = _size(options, None if model is None else model.size)
    pictures = class_folders.find(options.folder, options.val)
    train, val = sum(map(len, pictures.train)), sum(map(len, pictures.val))
    if not val:
        raise DataError(f"{str(options.folder)!r}: a picture of each class is too few; give two or more")
    most_train, most_val = _BATCHES if model is None else _LARGE_BATCHES
    val_batch, taken = starting_nets.whole_batches(val, most_val)
    pictures = class_folders.without(pictures, val - taken)
    data = Data(str(out), min(most_train, train), val_batch)
    channels = 1 if pictures.grey and model is None else 3
    count, name = len(pictures.classes), out.name
    if model is None:
        nets = starting_nets.small(name, size, channels, count, data)
    else:
        nets = starting_nets.fine_tuned(model, name, count, data)
    solver = starting_nets.solver(str(out), train, taken, data, 0.02 if model is None else 0.001, options.epochs)
    with atomic.new_folder(out) as folder, logs.quiet():
        (folder / "labels.txt").write_text(
            "".join(f"{name}\n" for name in pictures.classes), "utf-8", "surrogateescape"
        )
        (folder / "train_val.prototxt").write_text(nets.train_val)
        (folder / "deploy.prototxt").write_text(nets.deploy)
        (folder / "solver.prototxt").write_text(_SOLVER_SAYS + text.format(solver))
        for part, listed in (("train", pictures.train), ("val", pictures.val)):
            _write_database(folder, part, pictures.root, listed, size, channels)
        if nets.mean:
            mean.write(folder / "mean.binaryproto", _flat_mean(nets.mean, size))
        else:
            compute_image_mean(folder / "train_lmdb", folder / "mean.binaryproto")
    left_out = f"; {val - taken} left out, so that batches of {val_batch} take each once" if taken < val else ""
    made = (
        f"{out}: {count} classes, {train} pictures to train on, {taken} to test on{left_out}, {size} x {size} pixels"
        f"{', grey' if channels == 1 else ''}\n"
    )
    return made + _counts(pictures) + _next(out, nets, solver.max_iter)


#: the solver's first line
_SOLVER_SAYS = "# Paths count from the folder that `caffecli new` ran in. --gpu 0 trains on a GPU.\n"


def _size(options: NewOptions, of_input: int | None) -> int:
    """The size of the pictures in the databases: for a model of large pictures somewhat larger than its crops."""
    least = of_input or starting_nets.SMALLEST
    usual = 32 if of_input is None else of_input if of_input < 200 else max(256, of_input)
    size = options.size or usual
    if not least <= size <= (starting_nets.LARGEST if of_input is None else 1024):
        wanted = f"at least {least}, its input" if of_input else f"{least} to {starting_nets.LARGEST} for the small net"
        raise DataError(f"--size {size}: expected {wanted}")
    return size


def _write_database(
    folder: Path, part: str, root: Path, pictures: Sequence[Sequence[str]], size: int, channels: int
) -> None:
    """A list of the pictures in a random order, the same each time, and the database of it."""
    lines = [f"{path} {label}\n" for label, paths in enumerate(pictures) for path in paths]
    random.Random(1).shuffle(lines)
    listed = folder / f"{part}.txt"
    listed.write_text("".join(lines), "utf-8", "surrogateescape")
    form = ImagesetOptions(gray=channels == 1, resize_width=size, resize_height=size)
    if convert_imageset(f"{root}/", listed, folder / f"{part}_lmdb", form) < len(lines):
        raise DataError(f"pictures below {str(root)!r} have changed meanwhile; run this again")


def _flat_mean(values: Sequence[float], size: int) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.float32)[:, None, None], (len(values), size, size)).copy()


def _counts(pictures: ClassFolders) -> str:
    """The classes with their numbers, and what to do where these are far apart, or a class is not scored."""
    counts = pictures.counts()
    shown = [f"  {name}: {count}" for name, count in zip(pictures.classes, counts, strict=True)]
    if len(shown) > 20:
        shown = [*shown[:18], f"  ... and {len(shown) - 18} more: labels.txt has them all"]
    said = "\n".join(shown) + "\n"
    rare, common = counts.index(min(counts)), counts.index(max(counts))
    if counts[common] >= _UNBALANCED * counts[rare]:
        said += (
            f"Unbalanced: {pictures.classes[common]!r} has {counts[common]} pictures, {pictures.classes[rare]!r} "
            f"{counts[rare]}. Add --class-weights auto to the training (docs/unbalanced-classes.md has other ways).\n"
        )
    unscored = [name for name, paths in zip(pictures.classes, pictures.val, strict=True) if not paths]
    if unscored:
        listed = ", ".join(map(repr, unscored[:5])) + (" ..." if len(unscored) > 5 else "")
        said += f"No picture to test on: {listed}. The test says nothing of them.\n"
    return said


def _next(out: Path, nets: Nets, last: int) -> str:
    """The commands to type next."""
    trained = f"{out}/net_iter_{last}.caffemodel"
    train = ["caffecli", "train", "--solver", f"{out}/solver.prototxt"]
    lines = []
    if nets.weights is not None:
        weights = nets.weights.resolve()
        if Path.cwd() in weights.parents:
            weights = weights.relative_to(Path.cwd())
        if not weights.is_file():
            lines += ["First get the weights to begin with:", _shell("caffecli", "download_model", weights.parent)]
        train += ["--weights", str(weights)]
    lines += ["Train:", _shell(*train), "Then score the net, and classify a picture of your own:"]
    lines.append(_shell("caffecli", "test", "--model", f"{out}/train_val.prototxt", "--weights", trained, "--all"))
    net = ["--model", f"{out}/deploy.prototxt", "--weights", trained, "--labels", f"{out}/labels.txt"]
    lines.append(_shell("caffecli", "classify", "PICTURE", *net))
    return "\n".join(lines)


def _shell(*words: object) -> str:
    return f"  {shlex.join(map(str, words))}"
