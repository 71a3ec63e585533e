"""The sections of a report, in the order of the page: each a function that makes HTML of a ``Report``.

To add one, write such a function in a module here, and put it into ``SECTIONS``. It raises Missing, or another
CaffeError, where there is nothing to show: its text takes the section's place; and Inapplicable where it is not for
this kind of net.
"""

from __future__ import annotations

from collections.abc import Callable

from caffecli.tools.report.material import Report
from caffecli.tools.report.sections import (
    boxes,
    classes,
    curves,
    mistakes,
    net,
    overlays,
    overview,
    scores,
    timing,
    warned,
    weights,
)

#: the address on the page, the heading, and what makes it
SECTIONS: tuple[tuple[str, str, Callable[[Report], str]], ...] = (
    ("trained", "What was trained", overview.section),
    ("scores", "Scores", scores.section),
    ("curves", "Curves", curves.section),
    ("time", "Time", timing.section),
    ("net", "The net", net.section),
    ("classes", "Classes and confusions", classes.section),
    ("mistakes", "Surest, and wrong", mistakes.section),
    ("boxes", "Boxes", boxes.section),
    ("overlays", "Classes of points", overlays.section),
    ("filters", "Filters and feature maps", weights.filters),
    ("weights", "Weights and dead units", weights.histograms),
    ("warnings", "Warnings", warned.section),
)
