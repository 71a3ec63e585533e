"""Layer types by name.

A layer class says ``@register("ReLU")``; a net asks ``create(param, phase)``. A name taken twice is an error at import;
a name nobody took is one for the user, with the nearest name that exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from caffecli.errors import SpecError
from caffecli.layers import outside
from caffecli.layers.base import Context, Layer
from caffecli.proto import forks
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter
from caffecli.wording import did_you_mean

_LAYERS: dict[str, type[Layer]] = {}
#: what is said of a type that no known name is near to
_OWN = "docs/layers.md lists the types; a module with one of your own is named by --layers MODULE"
L = TypeVar("L", bound=type[Layer])


def register(type_name: str) -> Callable[[L], L]:
    """Class decorator: the layer that prototxts call ``type_name``.

    Raises SpecError for a name that is no text or taken, for what is no layer's class, and for a class whose
    attributes are not of the kind that ``Layer`` says.
    """
    if not isinstance(type_name, str) or not type_name.strip():
        what = "a class without a name" if isinstance(type_name, type) else f"{type_name!r:.60}, which is no name"
        raise SpecError(f'register is given {what}; write @caffecli.register("MyType") over the class')

    def add(cls: L) -> L:
        if not isinstance(cls, type) or not issubclass(cls, Layer):
            name = f"{getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', cls)}"
            raise SpecError(f"layer type {type_name!r}: {name} is no layer; derive the class from caffecli.Layer")
        outside.check_class(cls)
        if type_name in _LAYERS:
            both = " and ".join(f"{one.__module__}.{one.__qualname__}" for one in (_LAYERS[type_name], cls))
            raise SpecError(f"layer type {type_name!r} is registered twice, by {both}; give one of them another name")
        cls.type = type_name
        _LAYERS[type_name] = cls
        return cls

    return add


def types() -> list[str]:
    """All registered type names, sorted."""
    return sorted(_LAYERS)


def classes() -> list[type[Layer]]:
    """The classes of all registered types, in the order of their names."""
    return [_LAYERS[name] for name in types()]


def layer_class(type_name: str) -> type[Layer] | None:
    """The class of a type; None where there is none of that name."""
    return _LAYERS.get(type_name)


def create(param: LayerParameter, phase: int = TRAIN, context: Context | None = None) -> Layer:
    """The layer that ``param`` describes, not yet set up.

    Raises SpecError when no layer has that type.
    """
    if param.HasField("phase"):
        phase = param.phase
    cls = _LAYERS.get(param.type)
    if cls is None:
        what = f"layer {param.name!r}: unknown type {param.type!r}"
        if owners := forks.of_type(param.type):
            raise SpecError(f"{what}; it is one of {' or '.join(map(forks.title, owners))}, which is not here")
        raise SpecError(what + did_you_mean(param.type, _LAYERS, _OWN))
    with outside.guarded(cls, param.name, "__init__"):
        cls = cls.that_computes(param, context or Context())
        layer = cls(param, TEST if phase == TEST else TRAIN, context)
    if not {"param", "context", "blob_names"} <= vars(layer).keys():
        raise SpecError(
            f"layer {param.name!r} ({cls.type}): its __init__ does not call super().__init__(param, phase, context)"
        )
    if cls.forward is nn.Module.forward:
        raise layer.spec_error("its class has no method forward(self, bottom)")
    return layer
