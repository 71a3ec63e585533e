"""``caffecli parse_log``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command


def _one_character(ctx: click.Context, param: click.Parameter, value: str) -> str:
    value = "\t" if value == "\\t" else value
    if len(value) != 1 or value in '\r\n"':
        raise click.BadParameter(f"{value!r} is not one character to part columns with.", ctx, param)
    return value


@caffe_command("parse_log")
@click.option("--delimiter", default=",", callback=_one_character, help="What parts the columns.")
@click.option("--verbose", is_flag=True, help="Tell the files' names.")
@click.argument("logfile_path", type=click.Path(path_type=Path))
@click.argument("output_dir", type=click.Path(path_type=Path))
def parse_log(delimiter: str, verbose: bool, logfile_path: Path, output_dir: Path) -> None:
    """Write the figures of a training log to tables: OUTPUT_DIR/LOG.train and OUTPUT_DIR/LOG.test.

    Columns: NumIters, Seconds, LearningRate, and each output of the net.
    """
    from caffecli.tools import parse_log as tool

    for path, rows in tool.parse_log(logfile_path, output_dir, delimiter).items():
        if verbose:
            click.echo(f"Wrote {path}" if rows else f"Not writing {path}; no lines to write")
