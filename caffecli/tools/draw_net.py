"""``caffecli draw_net``: the picture of a net definition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caffe import draw
from caffecli.proto.caffe_pb2 import NetState, Phase
from caffecli.spec.filter import filter_net
from caffecli.spec.load import load_net


@dataclass(frozen=True)
class DrawOptions:
    """What to draw, and where: the name of ``picture`` ends in its format. ``phase``: the layers of this phase; None: all."""

    net: str | Path
    picture: str | Path
    rankdir: str = "LR"
    phase: Phase | None = None
    level: int = 0
    stages: tuple[str, ...] = ()
    display_lrm: bool = False


def draw_net(options: DrawOptions) -> None:
    """Draw the net into the picture. Raises CaffeError."""
    param = load_net(options.net)
    if options.phase is not None:
        stages = [name for name in options.stages if name]
        param = filter_net(param, NetState(phase=options.phase, level=options.level, stage=stages))
    draw.draw_net_to_file(param, options.picture, options.rankdir, display_lrm=options.display_lrm)
