"""What a detector finds: precision over recall, average precisions, boxes on pictures."""

from __future__ import annotations

from caffecli.solver.detection import Detections, average_precision, precision_and_recall
from caffecli.tools.report import markup
from caffecli.tools.report.charts import Chart, Curve, grouped
from caffecli.tools.report.findings import Scene, enlarged
from caffecli.tools.report.markup import Cell, bar, escape
from caffecli.tools.report.material import Inapplicable, Missing, Report
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
    return said + _scenes(report, found.scenes)


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
    height, width = scene.pixels.shape[:2]
    shown = enlarged(scene.pixels, 256)
    parts = [f'<image href="{markup.data_url(scene.pixels)}" width="{width}" height="{height}" class="pixels"/>']
    parts += [_box(one, width, height, f"true: {name}", "true") for one, name in zip(scene.true, true, strict=True)]
    parts += [_box(one, width, height, name, "found") for one, name in zip(found, names, strict=True)]
    picture = (
        f'<svg role="img" aria-label="{escape(caption)}" width="{shown}" height="{shown * height // width}" '
        f'viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    )
    return markup.figure(picture, caption)


def _box(box: tuple[float, ...], width: int, height: int, name: str, kind: str) -> str:
    x1, y1, x2, y2 = (min(2.0, max(-1.0, part)) for part in box[2:6])
    colour = "#ffffff" if kind == "true" else _BRIGHT[int(box[0]) % len(_BRIGHT)]
    return (
        f'<rect class="{kind}" x="{x1 * width:.2f}" y="{y1 * height:.2f}" width="{max(0.0, x2 - x1) * width:.2f}" '
        f'height="{max(0.0, y2 - y1) * height:.2f}" stroke="{colour}"><title>{escape(name)}</title></rect>'
    )


#: colours of boxes on pictures
_BRIGHT = ("#58a6ff", "#ff9e4a", "#4ade9b", "#e39bdc", "#e3c04b", "#ff7b8e", "#56d4dd")
