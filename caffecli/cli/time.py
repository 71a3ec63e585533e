"""``caffecli time``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import (
    amp_option,
    caffe_command,
    device_options,
    layers_option,
    model_option,
    net_state_options,
)


@caffe_command("time", brew=True, quiet=True, results=["caffe.cpp"])
@model_option(type=click.Path(path_type=Path), required=True)
@click.option("--iterations", type=click.IntRange(1), default=50, help="How many passes to time.")
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TRAIN", help="The phase to build the net for.")
@click.option(
    "--weights",
    default="",
    expose_value=False,
    help="Read and not used, as in Caffe: times are those of random weights.",
)
@amp_option
@device_options
@net_state_options
@layers_option
def time(phase: str, **settings: Any) -> None:
    """Measure how long each layer takes, forward and backward."""
    from caffecli.proto import caffe_pb2
    from caffecli.tools import time as tool

    tool.time(tool.TimeOptions(phase=caffe_pb2.Phase.Value(phase), **settings))
