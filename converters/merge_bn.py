"""merge_bn: BatchNorm, BN and Scale layers folded into a neighbour with weights, for nets that run and are not trained.

Behind y = w x + c, a layer a y + b for each channel is the same layer with the weights a w and the bias a c + b. Before
it, a x + b goes into the weights w a and the bias c + w b, where no zeros are padded around x. Which layers fold, and
how, their classes say: ``caffecli.layers.folding``; ``fold`` goes through the net.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from caffecli import logs
from caffecli.errors import FormatError, SpecError
from caffecli.formats import caffemodel
from caffecli.formats.atomic import replacing
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from caffecli.spec.load import load_net
from caffecli.spec.upgrade import upgrade_net

if TYPE_CHECKING:
    from converters.fold import Merged

Path_ = str | os.PathLike[str]

_LOG = "merge_bn.py"


def merge_bn(net: Path_, weights: Path_, out_net: Path_, out_weights: Path_, layers: Iterable[str] = ()) -> Merged:
    """Fold what can be folded in the prototxt ``net`` and its caffemodel, and write both anew, or neither.

    A layer that stays is named in a warning, with the reason. The new caffemodel's definition keeps the layers without
    weights by which ``caffecli detect`` sees how the net was trained. ``layers``: modules of the user's own that
    register layers.
    Raises SpecError where nothing can be folded; FormatError.
    """
    definition = load_net(net)
    trained, arrays = caffemodel.read_with_net(weights)
    from caffecli.layers import user_modules  # takes the time of loading torch, which files that are refused do without
    from converters import fold

    user_modules.load(layers)
    targets = [layer.name for layer in definition.layer if fold.target_class(layer)]
    if targets and not any(arrays.get(name) for name in targets):
        raise SpecError(
            f"{str(weights)!r} has no weights for any layer of {str(net)!r}, such as {targets[0]!r}; give its own"
        )
    merged = fold.merge(definition, arrays)
    for name, target in merged.folded.items():
        logs.info(_LOG, f"Folded {name!r} into {target!r}")
    for name, reason in merged.left.items():
        logs.warning(_LOG, f"Left {name!r}: {reason}")
    if not merged.folded:
        reasons = "; ".join(f"layer {name!r}: {reason}" for name, reason in merged.left.items())
        reasons = reasons or f"it has no {fold.foldable_types()} layer"
        raise SpecError(f"{str(net)!r} with {str(weights)!r}: nothing to fold: {reasons}")
    with replacing(out_net, "w") as file:
        file.write(text.format(merged.net))
        caffemodel.write(out_weights, _with_training(merged.net, trained, os.fspath(weights)), merged.weights)
    return merged


def _with_training(net: NetParameter, trained: NetParameter | None, weights: str) -> NetParameter:
    """The net behind those layers of the trained one that it lacks and that tell of the data: data layers, and Python
    code with settings.
    """
    try:
        with logs.quiet():
            layers = [] if trained is None else upgrade_net(trained, weights).layer
    except (FormatError, SpecError):
        layers = []
    told = ("transform_param", "data_param", "image_data_param")
    there = {(layer.name, layer.type) for layer in net.layer}
    made = NetParameter()
    made.CopyFrom(net)
    del made.layer[:]
    made.layer.extend(
        layer
        for layer in layers
        if (layer.name, layer.type) not in there
        and ((layer.top and not layer.bottom and any(map(layer.HasField, told))) or layer.python_param.param_str)
    )
    made.layer.extend(net.layer)
    return made
