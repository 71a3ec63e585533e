"""``caffecli draw_net``: the picture of a net definition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caffe import draw
from caffecli.formats.atomic import replacing
from caffecli.proto.caffe_pb2 import TEST, Phase
from caffecli.spec.filter import filter_net
from caffecli.tools.open import read_net


@dataclass(frozen=True)
class DrawOptions:
    """What to draw, and where: the name of ``picture`` ends in its format. ``rankdir``: where the net goes, as in LR;
    None: in rows where it is a chain, else LR.

    ``phase``: the layers of this phase; None: all.

    ``layers``: modules of the user's own that register layers.
    """

    net: str | Path
    picture: str | Path
    rankdir: str | None = None
    phase: Phase | None = None
    level: int = 0
    stages: tuple[str, ...] = ()
    display_lrm: bool = False
    layers: tuple[str, ...] = ()


def draw_net(options: DrawOptions) -> None:
    """Draw the net into the picture. Raises CaffeError."""
    phase = TEST if options.phase is None else options.phase
    whole = read_net(options.net, phase, options.level, options.stages, layers=options.layers)
    param = whole if options.phase is None else filter_net(whole, whole.state)
    graph = draw.get_pydot_graph(param, options.rankdir or "LR", display_lrm=options.display_lrm)
    if options.rankdir is None:
        graph.fold()
    picture = graph.create(Path(options.picture).suffix[1:])
    with replacing(options.picture) as file:
        file.write(picture)
