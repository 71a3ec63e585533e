"""``caffecli score_detections``: how well the boxes that a detector found fit the true ones."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from caffecli import logs
from caffecli.errors import CaffeError, DataError
from caffecli.formats import detections
from caffecli.layers.forks.ssd.evaluate import judged
from caffecli.proto.caffe_pb2 import LabelMap
from caffecli.solver.detection import Detections
from caffecli.spec import text
from caffecli.tools import detection_truth
from caffecli.tools.detection_truth import Corners, Picture, Truth, parts_of
from caffecli.wording import did_you_mean

ApVersion = Literal["Integral", "11point", "MaxIntegral", "COCO"]
#: COCO's figures: over the overlaps 0.5 to 0.95, at one of them, and of objects by their area
COCO_FIGURES = ("AP", "AP50", "AP75", "small", "medium", "large")
_SOURCE = "score_detections.py:1"
_LEAST_SCORE = 0.2


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """``results``: a file that ``formats.detections`` reads; ``truth``: COCO's file of all pictures, or a database of
    ``convert_annoset``.

    ``ap_version``: as ``solver.detection`` has it, at the ``overlap_threshold``; or COCO's, by pycocotools.
    ``evaluate_difficult_gt``: objects that are marked as difficult, or as crowds, count.
    """

    results: str
    truth: str
    label_map_file: str | None = None
    ap_version: ApVersion = "Integral"
    overlap_threshold: float = 0.5
    evaluate_difficult_gt: bool = False


class Score(NamedTuple):
    """Of a class, or of all: how many objects count, how many boxes were found, and the figures, None for one that
    there is not.
    """

    objects: int
    boxes: int
    figures: dict[str, float | None]


@dataclass(frozen=True)
class Scores:
    """What a detector reached: by class, and the mean of the classes that have objects."""

    classes: dict[str, Score]
    mean: Score


def score_detections(options: ScoreOptions) -> Scores:
    """Score what was found, and print a table.

    Raises DataError for files that do not fit each other, CaffeError where pycocotools is wanted and not there.
    """
    if options.ap_version == "COCO":
        _pycocotools()
    found = detections.read(options.results)
    label_map = None if options.label_map_file is None else text.read(options.label_map_file, LabelMap)
    truth = detection_truth.read(options.truth, label_map)
    _join(truth, found, label_map, options)
    scores = _coco_scores(truth) if options.ap_version == "COCO" else _scores(truth, options)
    _tell(truth, scores, options)
    return scores


# -- what was found --------------------------------------------------------------------------------------------------


def _join(truth: Truth, found: detections.Detections, label_map: LabelMap | None, options: ScoreOptions) -> None:
    """Give each picture the boxes that were found in it."""
    pictures = _Pictures(truth, found.kind)
    classes = _Classes(truth, found, label_map, options)
    left_out: dict[str, None] = {}
    flat = outside = 0
    for box in found.boxes:
        label, of = classes.number(box.label), pictures.find(box.picture)
        if of is None:
            left_out[box.picture] = None
            continue
        corners = parts_of(of, box[3:], found.sizes.get(box.picture))
        flat += corners[0] >= corners[2] or corners[1] >= corners[3]
        outside += max(corners) > 1.1
        of.found.append((label, box.score, corners))
    left_out |= dict.fromkeys(name for name in found.sizes if pictures.find(name) is None)
    named = {box.picture for box in found.boxes} | set(found.sizes)
    if named and len(left_out) == len(named):
        raise DataError(
            f"{options.results!r} and {truth.path!r} have no picture in common: the first names "
            f"{next(iter(left_out))!r}, the second {truth.pictures[0].name!r}"
        )
    if left_out:
        _warn(f"{len(left_out)} pictures of {options.results!r}, as {next(iter(left_out))!r}, are none of the truth's")
    if flat:
        _warn(f"{flat} of the {len(found.boxes)} boxes have no area; they count as wrong")
    if outside:
        _warn(
            f"{outside} of the {len(found.boxes)} boxes reach far beyond their pictures, as the truth has their sizes: "
            "are they in pixels of other sizes? caffecli detect's JSON tells them"
        )
    seen = {id(pictures.find(name)) for name in found.sizes}
    if seen and (missing := [each.name for each in truth.pictures if id(each) not in seen]):
        _warn(f"{len(missing)} pictures of the truth, as {missing[0]!r}, are not in {options.results!r}")
    least = min((box.score for box in found.boxes), default=0.0)
    if least >= _LEAST_SCORE:
        _warn(f"the least score is {least:.3g}: objects below caffecli detect's --threshold count as not found")


def _warn(words: str) -> None:
    logs.warning(_SOURCE, words)


class _Pictures:
    """The truth's pictures by what results call them: COCO's id, the name, without folder, without ending, a number."""

    def __init__(self, truth: Truth, kind: detections.Kind) -> None:
        self._truth = truth
        self._by_id = {each.number: each for each in truth.pictures} if kind == "coco" and truth.coco else {}
        self._ways: list[dict[str, list[Picture]]] = [defaultdict(list) for _ in range(4)]
        for each in truth.pictures:
            path = PurePosixPath(each.name)
            number = path.stem.lstrip("0") or "0" if path.stem.isdecimal() else ""
            for way, name in zip(self._ways, (each.name, path.name, path.stem, number), strict=True):
                way[name].append(each)

    def find(self, name: str) -> Picture | None:
        """The picture; None where there is none. Raises DataError where it may be several."""
        if name in self._by_id or not name:
            return self._by_id.get(name)
        tried = (name, name, PurePosixPath(name).stem, name)
        for way, each in zip(self._ways, tried, strict=True):
            found = way.get(each, [])
            if len(found) > 1:
                raise DataError(
                    f"{self._truth.path!r}: {name!r} may be {found[0].name!r} or {found[1].name!r}; give results that "
                    "name the pictures with their folders"
                )
            if found:
                return found[0]
        return None


class _Classes:
    """The truth's classes by what results call them."""

    def __init__(
        self, truth: Truth, found: detections.Detections, label_map: LabelMap | None, options: ScoreOptions
    ) -> None:
        self._truth, self._found, self._options = truth, found, options
        self._items = {item.label: item for item in label_map.item} if label_map is not None else {}
        self._seen: dict[int | str, str] = {}

    def number(self, label: int | str) -> str:
        """A class's number in the truth. Raises DataError where it has none."""
        if label not in self._seen:
            self._seen[label] = self._look(label)
        return self._seen[label]

    def _look(self, label: int | str) -> str:
        truth, found = self._truth, self._found
        if found.kind == "voc":
            return self._of_file(str(label))
        if found.kind == "coco":
            return self._of_category(label)
        said = found.names.get(int(label), str(label))
        item = self._items.get(int(label))
        names = [said] if said != str(label) else []
        if item is not None and said in (str(label), item.name, item.display_name):
            names += [item.name, item.display_name]
        for name in names:
            if name in truth.labels:
                return truth.labels[name]
            if truth.coco and name in truth.classes:  # SSD's label map has COCO's numbers as names
                return name
        if not truth.coco and not self._items:
            return str(label)
        if truth.coco and not names:
            raise self._error(str(label), "give --labels: the results have classes by number alone")
        raise self._error(said)

    def _of_category(self, label: int | str) -> str:
        truth, written = self._truth, str(label)
        if written in truth.labels:  # a name; a number where the label map's names are such
            return truth.labels[written]
        if not truth.coco and not self._items:
            return written
        if written not in truth.classes:
            numbers = truth.coco and written.isdecimal()
            ids = ", ".join(itertools.islice(truth.classes, 5)) + (", ..." if len(truth.classes) > 5 else "")
            raise self._error(
                written, f"its ids are {ids}; give caffecli detect's JSON or CSV, which has names" if numbers else ""
            )
        item = self._items.get(int(written)) if written.isdecimal() else None
        if truth.coco and item is not None and not any(each.name == written for each in self._items.values()):
            meant = truth.labels.get(item.name) or truth.labels.get(item.display_name)
            if meant not in (None, written):
                raise DataError(
                    f"{self._options.results!r}: category_id {written} is {truth.classes[written]!r} by the truth, and "
                    f"{item.name!r} by the label map; give caffecli detect's JSON or CSV, which has the classes' names"
                )
        return written

    def _of_file(self, stem: str) -> str:
        """VOC's files end in the class's name."""
        plain = {detections.in_file_names(name): name for name in self._truth.labels}
        plain |= {name: name for name in self._truth.labels}
        fits = [name for name in plain if stem.endswith(name)]
        if fits:
            return self._truth.labels[plain[max(fits, key=len)]]
        if not self._truth.labels:
            raise self._error(stem, "give --labels: the database has classes by number alone")
        raise self._error(stem.rpartition("_")[2])

    def _error(self, name: str, remedy: str = "") -> DataError:
        truth = self._truth
        hint = f"; {remedy}" if remedy else did_you_mean(name, truth.labels, f"it has {', '.join(truth.labels)}")
        return DataError(f"{self._options.results!r}: the truth {truth.path!r} has no class {name!r:.80}{hint:.300}")


# -- scores ----------------------------------------------------------------------------------------------------------


def _scores(truth: Truth, options: ScoreOptions) -> Scores:
    """Average precisions as a test of ``eval_type: "detection"`` makes them."""
    met = Detections()
    places = {label: place for place, label in enumerate(_shown(truth))}
    for index, each in enumerate(truth.pictures):
        for label in sorted({one.label for one in each.objects} | {one[0] for one in each.found}):
            true = [one for one in each.objects if one.label == label]
            found = sorted((one for one in each.found if one[0] == label), key=lambda one: -one[1])
            skipped = torch.tensor([one.difficult and not options.evaluate_difficult_gt for one in true])
            hits = judged(
                torch.tensor([one[2] for one in found]).reshape(-1, 4),
                torch.tensor([one.corners for one in true]).reshape(-1, 4),
                skipped,
                options.overlap_threshold,
            )
            head = [[-1, places[label], len(true) - int(skipped.sum()), -1, -1]]
            rows = [[index, places[label], one[1], *hit] for one, hit in zip(found, hits.tolist(), strict=True)]
            met.add(np.array(head + rows, np.float32))
    precisions = met.precisions(options.ap_version)
    counts = {label: met.objects[place] for label, place in places.items()}
    figures = {label: {"AP": (precisions[place] or 0.0) if counts[label] else None} for label, place in places.items()}
    return _together(truth, counts, figures, None)


def _coco_scores(truth: Truth) -> Scores:
    """COCO's figures, by its own code."""
    coco, cocoeval = _pycocotools()
    images = [{"id": index} for index in range(len(truth.pictures))]
    places = {label: place for place, label in enumerate(_shown(truth))}
    true: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for index, each in enumerate(truth.pictures):
        size = np.array([each.width, each.height] * 2)
        for one in each.objects:
            box = _corner_and_size(one.corners, size)
            area = box[2] * box[3] if one.area is None else one.area
            counts[one.label] += not one.difficult
            true.append(_annotation(len(true), index, places[one.label], box, area, int(one.difficult)))
        for label, score, corners in each.found:
            box = _corner_and_size(corners, size)
            found.append(_annotation(len(found), index, places[label], box, box[2] * box[3], 0) | {"score": score})
    sets = []
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its steps
        for annotations in (true, found):
            made = coco.COCO()
            made.dataset = {
                "images": images,
                "categories": [{"id": place} for place in places.values()],
                "annotations": annotations,
            }
            made.createIndex()
            sets.append(made)
        judge = cocoeval.COCOeval(*sets, "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][..., -1]  # overlaps, recalls, classes, areas; of at most 100 boxes a picture
    figures = {label: _figures(precision[:, :, [place]]) for label, place in places.items()}
    return _together(truth, counts, figures, _figures(precision))


def _figures(precision: Any) -> dict[str, float | None]:
    parts = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., i] for i in (1, 2, 3))]
    means = [float(known.mean()) if (known := part[part > -1]).size else None for part in parts]
    return dict(zip(COCO_FIGURES, means, strict=True))


def _annotation(number: int, image: int, label: int, box: list[float], area: float, crowd: int) -> dict[str, Any]:
    """One of COCO's; an id of 0 would mean that nothing matched."""
    return {
        "id": number + 1, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd,
    }  # fmt: skip


def _corner_and_size(corners: Corners, size: Any) -> list[float]:
    x1, y1, x2, y2 = (np.array(corners) * size).tolist()
    return [x1, y1, max(0.0, x2 - x1), max(0.0, y2 - y1)]


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools import coco, cocoeval
    except ImportError as error:
        raise CaffeError("--ap_version COCO needs pycocotools; pip install 'caffecli[coco]'") from error
    return coco, cocoeval


def _shown(truth: Truth) -> list[str]:
    """The classes that have objects, or boxes, by number."""
    there = {one.label for each in truth.pictures for one in each.objects}
    return sorted(there | {one[0] for each in truth.pictures for one in each.found}, key=int)


def _together(
    truth: Truth,
    counts: dict[str, int],
    figures: dict[str, dict[str, float | None]],
    mean: dict[str, float | None] | None,
) -> Scores:
    """``mean`` is that of the classes where it is None."""
    boxes = Counter(one[0] for each in truth.pictures for one in each.found)
    classes: dict[str, Score] = {}
    for label in _shown(truth):
        name = truth.classes.get(label, label)
        name = f"{name} ({label})" if name in classes else name
        classes[name] = Score(counts.get(label, 0), boxes[label], figures[label])
    if mean is None:
        known = [one.figures["AP"] for one in classes.values() if one.figures["AP"] is not None]
        mean = {"AP": float(np.mean(known)) if known else None}
    return Scores(classes, Score(sum(one.objects for one in classes.values()), boxes.total(), mean))


def _tell(truth: Truth, scores: Scores, options: ScoreOptions) -> None:
    how = "COCO" if options.ap_version == "COCO" else f"{options.ap_version}, overlap {options.overlap_threshold:g}"
    print(f"{len(truth.pictures)} pictures, {scores.mean.objects} objects, {scores.mean.boxes} boxes; {how}\n")
    rows = [["class", "objects", "boxes", *scores.mean.figures]]
    for name, score in [*scores.classes.items(), ("mean", scores.mean)]:
        values = [f"{value:.3f}" if value is not None else "-" for value in score.figures.values()]
        rows.append([name, str(score.objects), str(score.boxes), *values])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for name, *values in rows:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        print("  ".join([name.ljust(widths[0]), *cells]))
