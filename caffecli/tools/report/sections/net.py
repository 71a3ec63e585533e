"""The net: drawn, with shapes and costs, and as a table."""

from __future__ import annotations

import math
from pathlib import Path

from caffecli.errors import CaffeError
from caffecli.formats import caffemodel
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from caffecli.spec.filter import filter_net
from caffecli.spec.load import load_net
from caffecli.spec.upgrade import upgrade_net
from caffecli.tools.report import markup
from caffecli.tools.report.markup import Cell, escape
from caffecli.tools.report.material import Missing, Report, refuse_code
from caffecli.tools.report.runs import Run
from caffecli.tools.summarize import LayerSummary, NetSummary, summarize_net
from caffecli.wording import dimensions

_WIDTH, _HEIGHT, _GAP, _DOWN = 210, 50, 24, 30
#: more layers are not drawn
_DRAWN = 600


def section(report: Report) -> str:
    """For each run its net; once for runs that have the same."""
    seen: dict[bytes, str] = {}

    def part(run: Run) -> str:
        param, path = definition(report, run)
        key = param.SerializeToString()
        if key in seen:
            return markup.paragraph(f"The net is that of {seen[key]}.")
        seen[key] = run.name
        return _net(param, path, named=path == report.options.model)

    return report.for_each(part)


def definition(report: Report, run: Run) -> tuple[NetParameter, Path]:
    """The net that a run trains: of its log, of its snapshot, or of ``--model``; and where it came from."""
    param = NetParameter()
    if run.train_net is not None:
        param.CopyFrom(run.train_net)
        return param, run.net_file or run.path
    if report.options.model is not None:
        param.CopyFrom(load_net(report.options.model))
        param.state.phase = TEST
        return filter_net(param, param.state), report.options.model
    for snapshot in reversed(run.snapshots):
        within, _ = caffemodel.read_with_net(snapshot.path)
        if within is not None and within.layer:
            param.CopyFrom(upgrade_net(within, str(snapshot.path)))
            param.state.phase = TRAIN
            return _plain(param), snapshot.path
    raise Missing("neither log nor snapshot holds the net's text; name its prototxt with --model")


def _plain(param: NetParameter) -> NetParameter:
    """A net from a snapshot without its weights."""
    for layer in param.layer:
        layer.ClearField("blobs")
    return param


def _net(param: NetParameter, path: Path, *, named: bool) -> str:
    """The net, drawn and as a table; ``named``: by the user, who lets its code run."""
    costs: dict[str, LayerSummary] = {}
    failed = ""
    copy = NetParameter()
    copy.CopyFrom(param)
    try:
        if not named:
            refuse_code(param)
        summary = summarize_net(copy, path)
    except CaffeError as error:
        failed = markup.paragraph(f"Left out, shapes and costs: {str(error).partition(';')[0]}", "missing")
    else:
        costs = {layer.name: layer for layer in summary.layers}
    drawn = markup.note(f"Nets of more than {_DRAWN} layers are not drawn.")
    if len(param.layer) <= _DRAWN:
        drawn = draw(list(param.layer), costs, f"net {param.name}, {len(param.layer)} layers")
    return failed + drawn + (_table(summary) if costs else "")


def _table(net: NetSummary) -> str:
    rows: list[list[Cell]] = []
    for layer in net.layers:
        shapes = "; ".join(dimensions(shape) for shape in layer.tops.values())
        share = layer.multiply_adds / net.multiply_adds if net.multiply_adds else 0.0
        rows.append([
            layer.name, layer.type, shapes, layer.parameters or None, layer.multiply_adds or None,
            markup.bar(share, f"{share:.1%}") if layer.multiply_adds else None, layer.memory or None,
        ])  # fmt: skip
    head = ["layer", "type", "shapes of the tops", "parameters", "multiply-adds", "share", "bytes of the tops"]
    total = (
        f"In all {net.parameters:,} parameters, {net.multiply_adds:,} multiply-adds for a batch, {net.memory:,} bytes "
        "of tops."
    )
    return markup.table(head, rows, "Layers: shapes and costs of a batch") + markup.note(total)


# -- the drawing ------------------------------------------------------------------------------------------------------


def draw(layers: list[LayerParameter], costs: dict[str, LayerSummary], title: str) -> str:
    """The layers as boxes, from top to bottom, in the row below the last that they need."""
    rows, edges = _placed(layers)
    columns: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        columns.setdefault(row, []).append(index)
    widest = max((len(members) for members in columns.values()), default=1)
    whole = widest * (_WIDTH + _GAP) + 4 * _GAP
    centres = {}
    for row, members in columns.items():
        start = whole / 2 - (len(members) - 1) * (_WIDTH + _GAP) / 2
        for place, index in enumerate(members):
            centres[index] = (start + place * (_WIDTH + _GAP), _DOWN / 2 + row * (_HEIGHT + _DOWN))
    lines = "".join(_edge(centres[a], centres[b], rows[b] - rows[a]) for a, b in edges)
    boxes = "".join(_box(layer, costs.get(layer.name), *centres[i]) for i, layer in enumerate(layers))
    height = len(columns) * (_HEIGHT + _DOWN)
    return (
        f'<div class="net" tabindex="0" role="region" aria-label="{escape(title)}">'
        f'<svg role="img" aria-label="{escape(title)}" width="{whole:.0f}" height="{height}" '
        f'viewBox="0 0 {whole:.0f} {height}">{lines}{boxes}</svg></div>'
    )


def _placed(layers: list[LayerParameter]) -> tuple[list[int], list[tuple[int, int]]]:
    """The row of each layer, and from which to which there are edges."""
    makers: dict[str, int] = {}
    rows: list[int] = []
    edges: dict[tuple[int, int], None] = {}
    for index, layer in enumerate(layers):
        above = [makers[name] for name in layer.bottom if name in makers]
        rows.append(1 + max((rows[one] for one in above), default=-1))
        edges |= dict.fromkeys((one, index) for one in above)
        makers |= dict.fromkeys(layer.top, index)
    return rows, list(edges)


def _edge(start: tuple[float, float], end: tuple[float, float], rows: int) -> str:
    x1, y1, x2, y2 = start[0], start[1] + _HEIGHT, *end
    if rows <= 1:
        return f'<path d="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}"/>'
    side = max(x1, x2) + _WIDTH / 2 + _GAP / 2  # past the boxes between
    down = f"C{side:.0f} {y1 + _DOWN:.0f} {side:.0f} {y1:.0f} {side:.0f} {y1 + _DOWN + 20:.0f}L{side:.0f}"
    into = f"{y2 - _DOWN - 20:.0f}C{side:.0f} {y2:.0f} {side:.0f} {y2 - _DOWN:.0f} {x2:.0f} {y2:.0f}"
    return f'<path d="M{x1:.0f} {y1:.0f}{down} {into}"/>'


def _box(layer: LayerParameter, cost: LayerSummary | None, x: float, y: float) -> str:
    kind = ' class="learns"' if cost is not None and cost.parameters else ""
    said = [layer.type]
    title = f"{layer.name} ({layer.type})"
    if cost is not None:
        said += [dimensions(shape[1:]) or "a value" for shape in list(cost.tops.values())[:1]]
        title += f": {'; '.join(dimensions(shape) for shape in cost.tops.values())}"
    costs = ""
    if cost is not None and (cost.parameters or cost.multiply_adds):
        costs = f"{_short(cost.parameters)} weights, {_short(cost.multiply_adds)} multiply-adds"
    name = layer.name if len(layer.name) <= 30 else f"{layer.name[:29]}…"
    return (
        f'<g{kind}><title>{escape(title)}</title><rect x="{x - _WIDTH / 2:.0f}" y="{y:.0f}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" rx="5"/><text x="{x:.0f}" y="{y + 15:.0f}" text-anchor="middle">{escape(name)}</text>'
        f'<text class="about" x="{x:.0f}" y="{y + 29:.0f}" text-anchor="middle">{escape(", ".join(said)[:38])}</text>'
        f'<text class="about" x="{x:.0f}" y="{y + 42:.0f}" text-anchor="middle">{escape(costs)}</text></g>'
    )


def _short(count: float) -> str:
    thousands = min(3, int(math.log10(max(count, 1))) // 3)
    return f"{count / 1000**thousands:.3g}{('', ' k', ' M', ' G')[thousands]}"
