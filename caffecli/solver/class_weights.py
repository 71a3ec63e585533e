"""``--class-weights``: how much each class counts in the losses of the train net."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.layers.loss import SoftmaxWithLoss
from caffecli.net.net import Net

#: asks for weights that make all classes count alike
AUTO = "auto"
#: how many classes the log tells of
_TOLD = 20


def weigh(net: Net, asked: Sequence[float] | str) -> list[float]:
    """Give the classes of each SoftmaxWithLoss of ``net`` the weights ``asked``, in the order of their labels.

    ``auto``: those by which all classes count alike, records / (classes * records of the class), the classes that have
    any; their mean over the records is 1. The labels are counted in what the net's data layer reads, which takes a
    moment. They then stand in the layers' ``loss_param``, as ``class_weighting``. Returns the weights.

    Raises SpecError where there is no such layer, it has weights already, or their number is not the classes';
    and, for ``auto``, where the labels are not those of a database or a list.
    """
    losses = [node.layer for node in net.nodes if isinstance(node.layer, SoftmaxWithLoss)]
    if not losses:
        raise SpecError(
            f"--class-weights: net {net.name!r} has no SoftmaxWithLoss, whose classes they weigh; leave them out"
        )
    found: list[float] = []
    for loss in losses:
        weights = _balanced(net, loss) if asked == AUTO else [*map(float, asked)]
        loss.weigh_classes(weights)
        said = ", ".join(logs.number(weight) for weight in weights[:_TOLD]) + (", ..." if weights[_TOLD:] else "")
        logs.info("solver.cpp:102", f"Class weights of layer {loss.name!r}: {said}")
        found = found or weights
    return found


def _balanced(net: Net, loss: SoftmaxWithLoss) -> list[float]:
    counts = _counts(net, loss)
    if loss.ignore_label is not None:
        counts.pop(loss.ignore_label, None)
    classes, total, present = loss.classes, counts.total(), len(counts)
    wrong = next((label for label in sorted(counts) if not 0 <= label < classes), None)
    if wrong is not None:
        raise loss.spec_error(f"--class-weights auto: there are records of label {wrong}, and {classes} classes")
    missing = [label for label in range(classes) if label not in counts]
    if missing:
        logs.warning("solver.cpp:102", f"--class-weights auto: no record has label {', '.join(map(str, missing[:9]))}")
    return [total / (present * counts[label]) if label in counts else 1.0 for label in range(classes)]


def _counts(net: Net, loss: SoftmaxWithLoss) -> Counter[int]:
    """How many records have each label."""
    name = loss.bottom_names[1]
    for layer in net.source_layers.values():
        if [*layer.param.top][1:] == [name]:
            counts = layer.label_counts()
            if counts:
                return counts
    raise loss.spec_error(
        f"--class-weights auto: its labels {name!r} are not those of a Data or ImageData layer, whose records can be "
        "counted; give the weights themselves, one for each class"
    )
