"""What nets of the R-CNN family find in a picture: Fast and Faster R-CNN, R-FCN, and region proposal networks."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.formats.proposals import Proposals
from caffecli.layers.forks import found as regions_found
from caffecli.layers.forks.rois import Learned, learned
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.sources.regions import scaled
from caffecli.tools.detector_input import check_numbers
from caffecli.tools.preprocessing import check_count, definition, numbers

Floats = NDArray[np.float32]
#: how many objects of a picture are kept, the most probable
_MOST = 100
_SOURCE = "detect_regions.py:1"


def knows(blobs: Container[str], outputs: Container[str]) -> bool:
    """Whether a net is of this family: it has regions, given or its own, which it scores, or with which it ends."""
    return "rois" in blobs and ("cls_prob" in outputs or "rois" in outputs)


@dataclass(frozen=True, kw_only=True)
class RegionOptions:
    """``model_def``: the net's file, to name in errors; ``weights``: theirs, which says how the net was trained: what
    is None of the pictures' settings is as it says.

    ``proposals``: the file of regions for a net that takes them. Objects of a class that overlap with a more probable
    one by more than ``nms_threshold`` go, as do those with a score below ``threshold``.
    """

    model_def: str
    weights: str
    mean: str | None
    like: str | None
    input_scale: float | None
    bgr: bool
    side: float | None
    max_side: float | None
    proposals: str | None
    nms_threshold: float
    threshold: float


class RegionNet:
    """Finds objects with a net for use: its inputs are ``data`` and ``im_info``, or ``data`` and ``rois``; it gives
    ``cls_prob`` and mostly ``bbox_pred``, of each class or of all together, or, as it proposes alone, ``scores``.

    Weights of ``bbox_pred``, ``rfcn_bbox`` and ``rpn_bbox_pred`` that learned normalized changes here are scaled, as
    py-faster-rcnn does when it saves them. Raises SpecError for a net that cannot be used.
    """

    def __init__(self, net: Any, options: RegionOptions) -> None:
        self.net, self.options = net, options
        missing = [name for name in net.inputs if name not in ("data", "im_info", "rois")]
        if missing or "data" not in net.inputs or len(net.blobs["data"].shape) != 4:
            raise SpecError(
                f"{options.model_def!r}: expected inputs data (1, 3, height, width) and im_info (1, 3), or rois "
                f"(count, 5), the net has {', '.join(net.inputs) or 'none'}"
            )
        self.gives_regions = "cls_prob" not in net.outputs
        if ("rois" in net.inputs) != (options.proposals is not None):
            raise SpecError(
                f"{options.model_def!r} takes regions, its input rois: give their file by --proposals"
                if "rois" in net.inputs
                else f"{options.model_def!r} proposes its regions itself; --proposals is for a net with an input rois"
            )
        self._proposals = None if options.proposals is None else Proposals(options.proposals)
        trained = self._scaled()
        channels = net.blobs["data"].shape[1]
        mean = trained.means if options.mean is None else numbers(options.mean)
        check_count(np.array(mean), channels, f"--mean {options.mean!r}")
        self._mean = np.array(mean, np.float32)
        self._side = trained.side if options.side is None else options.side
        self._most = trained.most if options.max_side is None else options.max_side
        self._scale = 1.0 if options.input_scale is None else options.input_scale
        logs.info(
            _SOURCE,
            f"Pictures: shorter side {self._side:g}, the longer one at most {self._most:g}, less "
            f"{','.join(f'{value:g}' for value in mean)}, times {self._scale:g}",
        )

    def _scaled(self) -> Learned:
        """Take the normalization out of the weights; what they say of their training."""
        params = self.net.params
        outputs = {name: int(blobs[0].shape[0]) for name, blobs in params.items() if len(blobs)}
        net = definition(self.options.weights, self.options.like)
        if net is None:
            logs.warning(
                _SOURCE,
                f"{self.options.weights!r} does not say how the net was trained: pictures are prepared as "
                "py-faster-rcnn's are, and boxes taken for changes that were not normalized",
            )
            return learned(NetParameter(), outputs)
        trained = learned(net, outputs)
        if trained.astray and "bbox_pred" in self.net.outputs:
            raise SpecError(
                f"{self.options.weights!r} learned normalized changes of regions, and the net has no layer bbox_pred "
                "or rfcn_bbox whose weights could be scaled; name the layer that predicts them so, in both nets"
            )
        for name, (mean, deviation) in trained.normalized.items():
            logs.info(_SOURCE, f"Layer {name} learned normalized changes: its weights are scaled")
            weights, *bias = params[name]
            weights.data[...] *= deviation.numpy().reshape(-1, *[1] * (len(weights.shape) - 1))
            for blob in bias:
                blob.data[...] = blob.data * deviation.numpy().reshape(blob.shape) + mean.numpy().reshape(blob.shape)
        return trained

    def find(self, name: str, frame: NDArray[np.uint8]) -> Floats:
        """The objects in a picture, blue first, by falling score: rows class, score, xmin, ymin, xmax, ymax.

        Those of a net that proposes alone are of class 1, which is any object.
        """
        scale = self._feed(name, frame)
        self.net.forward()
        regions = self._blob("rois").reshape(-1, 5)[:, 1:] / scale
        if self.gives_regions:
            score = self._blob("scores").flatten() if "scores" in self.net.blobs else regions.new_ones(len(regions))
            found = torch.cat([torch.ones_like(score)[:, None], score[:, None], regions], 1)
            found = found[score >= self.options.threshold]
        else:
            found = self._objects(regions, *frame.shape[:2])
        rows = np.asarray(found.numpy())
        check_numbers(name, rows)
        return rows

    def _feed(self, name: str, frame: NDArray[np.uint8]) -> float:
        """Give the net a picture; returns its scale."""
        import cv2

        height, width = frame.shape[:2]
        pixels: Any = frame if self.options.bgr else frame[..., ::-1]
        if self.net.blobs["data"].shape[1] == 1:
            pixels = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None]
        pixels = (pixels.astype(np.float32) - self._mean) * np.float32(self._scale)
        large, scale = scaled(pixels, self._side, self._most)
        self._put("data", large[None])
        if "im_info" in self.net.inputs:
            self._put("im_info", np.array([[*large.shape[1:], scale]], np.float32))
        if self._proposals is not None:
            regions = self._proposals.of(name)
            if not len(regions):
                regions = np.array([[0, 0, width - 1, height - 1]], np.float32)
            self._put("rois", np.insert(regions * np.float32(scale), 0, 0, axis=1))
        return scale

    def _put(self, name: str, values: Floats) -> None:
        blob = self.net.blobs[name]
        if tuple(blob.shape) != values.shape:
            blob.reshape(*values.shape)
        blob.data[...] = values

    def _blob(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.net.blobs[name].data, np.float32))

    def _objects(self, regions: Tensor, height: int, width: int) -> Tensor:
        """The objects (n, 6) in a picture's regions."""
        scores = self._blob("cls_prob").reshape(len(regions), -1)
        classes, change = scores.shape[1], None
        if "bbox_pred" in self.net.outputs:
            change = self._blob("bbox_pred").reshape(len(regions), -1, 4)
            if change.shape[1] not in (2, classes):
                raise SpecError(
                    f"{self.options.model_def!r}: bbox_pred has {change.shape[1]} boxes for {classes} classes; "
                    f"expected {classes}, or 2"
                )
        size, options = regions.new_tensor([width, height]), self.options
        return regions_found.objects(regions, scores, change, size, options.threshold, options.nms_threshold, _MOST)
