"""The learnable blobs of a net: who owns them, who shares them, how fast they learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from caffecli import logs
from caffecli.errors import ShapeError, SpecError
from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import ParamSpec


@dataclass(eq=False)
class Param:
    """One blob that the solver updates. Sharers are listed with the owner, which comes first."""

    spec: ParamSpec
    lr_mult: float
    decay_mult: float
    places: list[tuple[Layer, int]] = field(default_factory=list)

    @property
    def owner(self) -> Layer:
        return self.places[0][0]

    @property
    def index(self) -> int:
        return self.places[0][1]

    @property
    def tensor(self) -> Tensor:
        return self.owner.blobs[self.index]

    @property
    def display_name(self) -> str:
        """The param's own name, or its number in the layer."""
        return self.spec.name or str(self.index)


def add(params: list[Param], named: dict[str, Param], layer: Layer, force_backward: bool = False) -> None:
    """Append a layer's learnable parameters in Caffe's order; a shared one is added to its owner's Param.

    ``named``: those that have names of their own, by name. Sets ``requires_grad`` by lr_mult. Call after ``setup``,
    before ``materialize``.
    """
    if len(layer.param.param) > len(layer.blob_names):
        raise layer.spec_error(f"{len(layer.param.param)} param settings for {len(layer.blob_names)} blob(s)")
    for index, blob in enumerate(layer.blobs):
        spec = ParamSpec()
        if index < len(layer.param.param):
            spec.CopyFrom(layer.param.param[index])
        param = named.get(spec.name)
        if param is None:
            learned = isinstance(blob, nn.Parameter)
            param = Param(spec, spec.lr_mult if learned else 0.0, spec.decay_mult, [(layer, index)])
            params.append(param)
            if spec.name:
                named[spec.name] = param
        else:
            _share(param, layer, index, spec)
        tensor = param.tensor
        tensor.requires_grad_(isinstance(tensor, nn.Parameter) and (param.lr_mult != 0 or force_backward))


def _share(owner: Param, layer: Layer, index: int, spec: ParamSpec) -> None:
    logs.info(
        "net.cpp:467",
        f"Sharing parameters '{spec.name}' owned by layer '{owner.owner.name}', param index {owner.index}",
    )
    theirs, ours = owner.tensor, layer.blobs[index]
    where = f"layer {layer.name!r}, blob {index}: cannot share param {spec.name!r} of layer {owner.owner.name!r}"
    if spec.share_mode == ParamSpec.PERMISSIVE:
        if theirs.numel() != ours.numel():
            raise ShapeError(f"{where}: it has {theirs.numel()} values, {ours.numel()} are needed")
    elif theirs.shape != ours.shape:
        raise ShapeError(f"{where}: its shape is {tuple(theirs.shape)}, {tuple(ours.shape)} is needed")
    for what in ("lr_mult", "decay_mult"):
        if not spec.HasField(what):
            continue
        value = getattr(spec, what)
        if owner.spec.HasField(what) and getattr(owner, what) != value:
            raise SpecError(f"{where}: {what} {value:g} differs from {getattr(owner, what):g}; sharers must agree")
        setattr(owner, what, value)
        setattr(owner.spec, what, value)
    owner.places.append((layer, index))


def tie(params: Sequence[Param]) -> None:
    """Make every sharer use its owner's tensor (a view of it, where shapes differ under PERMISSIVE)."""
    for param in params:
        tensor = param.tensor
        for layer, index in param.places[1:]:
            name = layer.blob_names[index]
            if layer.blobs[index].shape == tensor.shape:
                setattr(layer, name, tensor)
            else:
                view_of(layer, name, param.owner, param.owner.blob_names[param.index])


def view_of(layer: Layer, name: str, owner: Layer, owner_name: str) -> None:
    """Let ``layer.name`` be the owner's tensor, reshaped at each use, so that gradients add up in the owner."""
    shape = getattr(layer, name).shape
    delattr(layer, name)
    reshaped = property(lambda self: getattr(owner, owner_name).reshape(shape))
    layer.__class__ = type(type(layer).__name__, (type(layer),), {name: reshaped})
