"""What a training leaves behind, and how it repeats: flags of ``caffecli train`` that Caffe does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)
_GOES_ON = "On --snapshot the file goes on, without its lines from that iteration on; otherwise it starts anew."
_OPTIONS = (
    click.option("--keep", metavar="N", type=click.IntRange(min=1), help="Keep this run's newest N snapshots only."),
    click.option(
        "--seed", metavar="N", type=click.IntRange(0, 2**63 - 1), help="The random seed, instead of the solver's random_seed."
    ),
    click.option("--deterministic", is_flag=True, help="Use only algorithms that repeat bit for bit, on GPUs too; slower."),
    click.option("--log-file", type=_FILE, help="Append the log to this file too."),
    click.option("--csv", type=_FILE, help=f"Write every figure to this CSV file, line by line. {_GOES_ON}"),
    click.option("--jsonl", type=_FILE, help=f"Write every figure to this file, a JSON object a line. {_GOES_ON}"),
    click.option(
        "--tensorboard",
        type=click.Path(path_type=Path, file_okay=False),
        help="Write every figure to TensorBoard event files in this folder; needs the package tensorboard.",
    ),
)


def record_options(command: F) -> F:
    """Adds the flags, named as the fields of ``TrainOptions`` that they set."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
