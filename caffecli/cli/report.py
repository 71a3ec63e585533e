"""``caffecli report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command, layers_option


def _page(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    if value.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{str(value)!r}: its name must end in .html; the page's name comes last.", ctx, param)
    return value


@caffe_command("report")
@click.argument("inputs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="LOG|SNAPSHOT...")
@click.argument("out", type=click.Path(path_type=Path), callback=_page, metavar="OUT.html")
@click.option("--model", type=click.Path(path_type=Path), help="The net to test, with its data. [default: the log's]")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="The weights to test. [default: best or last snapshot]"
)
@click.option("--records", type=click.IntRange(0), default=1000, help="Over how many records to test; 0 for none.")
@click.option("--labels", type=click.Path(path_type=Path), help="A file with a line for each class, or a label map.")
@layers_option
@click.option("--follow", is_flag=True, help="Serve the page on this machine, up to date, until Ctrl-C; then write it.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="a free one", help="Of --follow.")
def report(inputs: tuple[Path, ...], out: Path, follow: bool, port: int, **settings: Any) -> None:
    """Write a page about a training, or several side by side.

    LOG is what train writes on stderr, this program's or Caffe's own; SNAPSHOT a caffemodel or solverstate. The page is
    one file that loads nothing.

    What the net makes of its test's records is found by running it on the CPU, in the folder that the training ran in.
    """
    from caffecli.tools import report as tool

    options = tool.ReportOptions(inputs, out, **settings)
    if follow:
        tool.follow(options, port, lambda url: click.echo(f"Open {url} (Ctrl-C writes {out} and ends)"))
    else:
        tool.report(options)
    click.echo(f"Wrote {out}")
