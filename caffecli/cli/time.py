"""``caffecli time``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import amp_option, caffe_command, device_options, net_state_options


@caffe_command("time")
@click.option("--model", type=click.Path(path_type=Path), required=True, help="The net definition (prototxt).")
@click.option("--iterations", type=click.IntRange(1), default=50, help="How many passes to time.")
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TRAIN", help="The phase to build the net for.")
@click.option("--weights", default="", help="Read and not used, as in Caffe: times are those of random weights.")
@amp_option
@device_options
@net_state_options
def time(
    model: Path, iterations: int, phase: str, weights: str, amp: bool, gpu: str | None, cpu: bool, level: int, stage: str
) -> None:
    """Measure how long each layer takes, forward and backward."""
    from caffecli.proto import caffe_pb2
    from caffecli.solver import timing

    timing.time(
        timing.TimeOptions(model, iterations, caffe_pb2.Phase.Value(phase), gpu, cpu, level, tuple(stage.split(",")), amp)
    )
