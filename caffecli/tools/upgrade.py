"""``caffecli upgrade_net_proto_text``, ``upgrade_net_proto_binary`` and ``upgrade_solver_proto_text``."""

from __future__ import annotations

from google.protobuf.message import Message

from caffecli import logs
from caffecli.errors import FormatError, SpecError
from caffecli.formats import atomic, caffemodel, foreign
from caffecli.proto import wire
from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
from caffecli.spec import text, upgrade


def upgrade_net_proto_text(old_net: str, new_net: str) -> None:
    """Write the net prototxt ``old_net`` in the present form to ``new_net``.

    Raises SpecError, after writing, when settings of the old net have no counterpart.
    """
    net = text.read(old_net, NetParameter)
    upgraded, complete = upgrade.upgrade_net_checked(net, old_net)
    _finish("upgrade_net_proto_text.cpp", 49, net, upgraded, complete, old_net, new_net)


def upgrade_net_proto_binary(old_net: str, new_net: str) -> None:
    """Write the caffemodel ``old_net`` in the present form to ``new_net``; raises as ``upgrade_net_proto_text``."""
    data = atomic.read_bytes(old_net)
    net = wire.read_net(data)
    if net is None and caffemodel.read(old_net):
        raise FormatError(
            f"{old_net!r} has settings that cannot be read, of a fork that is not known here; upgrade it with that "
            "fork's tool, or take its weights alone: caffecli convert_weights"
        )
    if net is None or not (net.layer or net.layers):
        raise foreign.describe(old_net, data, "a caffemodel")
    upgraded, complete = upgrade.upgrade_net_checked(net, old_net)
    _finish("upgrade_net_proto_binary.cpp", 48, net, upgraded, complete, old_net, new_net)


def upgrade_solver_proto_text(old_solver: str, new_solver: str) -> None:
    """Write the solver prototxt ``old_solver`` in the present form to ``new_solver``."""
    solver = text.read(old_solver, SolverParameter)
    upgraded = upgrade.upgrade_solver(solver, old_solver)
    _finish("upgrade_solver_proto_text.cpp", 49, solver, upgraded, True, old_solver, new_solver)


def _finish(source: str, line: int, old: Message, new: Message, complete: bool, old_path: str, new_path: str) -> None:
    """Write the result, with the reference's log lines; then raise SpecError if some settings have no counterpart."""
    if new is old:
        logs.error(f"{source}:43", f"File already in latest proto format: {old_path}")
    if not complete:
        logs.error(f"{source}:39", "Encountered error(s) while upgrading prototxt; see details above.")
    kind = "binary" if "binary" in source else "text"
    binary = kind == "binary" and isinstance(new, NetParameter)
    with atomic.replacing(new_path) as file:
        file.write(wire.write_net(new) if binary else text.format(new).encode())
    logs.info(f"{source}:{line}", f"Wrote upgraded {new.DESCRIPTOR.name} {kind} proto to {new_path}")
    if not complete:
        raise SpecError(
            f"{old_path!r} has settings that its layers have no use for (see above); {new_path!r} is without them"
        )
