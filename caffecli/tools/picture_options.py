"""What the commands classify and detect share: the net, and how pictures are made fit for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from caffe import mode
from caffecli import logs
from caffecli.errors import FormatError, SpecError
from caffecli.layers import layer_class, user_modules
from caffecli.layers.data import Input
from caffecli.net import devices
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec import load
from caffecli.spec.filter import takes_part
from caffecli.tools import preprocessing
from caffecli.tools.preprocessing import Size, Trained

ROOT = Path(__file__).parents[2]
_CAFFENET = Path("models", "bvlc_reference_caffenet")
_MEAN = Path("data", "ilsvrc12", "imagenet_mean.binaryproto")
#: what Caffe's classify.py resizes pictures to, and the net's inputs that this is for
_USUAL, _LEAST = 256, 128


def default_file(path: Path) -> Path:
    """A file of a Caffe checkout: below the working folder, as Caffe's scripts have it, else in this repository."""
    return path if path.exists() else ROOT / path


def choose_mode(gpu: str | None, cpu: bool = False) -> None:
    """Caffe's mode, as the flags ``--gpu`` and ``--cpu`` say. Raises SolverError where there is no such GPU."""
    device = devices.choose(gpu, cpu)
    if device.type == "cuda":
        mode.set_mode_gpu()
        mode.set_device(device.index)
    else:
        mode.set_mode_cpu()


@dataclass(frozen=True)
class Prepared:
    """The arguments of ``Classifier`` and ``Detector``: how pictures are made fit for the net.

    ``dims``: the size that pictures are brought to; ``centre``: whether the net sees their middle alone, or ten crops.
    """

    mean: NDArray[Any] | None
    input_scale: float | None
    raw_scale: float
    channel_swap: tuple[int, ...] | None
    dims: Size
    centre: bool

    def words(self, size: Size | None, mean: str) -> str:
        """Words for it: ``size`` is that of the net's input, None where that is the windows'; ``mean`` what it is."""
        sees = "each window brought to the net's size"
        if size is not None:
            how = f", {'the middle' if self.centre else 'ten crops'} of {_words(size)}"
            sees = f"resized to {_words(self.dims)}" + ("" if self.centre and self.dims == size else how)
        swap = self.channel_swap or ()
        order = {(2, 1, 0): ", blue first", (): ""}.get(swap, f", channels {','.join(map(str, swap))}")
        range_ = "" if self.raw_scale == 255 else f", pixels of 0 to {self.raw_scale:g}"
        return f"{sees}{order}, less {mean}, times {1 if self.input_scale is None else self.input_scale:g}{range_}"


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """``mean``: a file, or numbers separated by ',', "" for none; ``channel_swap``: () for none. What is None is as
    the net was trained, as the prototxt ``like`` or else the weights' file tells; the net and its weights are those of
    Caffe's reference net, below the working folder or in this repository.

    ``layers``: modules of the user's own that register layers.
    """

    model_def: str | None = None
    pretrained_model: str | None = None
    like: str | None = None
    mean: str | None = None
    input_scale: float | None = None
    raw_scale: float | None = None
    channel_swap: tuple[int, ...] | None = None
    gpu: str | None = None
    cpu: bool = False
    layers: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        return str(self.model_def or default_file(_CAFFENET / "deploy.prototxt"))

    @property
    def weights(self) -> str:
        return str(self.pretrained_model or default_file(_CAFFENET / "bvlc_reference_caffenet.caffemodel"))

    def prepare(self, dims: Size | None = None, centre: bool | None = None, *, windows: bool = False) -> Prepared:
        """Loads the layers, sets Caffe's mode, and says how pictures are made fit for the net; the log tells.

        What is None of ``dims`` and ``centre``, see ``Prepared``, is as the net was trained. ``windows``: of them the
        net sees all.
        """
        user_modules.load(self.layers)
        choose_mode(self.gpu, self.cpu)
        check_takes_pictures(self.model)
        top, shape = input_of(self.model)
        told = preprocessing.trained(self.weights, self.like, top)
        mean, mean_words = self._mean(told, shape)
        raw = 255.0 if self.raw_scale is None else self.raw_scale
        scale = self.input_scale
        if scale is None and told is not None and self.raw_scale is None:
            scale = told.transform.scale
        swap = self.channel_swap
        if swap is None:
            swap = () if shape[:1] == (1,) else (2, 1, 0)
        size = shape[1:] if len(shape) == 3 else (_USUAL, _USUAL)
        typed = windows or dims is not None
        if told is not None:
            _check_sizes(told, size, dims)
        if centre is None:
            centre = told is not None and (told.scored or not told.mirrored)
        if dims is None:
            dims = _dims(told, size)
        if centre and not windows and mean is not None and mean.ndim > 1 and mean.shape[-2:] == tuple(dims):
            mean = preprocessing.fitted_mean(mean, (mean.shape[-3] if mean.ndim > 2 else 1, *size), mean_words)
        prepared = Prepared(mean, scale, raw, swap or None, dims, centre)
        typed = (
            typed and None not in (self.mean, self.channel_swap) and (self.input_scale, self.raw_scale) != (None, None)
        )
        preprocessing.tell(
            f"Pictures: {prepared.words(None if windows else size, mean_words)}; "
            f"{'as told' if typed else self._whence(told)}",
            known=told is not None or typed or self.model_def is None,
        )
        return prepared

    def _whence(self, told: Trained | None) -> str:
        if told is not None:
            return f"where not told, as {told.whence} has it"
        if self.model_def is None:
            return "where not told, as Caffe's reference net has it"
        return (
            "where not told, as Caffe's classify.py has it, for nothing says how the net was trained: "
            f"{preprocessing.hint(self.weights)}"
        )

    def _mean(self, told: Trained | None, shape: tuple[int, ...]) -> tuple[NDArray[Any] | None, str]:
        """What is subtracted, and words for it."""
        if self.mean is not None:
            mean = preprocessing.typed_mean(self.mean)
            if mean is not None and mean.ndim == 1 and shape:
                preprocessing.check_count(mean, shape[0], f"--mean {self.mean!r}")
            words = "nothing" if mean is None else self.mean if mean.ndim == 1 else repr(self.mean)
            return (mean.repeat(shape[0]) if mean is not None and mean.shape == (1,) and shape else mean), words
        default = default_file(_MEAN)
        if told is not None:
            try:
                mean, words = told.mean()
            except SpecError:
                if self.model_def is not None or not default.exists():
                    raise
            else:
                return (mean.repeat(shape[0]) if mean.shape == (1,) and shape else mean), words
        if told is None and shape[:1] == (1,):
            return None, "nothing"
        if not default.exists():
            raise FormatError(
                f"there is no mean {str(default)!r}, nor below the working folder, {str(Path.cwd())!r}; give --like, "
                "--mean, or --mean '' to subtract none"
            )
        return preprocessing.typed_mean(str(default)), repr(str(default))


def check_takes_pictures(model: str) -> None:
    """Raise SpecError for a prototxt without an Input layer: one to train, or to test, with."""
    with logs.quiet():
        param = load.load_net(model)
    param.state.phase = TEST
    if not any(layer_class(layer.type) is Input and takes_part(layer, param.state, log=False) for layer in param.layer):
        beside = sorted(path.name for path in Path(model).absolute().parent.glob("*deploy*.prototxt"))
        what = "an Input layer in place of the data layers, and no layer that reads true boxes or labels"
        raise SpecError(
            f"{model!r} has no Input layer that takes pictures: it is a net to train or to test with; give its deploy "
            f"net: {f'is it {beside[0]!r}?' if beside else what}"
        )


def input_of(model: str) -> tuple[str, tuple[int, ...]]:
    """The first input of a deploy net, and the shape (channels, height, width) of a picture in it; "" and () where it
    has no such input.
    """
    with logs.quiet():
        layers = load.load_net(model).layer
    for layer in layers:
        for top, shape in zip(layer.top, layer.input_param.shape, strict=False):
            return (top, tuple(shape.dim[1:])) if len(shape.dim) == 4 else ("", ())
    return "", ()


def _dims(told: Trained | None, size: Size) -> Size:
    """The size that pictures are brought to where nobody says: that of the training's pictures, if it is known and they
    were cropped; else Caffe's usual one, for nets of about that size; else that of the net's input.
    """
    if told is not None and told.crop is None:
        return size
    source = None if told is None else told.source_size
    if source is not None and source[0] >= size[0] and source[1] >= size[1]:
        return source
    return (_USUAL, _USUAL) if min(size) > _LEAST and max(size) <= _USUAL else size


def _check_sizes(told: Trained, size: Size, dims: Size | None) -> None:
    """Warn of sizes that are not those of the training."""
    source = told.source_size
    preprocessing.warn_of_sizes("the net's input is", size, told.crop or source, told.whence)
    if dims is not None:
        preprocessing.warn_of_sizes("--images_dim is", dims, source or (None if told.crop else size), told.whence)


def _words(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
