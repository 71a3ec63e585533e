"""``caffecli test``."""

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
    weights_option,
)


@caffe_command("test", brew=True, quiet=True, results=["caffe.cpp", "solver.cpp", "confusion", "video_data"])
@model_option(type=click.Path(path_type=Path), required=True)
@weights_option("The trained weights; several files separated by ','.", required=True)
@click.option("--iterations", type=click.IntRange(1), help="How many batches to run. [default: 50, as Caffe]")
@click.option(
    "--all",
    "each",
    is_flag=True,
    help="Take each record once, in place of --iterations; the default of --predictions and --confusion.",
)
@click.option(
    "--predictions", type=click.Path(path_type=Path), help="Write the best classes of each record to this CSV file."
)
@click.option(
    "--confusion", type=click.Path(path_type=Path), help="Write which classes are taken for which to this CSV file."
)
@click.option("--top", type=click.IntRange(1), default=5, help="How many classes --predictions tells.")
@click.option(
    "--blob", help="The blob that scores the classes; by default the one that Accuracy, the loss or Softmax reads."
)
@click.option(
    "--ap_version",
    type=click.Choice(["Integral", "11point", "MaxIntegral"]),
    default="Integral",
    help="How a detector's average precisions are made: 11point as VOC2007, MaxIntegral as VOC2012.",
)
@amp_option
@device_options
@net_state_options
@layers_option
def test(predictions: Path | None, confusion: Path | None, blob: str | None, **settings: Any) -> None:
    """Score a trained net: the mean of its outputs over some batches.

    The CSV files have a row for each record (key, label, classes and scores as the blob holds them), and a row for each
    true class with a column for each predicted one; the log then tells the accuracy of each class. Where a loss of
    values (EuclideanLoss, SigmoidCrossEntropyLoss) takes the place of classes, a record has its targets and values.
    Of DetectionEvaluate's output the log tells the average precision of each class, and their mean.
    """
    if settings["each"] and settings["iterations"] is not None:
        raise click.UsageError("--all takes each record once, --iterations so many batches; give one of them.")
    if blob is not None and not (predictions or confusion):
        raise click.UsageError("--blob is for --predictions and --confusion; give one of them.")
    if predictions is not None and predictions == confusion:
        raise click.UsageError(f"--predictions and --confusion both name {str(confusion)!r}; give each its own file.")
    from caffecli.tools import test as tool

    tool.test(tool.TestOptions(predictions=predictions, confusion=confusion, blob=blob, **settings))
