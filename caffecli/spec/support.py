"""What a net or solver needs of Caffe's forks that is not supported: one error for all of it.

The error names layer types first, then settings of other layers, each with its forks, and says what works all the same.
Fields without influence on the result are only logged, in one line.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.proto import forks, unsupported
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, NetState, Phase, SolverParameter
from caffecli.proto.fork_numbers import VALUES
from caffecli.spec.filter import takes_part
from caffecli.spec.instead import INSTEAD


class _Need(NamedTuple):
    """A type of layer, or a setting, that is not here."""

    name: str
    layer: str
    forks: tuple[str, ...]
    instead: str | None


class _Setting(NamedTuple):
    """A field that is set, with its path."""

    path: str
    message: str
    field: FieldDescriptor
    value: object


def check(net: NetParameter, types: Collection[str], whole: NetParameter | None = None) -> None:
    """Raise SpecError for what the filtered ``net`` needs and does not find
    among the ``types`` of layers that are here.

    ``whole`` is the net of all phases, used to say which phase works.
    """
    what = f"net {net.name!r}" if net.name else "the net"
    found = [_needs(layer, types) for layer in net.layer]
    own = [_need(setting, "") for setting in _settings(net, unsupported_only=True)]
    if not own and not any(found):
        _log_ignored(what, [net, *net.layer])
        return
    by_type = [need for layer, needs in zip(net.layer, found, strict=True) for need in needs if layer.type not in types]
    fields = [
        *own,
        *(need for layer, needs in zip(net.layer, found, strict=True) for need in needs if layer.type in types),
    ]
    parts = [*_said("layers", by_type), *_said("settings", fields)]
    hints = list(dict.fromkeys(f"for {need.name} {need.instead}" for need in [*by_type, *fields] if need.instead))
    works = None if own else _what_works(net, types, whole)
    if works:
        hints.append(works)
    elif by_type and not fields and not hints:
        one = len({need.name for need in by_type}) == 1
        hints.append(
            f"{'it' if one else 'they'} can be written in PyTorch (docs/your-own-layer.md) and named by --layers"
        )
    raise SpecError("; ".join([f"{what} needs {' and '.join(parts)}, which {_are(by_type + fields)} not here", *hints]))


def check_solver(solver: SolverParameter, name: str) -> None:
    """Raise SpecError for a solver's settings of forks that are not here. ``name`` stands for its file."""
    needs = [_need(setting, "") for setting in _settings(solver, unsupported_only=True)]
    if needs:
        instead = {need.name: need.instead for need in needs if need.instead}
        hints = [f"for {field} {remedy}" for field, remedy in instead.items()]
        what = f"{name}: the solver needs {' and '.join(_said('settings', needs))}, which {_are(needs)} not here"
        raise SpecError("; ".join([what, *hints]))
    _log_ignored(name, [solver])


def _needs(layer: LayerParameter, types: Collection[str]) -> list[_Need]:
    """What a layer lacks: its type, or settings. A type that nobody knows is left to the registry, for its hint."""
    if layer.type not in types:
        owners = forks.of_type(layer.type)
        return [_Need(layer.type, layer.name, tuple(owners), None)] if owners else []
    return [_need(setting, layer.name) for setting in _settings(layer, unsupported_only=True)]


def _need(setting: _Setting, layer: str) -> _Need:
    owners = forks.of_unsupported(setting.message, setting.field.name)
    if not owners and setting.field.enum_type is not None:  # its value is a fork's
        enum = setting.field.enum_type
        named = VALUES[enum.full_name.removeprefix("caffe.")].values()
        owners = [fork for each in named for fork, value in each if value == setting.value and fork]
        return _Need(f"{setting.path}: {enum.values_by_number[setting.value].name}", layer, tuple(owners), None)
    return _Need(setting.path, layer, tuple(owners), INSTEAD.get(setting.message, {}).get(setting.field.name))


@functools.cache
def _known(message: str) -> dict[str, bool]:
    """A message's fields that nothing here reads, and whether they change the result."""
    tables = (*unsupported.FIELDS.values(), *unsupported.NAMES.values())
    how = dict.fromkeys(unsupported.HOW.get(message, "").split(), False)
    return how | {name: True for each in tables for name in each.get(message, "").split()}


def _settings(message: Message, unsupported_only: bool, path: str = "") -> Iterator[_Setting]:
    """The fields and enum values that are set and that nothing here reads, without those at their default."""
    name = message.DESCRIPTOR.full_name.removeprefix("caffe.")
    known = _known(name)
    for field, value in message.ListFields():
        full = f"{path}{field.name}"
        if field.name in known:
            if known[field.name] == unsupported_only and (isinstance(value, Message) or value != field.default_value):
                yield _Setting(full, name, field, value)
        elif field.message_type is not None and field.message_type.name not in (
            "BlobProto",
            "LayerParameter",
            "NetParameter",
        ):
            for item in [value] if isinstance(value, Message) else value:
                yield from _settings(item, unsupported_only, f"{full}.")
        elif unsupported_only and field.enum_type is not None and _is_unsupported_value(field, value):
            yield _Setting(full, name, field, value)


def _is_unsupported_value(field: FieldDescriptor, value: object) -> bool:
    enum = field.enum_type
    names = unsupported.VALUES.get(enum.full_name.removeprefix("caffe."), "").split()
    return any(enum.values_by_name[name].number == value for name in names)


def _said(noun: str, needs: list[_Need]) -> list[str]:
    """``the layers A ('a') and B ('b') of SSD (weiliu89/caffe)``, for each fork."""
    counts = Counter(fork for need in needs for fork in need.forks)
    by_fork: dict[tuple[str, ...], list[_Need]] = {}
    for need in needs:
        most = max(counts[fork] for fork in need.forks)
        by_fork.setdefault(tuple(fork for fork in need.forks if counts[fork] == most), []).append(need)
    return [
        f"the {noun[: -1 if len({need.name for need in each}) == 1 else None]} {_listed(each)} of {_titles(owners)}"
        for owners, each in by_fork.items()
    ]


def _titles(owners: tuple[str, ...]) -> str:
    return " or ".join(forks.title(fork) for fork in owners)


def _listed(needs: list[_Need]) -> str:
    layers: dict[str, list[str]] = {}
    for need in needs:
        layers.setdefault(need.name, []).append(need.layer)
    said = [f"{name}{_in_layers(names)}" for name, names in layers.items()]
    return ", ".join(said[:-1]) + " and " + said[-1] if len(said) > 1 else said[0]


def _in_layers(names: list[str]) -> str:
    if not names[0]:
        return ""
    return f" ({names[0]!r}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"


def _are(needs: list[_Need]) -> str:
    return "is" if len({need.name for need in needs}) == 1 else "are"


def _what_works(net: NetParameter, types: Collection[str], whole: NetParameter | None) -> str | None:
    """The phase, or the form of the net (deploy), that needs none of what is not here."""
    for phase in Phase.values() if whole is not None else ():
        state = NetState()
        state.CopyFrom(net.state)
        state.phase = phase
        layers = [layer for layer in whole.layer if takes_part(layer, state, log=False)] if whole is not None else []
        if phase != net.state.phase and _runs(layers, types=types):
            return f"in phase {Phase.Name(phase)} the net runs"
    if _runs(*_deploy(net), types=types):
        return "its deploy net, which has neither data layers nor losses, runs"
    return None


def _runs(layers: Sequence[LayerParameter], inputs: Collection[str] = (), *, types: Collection[str]) -> bool:
    """Whether there are layers, of types and with settings that are here, that read inputs and what others make."""
    made = set(inputs)
    for layer in layers:
        if layer.type not in types or _needs(layer, types) or not made.issuperset(layer.bottom):
            return False
        made.update(layer.top)
    return bool(layers)


def _deploy(net: NetParameter) -> tuple[list[LayerParameter], set[str]]:
    """The layers and inputs of the deploy net that goes with ``net``; no layers where that is one already.

    Its inputs are the first tops of the data layers. The others, labels say, are not there: losses go, and layers of
    labels alone, and those that read labels beside other blobs where no layer that stays reads what they make.
    """
    sources = [layer for layer in net.layer if _is_source(layer)]
    losses = [layer for layer in net.layer if "Loss" in layer.type or any(layer.loss_weight)]
    if not losses and any(layer.type == "Input" for layer in sources):
        return [], set()
    inputs: set[str] = set()
    labels: set[str] = set()
    for layer in net.layer:
        if layer in sources:
            count = len(layer.top) if layer.type == "Input" else 1
            inputs.update(layer.top[:count])
            labels.update(layer.top[count:])
        elif layer in losses or (layer.bottom and labels.issuperset(layer.bottom)):
            labels.update(layer.top)
    kept: list[LayerParameter] = []
    read: set[str] = set()
    for layer in reversed(net.layer):
        of_labels = layer.bottom and not labels.isdisjoint(layer.bottom)
        if layer not in sources and layer not in losses and not (of_labels and read.isdisjoint(layer.top)):
            kept.insert(0, layer)
            read.update(layer.bottom)
    return kept, inputs


def _is_source(layer: LayerParameter) -> bool:
    """Whether the layer reads records, which a deploy net is given instead."""
    return not layer.bottom and (layer.type in ("Input", "Python") or "Data" in layer.type)


def _log_ignored(what: str, messages: list[Message]) -> None:
    """Log the settings without influence on the result, in one line."""
    found = Counter(setting.path for message in messages for setting in _settings(message, unsupported_only=False))
    if found:
        names = [f"{path} ({count} times)" if count > 1 else path for path, count in found.items()]
        logs.warning(
            "net.cpp:53", f"{what}: not looked at, as they choose only how a fork computes: {', '.join(names)}"
        )
