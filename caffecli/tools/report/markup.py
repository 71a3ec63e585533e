"""HTML from data. What comes from files passes through ``escape``: no name of a layer, and no path, is markup."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_ROW = ' scope="row"'
#: control characters that HTML has no place for
_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if code not in (9, 10, 13)}
_CONTROL |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")  # halves of pairs, from broken names


@dataclass(frozen=True)
class Markup:
    """HTML that is complete, to stand in a cell as it is; ``value``: by what it is sorted."""

    html: str
    value: str | float = ""


#: what stands in a cell of a table
Cell = str | int | float | None | Markup


def printable(text: object) -> str:
    """Text without what HTML has no place for."""
    return str(text).translate(_CONTROL)


def escape(text: object) -> str:
    """Text as HTML shows it, in elements and in quoted attributes."""
    return html.escape(printable(text), quote=True)


def number(value: float | None, digits: int = 4) -> str:
    """A number to read: at most so many significant digits; an en dash where there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """``2 h 03 min``, ``4 min 10 s``, ``3.5 s``, ``20 ms``."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{_kind(kind)}>{escape(text)}</p>"


def note(text: str) -> str:
    """A line in small letters."""
    return paragraph(text, "note")


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def folded(title: str, content: str) -> str:
    """What one sees after a click, or Enter, on the title."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def listing(text: str) -> str:
    return f'<pre tabindex="0">{escape(text)}</pre>'


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str, *, sortable: bool = True) -> str:
    """A table whose columns sort where there is JavaScript. The first cell of a row is its head."""
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [_row(row) for row in rows]
    kind = ' class="sortable"' if sortable and len(lines) > 1 else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table{kind}>'
        f"<caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _row(row: Sequence[Cell]) -> str:
    first, *rest = row
    cells = "".join(_cell(cell, "td") for cell in rest)
    return f"<tr>{_cell(first, 'th', _ROW)}{cells}</tr>"


def _cell(value: Cell, tag: str, more: str = "") -> str:
    if isinstance(value, Markup):
        return f'<{tag}{more} data-value="{escape(value.value)}">{value.html}</{tag}>'
    if isinstance(value, str):
        return f"<{tag}{more}>{escape(value)}</{tag}>"
    kind = ' class="number"'
    sort = "" if value is None or not math.isfinite(value) else f' data-value="{value!r}"'
    return f"<{tag}{more}{kind}{sort}>{escape(number(value))}</{tag}>"


def bar(share: float, text: str) -> Markup:
    """A number with a bar as long as its share of the whole, 0 to 1."""
    width = 100 * min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    return Markup(f'<span class="bar" style="--share:{width:.1f}%">{escape(text)}</span>', share)


def embedded(data: Any) -> str:
    """Data as JSON that may stand within a script element."""
    written = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return written


def picture(pixels: NDArray[np.uint8], alt: str, width: int | None = None) -> str:
    """An image element with its PNG; pixels as OpenCV has them. ``width``: how wide it is shown, a pixel a square."""
    shown = width or pixels.shape[1]
    height = round(shown * pixels.shape[0] / pixels.shape[1])
    kind = _kind("pixels" if shown > pixels.shape[1] else "")
    return f'<img src="{data_url(pixels)}" alt="{escape(alt)}" width="{shown}" height="{height}"{kind}>'


def data_url(pixels: NDArray[np.uint8]) -> str:
    """A PNG of pixels as OpenCV has them, as an address."""
    png = cv2.imencode(".png", pixels)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def figure(content: str, caption: str, more: str = "") -> str:
    """Something to look at, and what it is; ``more``: markup behind the caption."""
    return f"<figure>{content}<figcaption>{escape(caption)}{more}</figcaption></figure>"


def gallery(figures: Iterable[str]) -> str:
    return f'<div class="gallery">{"".join(figures)}</div>'
