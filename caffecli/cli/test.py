"""``caffecli test``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command, device_options, net_state_options


@caffe_command("test")
@click.option("--model", type=click.Path(path_type=Path), required=True, help="The net definition (prototxt).")
@click.option("--weights", required=True, help="The trained weights; several files separated by ','.")
@click.option("--iterations", type=click.IntRange(1), default=50, help="How many batches to run.")
@device_options
@net_state_options
def test(model: Path, weights: str, iterations: int, gpu: str | None, cpu: bool, level: int, stage: str) -> None:
    """Score a trained net: the mean of its outputs over some batches."""
    from caffecli.solver import score

    score.test(score.TestOptions(model, weights, iterations, gpu, cpu, level, tuple(stage.split(","))))
