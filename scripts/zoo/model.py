"""What a model is: its files in models/NAME, and how nets for use and for training are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffecli.proto.caffe_pb2 import TEST, TRAIN, DataParameter, SolverParameter
from caffecli.spec import text

#: Adds a net's layers to the NetSpec, from the given input on; returns the scores.
Body: TypeAlias = Callable[[NetSpec, Top], Top]

MODELS = Path(__file__).parents[2] / "models"
FILLERS = ("filler", "weight_filler", "bias_filler", "scale_filler", "shift_filler")


@dataclass(frozen=True)
class Model:
    """A folder of models/: ``about``, its first comment line, and its prototxt files."""

    name: str
    about: str
    files: dict[str, Any] = field(repr=False)

    def texts(self) -> dict[Path, str]:
        """The whole text of each file, by its path."""
        head = f"# {self.about}\n# Written by: python -m scripts.zoo\n"
        return {MODELS / self.name / file: head + text.format(message) for file, message in self.files.items()}


@dataclass(frozen=True)
class Source:
    """A data layer: type, the names of its tops, its name if not the first top's, and settings."""

    type: str
    tops: tuple[str, ...]
    settings: dict[str, Any]
    name: str = ""

    def layer(self) -> tuple[Top, ...]:
        name = {"name": self.name} if self.name else {}
        tops = getattr(L, self.type)(ntop=len(self.tops), **name, **self.settings)
        return tops if isinstance(tops, tuple) else (tops,)


def lmdb(
    train: str,
    test: str,
    batches: tuple[int, int],
    *,
    tops: tuple[str, ...] = ("data", "label"),
    mirror: bool = False,
    name: str = "",
    **transform: Any,
) -> list[Source]:
    """Data layers of both phases; ``transform`` is what both do to a picture, ``mirror`` is for training."""

    def make(source: str, batch: int, flips: bool) -> Source:
        settings: dict[str, Any] = {
            "data_param": {"source": source, "batch_size": batch, "backend": DataParameter.LMDB}
        }
        if transform or mirror:
            settings["transform_param"] = {**transform, **({"mirror": flips} if mirror else {})}
        return Source("Data", tops, settings, name)

    return phases(make, (train, batches[0], True), (test, batches[1], False))


def phases(make: Callable[..., Source], *arguments: tuple[Any, ...]) -> list[Source]:
    """``make`` of each tuple of arguments: the first is included in training, the others in tests."""
    made = [make(*each) for each in arguments]
    for source, phase in zip(made, (TRAIN, TEST), strict=True):
        source.settings["include"] = [{"phase": phase}]
    return made


def net(name: str, sources: Sequence[Source], build: Callable[[NetSpec], None]) -> Any:
    """The NetParameter of the sources, then of what ``build`` adds to a NetSpec that has the sources' tops."""
    n = NetSpec()
    heads = []
    for source in sources:
        alone = NetSpec()
        for top_name, top in zip(source.tops, source.layer(), strict=True):
            alone[top_name] = top
            if top_name not in n.tops:
                n[top_name] = top
        heads.append(alone.to_proto().layer[0].SerializeToString())
    build(n)
    made = n.to_proto()
    made.name = name
    names = {source.name or source.tops[0] for source in sources}
    rest = [layer.SerializeToString() for layer in made.layer if layer.name not in names]
    del made.layer[:]
    for layer in [*heads, *rest]:
        made.layer.add().ParseFromString(layer)
    return made


def train_val(name: str, sources: Sequence[Source], body: Body, *, top5: bool = False) -> Any:
    """A classifier between its data and its loss, with its accuracy when tested."""

    def build(n: NetSpec) -> None:
        scores = body(n, n.data)
        n.accuracy = L.Accuracy(scores, n.label, include=[{"phase": TEST}])
        if top5:
            n.accuracy_top5 = L.Accuracy(scores, n.label, include=[{"phase": TEST}], top_k=5)
        n.loss = L.SoftmaxWithLoss(scores, n.label)

    return net(name, sources, build)


def deploy(name: str, shape: Iterable[int], body: Body, *, input_name: str = "data", prob: str = "prob") -> Any:
    """The net from an Input to a Softmax named ``prob`` (none:
    to the body's own end), without the settings of training.
    """

    def build(n: NetSpec) -> None:
        scores = body(n, n.data)
        if prob:
            n[prob] = L.Softmax(scores)

    return inference(net(name, [image(shape, input_name)], build))


def inference(made: Any) -> Any:
    """The net without the settings of training."""
    for layer in made.layer:
        _forget_training(layer)
    return made


def image(shape: Iterable[int], name: str = "data") -> Source:
    """An Input layer of one top, ``data``."""
    return Source("Input", ("data",), {"shape": [{"dim": list(shape)}]}, name)


def solver(model: str, *, file: str = "train_val.prototxt", prefix: str = "", **settings: Any) -> SolverParameter:
    """A solver of ``models/MODEL``; momentum 0.9 and the GPU unless told otherwise."""
    prefix = f"models/{model}/{prefix or model}"
    settings = {"momentum": 0.9, "solver_mode": SolverParameter.GPU, **settings}
    return SolverParameter(net=f"models/{model}/{file}", snapshot_prefix=prefix, **settings)


def _forget_training(layer: Any) -> None:
    """Drop the rates of learning and the fillers; let batch normalisation use the statistics that it has."""
    layer.ClearField("param")
    for descriptor, settings in layer.ListFields():
        if not descriptor.name.endswith("_param"):
            continue
        for filler in FILLERS:
            if filler in settings.DESCRIPTOR.fields_by_name:
                settings.ClearField(filler)
    if layer.type == "BatchNorm":
        layer.batch_norm_param.use_global_stats = True
    elif layer.type == "BN":
        layer.bn_param.bn_mode = layer.bn_param.INFERENCE
