"""What a net says of each point of a picture, over the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caffecli.tools.report import markup
from caffecli.tools.report.findings import Overlay, blended, enlarged
from caffecli.tools.report.markup import escape
from caffecli.tools.report.material import Inapplicable, Report
from caffecli.tools.report.runs import Run
from caffecli.tools.report.sections.classes import over


def section(report: Report) -> str:
    """For each run whose net says a class for each point: a few pictures, the truth and what it says over them."""
    return report.for_each(lambda run: _of_run(report, run))


def _of_run(report: Report, run: Run) -> str:
    found = report.findings(run)
    if not found.overlays:
        raise Inapplicable("the net does not say a class for each point of a picture")
    there = sorted(
        {int(number) for one in found.overlays for number in np.unique([one.label, one.said]) if number >= 0}
    )
    colours = palette(max(there, default=0) + 1)
    legend = "".join(_named(report.class_name(number), colours[number]) for number in there)
    said = markup.note(f"{over(found)} Left the picture, then the true classes, then what the net says.")
    return said + f'<p class="legend">{legend}</p>' + "".join(_row(one, colours) for one in found.overlays)


def palette(count: int) -> NDArray[np.uint8]:
    """Colours of so many classes, blue first, as PASCAL VOC has them: bits of the number, spread over the channels."""
    colours = np.zeros((count, 3), np.uint8)
    for number in range(count):
        rest = number
        for bit in range(7, -1, -1):
            for channel in range(3):
                colours[number, 2 - channel] |= (rest >> channel & 1) << bit
            rest >>= 3
    return colours


def _named(name: str, colour: NDArray[np.uint8]) -> str:
    blue, green, red = colour.tolist()
    return f'<span><i style="background:rgb({red},{green},{blue})"></i> {escape(name)}</span> '


def _row(one: Overlay, colours: NDArray[np.uint8]) -> str:
    known = one.label >= 0
    right = float((one.label == one.said)[known].mean()) if known.any() else 0.0
    pictures = [one.pixels, blended(one.pixels, one.label, colours), blended(one.pixels, one.said, colours)]
    names = [f"record {one.key}", "true", f"said, {right:.1%} of the points right"]
    width = enlarged(one.pixels, 200)
    return markup.gallery(
        markup.figure(markup.picture(pixels, f"{name}, record {one.key}", width), name)
        for pixels, name in zip(pictures, names, strict=True)
    )
