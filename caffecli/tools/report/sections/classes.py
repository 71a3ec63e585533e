"""Per-class scores and confusions: of classes of records, or of each point of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caffecli.tools.report import markup
from caffecli.tools.report.findings import Findings
from caffecli.tools.report.markup import Cell, Markup, bar
from caffecli.tools.report.material import Inapplicable, Missing, Report
from caffecli.tools.report.runs import Run

#: of more classes the matrix is no table that one can read: the pairs alone are told
_MATRIX = 40
_PAIRS = 20


def section(report: Report) -> str:
    """For each run the scores of its classes, the matrix of confusions, and the pairs that are confused most."""
    return report.for_each(lambda run: _of_run(report, run))


def over(found: Findings) -> str:
    """Over which records something was found, in words."""
    how = "all" if found.all else "the first"
    return f"Over {how} {found.records:,} records of the test, with the weights {found.weights}."


def _of_run(report: Report, run: Run) -> str:
    found = report.findings(run)
    if found.detections:
        raise Inapplicable("the net finds boxes")
    if found.confusion is None:
        raise Missing(found.without)
    counts = found.confusion
    total = int(counts.sum())
    if not total:
        raise Missing("no record has a label that is one of the classes")
    right = int(np.trace(counts))
    what = "points" if found.points else "records"
    said = markup.paragraph(f"{right / total:.2%} right: {right:,} of {total:,} {what}. {over(found)}")
    if found.points:
        unions = counts.sum(0) + counts.sum(1) - np.diag(counts)
        there = unions > 0
        said += markup.paragraph(f"Mean IU {float((np.diag(counts)[there] / unions[there]).mean()):.4f}.")
    return said + _scores(report, found) + _matrix(report, counts) + _pairs(report, counts)


def _scores(report: Report, found: Findings) -> str:
    counts = found.confusion
    rows: list[list[Cell]] = []
    for number in range(len(counts)):  # type: ignore[arg-type]
        own = int(counts[number].sum())  # type: ignore[index]
        said = int(counts[:, number].sum())  # type: ignore[index]
        hit = int(counts[number, number])  # type: ignore[index]
        if not own and not said:
            continue
        parts = [hit / own if own else None, hit / said if said else None]
        parts.append(hit / (own + said - hit) if found.points else 2 * hit / (own + said))
        rows.append([report.class_name(number), number, own, *map(_share, parts)])
    last = "IU" if found.points else "F1"
    return markup.table(["class", "number", "of it", "recall", "precision", last], rows, "Scores of the classes")


def _share(part: float | None) -> Cell:
    return None if part is None else bar(part, f"{part:.2%}")


def _matrix(report: Report, counts: NDArray[np.int64]) -> str:
    size = len(counts)
    if size > _MATRIX:
        return markup.note(f"The matrix of {size} classes is left out; at most {_MATRIX} are shown.")
    names = [report.class_name(number) for number in range(size)]
    rows: list[list[Cell]] = []
    for number, row in enumerate(counts):
        own = max(1, int(row.sum()))
        rows.append([names[number], *(_counted(int(value), value / own, i == number) for i, value in enumerate(row))])
    caption = "Confusions: a row for each true class, a column for what the net says"
    made = markup.table(["", *names], rows, caption, sortable=False)
    return made.replace('class="wide"', 'class="wide confusion"', 1)


def _counted(value: int, share: float, right: bool) -> Markup:
    """A count on a ground as deep as its share of the row: wrong ones show from a few percent on."""
    depth = 0.55 * (share if right else min(1.0, 3 * share))
    ground = f' style="background:rgba(var(--{"hit" if right else "miss"}),{depth:.2f})"' if value else ""
    return Markup(f"<span{ground}>{value:,}</span>" if value else "", value)


def _pairs(report: Report, counts: NDArray[np.int64]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = wrong.ravel().argsort(kind="stable")[::-1][:_PAIRS]
    rows: list[list[Cell]] = []
    for place in order.tolist():
        label, said = divmod(place, len(counts))
        count = int(wrong[label, said])
        if count:
            share = count / int(counts[label].sum())
            rows.append([report.class_name(label), report.class_name(said), count, bar(share, f"{share:.1%}")])
    if not rows:
        return markup.note("Nothing is confused.")
    return markup.table(["true", "said", "how many", "of the class"], rows, "What is confused most")
