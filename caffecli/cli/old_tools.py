"""The programs that Caffe had before ``caffe train`` and its like, in 2013 and 2014,
with the same positional arguments.

Only ``link-tools`` makes them; the commands they stand for do the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from caffecli import logs
from caffecli.cli import main
from caffecli.cli.options import caffe_command, layers_option

_ITERATIONS = click.IntRange(1)
_file = click.Path(path_type=Path)
_mode = click.argument("mode", type=click.Choice(["CPU", "GPU"]), default="CPU")
_device = click.argument("device_id", type=click.IntRange(0), default=0)


def _gpu(mode: str, device_id: int) -> str | None:
    return str(device_id) if mode == "GPU" else None


@caffe_command("train_net")
@layers_option
@click.argument("solver", type=_file)
@click.argument("snapshot", type=_file, required=False)
def _train_net(solver: Path, snapshot: Path | None, layers: tuple[str, ...]) -> None:
    """Train a net, or go on from SNAPSHOT: caffe train --solver=SOLVER [--snapshot=SNAPSHOT]."""
    from caffecli.tools import train as tool

    tool.train(tool.TrainOptions(solver, snapshot, layers=layers))


@caffe_command("finetune_net")
@layers_option
@click.argument("solver", type=_file)
@click.argument("weights")
def _finetune_net(solver: Path, weights: str, layers: tuple[str, ...]) -> None:
    """Train a net that starts from trained weights: caffe train --solver=SOLVER --weights=WEIGHTS."""
    from caffecli.tools import train as tool

    tool.train(tool.TrainOptions(solver, weights=weights, layers=layers))


@caffe_command("test_net")
@layers_option
@click.argument("model", type=_file)
@click.argument("weights")
@click.argument("iterations", type=_ITERATIONS)
@_mode
@_device
def _test_net(model: Path, weights: str, iterations: int, mode: str, device_id: int, layers: tuple[str, ...]) -> None:
    """Score a trained net: caffe test. The last line is the mean of the first output, as it was then."""
    from caffecli.tools import test as tool

    gpu = _gpu(mode, device_id)
    means = tool.test(tool.TestOptions(model, weights, iterations, gpu, cpu=gpu is None, layers=layers))
    for mean in list(means.values())[:1]:
        logs.error("test_net.cpp:50", f"Test accuracy: {logs.number(float(mean.flatten()[0]))}")


@caffe_command("net_speed_benchmark")
@layers_option
@click.argument("model", type=_file)
@click.argument("iterations", type=_ITERATIONS, default=50)
@_mode
@_device
def _net_speed_benchmark(model: Path, iterations: int, mode: str, device_id: int, layers: tuple[str, ...]) -> None:
    """Measure how long each layer takes: caffe time."""
    from caffecli.tools import time as tool

    gpu = _gpu(mode, device_id)
    tool.time(tool.TimeOptions(model, iterations, gpu=gpu, cpu=gpu is None, layers=layers))


@caffe_command("device_query")
@click.argument("device_id", type=click.IntRange(0), required=False)
@click.pass_context
def _device_query(ctx: click.Context, device_id: int | None) -> None:
    """Show the CUDA devices, or one of them: caffe device_query."""
    ctx.invoke(main.load_command("device_query"), gpu=None if device_id is None else str(device_id))


def train_net() -> NoReturn:
    """The program ``train_net SOLVER [SNAPSHOT]``."""
    main.run(_train_net)


def finetune_net() -> NoReturn:
    """The program ``finetune_net SOLVER WEIGHTS``."""
    main.run(_finetune_net)


def test_net() -> NoReturn:
    """The program ``test_net MODEL WEIGHTS ITERATIONS [CPU|GPU] [DEVICE_ID]``."""
    main.run(_test_net)


def device_query() -> NoReturn:
    """The program ``device_query [DEVICE_ID]``."""
    main.run(_device_query)


def net_speed_benchmark() -> NoReturn:
    """The program ``net_speed_benchmark MODEL [ITERATIONS] [CPU|GPU] [DEVICE_ID]``."""
    main.run(_net_speed_benchmark)
