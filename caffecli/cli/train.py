"""``caffecli train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import amp_option, caffe_command, device_options, layers_option, net_state_options
from caffecli.cli.record_options import record_options
from caffecli.cli.watch_options import watch_options

_EFFECTS = click.Choice(["stop", "snapshot", "none"])


@caffe_command("train")
@click.option("--solver", type=click.Path(path_type=Path), required=True, help="The solver definition (prototxt).")
@click.option("--snapshot", type=click.Path(path_type=Path), help="The solverstate to resume training from.")
@click.option("--weights", default="", help="Trained weights to start from; several files separated by ','. Not with --snapshot.")
@click.option("--sigint_effect", type=_EFFECTS, default="stop", help="What SIGINT does.")
@click.option("--sighup_effect", type=_EFFECTS, default="snapshot", help="What SIGHUP does.")
@watch_options
@amp_option
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Run the train net through torch.compile: a slow start; docs/benchmarks.md has what it gains.",
)
@record_options
@device_options
@net_state_options
@layers_option
def train(sigint_effect: str, sighup_effect: str, **settings: Any) -> None:
    """Train a net as its solver file says, or go on with a run."""
    if settings["snapshot"] and settings["weights"]:
        raise click.UsageError("give --snapshot to resume training or --weights to start from, not both")
    from caffecli.solver.signals import Action
    from caffecli.tools import train as tool

    tool.train(tool.TrainOptions(sigint_effect=Action(sigint_effect), sighup_effect=Action(sighup_effect), **settings))
