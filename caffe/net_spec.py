"""Nets written in Python::

    n = caffe.NetSpec()
    n.data, n.label = L.Data(source="train_lmdb", backend=P.Data.LMDB, batch_size=64, ntop=2)
    n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.loss = L.SoftmaxWithLoss(n.conv1, n.label)
    print(n.to_proto())

``L.Type(*bottoms, **settings)`` is a layer. A setting belongs to the layer's own parameter message (``num_output`` to
``convolution_param``), or else to the layer itself (``loss_weight``); those named ``...param`` are always the layer's.
``ntop`` is the number of tops, 1 by default: one Top, a tuple of several, or with 0 the Function. ``in_place`` gives
the tops the names of the bottoms. ``P.Message.VALUE`` is a constant of the schema.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

from caffecli.errors import SpecError
from caffecli.proto import forks
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.wording import did_you_mean

Names: TypeAlias = "dict[Function | Top, str]"

#: types whose settings are another type's message
_SHARED = {
    "Deconvolution": "convolution_param",
    "DepthwiseConvolution": "convolution_param",
    "ConvolutionDepthwise": "convolution_param",
    "Im2col": "convolution_param",
    "LSTM": "recurrent_param",
    "RNN": "recurrent_param",
}
#: what a field holds that is neither a whole number nor a name; by protobuf's number of the C++ type
_KINDS = {
    FieldDescriptor.CPPTYPE_MESSAGE: "a dict",
    FieldDescriptor.CPPTYPE_STRING: "a text",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
}


class FieldNameError(SpecError, AttributeError):
    """No setting, message or constant of that name."""


class FieldValueError(SpecError, TypeError, ValueError):
    """A value that its field cannot hold."""


class TopNameError(SpecError, AttributeError, KeyError):
    """No top of that name."""

    __str__ = Exception.__str__  # KeyError shows the repr


def param_name_dict() -> dict[str, str]:
    """Layer type -> name of its parameter message without ``_param``: ``{"InnerProduct": "inner_product", ...}``."""
    names: dict[str, str] = {}
    for field in LayerParameter.DESCRIPTOR.fields:
        if field.name.endswith("_param") and field.message_type is not None:
            names.setdefault(field.message_type.name.removesuffix("Parameter"), field.name.removesuffix("_param"))
    return names


def to_proto(*tops: Top | Function) -> Any:
    """The NetParameter of all layers that the tops need; blobs get names such as Convolution1."""
    return _net(tops, {})


def assign_proto(proto: Any, name: str, val: Any) -> None:
    """Set a message's field: a dict fills a message, a list a repeated field, as does a single value; a list of several
    resize_param, as MobileNet-YOLO's is, fills that one and ``resize_other``, where those behind the first stand here.

    Raises AttributeError where there is no such field, and TypeError, which is a ValueError too, for a value that it
    cannot hold.
    """
    if name not in proto.DESCRIPTOR.fields_by_name:
        hint = did_you_mean(name, proto.DESCRIPTOR.fields_by_name)
        raise FieldNameError(f"{proto.DESCRIPTOR.name} has no field {name!r}{hint}")
    field = getattr(proto, name)
    if name == "resize_param" and isinstance(val, list | tuple) and val:
        assign_proto(proto, "resize_other", val[1:])
        val = val[0]
    if hasattr(field, "extend"):
        values = list(val) if isinstance(val, list | tuple) else [val]
        for value in values:
            if isinstance(value, dict):
                _fill(field.add(), value)
            else:
                _put(field.append, value, proto, name)
    elif isinstance(val, dict):
        _fill(field, val)
    else:
        _put(functools.partial(setattr, proto, name), val, proto, name)


def _put(put: Callable[[Any], None], value: Any, proto: Any, name: str) -> None:
    field = proto.DESCRIPTOR.fields_by_name[name]
    whole = field.cpp_type in _WHOLE and field.enum_type is None and isinstance(value, float) and value.is_integer()
    try:
        put(int(value) if whole else value)  # Python 2's division gave whole numbers where Python 3's gives floats
    except (TypeError, ValueError, AttributeError):
        what = f"{proto.DESCRIPTOR.name}.{name}: expected {_kind(field)}, got {value!r}"
        raise FieldValueError(what) from None


#: the C++ types of whole numbers
_WHOLE = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)


def _kind(field: FieldDescriptor) -> str:
    """What a field holds, in words."""
    if field.enum_type is not None:
        return f"one of {', '.join(value.name for value in field.enum_type.values if value.number < forks.MOVED)}"
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        return "a whole number from 0 on"
    return _KINDS.get(kind, "a whole number")


def _fill(message: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        assign_proto(message, name, value)


class Top:
    """The ``n``-th output of the layer ``fn``."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> Any:
        """The NetParameter of all layers that this top needs."""
        return to_proto(self)

    def _to_proto(self, layers: dict[Function, Any], names: Names, autonames: Counter[str]) -> None:
        self.fn._to_proto(layers, names, autonames)


class Function:
    """A layer: its type, its bottoms (Tops of other layers), its settings, and its ``tops``."""

    def __init__(self, type_name: str, inputs: tuple[Top, ...], params: dict[str, Any]) -> None:
        for index, bottom in enumerate(inputs):
            if not isinstance(bottom, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(bottom)})")
        self.type_name = type_name
        self.inputs = inputs
        self.params = params
        self.ntop: int = params.pop("ntop", 1)
        self.in_place: bool = params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _name(self, what: Function | Top, names: Names, autonames: Counter[str]) -> str:
        if what not in names:
            autonames[self.type_name] += 1
            names[what] = f"{self.type_name}{autonames[self.type_name]}"
        return names[what]

    def _to_proto(self, layers: dict[Function, Any], names: Names, autonames: Counter[str]) -> None:
        """Add this layer to ``layers``, after those it needs."""
        if self in layers:
            return
        layer = LayerParameter()
        layer.type = self.type_name
        for bottom in self.inputs:
            bottom._to_proto(layers, names, autonames)
            layer.bottom.append(layers[bottom.fn].top[bottom.n])
        layer.top.extend(layer.bottom if self.in_place else [self._name(top, names, autonames) for top in self.tops])
        if self not in names and self.tops:
            names[self] = self._name(self.tops[0], names, autonames)
        layer.name = self._name(self, names, autonames)
        name = _param_names.get(self.type_name)
        own = f"{name}_param" if name else _SHARED.get(self.type_name)
        for key, value in self.params.items():
            _set(layer, own, key, value)
        layers[self] = layer


def _set(layer: Any, own: str | None, key: str, value: Any) -> None:
    """Set one of a layer's settings: in its ``own`` parameter message where that has such a field,
    else in the layer.
    """
    own_fields = getattr(layer, own).DESCRIPTOR.fields_by_name if own else {}
    fields = layer.DESCRIPTOR.fields_by_name
    what = f"layer {layer.name!r} ({layer.type})"
    try:
        if key in own_fields and not key.endswith("param"):
            assign_proto(getattr(layer, own or ""), key, value)
        elif key in fields:
            assign_proto(layer, key, value)
        else:
            hint = did_you_mean(
                key, [*own_fields, *fields], "settings of other messages are given as ..._param=dict(...)"
            )
            raise FieldNameError(f"{what} has no setting {key!r}{hint}")
    except FieldValueError as error:
        raise FieldValueError(f"{what}: {error}") from None


class NetSpec:
    """Tops by name, in the order in which they were assigned:
    ``n.conv1 = L.Convolution(n.data, ...)``, or ``n["conv1"]``.

    ``keys``, ``vals``, ``update`` and ``del n["conv1"]`` are those of SSD's pycaffe; a top so called goes before the
    method.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getattribute__(self, name: str) -> Any:
        if name in ("keys", "vals", "update") and name in self.tops:
            return self.tops[name]
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        tops = self.__dict__.get("tops", {})  # none yet when a copy is being made
        if name not in tops:
            raise TopNameError(f"the NetSpec has no top {name!r}; it has {', '.join(tops) or 'none'}")
        return tops[name]

    def __setitem__(self, key: str, value: Top | Function) -> None:
        setattr(self, key, value)

    def __getitem__(self, item: str) -> Any:
        return getattr(self, item)

    def __delitem__(self, name: str) -> None:
        self[name]  # raises where there is none
        del self.tops[name]

    def keys(self) -> list[str]:
        """The tops' names."""
        return list(self.tops)

    def vals(self) -> list[Top | Function]:
        """The tops."""
        return list(self.tops.values())

    def update(self, name: str, params: dict[str, Any]) -> None:
        """Give the layer of the top ``name`` these settings too, over those of the same names."""
        top = self[name]
        (top.fn if isinstance(top, Top) else top).params.update(params)

    def to_proto(self) -> Any:
        """The NetParameter of all layers that the tops need; the blobs have the tops' names."""
        return _net(tuple(self.tops.values()), {top: name for name, top in self.tops.items()})


def _net(tops: tuple[Top | Function, ...], names: Names) -> Any:
    """A NetParameter of the layers that the tops need."""
    layers: dict[Function, Any] = {}
    autonames: Counter[str] = Counter()
    for top in tops:
        if not isinstance(top, Top | Function):
            raise TypeError(f"{names.get(top, 'a top')} is neither a Top nor a Function (type is {type(top)})")
        top._to_proto(layers, names, autonames)
    return NetParameter(layer=layers.values())


class Layers:
    """``layers``, or ``L``: a function for each layer type, also for types that the schema does not know."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer_fn(*args: Top, **kwargs: Any) -> Any:
            fn = Function(name, args, kwargs)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        return layer_fn


class Parameters:
    """``params``, or ``P``: ``P.Pooling.MAX`` is the constant MAX of PoolingParameter. Raises AttributeError."""

    def __getattr__(self, name: str) -> Any:
        messages = LayerParameter.DESCRIPTOR.file.message_types_by_name
        if f"{name}Parameter" not in messages:
            hint = did_you_mean(name, [one.removesuffix("Parameter") for one in messages if one.endswith("Parameter")])
            raise FieldNameError(f"there is no message {name}Parameter{hint}")
        return message_factory.GetMessageClass(messages[f"{name}Parameter"])


_param_names = param_name_dict()
layers = Layers()
params = Parameters()
