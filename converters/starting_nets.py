"""The nets and the solver that ``new`` writes: a small net by the pictures' size, or one of models/ to fine-tune."""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from caffecli.errors import CaffeError, SpecError
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter, TransformationParameter
from caffecli.spec import text
from caffecli.wording import did_you_mean
from converters.download_model import read_readme

#: the nets that come with caffecli's repository
MODELS = Path(__file__).parents[1] / "models"
#: sizes that the small net is for
SMALLEST, LARGEST = 8, 256
#: what brings pixels less their mean to about -1 to 1
SCALE = 0.0078125
#: the mean of ImageNet's pictures, blue first, which nets of models/ were trained with where they name its picture
IMAGENET = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class Data:
    """What the data layers read: the folder's path as nets are to name it, and the records of a batch."""

    folder: str
    train_batch: int
    val_batch: int


@dataclass(frozen=True)
class Nets:
    """``train_val`` and ``deploy``, as text. ``size``: of the pictures in the databases; ``scale``: of their pixels.

    ``mean``: of each channel where the weights want their own; empty: that of the pictures. ``weights``: to begin with,
    and the folder that they are downloaded to.
    """

    train_val: str
    deploy: str
    scale: float
    mean: tuple[float, ...] = ()
    weights: Path | None = None


# -- a small net -----------------------------------------------------------------------------------------------------

_DATA = """layer {{
  name: "data"
  type: "Data"
  top: "data"
  top: "label"
  include {{ phase: {phase} }}
  transform_param {{ mean_file: {mean} scale: {scale} }}{mirror}
  data_param {{ source: {source} batch_size: {batch} backend: LMDB }}
}}
"""
_INPUT = """layer {{
  name: "data"
  type: "Input"
  top: "data"
  input_param {{ shape {{ dim: 1 dim: {channels} dim: {size} dim: {size} }} }}
}}
"""
_STAGE = """layer {{
  name: "conv{i}"
  type: "Convolution"
  bottom: "{bottom}"
  top: "conv{i}"
  param {{ lr_mult: 1 }}
  param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }}
}}
layer {{ name: "relu{i}" type: "ReLU" bottom: "conv{i}" top: "conv{i}" }}
layer {{
  name: "pool{i}"
  type: "Pooling"
  bottom: "conv{i}"
  top: "pool{i}"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }}
}}
"""
_SCORE = """layer {{
  name: "ip1"
  type: "InnerProduct"
  bottom: "{bottom}"
  top: "ip1"
  param {{ lr_mult: 1 }}
  param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 64 weight_filler {{ type: "msra" }} }}
}}
layer {{ name: "relu_ip1" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{
  name: "score"
  type: "InnerProduct"
  bottom: "ip1"
  top: "score"
  param {{ lr_mult: 1 }}
  param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: {classes} weight_filler {{ type: "xavier" }} }}
}}
"""
_LOSS = """layer {
  name: "accuracy"
  type: "Accuracy"
  bottom: "score"
  bottom: "label"
  top: "accuracy"
  include { phase: TEST }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
_PROB = 'layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }\n'
_MIRROR = "\n  # mirror: true in transform_param gives more variety, where left and right mean the same"


def small(name: str, size: int, channels: int, classes: int, data: Data) -> Nets:
    """A net of convolutions and poolings, as many as bring ``size`` to 4 to 7 pixels, then two inner products."""
    stages = max(1, int(math.log2(size / 4)))
    body, bottom = "", "data"
    for i in range(1, stages + 1):
        body += _STAGE.format(i=i, bottom=bottom, outputs=min(128, 16 * 2 ** (i - 1)))
        bottom = f"pool{i}"
    body += _SCORE.format(bottom=bottom, classes=classes)
    given = {"mean": quoted(f"{data.folder}/mean.binaryproto"), "scale": SCALE}
    source = {phase: quoted(f"{data.folder}/{phase}_lmdb") for phase in ("train", "val")}
    title = f"name: {quoted(name)}\n"
    train = _DATA.format(phase="TRAIN", source=source["train"], batch=data.train_batch, mirror=_MIRROR, **given)
    val = _DATA.format(phase="TEST", source=source["val"], batch=data.val_batch, mirror="", **given)
    deploy = title + _INPUT.format(channels=channels, size=size) + body + _PROB
    return Nets(title + train + val + body + _LOSS, deploy, SCALE)


def quoted(value: str) -> str:
    """A text as prototxt has it. Raises SpecError for a path that is not UTF-8, which no prototxt can name."""
    try:
        return text.format(NetParameter(name=value)).removeprefix("name: ").rstrip("\n")
    except (UnicodeEncodeError, ValueError) as error:
        raise SpecError(f"{value!r} is not UTF-8, so that no prototxt can name it; give --out another name") from error


# -- a net to fine-tune ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A net of models/ that has trained weights and tells one picture's class: ``size`` is that of its input."""

    folder: Path
    train_val: NetParameter
    deploy: NetParameter
    size: int
    weights: Path


def model(name: str) -> Model:
    """The net of this name in models/, or in a folder of such form. Raises SpecError for one that is not for this."""
    folder = next((path for path in (MODELS / name, Path(name)) if (path / "deploy.prototxt").is_file()), None)
    if folder is None:
        raise SpecError(f"--model {name}: there is no such model{did_you_mean(name, _names(), _listed())}")
    try:
        return _model(folder)
    except CaffeError as error:
        raise SpecError(f"--model {name}: {error}; {_listed()}") from error


def _names() -> list[str]:
    """The folders of models/; none where caffecli is installed without its repository."""
    return sorted(path.name for path in MODELS.iterdir() if path.is_dir()) if MODELS.is_dir() else []


@functools.cache
def fitting() -> tuple[str, ...]:
    """The models that ``model`` takes."""
    names = []
    for name in _names():
        with contextlib.suppress(CaffeError):
            _model(MODELS / name)
            names.append(name)
    return tuple(names)


def _listed() -> str:
    names = fitting()
    return f"there are {', '.join(names)}" if names else "name a folder that has them, as models/ of caffecli's sources"


def _model(folder: Path) -> Model:
    weights = read_readme(folder).path
    train_val = text.read(folder / "train_val.prototxt", NetParameter)
    deploy = text.read(folder / "deploy.prototxt", NetParameter)
    data = [layer for layer in train_val.layer if not layer.bottom]
    shape = [*deploy.layer[0].input_param.shape[0].dim] if deploy.layer[0].input_param.shape else []
    heads = [layer for layer in train_val.layer if layer.type == "SoftmaxWithLoss"]
    plain = len(data) == 2 and all(layer.type == "Data" and [*layer.top] == ["data", "label"] for layer in data)
    per_picture = any(layer.type == "Accuracy" for layer in train_val.layer) and deploy.layer[-1].type == "Softmax"
    if not (plain and heads and per_picture and len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]):
        raise SpecError("it is no net that tells the class of a picture")
    return Model(folder, train_val, deploy, shape[2], weights)


def fine_tuned(model: Model, name: str, classes: int, data: Data) -> Nets:
    """The model's nets for other classes: its last layers, renamed, learn ten times as fast as the others."""
    train_val, deploy = NetParameter(), NetParameter()
    train_val.CopyFrom(model.train_val)
    deploy.CopyFrom(model.deploy)
    train_val.name = deploy.name = name
    last = {_scoring(train_val, loss).name for loss in train_val.layer if loss.type == "SoftmaxWithLoss"}
    for layer in [*train_val.layer]:
        if layer.type == "Accuracy" and layer.accuracy_param.top_k > classes:
            train_val.layer.remove(layer)
    for layer in [*train_val.layer, *deploy.layer]:
        if layer.name in last:
            _renew(layer, classes)
    transform = TransformationParameter()
    for layer, source, batch in zip(
        [layer for layer in train_val.layer if layer.type == "Data"],
        ("train", "val"),
        (data.train_batch, data.val_batch),
        strict=True,
    ):
        transform.CopyFrom(layer.transform_param)
        layer.data_param.source = f"{data.folder}/{source}_lmdb"
        layer.data_param.batch_size = batch
        layer.transform_param.ClearField("mean_value")
        layer.transform_param.mean_file = f"{data.folder}/mean.binaryproto"
    deploy.layer[0].input_param.shape[0].dim[0] = 1
    of_imagenet = transform.mean_file.startswith("data/ilsvrc12/")
    mean = tuple(transform.mean_value) or (IMAGENET if of_imagenet else ())
    return Nets(text.format(train_val), text.format(deploy), transform.scale, mean, model.weights)


def _scoring(net: NetParameter, loss: LayerParameter) -> LayerParameter:
    """The layer whose outputs are the classes that a loss reads."""
    blob = loss.bottom[0]
    for layer in reversed(net.layer):
        if blob not in layer.top or layer is loss or not layer.bottom:
            continue
        if layer.type in ("InnerProduct", "Convolution"):
            return layer
        blob = layer.bottom[0]
    raise SpecError(f"layer {loss.name!r} reads no scores of an inner product or a convolution")


def _renew(layer: LayerParameter, classes: int) -> None:
    layer.name += "_new"
    given = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    given.num_output = classes
    if not given.HasField("weight_filler"):
        given.weight_filler.type = "xavier"
    while len(layer.param) < 1 + given.bias_term:
        layer.param.add()
    for i, param in enumerate(layer.param, 1):
        param.lr_mult = 10 * i


# -- the solver ------------------------------------------------------------------------------------------------------


def solver(folder: str, train: int, val: int, data: Data, base_lr: float, epochs: int | None) -> SolverParameter:
    """A solver of about ``epochs`` turns over ``train`` pictures, which scores each of the ``val`` once in a test.

    None: 30 turns, and more where these are fewer than 600 iterations. It tests after each turn, or twenty times where
    that is fewer, and ends with a test and a snapshot; at four and eight tenths of the way the rate falls to a tenth.
    """
    turn = math.ceil(train / data.train_batch)
    iterations = turn * epochs if epochs else max(30 * turn, 600)
    interval = max(turn, math.ceil(iterations / 20))
    tests = math.ceil(iterations / interval)
    return SolverParameter(
        net=f"{folder}/train_val.prototxt",
        test_iter=[val // data.val_batch],
        test_interval=interval,
        base_lr=base_lr,
        lr_policy="step",
        gamma=0.1,
        stepsize=math.ceil(tests * 0.4) * interval,
        momentum=0.9,
        weight_decay=0.0005,
        display=max(1, interval // 5),
        max_iter=tests * interval,
        snapshot=max(1, tests // 4) * interval,
        snapshot_prefix=f"{folder}/net",
        solver_mode=SolverParameter.CPU,
    )


def whole_batches(count: int, most: int) -> tuple[int, int]:
    """The size of batches that take about ``count`` records once each, and how many of the records they take.

    Of up to nine records fewer, the first number that is a product of batches of ten or more, or of a few batches.
    """
    for records in range(count, max(0, count - 10), -1):
        size = next(size for size in range(min(most, records), 0, -1) if records % size == 0)
        if size >= 10 or records // size <= most:
            return size, records
    return 1, count
