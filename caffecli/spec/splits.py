"""Split layers: a blob that several layers read gets a copy for each, so that their gradients add up.

The layer that copies top ``j`` (blob ``b``) of layer ``a`` is ``b_a_j_split``, its tops ``b_a_j_split_0``, ``_1``, and
so on. Logs, caffemodels and programs see these names. A top with a loss weight counts as read once more: by the loss.
"""

from __future__ import annotations

from collections import Counter

from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, Phase
from caffecli.wording import did_you_mean

Top = tuple[int, int]  # (index of the layer, index of its top)


def insert_splits(net: NetParameter, whole: NetParameter | None = None) -> NetParameter:
    """A copy of ``net`` with a Split layer behind each top that is read more than once.

    Raises SpecError when a layer reads a blob that no layer before it makes. ``whole`` is the net with the layers that
    its state leaves out: where one of them makes the blob in another stage, the error names the stage.
    """
    sources, readers, weights = _trace(net, whole or net)
    split = NetParameter()
    split.CopyFrom(net)
    del split.layer[:]
    taken: Counter[Top] = Counter()
    for i, original in enumerate(net.layer):
        layer = split.layer.add()
        layer.CopyFrom(original)
        for j, blob in enumerate(original.bottom):
            top = sources[i, j]
            if readers[top] > 1:
                layer.bottom[j] = f"{_split_name(net.layer[top[0]].name, blob, top[1])}_{taken[top]}"
                taken[top] += 1
        for j, blob in enumerate(original.top):
            top = (i, j)
            if readers[top] > 1:
                _add_split(split, _split_name(original.name, blob, j), blob, readers[top], weights.get(top, 0.0))
                if weights.get(top):
                    _drop_loss_weight(layer, j)
                    taken[top] += 1
    return split


def _trace(net: NetParameter, whole: NetParameter) -> tuple[dict[tuple[int, int], Top], Counter[Top], dict[Top, float]]:
    """For each bottom the top it reads; for each top the number of its readers, and its loss weight."""
    makers: dict[str, Top] = {}
    sources: dict[tuple[int, int], Top] = {}
    readers: Counter[Top] = Counter()
    weights: dict[Top, float] = {}
    for i, layer in enumerate(net.layer):
        for j, blob in enumerate(layer.bottom):
            if blob not in makers:
                raise SpecError(_unknown_bottom(net, i, blob, makers, whole))
            sources[i, j] = makers[blob]
            readers[makers[blob]] += 1
        makers.update((blob, (i, j)) for j, blob in enumerate(layer.top))
        for blob, weight in zip(layer.top, layer.loss_weight, strict=False):
            weights[makers[blob]] = weight
            readers[makers[blob]] += weight != 0
    return sources, readers, weights


def _unknown_bottom(net: NetParameter, i: int, blob: str, makers: dict[str, Top], whole: NetParameter) -> str:
    what = f"layer {net.layer[i].name!r}: unknown bottom blob {blob!r}"
    later = [layer.name for layer in net.layer[i + 1 :] if blob in layer.top]
    if later:
        return f"{what}; layer {later[0]!r} makes it, and must come before"
    phase = f" in phase {Phase.Name(net.state.phase)}" if net.state.HasField("phase") else ""
    if stage := _stage_of(blob, whole):
        return f"{what}; no layer makes it{phase} without stage {stage!r}: give --stage, or a state in the solver"
    return what + did_you_mean(blob, makers, f"no layer makes it{phase}")


def _stage_of(blob: str, whole: NetParameter) -> str | None:
    """The stage in which a layer of the present phase would make the blob."""
    rules = [rule for layer in whole.layer if blob in layer.top for rule in layer.include]
    phase = whole.state.phase
    missing = [
        stage
        for rule in rules
        if not rule.HasField("phase") or rule.phase == phase
        for stage in rule.stage
        if stage not in whole.state.stage
    ]
    return missing[0] if missing else None


def _split_name(layer: str, blob: str, top: int) -> str:
    return f"{blob}_{layer}_{top}_split"


def _add_split(net: NetParameter, name: str, blob: str, count: int, loss_weight: float) -> None:
    tops = [f"{name}_{k}" for k in range(count)]
    layer = net.layer.add(name=name, type="Split", bottom=[blob], top=tops)
    if loss_weight:
        layer.loss_weight.extend([loss_weight] + [0.0] * (count - 1))


def _drop_loss_weight(layer: LayerParameter, top: int) -> None:
    """Remove the loss weight that the Split layer has taken over.
    (The reference also removes the other tops' weights.)
    """
    layer.loss_weight[top] = 0.0
    if not any(layer.loss_weight):
        del layer.loss_weight[:]
