"""``caffecli score_detections``."""

from __future__ import annotations

from typing import Any

import click

from caffecli.cli.options import caffe_command, labels_option


@caffe_command("score_detections", quiet=True)
@labels_option("SSD's label map, where the files name classes by number.")
@click.option(
    "--ap_version",
    type=click.Choice(["Integral", "11point", "MaxIntegral", "COCO"]),
    default="Integral",
    help="How average precisions are made: 11point as VOC2007, MaxIntegral as VOC2012, COCO by pycocotools.",
)
@click.option(
    "--overlap_threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    help="The least intersection over union of a hit; COCO has its own.",
)
@click.option("--evaluate_difficult_gt", is_flag=True, help="Count objects that are marked as difficult; not COCO.")
@click.argument("results")
@click.argument("truth")
def score_detections(results: str, truth: str, labels: str | None, **settings: Any) -> None:
    """Score the boxes that a detector found: the average precision of each class, and their mean.

    RESULTS is what caffecli detect wrote (JSON, .csv, COCO's results, or a folder of VOC's), or DetectionOutput by its
    save_output_param. TRUTH is COCO's JSON of all pictures, or a database of convert_annoset.

    \b
      caffecli detect pictures found.json --threshold 0.01 --model deploy.prototxt \\
          --weights ssd.caffemodel --labels labelmap.prototxt
      caffecli score_detections found.json test_lmdb --labels labelmap.prototxt

    Pictures are found by their names, or by COCO's ids. --ap_version COCO adds the mean over the overlaps from 0.5 to
    0.95 (AP), those at 0.5 and 0.75, and those of small, medium and large objects; it needs caffecli[coco].
    """
    if settings["ap_version"] == "COCO":
        source = click.get_current_context().get_parameter_source
        for name in ("overlap_threshold", "evaluate_difficult_gt"):
            if source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} is not for --ap_version COCO, which has its own rules.")
    from caffecli.tools import score_detections as tool

    tool.score_detections(tool.ScoreOptions(results=results, truth=truth, label_map_file=labels, **settings))
