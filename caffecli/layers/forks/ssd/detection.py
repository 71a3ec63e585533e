"""DetectionOutput: a detector's predictions to a list of boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffecli import logs
from caffecli.layers import boxes
from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.ssd import words
from caffecli.layers.forks.ssd.results import Results
from caffecli.layers.forks.ssd.shown import Shown
from caffecli.layers.loss import full
from caffecli.layers.registry import register

#: up to how many boxes of each class are compared with each other at once
_AT_ONCE = 1024
#: up to how many pairs of boxes all classes are compared at once on the CPU; more do not fit into its cache
_PAIRS = 2**18


def check_predictions(layer: Layer, bottoms: list[Shape], values_per_prior: int, classes: int) -> None:
    """Raise ShapeError where the first three bottoms are not locations, confidences and priors that fit each other."""
    locations, confidences, priors = (tuple(shape) for shape in bottoms[:3])
    count = priors[2] // 4 if len(priors) > 2 else 0
    expected = [count * values_per_prior, count * classes]
    came = [math.prod(shape[1:]) for shape in (locations, confidences)]
    if not count or priors[1] != 2 or expected != came or locations[:1] != confidences[:1]:
        other = count > 0 and came[0] == expected[0] and came[1] % count == 0
        hint = f"; the confidences are of {came[1] // count} classes: is num_classes: {classes} meant?" if other else ""
        raise layer.shape_error(
            f"expected locations (num, priors * {values_per_prior}), confidences (num, priors * {classes}) and "
            f"priors (1, 2, priors * 4), got {layer.listing(bottoms)}{hint}"
        )


def check_first_stage(layer: Layer, bottoms: list[Shape], begin: int, boxes_per_prior: int) -> None:
    """Raise ShapeError where the bottoms from ``begin`` on, objectness and locations of RefineDet's first stage, do not
    fit the priors, the third bottom.
    """
    num, count = bottoms[0][0], bottoms[2][2] // 4
    wrong = any(
        tuple(shape)[:1] != (num,) or math.prod(shape[1:]) != count * values
        for shape, values in zip(bottoms[begin:], (2, 4), strict=False)
    )
    if wrong or (boxes_per_prior > 1 and len(bottoms) > begin + 1):
        raise layer.shape_error(
            "expected objectness (num, priors * 2) and, with share_location: true, locations (num, priors * 4) of the "
            f"first stage as bottoms {begin} and {begin + 1}, got {layer.listing(bottoms)}"
        )


@register("DetectionOutput")
class DetectionOutput(Layer):
    """The boxes found in each image: predictions decoded, by class the best of those that overlap, in all the best few.

    Bottoms: locations (N, P L 4), confidences (N, P C), priors (1, 2, P 4) as PriorBox gives them; L is 1 with
    share_location (true), else C. RefineDet's has two bottoms more, what the first stage makes of the priors:
    objectness (N, P 2), whose second value has to be objectness_score (0.01) or more for a prior's confidences to count
    as more than 0, and locations (N, P 4), which change the priors of each image first; the first of them may stand
    alone. Top: (1, 1, K, 7), a row for each of the K boxes: image, label, confidence, xmin, ymin, xmax, ymax, by image,
    label and falling confidence; without any box a row for each image, the image and -1s. No gradient. TextBoxes++'s,
    with use_polygon, has locations (N, P L 12) and rows of 15: behind the box's four values eight of the word's corners
    x1, y1, ..., x4, y4; with use_polygon: false (N, P L 9) and 12: x1, y1, x2, y2 of its upper side, and its height.
    Which stay is decided by the boxes.

    ``detection_output_param``: num_classes C; background_label_id (0): the class that is no object, -1 for none;
    code_type: how locations l change a prior p, v being its variances (all 1 with variance_encoded_in_target):
    CORNER (default) p + v l; CORNER_SIZE p + v l (width, height); CENTER_SIZE centre + v l (width, height), and sizes
    exp(v l). confidence_threshold: boxes must be above it; nms_param: of two boxes of a class whose intersection over
    union is above nms_threshold (0.3) the one of lower confidence goes, among the top_k (-1: all) best; eta (1): factor
    for the threshold, after each box kept, while it is above 0.5. keep_top_k (-1: all): the best of all classes of an
    image.

    save_output_param: writes what was found, each time that num_test_image (all of name_size_file) pictures have
    passed, where output_directory, label_map_file and name_size_file (lines ``NAME HEIGHT WIDTH``, in the order of the
    pictures) are given: in pixels of those sizes, to which resize_param was applied. output_format: VOC, a file
    PREFIX NAME.txt for each class, of lines picture, confidence, xmin, ymin, xmax, ymax; ILSVRC, PREFIX.txt of lines
    picture, label, confidence and corners; COCO, PREFIX.json, a list of image_id, category_id (the class's name; both
    numbers where they are such), bbox (x, y, width, height) and score. PREFIX is output_name_prefix. A file is there
    when it is complete. Where the label map or the sizes are not there, a warning says that nothing is written.
    Source: Liu et al., ECCV 2016 (SSD); ``detection_output_layer.cpp``, ``bbox_util.cpp``; Zhang et al., CVPR 2018
    (RefineDet), and the same files of sfzhang15/RefineDet; Liao et al., TIP 2018 (TextBoxes++), and those of
    MhLiao/TextBoxes_plusplus.

    visualize draws the boxes into the pictures, the fourth bottom (N, C, H, W), those of visualize_threshold (0.6) or
    more: ``transform_param`` says what was done to the pictures (mean_value or mean_file, scale) and in what size they
    are shown (resize_param), label_map_file the names. They go to a window, where Escape is as Ctrl-C, and into
    save_file, a video of 30 pictures in a second (.avi, or .mp4), which is there when the net is closed. Where OpenCV
    can open no window (opencv-python-headless), a warning says so.

    Differences: the rate of pictures is not drawn. Without output_name_prefix the file of ILSVRC and COCO is called
    ``detections``. A box in the padding alone is without area, where SSD takes it as if there were none.
    """

    read_by_opencv = True
    compiles = False
    not_exported = "makes a list of boxes, whose length depends on their values; export the net without it"
    bottom_count = (3, 5)
    no_gradient = (0, 1, 2, 3, 4)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.detection_output_param
        if not param.num_classes:
            raise self.spec_error("expected num_classes, with the background's, got none")
        if param.nms_param.nms_threshold < 0 or not 0 < param.nms_param.eta <= 1:
            raise self.spec_error(
                f"expected nms_threshold 0 or more and eta above 0, up to 1, got {param.nms_param.nms_threshold:g} and "
                f"{param.nms_param.eta:g}"
            )
        self.classes, self.background, self.code = param.num_classes, param.background_label_id, param.code_type
        self.boxes_per_prior = 1 if param.share_location else self.classes
        self.values = words.values_of(param)
        self.scaled, self.keep_top_k = not param.variance_encoded_in_target, param.keep_top_k
        self.threshold = param.confidence_threshold if param.HasField("confidence_threshold") else -math.inf
        self.overlap, self.eta = param.nms_param.nms_threshold, param.nms_param.eta
        self.top_k = param.nms_param.top_k if param.nms_param.HasField("top_k") else -1
        if self.values:
            words.check(self, self.code, self.scaled)
        self.objectness, self.visualizes = param.objectness_score, param.visualize
        self.results = Results.of(self)
        self.stateful = self.one_process = self.results is not None
        self.shown: Shown | None = None
        if param.visualize and len(bottoms) != 4:
            logs.warning(
                "detection_output_layer.cpp:98",
                f"Layer {self.name!r}: visualize is ignored: what it shows are pictures, the fourth bottom of four.",
            )
        elif param.visualize:
            self.shown = Shown(self)
            if self.shown.used:
                self.stateful = self.one_process = True

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """How many boxes there will be is not known: one."""
        check_predictions(self, bottoms, self.boxes_per_prior * (4 + self.values), self.classes)
        images = len(bottoms) == 4 and (self.visualizes or math.prod(bottoms[3][2:]) > 1)
        self.has_first_stage = len(bottoms) > 3 and not images
        if self.has_first_stage:
            check_first_stage(self, bottoms, 3, self.boxes_per_prior)
        return [torch.Size((1, 1, 1, 7 + self.values))]

    def forward(self, locations: Tensor, confidences: Tensor, priors: Tensor, *others: Tensor) -> Tensor:
        first_stage = others if self.has_first_stage else ()
        with torch.no_grad():
            rows = self._found(full(locations), full(confidences), full(priors), *map(full, first_stage))
        if self.results is not None:
            self.results.add(rows[:, :7], len(locations))
        if self.shown is not None and self.shown.used:
            self.shown.add(others[0], rows[:, :7])
        if not len(rows):
            rows = rows.new_full((len(locations), rows.shape[1]), -1)
            rows[:, 0] = torch.arange(len(rows), device=rows.device)
        return rows.to(locations.dtype)[None, None]

    def close(self) -> None:
        if self.shown is not None:
            self.shown.close()

    def _found(self, locations: Tensor, confidences: Tensor, priors: Tensor, *first_stage: Tensor) -> Tensor:
        """The rows (K, 7 and more) of all images, by image, label and falling confidence."""
        num = len(locations)
        scores = confidences.reshape(num, -1, self.classes)
        prior, variance = priors.reshape(2, -1, 4)
        if first_stage:
            objects = first_stage[0].reshape(num, -1, 2)[..., 1:] >= self.objectness
            scores = scores.where(objects, 0)
        counts = scores > self.threshold
        if 0 <= self.background < self.classes:
            counts[..., self.background] = False
        if 0 < self.top_k < len(prior) and counts.count_nonzero() > num * self.classes * self.top_k:
            least = scores.transpose(1, 2).contiguous().topk(self.top_k, sorted=False)[0].amin(-1)
            counts &= scores >= least[:, None]  # far fewer to sort, and those that are equal
        image, at, label = counts.nonzero(as_tuple=True)
        score, group = scores[image, at, label], image * self.classes + label
        order = score.argsort(dim=0, descending=True, stable=True)
        order = order[group[order].argsort(dim=0, stable=True)]  # by image and label, the best first
        rank = _ranks(group[order], num * self.classes)
        if self.top_k > -1:
            order, rank = order[rank < self.top_k], rank[rank < self.top_k]
        image, at, label, score, group = (each[order] for each in (image, at, label, score, group))
        change = locations.reshape(num, len(prior), -1, 4 + self.values)[
            image, at, label if self.boxes_per_prior > 1 else 0
        ]
        own, scale = prior[at], variance[at] if self.scaled else None
        if len(first_stage) > 1:
            own = boxes.decode(first_stage[1].reshape(num, -1, 4)[image, at], own, scale, self.code)
        found = boxes.decode(change[:, :4], own, scale, self.code)
        word = words.decode(change[:, 4:], own, variance[at]) if self.values else change[:, 4:]
        kept = self._stay(found, group, rank)
        rows = torch.cat([torch.stack([image, label], 1).to(score), score[:, None], found, word], 1)[kept]
        if self.keep_top_k > -1:
            best = rows[:, 2].argsort(dim=0, descending=True, stable=True)
            best = best[rows[best, 0].argsort(dim=0, stable=True)]  # by image
            best = best[_ranks(rows[best, 0].long(), num) < self.keep_top_k]
            rows = rows[best.sort()[0]]
        return rows

    def _stay(self, found: Tensor, group: Tensor, rank: Tensor) -> Tensor:
        """Which boxes (M, 4) stay (M,), each suppressed by the better ones of its group."""
        most = int(rank.max()) + 1 if len(rank) else 0
        groups, row, sizes = torch.unique_consecutive(group, return_inverse=True, return_counts=True)
        turns = self.eta < 1 and self.overlap > 0.5
        on_cpu = found.device.type == "cpu"
        if not turns and (most > _AT_ONCE or (on_cpu and len(groups) * most**2 > _PAIRS)):
            kept = torch.zeros_like(group, dtype=torch.bool)
            ends = sizes.cumsum(0).tolist()
            for begin, end in zip([0, *ends], ends, strict=False):
                kept[boxes.first_of_those_that_stay(found[begin:end], self.overlap) + begin] = True
            return kept
        table, valid = found.new_zeros(len(groups), most, 4), group.new_zeros(len(groups), most, dtype=torch.bool)
        table[row, rank], valid[row, rank] = found, True
        if turns:
            return boxes.suppress_in_turn(table, self.overlap, valid, self.eta)[row, rank]
        return boxes.suppress(table, self.overlap, valid=valid)[row, rank]


def _ranks(group: Tensor, groups: int) -> Tensor:
    """The place of each element within its group, where equal ones of ``group`` (M,) follow each other."""
    counts = group.bincount(minlength=groups)
    return torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
