"""Old nets and solvers to the present form, as the reference upgrades them.

A net goes through these, in this order, each where it is needed: layers of Caffe's first format (V0) to V1; settings of
data layers to ``transform_param``; V1 layers to the present ones; input fields to an Input layer; BatchNorm's three
parameters to rates of zero.
"""

from __future__ import annotations

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from caffecli.spec import upgrade_v0, upgrade_v1

_SOURCE = "upgrade_proto.cpp"
_SOLVER_TYPES = {
    SolverParameter.SGD: "SGD",
    SolverParameter.NESTEROV: "Nesterov",
    SolverParameter.ADAGRAD: "AdaGrad",
    SolverParameter.RMSPROP: "RMSProp",
    SolverParameter.ADADELTA: "AdaDelta",
    SolverParameter.ADAM: "Adam",
}


def needs_upgrade(net: NetParameter) -> bool:
    """Whether any part of the net is in an old form."""
    return bool(net.layers or net.input or any(_is_old_batch_norm(layer) for layer in net.layer))


def upgrade_net(net: NetParameter, name: str = "<net>") -> NetParameter:
    """The net in the present form: ``net`` itself where it is in it already, else a new message.

    Old settings that mean nothing for their layer are logged and left out. ``name`` stands for the file in the log.
    Raises SpecError when the old form is not one that was ever valid.
    """
    return upgrade_net_checked(net, name)[0]


def upgrade_net_checked(net: NetParameter, name: str = "<net>") -> tuple[NetParameter, bool]:
    """``upgrade_net``, and whether every old setting has a counterpart."""
    if not needs_upgrade(net):
        return net, True
    if net.layers and net.layer:
        raise SpecError(
            f"{name}: the net has both 'layer' and 'layers' fields; write all as layer {{ type: \"Type\" ... }}, the "
            "present form"
        )
    complete = True
    if upgrade_v0.is_v0(net):
        _attempt(28, "file specified using deprecated V0LayerParameter", name)
        net, complete = upgrade_v0.upgrade(net)
        if complete:
            _success(36, "file specified using deprecated V0LayerParameter")
        else:
            _trouble(33, "V0NetParameter to NetParameter")
        logs.warning(
            f"{_SOURCE}:39",
            "Note that future Caffe releases will not support V0NetParameter; "
            "use ./build/tools/upgrade_net_proto_text for prototxt and ./build/tools/upgrade_net_proto_binary for "
            "model weights upgrade this and any other net protos to the new format.",
        )
    if upgrade_v1.has_data_settings(net):
        _attempt(46, "file specified using deprecated transformation parameters", name)
        net = upgrade_v1.move_data_settings(net)
        _success(49, "file specified using deprecated data transformation parameters.")
        _note(51, "transform_param messages for transformation fields.")
    if net.layers:
        _attempt(55, "file specified using deprecated V1LayerParameter", name)
        net = upgrade_v1.upgrade(net)
        _success(63, "file specified using deprecated V1LayerParameter")
    if net.input:
        _attempt(69, "file specified using deprecated input fields", name)
        net = _upgrade_input(net, name)
        _success(72, "file specified using deprecated input fields.")
        _note(74, "input layers and not input fields.")
    if any(_is_old_batch_norm(layer) for layer in net.layer):
        logs.info(f"{_SOURCE}:79", f"Attempting to upgrade batch norm layers using deprecated params: {name}")
        net = _upgrade_batch_norm(net)
        logs.info(f"{_SOURCE}:82", "Successfully upgraded batch norm layers using deprecated params.")
    return net, complete


def upgrade_solver(solver: SolverParameter, name: str = "<solver>") -> SolverParameter:
    """The solver with its ``solver_type`` number as the ``type`` name:
    ``solver`` itself where there is none, or a fork's.

    Raises SpecError when it has both.
    """
    if not solver.HasField("solver_type"):
        return solver
    if solver.HasField("type"):
        raise SpecError(f"{name}: the solver has both 'solver_type' (old) and 'type'; remove 'solver_type'")
    if solver.solver_type not in _SOLVER_TYPES:
        return solver
    _attempt(1084, "file specified using deprecated 'solver_type' field (enum)'", name)
    upgraded = SolverParameter()
    upgraded.CopyFrom(solver)
    upgraded.type = _SOLVER_TYPES[solver.solver_type]
    upgraded.ClearField("solver_type")
    _success(1091, "file specified using deprecated 'solver_type' field (enum) to 'type' field (string).")
    _note(1093, "'type' field (string) for a solver's type.")
    return upgraded


def _upgrade_input(net: NetParameter, name: str) -> NetParameter:
    """``input`` with ``input_shape`` or four ``input_dim`` each become an Input layer before all others.

    An ``input`` without either is an old caffemodel's, which needs none.
    """
    upgraded = NetParameter()
    upgraded.CopyFrom(net)
    for field in ("input", "input_shape", "input_dim"):
        upgraded.ClearField(field)
    if not net.input_shape and not net.input_dim:
        return upgraded
    count = len(net.input)
    if net.input_shape and len(net.input_shape) < count:
        raise SpecError(f"{name}: expected an input_shape for each of the {count} input(s), got {len(net.input_shape)}")
    if not net.input_shape and len(net.input_dim) < 4 * count:
        raise SpecError(f"{name}: expected 4 input_dim for each of the {count} input(s), got {len(net.input_dim)}")
    del upgraded.layer[:]
    layer = upgraded.layer.add(name="input", type="Input", top=net.input)
    for i in range(count):
        dims = net.input_shape[i].dim if net.input_shape else net.input_dim[4 * i : 4 * i + 4]
        layer.input_param.shape.add(dim=dims)
    upgraded.layer.extend(net.layer)
    return upgraded


def _is_old_batch_norm(layer: LayerParameter) -> bool:
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _upgrade_batch_norm(net: NetParameter) -> NetParameter:
    """BatchNorm's three statistics are not learned: lr_mult and decay_mult 0, the rest of ``param`` as it is."""
    upgraded = NetParameter()
    upgraded.CopyFrom(net)
    for layer in upgraded.layer:
        if _is_old_batch_norm(layer):
            for param in layer.param:
                param.lr_mult = 0.0
                param.decay_mult = 0.0
    return upgraded


def _attempt(line: int, what: str, name: str) -> None:
    logs.info(f"{_SOURCE}:{line}", f"Attempting to upgrade input {what}: {name}")


def _success(line: int, what: str) -> None:
    logs.info(f"{_SOURCE}:{line}", f"Successfully upgraded {what}")


def _trouble(line: int, what: str) -> None:
    logs.error(
        f"{_SOURCE}:{line}", f"Warning: had one or more problems upgrading {what} (see above); continuing anyway."
    )


def _note(line: int, what: str) -> None:
    logs.warning(f"{_SOURCE}:{line}", f"Note that future Caffe releases will only support {what}")
