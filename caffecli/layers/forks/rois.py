"""What Fast R-CNN learns on: pictures, and samples of regions in them, each with its class and the way to its object.

Layers of py-faster-rcnn's names, with settings, boxes and regions as ``rpn`` has them.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from caffecli import logs, sources
from caffecli.formats import annotated
from caffecli.formats.datum import to_array
from caffecli.formats.db import open_reader
from caffecli.formats.proposals import Proposals
from caffecli.layers import registry
from caffecli.layers.base import Shape
from caffecli.layers.boxes import overlaps
from caffecli.layers.data import SourceLayer
from caffecli.layers.forks.param_str import FromParamStr, settings
from caffecli.layers.forks.rpn import changes, drawn
from caffecli.layers.labels import LabelError
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import TRAIN, AnnotatedDatum, DataParameter, LayerParameter, NetParameter

#: changes of a class that deviate by no more are the same, but for rounding
_SAME = 1e-5


class Samples(FromParamStr):
    """A layer that gives a sample of the regions of a picture, their classes, and what takes them to their objects."""

    sampling: ClassVar[Mapping[str, Any]] = {
        "num_classes": None,
        "BATCH_SIZE": 128,
        "FG_FRACTION": 0.25,
        "FG_THRESH": 0.5,
        "BG_THRESH_HI": 0.5,
        "BG_THRESH_LO": 0.1,
        "BBOX_NORMALIZE_TARGETS": False,
        "BBOX_NORMALIZE_TARGETS_PRECOMPUTED": False,
        "BBOX_NORMALIZE_MEANS": (0.0, 0.0, 0.0, 0.0),
        "BBOX_NORMALIZE_STDS": (0.1, 0.1, 0.2, 0.2),
        "BBOX_INSIDE_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
        "AGNOSTIC": False,
    }

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        count = self.given["num_classes"]
        for name in ("BBOX_NORMALIZE_MEANS", "BBOX_NORMALIZE_STDS"):
            if len(self.given[name]) not in (4, 4 * (2 if self.given["AGNOSTIC"] else count)):
                raise self.spec_error(
                    f"expected 4 numbers for {name!r}, or 4 for each of {count} classes, got {len(self.given[name])}"
                )
        if self.given["BBOX_NORMALIZE_TARGETS"] and not self.given["BBOX_NORMALIZE_TARGETS_PRECOMPUTED"]:
            means, deviations = self.statistics()
            self.given |= {
                "BBOX_NORMALIZE_TARGETS_PRECOMPUTED": True,
                "BBOX_NORMALIZE_MEANS": means.flatten().tolist(),
                "BBOX_NORMALIZE_STDS": deviations.flatten().tolist(),
            }
            changed = {key: value for key, value in self.given.items() if value != self.defaults[key]}
            # so that the caffemodel's definition has them too
            self.param.python_param.param_str = ", ".join(f"{key!r}: {value!r}" for key, value in changed.items())

    def statistics(self) -> tuple[Tensor, Tensor]:
        """The mean and the deviation of the changes of each class, (C, 4), over all pictures."""
        raise self.spec_error(
            "BBOX_NORMALIZE_TARGETS takes means and deviations over all regions, which are not known beforehand; set "
            "'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True too"
        )

    def sample(self, boxes: Tensor, objects: Tensor, picture: int = 0, pictures: int = 1) -> tuple[Tensor, ...]:
        """Of the regions (R, 4) and objects (G, 5), which are regions too, of a ``picture``, one of ``pictures`` that
        share BATCH_SIZE: S regions (S, 5), their classes (S,), changes, inside weights and outside weights (S, 4 C).
        """
        boxes = torch.cat([boxes, objects[:, :4]])
        kept, classes, nearest = self._drawn(boxes.double(), objects.double(), pictures)
        boxes, count = boxes[kept], self.given["num_classes"]
        change = boxes.new_zeros(len(kept), 4 * count)
        inside = torch.zeros_like(change)
        found = (classes > 0).nonzero()[:, 0]
        if len(found):
            targets = changes(boxes[found].double(), objects[nearest[found], :4].double())
            first = torch.ones_like(found) if self.given["AGNOSTIC"] else classes[found].long()
            if int(first.max()) >= count:
                raise LabelError(
                    f"layer {self.name!r}: an object is of class {int(first.max())}, none of the {count} classes, 0 to "
                    f"{count - 1}; mend the data, or set num_classes to fit it, with the background",
                    picture,
                )
            if self.given["BBOX_NORMALIZE_TARGETS_PRECOMPUTED"]:
                means, deviations = (self._of_classes(what, first).to(targets) for what in ("MEANS", "STDS"))
                targets = (targets - means) / deviations
            columns = 4 * first[:, None] + torch.arange(4, device=first.device)
            change[found[:, None], columns] = targets.to(change.dtype)
            inside[found[:, None], columns] = inside.new_tensor(self.given["BBOX_INSIDE_WEIGHTS"])
        regions = torch.cat([boxes.new_full((len(boxes), 1), picture), boxes], 1)
        return regions, classes.to(boxes.dtype), change, inside, (inside > 0).to(inside.dtype)

    def _of_classes(self, what: str, classes: Tensor) -> Tensor:
        """The means, or the deviations, that hold for each of some classes, (n, 4)."""
        values = torch.tensor(self.given[f"BBOX_NORMALIZE_{what}"], dtype=torch.float64).reshape(-1, 4)
        return values.to(classes.device)[classes if len(values) > 1 else torch.zeros_like(classes)]

    def _drawn(self, boxes: Tensor, objects: Tensor, pictures: int) -> tuple[Tensor, Tensor, Tensor]:
        """Which boxes are in the sample, the class of each, and which object is nearest to it."""
        setting = self.given
        if len(objects):
            most, nearest = overlaps(boxes, objects[:, :4], 1).max(1)
        else:
            most, nearest = boxes.new_full((len(boxes),), setting["BG_THRESH_LO"]), boxes.new_zeros(len(boxes)).long()
        size = setting["BATCH_SIZE"] // pictures if setting["BATCH_SIZE"] >= 0 else len(boxes)
        share = round(setting["FG_FRACTION"] * size) if setting["BATCH_SIZE"] >= 0 else size
        found = drawn(most >= setting["FG_THRESH"], share) if len(objects) else nearest[:0]
        background = (most < setting["BG_THRESH_HI"]) & (most >= setting["BG_THRESH_LO"])
        rest = drawn(background, size - len(found))
        kept = torch.cat([found, rest])
        classes = boxes.new_zeros(len(kept))
        classes[: len(found)] = objects[nearest[found], 4] if len(objects) else 0
        return kept, classes, nearest[kept]


@register("rpn.proposal_target_layer.ProposalTargetLayer")
class ProposalTarget(Samples):
    """A sample of the regions, with the class of each and the change that takes it to its object.

    Bottoms: regions (R, 5), objects (G, 5), which are regions too; further ones are not looked at. Tops: the S regions
    of the sample (S, 5); their classes (S), 0 background; changes, inside weights and outside weights, (S, 4 C): those
    of a region's class are at 4 class to 4 class + 3, all others 0.

    Objects are regions with an overlap of FG_THRESH (0.5) or more with one; background those from BG_THRESH_LO (0.1) up
    to, without, BG_THRESH_HI (0.5). Of BATCH_SIZE (128; -1: all) at most FG_FRACTION (0.25) are objects, the others
    background, both drawn by chance. Changes have BBOX_NORMALIZE_MEANS (0, 0, 0, 0) taken off, and are divided by
    BBOX_NORMALIZE_STDS (0.1, 0.1, 0.2, 0.2), four numbers or four for each class, with
    BBOX_NORMALIZE_TARGETS_PRECOMPUTED (False). Inside weights are
    BBOX_INSIDE_WEIGHTS (1, 1, 1, 1), outside weights 1 where those are above 0. With AGNOSTIC (False), as in py-R-FCN,
    all objects' changes are at 4 to 7. ``param_str`` needs num_classes, C, with the background. Nothing has a gradient.
    Source: py-faster-rcnn, ``proposal_target_layer.py``.

    Differences: a picture without objects gives background alone, where py-faster-rcnn fails.
    """

    bottom_count = (2, 4)
    top_count = (5, 5)
    no_gradient = (0, 1, 2, 3)
    defaults = Samples.sampling

    @property
    def random(self) -> bool:
        return True

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """How large the sample will be is not known: one."""
        for shape in bottoms[:2]:
            if len(shape) < 2 or tuple(shape[1:]) != (5, *(1,) * (len(shape) - 2)):
                raise self.shape_error(f"expected regions and objects (count, 5), got {self.listing(bottoms)}")
        return [torch.Size((1, 5)), torch.Size((1,)), *[torch.Size((1, 4 * self.given["num_classes"]))] * 3]

    def forward(self, regions: Tensor, objects: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        regions, objects = (bottom.detach().reshape(-1, 5) for bottom in (regions, objects))
        if bool((regions[:, 0] != 0).any()):
            raise self.shape_error("expected the regions of one picture, 0")
        return self.sample(regions[:, 1:], objects)


@register("roi_data_layer.layer.RoIDataLayer")
class RoIData(Samples, SourceLayer):
    """Pictures of a database that ``convert_annoset`` made, shuffled, for Faster R-CNN, or with ``proposals`` for Fast
    R-CNN.

    Without ``proposals``: a picture (1, 3, H, W), its height, width and scale (1, 3), and its objects (G, 5), rows
    (xmin, ymin, xmax, ymax, class) in pixels of the picture that comes out.

    With ``proposals``: IMS_PER_BATCH (2) pictures (N, 3, H, W), with 0 around smaller ones, and a sample of the regions
    that this file proposes for them, and of their objects: S regions (S, 5), and, where there are tops for them, their
    classes (S), changes, inside weights and outside weights (S, 4 C), as ProposalTargetLayer gives them, by the same
    settings; each picture has its part of BATCH_SIZE. The file is HDF5: a dataset (count, 4) for each picture, xmin,
    ymin, xmax, ymax in pixels, the first of which is 0, named by the record's key or by the picture's name alone.
    ``caffecli detect`` writes it, with a region proposal network.

    With BBOX_NORMALIZE_TARGETS (False) too, and without BBOX_NORMALIZE_TARGETS_PRECOMPUTED, changes have the mean of
    their class taken off, and are divided by its deviation, as Fast R-CNN has it: those over all regions of all
    pictures that overlap with an object by FG_THRESH or more. The net's definition in a caffemodel has them, as
    BBOX_NORMALIZE_MEANS and BBOX_NORMALIZE_STDS; where the changes are all the same, the deviation is 1.

    Settings of ``param_str``: num_classes, required; source: the database, ours, and required here, where
    py-faster-rcnn's training gives the layer its pictures from outside; backend ("LMDB"); SCALES (600): the lengths of
    the shorter side, one drawn by chance; MAX_SIZE (1000): of the longer one; USE_FLIPPED (True): half of the pictures
    are mirrored, drawn by chance; PIXEL_MEANS (102.9801, 115.9465, 122.7717), blue first.
    Source: py-faster-rcnn, ``roi_data_layer/layer.py``.

    Differences: boxes are what the database has, times the size; of VOC's, which count pixels from 1, py-faster-rcnn
    takes 1 off. A picture without objects is served.
    """

    top_count = (3, 6)
    compiles = True
    defaults: ClassVar[Mapping[str, Any]] = {
        **Samples.sampling,
        "source": "",
        "backend": "LMDB",
        "proposals": "",
        "IMS_PER_BATCH": 2,
        "SCALES": (600,),
        "MAX_SIZE": 1000,
        "USE_FLIPPED": True,
        "PIXEL_MEANS": (102.9801, 115.9465, 122.7717),
    }

    @property
    def random(self) -> bool:
        return bool(self.given["proposals"])

    def setup(self, bottoms: list[Shape]) -> None:
        Samples.setup(self, bottoms)
        self._check_source()
        if len(self.param.top) > 3 and not self.given["proposals"]:
            raise self.spec_error(
                "has the tops of Fast R-CNN, which learns on regions proposed beforehand: name their file in its "
                "param_str too, \"'proposals': 'proposals.h5'\" (caffecli detect makes one with a region proposal "
                "network); with the three tops data, im_info and gt_boxes a net is trained end to end"
            )
        if self.given["proposals"] and (self.given["IMS_PER_BATCH"] < 1 or self.given["BATCH_SIZE"] == 0):
            raise self.spec_error("expected an IMS_PER_BATCH of at least 1, and a BATCH_SIZE other than 0")
        SourceLayer.setup(self, bottoms)

    def _check_source(self) -> None:
        if not self.given["source"]:
            raise self.spec_error(
                "py-faster-rcnn's code, which gives it pictures, is not here; name a database of convert_annoset: "
                "param_str: \"'num_classes': 21, 'source': 'trainval_lmdb'\""
            )

    def statistics(self) -> tuple[Tensor, Tensor]:
        self._check_source()
        setting = self.given
        if not setting["proposals"]:
            return super().statistics()
        count = 2 if setting["AGNOSTIC"] else setting["num_classes"]
        sums = torch.zeros(count, 9, dtype=torch.float64)  # how many, their sum, the sum of their squares
        proposals = Proposals(setting["proposals"])
        with open_reader(setting["source"]) as reader:
            for key, value in reader:
                boxes, objects = regions_of(annotated.decode(value, key), key, proposals)
                if not len(objects):
                    continue
                boxes = torch.cat([boxes, objects[:, :4]])
                most, nearest = overlaps(boxes, objects[:, :4], 1).max(1)
                near = most >= setting["FG_THRESH"]
                change = changes(boxes[near], objects[nearest[near], :4])
                label = objects[nearest[near], 4].long().clamp(max=count - 1)
                sums.index_add_(0, label, torch.cat([torch.ones_like(change[:, :1]), change, change.square()], 1))
        means, squares = (part / sums[:, :1].clamp(min=1) for part in (sums[:, 1:5], sums[:, 5:]))
        if setting["USE_FLIPPED"] and self.phase == TRAIN:
            means[:, 0] = 0  # mirrored, a move to the left is one to the right
        deviations = (squares - means.square()).clamp(min=0).sqrt()
        logs.info(
            "roidb.py:1",
            f"Layer {self.name!r}: means and deviations by class of the changes of {int(sums[:, 0].sum())} regions",
        )
        return means, torch.where(deviations > _SAME, deviations, 1)

    def open_source(self) -> None:
        self.close()
        setting = self.given
        param = LayerParameter(name=self.name, top=self.param.top)
        param.data_param.source, param.data_param.shuffle = setting["source"], True
        param.data_param.batch_size = setting["IMS_PER_BATCH"] if setting["proposals"] else 1
        if setting["backend"] not in ("LMDB", "LEVELDB"):
            raise self.spec_error(f"expected a backend of LMDB or LEVELDB, got {setting['backend']!r:.40}")
        param.data_param.backend = DataParameter.DB.Value(setting["backend"])
        reads = functools.partial(
            sources.ObjectSource,
            sides=setting["SCALES"],
            most=setting["MAX_SIZE"],
            flipped=bool(setting["USE_FLIPPED"]) and self.phase == TRAIN,
            means=setting["PIXEL_MEANS"],
            proposals=Proposals(setting["proposals"]) if setting["proposals"] else None,
        )
        seed = secrets.randbits(63) if self.context.seed is None else self.context.seed
        self.source = sources.create(reads, param, self.phase, seed, self.context.shard)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shapes = super().reshape(bottoms)
        if not self.given["proposals"]:
            return shapes
        rest = [torch.Size((1, 5)), torch.Size((1,)), *[torch.Size((1, 4 * self.given["num_classes"]))] * 3]
        return [shapes[0], *rest[: len(self.param.top) - 1]]

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        tops = super().forward(*bottoms)
        if not self.given["proposals"]:
            return tops
        data, regions, objects = tops
        whole = data.new_tensor([[0, 0, data.shape[3] - 1, data.shape[2] - 1]])
        samples = []
        for i in range(len(data)):
            boxes, true = regions[regions[:, 0] == i, 1:], objects[objects[:, 0] == i, 1:]
            boxes = boxes if len(boxes) or len(true) else whole  # so that there is something to learn on
            samples.append(self.sample(boxes, true, i, len(data)))
        return data, *(torch.cat(parts) for parts in list(zip(*samples, strict=True))[: len(self.param.top) - 1])


def regions_of(record: AnnotatedDatum, key: bytes, proposals: Proposals) -> tuple[Tensor, Tensor]:
    """The regions (R, 4) and the objects (G, 5) of a record, in pixels of its picture, both ends in them."""
    height, width = record.datum.height, record.datum.width
    if not (height and width):
        height, width = to_array(record.datum, key=key).shape[1:]
    rows = torch.from_numpy(annotated.boxes(record)).double()
    size = rows.new_tensor([width, height] * 2)
    corners = torch.minimum(rows[:, annotated.CORNERS] * size, size - 1)
    regions = torch.from_numpy(proposals.of(str(key, "utf-8", "replace"))).double()
    return regions, torch.cat([corners, rows[:, :1]], 1)


class Learned(NamedTuple):
    """How a net of the R-CNN family learned: the means that were taken off its pictures, the length of their shorter
    side, the most of the longer one; and, by the names that py-faster-rcnn knows, the layers that predict normalized
    changes, each with the means and deviations of its outputs.
    """

    means: tuple[float, ...]
    side: float
    most: float
    normalized: dict[str, tuple[Tensor, Tensor]]
    #: whether the changes of regions were normalized, and no layer of ``normalized`` predicts them
    astray: bool


#: the layers whose weights py-faster-rcnn and py-R-FCN take the normalization out of when they save them
_OF_REGIONS, _OF_ANCHORS = ("bbox_pred", "rfcn_bbox"), "rpn_bbox_pred"


def learned(net: NetParameter, outputs: Mapping[str, int]) -> Learned:
    """What a net's definition says of its training, where it says nothing py-faster-rcnn's own; ``outputs``: how many
    channels the layers have.

    With settings in ``param_str`` a net was trained here, and its weights are as they were learned. py-faster-rcnn has
    its settings elsewhere, and saves weights whose predictions are changes themselves.
    """
    own: dict[str, Any] = dict(RoIData.defaults)
    of_regions = False
    normalized: dict[str, tuple[Tensor, Tensor]] = {}
    for layer in net.layer:
        python = layer.python_param
        kind = registry.layer_class(f"{python.module}.{python.layer}")
        given = settings(python.param_str)
        if kind is None or not issubclass(kind, FromParamStr) or given is None:
            continue
        every = {**kind.defaults, **given}
        if issubclass(kind, RoIData):
            own = every
        if issubclass(kind, Samples) and every["BBOX_NORMALIZE_TARGETS_PRECOMPUTED"]:
            of_regions = True
            values = 4 * (2 if every["AGNOSTIC"] else every["num_classes"])
            normalized |= {
                name: _of_outputs(every, "BBOX", values, outputs[name]) for name in _OF_REGIONS if name in outputs
            }
        if every.get("RPN_NORMALIZE_TARGETS") and _OF_ANCHORS in outputs:
            normalized[_OF_ANCHORS] = _of_outputs(every, "RPN", outputs[_OF_ANCHORS], outputs[_OF_ANCHORS])
    astray = of_regions and not normalized.keys() & set(_OF_REGIONS)
    return Learned(tuple(own["PIXEL_MEANS"]), own["SCALES"][0], own["MAX_SIZE"], normalized, astray)


def _of_outputs(setting: Mapping[str, Any], prefix: str, values: int, outputs: int) -> tuple[Tensor, Tensor]:
    """The mean and the deviation of each of a layer's outputs, which are ``values`` values, each in several places."""
    mean, deviation = (
        torch.tensor(setting[f"{prefix}_NORMALIZE_{what}"], dtype=torch.float32)
        .repeat(values // len(setting[f"{prefix}_NORMALIZE_{what}"]))
        .repeat_interleave(outputs // values)
        for what in ("MEANS", "STDS")
    )
    return mean, deviation
