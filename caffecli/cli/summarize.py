"""``caffecli summarize``."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffecli.cli.options import caffe_command, net_state_options

if TYPE_CHECKING:
    from caffecli.net.summary import LayerSummary, NetSummary

_UNITS = ("", "k", "M", "G", "T", "P")


def _shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is no shape; give channels, height and width, as in 3,227,227.", ctx, param)
    return tuple(map(int, parts))


@caffe_command("summarize")
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TEST", help="The phase to build the net for.")
@click.option("--batch", type=click.IntRange(1), help="The batch size, in place of the net's own.")
@click.option("--input", "picture", callback=_shape, metavar="C,H,W", help="The shape of pictures whose database is not there.")
@click.option("--weights", type=click.Path(path_type=Path), help="Trained weights, to tell of their values too.")
@click.option("--csv", "as_csv", is_flag=True, help="Write a CSV table.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@net_state_options
@click.argument("net", type=click.Path(path_type=Path))
def summarize(
    net: Path,
    phase: str,
    batch: int | None,
    picture: tuple[int, ...] | None,
    weights: Path | None,
    as_csv: bool,
    as_json: bool,
    level: int,
    stage: str,
) -> None:
    """Sum up the net definition NET: each layer's shapes, parameters, multiply-adds and memory.

    Multiply-adds are those of the products in convolutions, deconvolutions, inner products and recurrent layers, for a forward
    pass of the whole batch; biases and other layers count none. Memory is that of the blobs, four bytes a value; layers run in
    place need none.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two forms of the same; give one of them.")
    from caffecli.net import summary
    from caffecli.proto import caffe_pb2

    stages = tuple(stage.split(","))
    found = summary.summarize(
        net, caffe_pb2.Phase.Value(phase), batch=batch, picture=picture, weights=weights, level=level, stages=stages
    )
    click.echo(_json(found) if as_json else _csv(found) if as_csv else _table(found))


def _json(net: NetSummary) -> str:
    sums = {"parameters": net.parameters, "multiply_adds": net.multiply_adds, "memory": net.memory}
    layers = [{key: value for key, value in dataclasses.asdict(layer).items() if value is not None} for layer in net.layers]
    return json.dumps({"name": net.name, **sums, "layers": layers}, indent=1)


def _csv(net: NetSummary) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    values = any(layer.mean is not None for layer in net.layers)
    more = ["mean", "deviation", "zeros"] if values else []
    writer.writerow(["layer", "type", "tops", "shapes", "parameters", "multiply_adds", "memory", *more])
    for layer in net.layers:
        shapes = ";".join("x".join(map(str, shape)) for shape in layer.tops.values())
        row = [layer.name, layer.type, ";".join(layer.tops), shapes, layer.parameters, layer.multiply_adds, layer.memory]
        writer.writerow(row + [getattr(layer, name) for name in more])
    return out.getvalue().rstrip("\n")


def _table(net: NetSummary) -> str:
    values = any(layer.mean is not None for layer in net.layers)
    head = [
        "layer",
        "type",
        "top",
        "shape",
        "parameters",
        "multiply-adds",
        "memory",
        *(["mean", "std", "zeros"] if values else []),
    ]
    rows = [head]
    for layer in net.layers:
        rows += _rows(layer, values)
    rows.append(["total", "", "", "", f"{net.parameters:,}", f"{net.multiply_adds:,}", f"{net.memory:,}"] + [""] * 3 * values)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i < 4 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in rows
    ]
    lines = [line.rstrip() for line in lines]
    rule = "-" * max(map(len, lines))
    sums = [_short(net.parameters, " parameters"), _short(net.multiply_adds, " multiply-adds")]
    sums += [_short(net.memory, "B of blobs"), _short(4 * net.parameters, "B of weights")]
    return "\n".join([f"{net.name or 'net'}: {', '.join(sums)}", "", lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _rows(layer: LayerSummary, values: bool) -> list[list[str]]:
    """A layer's line, and one for each further top."""
    more = [f"{v:.4g}" if v is not None else "" for v in (layer.mean, layer.deviation, layer.zeros)] if values else []
    rows = []
    for number, (top, shape) in enumerate(layer.tops.items() or [("", ())]):
        figures = [f"{n:,}" if n else "" for n in (layer.parameters, layer.multiply_adds, layer.memory)]
        named = [layer.name, layer.type] if number == 0 else ["", ""]
        spelled = " × ".join(map(str, shape)) or "()"
        rows.append([*named, top, spelled, *(figures + more if number == 0 else [""] * (3 + len(more)))])
    return rows


def _short(count: float, what: str) -> str:
    """Three digits and a unit: ``61 M parameters``, ``244 MB of weights``."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.3g} {unit}{what}".replace("  ", " ")
