"""``caffecli report``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command


def _page(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    if value.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{str(value)!r}: its name must end in .html; the page's name comes last.", ctx, param)
    return value


@caffe_command("report")
@click.argument("inputs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="LOG|SNAPSHOT...")
@click.argument("out", type=click.Path(path_type=Path), callback=_page, metavar="OUT.html")
def report(inputs: tuple[Path, ...], out: Path) -> None:
    """Write a page about a training, or several side by side.

    LOG is what train writes on stderr, this program's or Caffe's own; SNAPSHOT a caffemodel or solverstate. The page is
    one file that loads nothing.
    """
    from caffecli.tools import report as tool

    tool.report(tool.ReportOptions(inputs, out))
    click.echo(f"Wrote {out}")
