"""``caffecli link-tools``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command


@caffe_command("link_tools")
@click.option("--force", is_flag=True, help="Replace files of these names that others made.")
@click.argument("build", type=click.Path(path_type=Path))
def link_tools(force: bool, build: Path) -> None:
    """Give a Caffe checkout the programs that its scripts call: tools/* and examples/*/*.bin in the folder BUILD.

    In the checkout, ``caffecli link-tools build``; its create_*.sh and train_*.sh then run as they are.
    """
    from caffecli.tools import link_tools as tool

    for path in tool.link_tools(build, force):
        click.echo(path)
