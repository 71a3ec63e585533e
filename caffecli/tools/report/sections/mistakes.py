"""The pictures about which a net is surest, and wrong."""

from __future__ import annotations

from caffecli.tools.report import markup
from caffecli.tools.report.findings import Wrong, enlarged
from caffecli.tools.report.material import Inapplicable, Missing, Report
from caffecli.tools.report.runs import Run
from caffecli.tools.report.sections.classes import over


def section(report: Report) -> str:
    """For each run its worst mistakes, the surest first."""
    return report.for_each(lambda run: _of_run(report, run))


def _of_run(report: Report, run: Run) -> str:
    found = report.findings(run)
    if found.points or found.detections:
        raise Inapplicable("the net does not say one class for each record")
    if found.confusion is None:
        raise Missing(found.without)
    if not found.wrong:
        raise Missing(f"no picture is taken for another class, of {found.records:,} records")
    return markup.note(over(found)) + markup.gallery(_picture(report, one) for one in found.wrong)


def _picture(report: Report, one: Wrong) -> str:
    said, label = report.class_name(one.said), report.class_name(one.label)
    caption = f"said {said}, {one.sure:.1%}; is {label}, {one.of_label:.1%}; record {one.key}"
    image = markup.picture(one.pixels, f"a picture of {label}, taken for {said}", enlarged(one.pixels))
    return markup.figure(image, caption)
