"""``caffecli detect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command, labels_option
from caffecli.cli.picture_options import picture_options


@caffe_command(
    "detect",
    empty=["mean", "channel_swap"],
    quiet=True,
    results=["preprocessing", "data_transformer", "detect_regions"],
)
@picture_options
@click.option(
    "--crop_mode",
    type=click.Choice(["list", "selective_search"]),
    default="selective_search",
    help="Where windows come from: the .csv, or MATLAB's selective search.",
)
@click.option(
    "--context_pad", type=click.IntRange(0), default=16, help="Pixels of the net's input that show what is around."
)
@click.option("--draw", metavar="FOLDER", help="Write the pictures, or videos, with their boxes into FOLDER.")
@click.option(
    "--format",
    type=click.Choice(["json", "csv", "coco", "voc", "hdf5"]),
    show_default="csv, or hdf5 for .h5, where it ends so, else json",
    help="Of OUTPUT_FILE; voc: a folder, with a file for each class; hdf5: regions for --proposals.",
)
@labels_option("SSD's label map, for the classes' names.")
@click.option(
    "--resize_mode",
    type=click.Choice(["WARP", "FIT_SMALL_SIZE", "FIT_LARGE_SIZE_AND_PAD"]),
    show_default="as it was trained",
    help="How a detector's pictures get the net's size.",
)
@click.option(
    "--side",
    type=click.FloatRange(1),
    show_default="as it was trained, else 600",
    help="R-CNN: the shorter side of pictures in the net.",
)
@click.option(
    "--max_side",
    type=click.FloatRange(1),
    show_default="as it was trained, else 1000",
    help="R-CNN: the most of the longer side.",
)
@click.option(
    "--nms_threshold",
    type=click.FloatRange(0, 1),
    show_default="0.3",
    help="R-CNN: the most overlap of two objects of a class.",
)
@click.option("--proposals", help="Fast R-CNN: the HDF5 file of the pictures' regions.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    show_default="0.3; of a database 0.01; 0 for regions",
    help="The least score of an object.",
)
@click.argument("input_file", type=click.Path())
@click.argument("output_file", required=False, type=click.Path())
def detect(
    input_file: str,
    output_file: str | None,
    model: str | None,
    weights: str | None,
    scale: float | None,
    **settings: Any,
) -> None:
    """Find the objects in pictures with a detector; or classify windows of pictures.

    With a detector (SSD and its kin, YOLO, Fast and Faster R-CNN, R-FCN; --model its deploy net, --weights its weights)
    INPUT_FILE is a picture, a folder of pictures, a .txt of their paths, a video, or a database of
    convert_annoset, and OUTPUT_FILE takes the boxes: JSON, .csv, COCO's or VOC's results.

    \b
      caffecli detect street.jpg boxes.json --draw seen --labels labelmap_voc.prototxt \\
          --model deploy.prototxt --weights ssd.caffemodel

    Pictures are prepared as the net was trained, by its data layer in --weights, or in --like; where there is none, as
    SSD's are: WARP, less 104,117,123, times 1. --mean, --scale and --resize_mode say otherwise. Of the
    R-CNN family: as py-faster-rcnn's are, or as RoIDataLayer's param_str says. A net that proposes regions alone writes
    them for a Fast R-CNN to learn on, and to be used with --proposals:

    \b
      caffecli detect trainval_lmdb proposals.h5 --model rpn_test.prototxt --weights rpn.caffemodel

    To classify windows INPUT_FILE is a .csv with the head filename,ymin,xmin,ymax,xmax for --crop_mode list; for
    selective_search a .txt of the pictures' names will do. OUTPUT_FILE is a .csv with a column for each class, or else
    HDF5: filename, window, prediction. --crop_mode, --context_pad and --raw_scale are for windows.
    """
    settings |= {"model_def": model, "pretrained_model": weights, "input_scale": scale}
    if input_file.lower().endswith(".csv") or (
        input_file.lower().endswith(".txt") and not _is_for_a_detector(settings)
    ):
        _classify_windows(input_file, output_file, settings)
    else:
        _find_objects(input_file, output_file, settings)


_OF_DETECTORS = (
    "draw", "format", "labels", "max_side", "nms_threshold", "proposals", "resize_mode", "side", "threshold",
)  # fmt: skip
_OF_WINDOWS = ("crop_mode", "context_pad", "raw_scale")


def _is_for_a_detector(settings: dict[str, Any]) -> bool:
    """Whether a .txt of pictures is given to a detector, by the flags, else by the net."""
    if any(map(_given, _OF_WINDOWS)) or not settings["model_def"]:
        return False
    if any(map(_given, _OF_DETECTORS)):
        return True
    from caffecli.tools import detect as tool

    return tool.is_detector(settings["model_def"], settings["layers"])


def _classify_windows(input_file: str, output_file: str | None, settings: dict[str, Any]) -> None:
    if output_file is None:
        raise click.UsageError("Missing argument 'OUTPUT_FILE'.")
    if settings["crop_mode"] == "list" and not input_file.lower().endswith(".csv"):
        raise click.UsageError(f"--crop_mode list takes its windows from a .csv, not {input_file!r}.")
    for name in _OF_DETECTORS:
        if _given(name):
            raise click.UsageError(
                f"--{name} is for a detector, whose INPUT_FILE is a picture, a folder, a .txt of paths or a video."
            )
        settings.pop(name)
    from caffecli.tools import detect as tool

    tool.detect_windows(tool.WindowOptions(input_file=input_file, output_file=output_file, **settings))


def _find_objects(input_file: str, output_file: str | None, settings: dict[str, Any]) -> None:
    if not settings["model_def"] or not settings["pretrained_model"]:
        raise click.UsageError(
            f"{input_file!r} is neither a .csv of windows nor a .txt of the names of pictures; to find objects in it "
            "give a detector by --model and --weights."
        )
    for name in _OF_WINDOWS:
        if _given(name):
            raise click.UsageError(
                f"--{name} is for windows of pictures, and {input_file!r} is neither a .csv of windows nor a .txt of "
                "the names of pictures."
            )
        settings.pop(name)
    if output_file is None and settings["draw"] is None:
        raise click.UsageError("give OUTPUT_FILE, or --draw FOLDER, or both.")
    swap = settings.pop("channel_swap")
    if swap not in (None, (), (2, 1, 0)):
        raise click.UsageError("--channel_swap of a detector is 2,1,0 (blue first) or '' (red first).")
    ending = Path(output_file or "").suffix.lower()
    if settings["format"] is None and ending in (".xml", ".txt"):
        raise click.UsageError(f"OUTPUT_FILE {output_file!r} would hold JSON; call it .json or .csv, or give --format.")
    settings["format"] = settings["format"] or {".csv": "csv", ".h5": "hdf5"}.get(ending, "json")
    settings["bgr"], settings["label_map_file"] = swap != (), settings.pop("labels")
    from caffecli.tools import detect as tool

    tool.detect_objects(tool.ObjectOptions(input_file=input_file, output_file=output_file, **settings))


def _given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
