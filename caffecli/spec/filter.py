"""Which layers of a net take part in a phase, level and set of stages: their ``include`` and ``exclude`` rules."""

from __future__ import annotations

from collections.abc import Iterable

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, NetState, NetStateRule


def filter_net(net: NetParameter, state: NetState) -> NetParameter:
    """A copy of ``net`` with the layers that ``state`` includes.

    A layer without ``include`` is in unless an ``exclude`` rule is met; one with them is in when any of them is met.
    Raises SpecError for a layer with both kinds of rules.
    """
    filtered = NetParameter()
    filtered.CopyFrom(net)
    del filtered.layer[:]
    filtered.layer.extend(layer for layer in net.layer if takes_part(layer, state))
    return filtered


def takes_part(layer: LayerParameter, state: NetState, log: bool = True) -> bool:
    """Whether ``state`` includes the layer; logs the rules that are not met. Raises SpecError."""
    if layer.include and layer.exclude:
        raise SpecError(f"layer {layer.name!r}: give include rules or exclude rules, not both")
    if layer.include:
        return _any_met(layer.include, layer, state, log)
    return not _any_met(layer.exclude, layer, state, log)


def _any_met(rules: Iterable[NetStateRule], layer: LayerParameter, state: NetState, log: bool) -> bool:
    for rule in rules:
        broken = _why_broken(rule, state)
        if broken is None:
            return True
        line, why = broken
        if log:
            logs.info(f"net.cpp:{line}", f"The NetState {why} specified by a rule in layer {layer.name}")
    return False


def _why_broken(rule: NetStateRule, state: NetState) -> tuple[int, str] | None:
    """The reference's source line and text for the first condition that the state does not meet;
    None if it meets all.
    """
    if rule.HasField("phase") and rule.phase != state.phase:
        return 296, f"phase ({state.phase}) differed from the phase ({rule.phase})"
    if rule.HasField("min_level") and state.level < rule.min_level:
        return 306, f"level ({state.level}) is above the min_level ({rule.min_level})"  # "above" in the reference, too
    if rule.HasField("max_level") and state.level > rule.max_level:
        return 316, f"level ({state.level}) is above the max_level ({rule.max_level})"
    for stage in rule.stage:
        if stage not in state.stage:
            return 332, f"did not contain stage '{stage}'"
    for stage in rule.not_stage:
        if stage in state.stage:
            return 347, f"contained a not_stage '{stage}'"
    return None
