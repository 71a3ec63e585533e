"""``caffecli upgrade_net_proto_text``, ``upgrade_net_proto_binary`` and ``upgrade_solver_proto_text``."""

from __future__ import annotations

import click

from caffecli.cli.options import caffe_command


@caffe_command("upgrade_net_proto_text")
@click.argument("old_net")
@click.argument("new_net")
def upgrade_net_proto_text(old_net: str, new_net: str) -> None:
    """Write the net prototxt OLD_NET, of any age of Caffe, in the present form to NEW_NET."""
    from caffecli.tools import upgrade as tool

    tool.upgrade_net_proto_text(old_net, new_net)


@caffe_command("upgrade_net_proto_binary")
@click.argument("old_net")
@click.argument("new_net")
def upgrade_net_proto_binary(old_net: str, new_net: str) -> None:
    """Write the weights OLD_NET (a caffemodel), of any age of Caffe, in the present form to NEW_NET."""
    from caffecli.tools import upgrade as tool

    tool.upgrade_net_proto_binary(old_net, new_net)


@caffe_command("upgrade_solver_proto_text")
@click.argument("old_solver")
@click.argument("new_solver")
def upgrade_solver_proto_text(old_solver: str, new_solver: str) -> None:
    """Write the solver prototxt OLD_SOLVER, of any age of Caffe, in the present form to NEW_SOLVER."""
    from caffecli.tools import upgrade as tool

    tool.upgrade_solver_proto_text(old_solver, new_solver)
