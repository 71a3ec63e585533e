"""What a detector finds: precision over recall, average precisions, boxes on pictures."""

from __future__ import annotations

from caffecli.solver.detection import Detections, average_precision, precision_and_recall
from caffecli.tools.report import markup
from caffecli.tools.report.charts import Chart, Curve, grouped
from caffecli.tools.report.findings import Pixels, Scene, enlarged
from caffecli.tools.report.markup import Cell, bar, escape
from caffecli.tools.report.material import Inapplicable, Missing, Report
from caffecli.tools.report.objects import FalseBox, Mistake, Mistakes
from caffecli.tools.report.runs import Run
from caffecli.tools.report.sections.classes import over

#: boxes below this score are not drawn; nor more than so many of a picture
_LEAST, _MOST = 0.3, 30
#: classes of which the curve is drawn
_CURVES = 20


def section(report: Report) -> str:
    """For each run with a detector its classes' precisions, and boxes on pictures."""
    return report.for_each(lambda run: _of_run(report, run))


def _of_run(report: Report, run: Run) -> str:
    found = report.findings(run)
    if not found.detections:
        raise Inapplicable("the test net has no DetectionEvaluate, which says which boxes are right")
    said = markup.note(over(found))
    for number, (name, detections) in enumerate(found.detections.items()):
        key = f"recall-{report.runs.index(run)}-{number}"
        said += _precisions(report, run, detections, name) + grouped(
            [_curves(report, detections, key, name)], report.pictures_only
        )
    return said + _scenes(report, found.scenes) + _mistakes(report, found.mistakes)


def _precisions(report: Report, run: Run, detections: Detections, name: str) -> str:
    version = run.solver.ap_version if run.solver is not None else "Integral"
    rows: list[list[Cell]] = []
    values = []
    for label, (scores, hits) in detections.by_class().items():
        objects, right = detections.objects[label], int((hits > 0).sum())
        value = average_precision(scores, hits, objects, version)
        values.append(value)
        rows.append([
            report.class_name(label), label, objects, len(scores), right,
            bar(right / objects if objects else 0.0, f"{right / objects:.2%}" if objects else "–"),
            bar(value, f"{value:.4f}"),
        ])  # fmt: skip
    if not rows:
        raise Missing("the records have no objects")
    mean = sum(values) / len(values)
    head = ["class", "number", "objects", "boxes", "right", "found", "average precision"]
    said = markup.paragraph(f"Mean average precision {mean:.4f} ({version}).")
    return said + markup.table(head, rows, f"Detections of each class, by {name}")


def _curves(report: Report, detections: Detections, key: str, name: str) -> Chart:
    chart = Chart(key, f"precision over recall, by {name}", "recall", "precision", y_range=(0.0, 1.05))
    for label, (scores, hits) in list(detections.by_class().items())[:_CURVES]:
        objects = detections.objects[label]
        if objects and len(scores):
            precision, recall = precision_and_recall(scores, hits, objects)
            chart.curves.append(Curve(report.class_name(label), recall.tolist(), precision.tolist(), len(chart.curves)))
    return chart


def _scenes(report: Report, scenes: list[Scene]) -> str:
    if not scenes:
        return markup.note("Boxes are not drawn: the records are no pictures, or boxes come in a form of their own.")
    said = markup.heading("Boxes on pictures")
    said += markup.note(
        f"Dashed: the true boxes. Of those found, the {_MOST} surest with a score of {_LEAST} and more."
    )
    return said + markup.gallery(_scene(report, scene) for scene in scenes)


def _scene(report: Report, scene: Scene) -> str:
    found = sorted((one for one in scene.found if one[1] >= _LEAST), key=lambda one: -one[1])[:_MOST]
    names = [f"{report.class_name(int(one[0]))} {one[1]:.0%}" for one in found]
    true = [report.class_name(int(one[0])) for one in scene.true]
    caption = f"record {scene.key}; found: {', '.join(names) or 'nothing'}; true: {', '.join(true) or 'nothing'}"
    rows = [(one, name, "true") for one, name in zip(scene.true, true, strict=True)]
    rows += [(one, name, "found") for one, name in zip(found, names, strict=True)]
    return markup.figure(_drawn(scene.pixels, rows, caption), caption)


def _drawn(pixels: Pixels, boxes: list[tuple[tuple[float, ...], str, str]], caption: str) -> str:
    """A picture with boxes, each with its name and its kind, ``true`` or ``found``."""
    height, width = pixels.shape[:2]
    shown = enlarged(pixels, 256)
    parts = [f'<image href="{markup.data_url(pixels)}" width="{width}" height="{height}" class="pixels"/>']
    parts += [_box(box, width, height, f"{'true: ' * (kind == 'true')}{name}", kind) for box, name, kind in boxes]
    return (
        f'<svg role="img" aria-label="{escape(caption)}" width="{shown}" height="{shown * height // width}" '
        f'viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    )


def _box(box: tuple[float, ...], width: int, height: int, name: str, kind: str) -> str:
    x1, y1, x2, y2 = (min(2.0, max(-1.0, part)) for part in box[2:6])
    colour = "#ffffff" if kind == "true" else _BRIGHT[int(box[0]) % len(_BRIGHT)]
    return (
        f'<rect class="{kind}" x="{x1 * width:.2f}" y="{y1 * height:.2f}" width="{max(0.0, x2 - x1) * width:.2f}" '
        f'height="{max(0.0, y2 - y1) * height:.2f}" stroke="{colour}"><title>{escape(name)}</title></rect>'
    )


#: colours of boxes on pictures
_BRIGHT = ("#58a6ff", "#ff9e4a", "#4ade9b", "#e39bdc", "#e3c04b", "#ff7b8e", "#56d4dd")


# -- mistakes ---------------------------------------------------------------------------------------------------------


#: why a box is wrong, in the order in which they are told
_REASONS = {
    "nothing": "nothing is there",
    "class": "another class is there",
    "place": "an object of the class is near, but the overlap is too small",
    "both": "an object of another class is near",
    "twice": "a surer box found the object",
}


def _mistakes(report: Report, mistakes: Mistakes | None) -> str:
    if mistakes is None:
        return ""
    false, missed = mistakes.false, mistakes.missed
    said = markup.heading("Surest, and wrong")
    said += markup.paragraph(f"Wrong boxes with a score of {mistakes.least:g} and more: {mistakes.false_count:,}.")
    if false:
        rows: list[list[Cell]] = [[_REASONS[one], mistakes.reasons.get(one, 0)] for one in _REASONS]
        said += markup.table(["", "boxes"], rows, f"Why boxes are wrong, at an overlap of {mistakes.threshold:g}")
        said += markup.note(f"The {len(false)} surest; dashed, the true boxes.")
        said += markup.gallery(_mistake(report, one) for one in false)
    said += markup.heading("Missed")
    how = f"Objects that no box with a score of {mistakes.least:g} and more hits: {mistakes.missed_count:,}."
    said += markup.paragraph(how)
    if missed:
        shown = f"{len(missed)} of them: first what no box hits at all, by its size, then by rising score of its box."
        said += markup.note(f"{shown} Dashed, the object.")
        said += markup.gallery(_mistake(report, one) for one in missed)
    return said


def _mistake(report: Report, one: Mistake) -> str:
    rows: list[tuple[tuple[float, ...], str, str]]
    if isinstance(one.what, FalseBox):
        box = one.what.box
        name = f"{report.class_name(box.label)} {box.score:.0%}"
        caption = f"{name}: {_why(report, one.what)}; record {one.key}"
        rows = [((each.label, 1.0, *each.corners), report.class_name(each.label), "true") for each in one.true]
        rows.append(((box.label, box.score, *box.corners), name, "found"))
    else:
        missed = one.what.object
        name = report.class_name(missed.label)
        hit = "no box hits it" if one.what.score is None else f"its box has the score {one.what.score:.0%}"
        caption = f"{name}: {hit}; record {one.key}"
        rows = [((missed.label, 1.0, *missed.corners), name, "true")]
    return markup.figure(_drawn(one.pixels, rows, caption), caption)


def _why(report: Report, false: FalseBox) -> str:
    if false.reason == "nothing":
        return "nothing is there"
    if false.other is not None:
        where = "the object is" if false.reason == "class" else "near an object that is"
        return f"{where} {report.class_name(false.other)}, overlap {false.overlap:.2f}"
    if false.reason == "twice":
        return f"a surer box found the object, overlap {false.overlap:.2f}"
    return f"the overlap with its object is {false.overlap:.2f}"
