"""MultiBoxLoss: how far a detector's predictions are from the boxes that are there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli import logs
from caffecli.layers import boxes, std_sort
from caffecli.layers.base import Shape
from caffecli.layers.forks.ssd import words
from caffecli.layers.forks.ssd.detection import check_first_stage, check_predictions
from caffecli.layers.labels import LabelError, to_classes
from caffecli.layers.loss import WORST, Loss, full, normalizer
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LossParameter, MultiBoxLossParameter

#: an overlap up to this one is none
_NONE = 1e-6
#: what TextBoxes++ says at most of how far locations are off; the gradient knows no bound
_MOST = 20
#: a box with less area has no part in suppression
_SMALL = 1e-5


@register("MultiBoxLoss")
class MultiBoxLoss(Loss):
    """loss = (loc_weight sum_m l(loc_m, encode(box_m)) + sum_i c(conf_i, label_i)) / normalizer, over the matches m of
    priors with true boxes, and over those priors i that are matched or mined.

    Bottoms: locations (N, P L 4), confidences (N, P C), priors (1, 2, P 4) as PriorBox gives them, true boxes
    (1, 1, K, 8) as AnnotatedData gives them: item, label, instance, xmin, ymin, xmax, ymax, difficult; rows of item -1
    do not count. L is 1 with share_location (true), else C. Top: the loss. Only the first two have a gradient.
    RefineDet's second stage has two bottoms more, what the first stage makes of the priors: objectness (N, P 2), whose
    second value has to be objectness_score (0.01) or more for a prior to be mined, and locations (N, P 4). The priors
    that those change are matched, and encode the boxes, in each image its own. The first of them may stand alone.
    TextBoxes++'s, with use_polygon, has locations (N, P L 12) and true boxes (1, 1, K, 16), with use_polygon: false
    (N, P L 9) and (1, 1, K, 13): behind a box's values those of a word, as DetectionOutput has them. They count in l of
    the matches, and the locations' part of the loss is at most 20, but for its gradient. Without use_polygon such true
    boxes are taken by their first eight values.

    ``multibox_loss_param``: num_classes C, with the background's, background_label_id (0). Matching, by intersection
    over union of the priors (or of the predicted boxes, with use_prior_for_matching: false) with the true boxes: first
    the pair that overlaps most, then the next of what is left; then with match_type PER_PREDICTION (default, else
    BIPARTITE) each other prior with the box that it overlaps with most, by overlap_threshold (0.5) or more.
    use_difficult_gt (true): difficult boxes count; ignore_cross_boundary_bbox (false): boxes partly outside of the
    image are not matched. mining_type, in each image that has boxes: MAX_NEGATIVE (default) takes, of the unmatched
    priors that overlap by less than neg_overlap (0.5), the neg_pos_ratio (3) times as many as are matched of greatest
    c; HARD_EXAMPLE the sample_size (64) priors of greatest c + l, and the other matches do not count; NONE all priors
    of all images. nms_param: what is mined is first suppressed at nms_threshold by falling loss, among the top_k
    greatest (none, where it is not given), as predicted boxes, or priors with use_prior_for_nms (false).
    l: loc_loss_type SMOOTH_L1 (default), or L2: d^2 / 2, summed over four. code_type (CORNER): as of DetectionOutput;
    encode_variance_in_target (false): variances divide both prediction and target,
    not the target alone, but not the gradient; bp_inside
    (false): coordinates of matched boxes outside of the image do not count. c: conf_loss_type SOFTMAX (default): -log p
    of the label, at most 87.3365; LOGISTIC: sigmoid cross entropies, summed over classes, their targets 1 for the
    label, else background_label_id; unmatched priors have the target 1 for the background only where they are mined.
    map_object_to_agnostic (false): all objects are class background_label_id + 1; with num_classes 2 a written
    objectness_score does the same, as in RefineDet's first stage. ``loss_param``: normalization: VALID (the default)
    divides by the number of matches, FULL by N P, BATCH_SIZE by N, NONE by 1, at least by 1.
    ``propagate_down``: false takes a bottom's part out of the loss.
    Raises SpecError for settings that contradict each other, ShapeError where the bottoms do not fit, LabelError where
    a true box's label is no class, or the background.
    Source: Liu et al., ECCV 2016 (SSD), section 2.2; ``multibox_loss_layer.cpp``, ``bbox_util.cpp``; Zhang et al., CVPR
    2018 (RefineDet), and the same files of sfzhang15/RefineDet; Liao et al., TIP 2018 (TextBoxes++), and those of
    MhLiao/TextBoxes_plusplus.

    Differences: with LOGISTIC, mining NONE and several images SSD writes the labels of all but the first into wrong
    rows; here they are each prior's own. Of equal losses SSD mines those that GNU's ``std::sort`` puts first, and so
    does this on the CPU; on GPUs it takes the first priors.
    """

    bottom_count = (4, 6)
    no_gradient = (2, 3, 4, 5)
    makes_inner_layer = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.settings = self.param.multibox_loss_param
        if not param.num_classes:
            raise self.spec_error("expected num_classes, with the background's, got none")
        self.classes, self.mining = param.num_classes, param.mining_type
        self.background = param.background_label_id - (param.background_label_id >> 31 << 32)  # SSD keeps it as int32
        self.locations = 1 if param.share_location else self.classes
        self.logistic = param.conf_loss_type == MultiBoxLossParameter.LOGISTIC
        first_stage = param.HasField("objectness_score") and self.classes == 2 and self.background == 0
        self.agnostic = param.map_object_to_agnostic or first_stage
        self.mode = self.normalization(LossParameter.VALID)
        down = list(self.param.propagate_down) or [True] * 4
        self.counts_locations, self.counts_confidences = down[0], down[1]
        self.values = words.values_of(param)
        if self.values:
            words.check(self, param.code_type, not param.encode_variance_in_target)
        self._check_settings()

    def _check_settings(self) -> None:
        param, mines = self.settings, self.mining != MultiBoxLossParameter.NONE
        if param.HasField("do_neg_mining"):
            if param.do_neg_mining != mines:
                old, new = str(param.do_neg_mining).lower(), MultiBoxLossParameter.MiningType.Name(self.mining)
                raise self.spec_error(
                    f"do_neg_mining: {old} and mining_type: {new} contradict each other; leave out do_neg_mining"
                )
            logs.warning("multibox_loss_layer.cpp:35", "do_neg_mining is deprecated, use mining_type instead.")
        if mines and not param.share_location:
            raise self.spec_error("mining needs share_location: true; otherwise write mining_type: NONE")
        if not self.logistic and not 0 <= self.background < self.classes:
            raise self.spec_error(
                f"expected a background_label_id of 0 to {self.classes - 1}, got {self.background}; without a "
                "background take conf_loss_type: LOGISTIC"
            )
        if param.map_object_to_agnostic and self.classes != (self.background >= 0) + 1:
            raise self.spec_error(f"map_object_to_agnostic needs num_classes: 2, got {self.classes}")
        if param.map_object_to_agnostic and self.background > 0:
            raise self.spec_error(f"map_object_to_agnostic needs background_label_id: 0, got {self.background}")
        if self.mining == MultiBoxLossParameter.HARD_EXAMPLE and param.sample_size <= 0:
            raise self.spec_error(f"expected a sample_size above 0, got {param.sample_size}")
        self.suppresses = mines and param.HasField("nms_param") and param.nms_param.nms_threshold > 0
        if self.suppresses and not param.nms_param.HasField("top_k"):
            logs.warning(
                "bbox_util.cpp:886",
                f"Layer {self.name!r}: nms_param has no top_k, which counts as 0 here: nothing is mined. Write top_k: "
                "-1 for all.",
            )

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        check_predictions(self, bottoms, self.locations * (4 + self.values), self.classes)
        columns = {8, 8 + self.values} if self.values else {8, 8 + words.CORNERS, 8 + words.RECTANGLE}
        if (tuple(bottoms[3])[-1:] or (0,))[0] not in columns:
            raise self.shape_error(f"expected true boxes (1, 1, count, {8 + self.values}), got {self.listing(bottoms)}")
        if self.values and len(bottoms) > 4:
            raise self.shape_error(f"expected four bottoms with use_polygon, got {self.listing(bottoms)}")
        check_first_stage(self, bottoms, 4, self.locations)
        return [torch.Size()]

    def forward(
        self, locations: Tensor, confidences: Tensor, priors: Tensor, truth: Tensor, *first_stage: Tensor
    ) -> Tensor:
        num = len(locations)
        loc, word = (
            full(locations).reshape(num, -1, self.locations, 4 + self.values).transpose(1, 2).tensor_split([4], -1)
        )
        conf = full(confidences).reshape(num, -1, self.classes)
        prior, variance = full(priors.detach()).reshape(2, -1, 4)
        with torch.no_grad():
            true, labels = (each.to(loc.device) for each in self._true_boxes(truth, num))
            true, true_words = true.to(loc.dtype).tensor_split([4], -1)
            scale = None if self.settings.encode_variance_in_target else variance
            own = prior[None, None]
            predicted = boxes.decode(loc, own, scale, self.settings.code_type)
            if len(first_stage) > 1:
                change = full(first_stage[1]).reshape(num, 1, -1, 4)
                own = boxes.decode(change, own, scale, self.settings.code_type)
            matches, overlap = self._match(predicted, own, true, labels)
            matched = boxes.decode(loc, own, scale, self.settings.code_type) if len(first_stage) > 1 else predicted
        each_loc = self._location_losses(loc, matched, own, variance, true, matches)
        label = torch.where(matches < 0, self.background, self._own(labels, matches))
        if self.agnostic:
            label = label.where(matches < 0, self.background + 1)
        each_conf, wrongness = self._confidence_losses(conf, label, matches)
        if self.mining == MultiBoxLossParameter.HARD_EXAMPLE:
            ranked = each_loc  # RefineDet ranks as if there were no first stage
            if len(first_stage) > 1:
                ranked = self._location_losses(loc, predicted, prior[None, None], variance, true, matches)
            wrongness = wrongness + ranked.detach()[:, 0]
        if self.mining != MultiBoxLossParameter.NONE:
            counts = (labels >= 0).any(1, keepdim=True)
            if first_stage:
                counts = counts & (first_stage[0].reshape(num, -1, 2)[..., 1] >= self.settings.objectness_score)
            shape = prior.expand_as(predicted[:, 0]) if self.settings.use_prior_for_nms else predicted[:, 0]
            chosen = self._mine(wrongness, matches[:, 0], overlap[:, 0], shape, counts)
            each_conf, matches = each_conf.where(chosen, 0), matches.where(chosen[:, None], -1)
        loss = loc.new_zeros(())
        divisor = normalizer(self.mode, num, num * len(prior), matches >= 0)
        if self.counts_locations:
            if self.values:
                each_loc = each_loc + self._word_losses(word, prior, variance, true_words, matches)
            loss = loss + self.settings.loc_weight * each_loc.where(matches >= 0, 0).sum()
            if self.values:
                loss.data.clamp_(max=_MOST * divisor)  # past autograd
        if self.counts_confidences:
            loss = loss + each_conf.sum()
        return loss / divisor

    def _true_boxes(self, truth: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """The boxes (num, most, 4), and words behind them, of each item and their labels (num, most), -1 where an item
        has fewer; on the CPU, as how many there are has to be known.
        """
        rows = truth.detach().reshape(-1, truth.shape[-1]).cpu()
        item, label = to_classes(rows[:, 0]), to_classes(rows[:, 1])
        counts = (item >= 0) & (item < num) & (self.settings.use_difficult_gt | (rows[:, 7] == 0))
        self._check_labels(rows, item, label, counts)
        if rows.shape[1] < 8 + self.values:
            if counts.any():
                raise self.shape_error(
                    f"expected true boxes (1, 1, count, {8 + self.values}) with use_polygon, got {tuple(truth.shape)}; "
                    "convert the data from annotations that have x1, y1, ..., x4, y4"
                )
            rows = F.pad(rows, (0, self.values))
        rows, item, label = rows[counts], item[counts], label[counts]
        order = item.argsort(dim=0, stable=True)
        rows, item, label = rows[order], item[order], label[order]
        of_each = item.bincount(minlength=num)
        place = torch.arange(len(item)) - (of_each.cumsum(0) - of_each)[item]
        true = rows.new_zeros(num, max(1, int(of_each.max())), 4 + self.values)
        labels = torch.full(true.shape[:2], -1)
        true[item, place] = torch.cat([rows[:, 3:7], rows[:, 8 : 8 + self.values]], 1)
        labels[item, place] = label
        return true, labels

    def _check_labels(self, rows: Tensor, item: Tensor, label: Tensor, counts: Tensor) -> None:
        wrong = counts & ((label == self.background) | (label < 0))
        if not self.agnostic:
            wrong |= counts & (label >= self.classes)
        if not wrong.any():
            return
        first = int(wrong.nonzero()[0])
        what = "is the background's" if label[first] == self.background else f"is none of the {self.classes} classes"
        raise LabelError(
            f"layer {self.name!r}: the label {float(rows[first, 1]):g} of a box of item {int(item[first])} {what}; "
            "mend the data, or set num_classes and background_label_id to fit them",
            int(item[first]),
        )

    def _match(self, predicted: Tensor, prior: Tensor, true: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The index of each prior's true box (num, L, priors), -1 for none, and how much of any it overlaps with
        (num, 1 or L, priors), infinite where it takes no part.
        """
        param = self.settings
        own = prior if param.use_prior_for_matching else predicted
        overlap = boxes.overlaps(own, true[:, None])
        counts = (labels >= 0)[:, None, None]
        classes = torch.arange(self.locations, device=labels.device)[:, None]
        if self.locations > 1 and not param.use_prior_for_matching:
            counts = (labels[:, None] == classes)[:, :, None]
        outside = ((own < 0) | (own > 1)).any(-1) & param.ignore_cross_boundary_bbox
        overlap = overlap.where(counts & (overlap > _NONE) & ~outside[..., None], 0)
        per_prediction = param.match_type == MultiBoxLossParameter.PER_PREDICTION
        matches = boxes.match(overlap, param.overlap_threshold if per_prediction else None)
        if self.locations > 1 and param.use_prior_for_matching:
            matches = matches.where(self._own(labels, matches) == classes, -1)
        return matches, overlap.amax(-1).masked_fill(outside, math.inf)

    def _own(self, labels: Tensor, matches: Tensor) -> Tensor:
        """The label (num, L, priors) of the true box that each prior is matched with; of any where there is none."""
        return labels.gather(1, matches.clamp(min=0).flatten(1)).reshape(matches.shape)

    def _location_losses(
        self, loc: Tensor, predicted: Tensor, prior: Tensor, variance: Tensor, true: Tensor, matches: Tensor
    ) -> Tensor:
        """l of each prior (num, L, priors) and its match; 0 where it has none."""
        param = self.settings
        index = matches.clamp(min=0).flatten(1)[..., None].expand(-1, -1, 4)
        target = boxes.encode(true.gather(1, index).reshape(loc.shape), prior, None, param.code_type)
        if param.encode_variance_in_target:
            difference = _Divided.apply(loc - target, variance)  # type: ignore[no-untyped-call]
        else:
            difference = loc - target / variance
        counts = (matches >= 0)[..., None]
        if param.bp_inside:
            own = prior if param.use_prior_for_matching or self.values else predicted
            counts = counts & ~((own < 0) | (own > 1))
        return self._summed(difference.where(counts, 0))

    def _word_losses(self, word: Tensor, prior: Tensor, variance: Tensor, true: Tensor, matches: Tensor) -> Tensor:
        """l of each prior (num, L, priors) and the word of its match; 0 where it has none."""
        index = matches.clamp(min=0).flatten(1)[..., None].expand(-1, -1, self.values)
        target = words.encode(true.gather(1, index).reshape(word.shape), prior, variance)
        counts = (matches >= 0)[..., None]
        if self.settings.bp_inside:
            counts = counts & ~((prior < 0) | (prior > 1))[..., words.INSIDE[self.values]]
        return self._summed((word - target).where(counts, 0))

    def _summed(self, difference: Tensor) -> Tensor:
        if self.settings.loc_loss_type == MultiBoxLossParameter.L2:
            return difference.square().sum(-1) / 2
        return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none").sum(-1)

    def _confidence_losses(self, conf: Tensor, label: Tensor, matches: Tensor) -> tuple[Tensor, Tensor]:
        """c of each prior (num, priors), and the same without gradient, by which priors are mined."""
        matched = matches >= 0
        if not self.logistic:
            places = torch.arange(self.locations, device=label.device)[:, None]
            last = (places * matched).amax(1, keepdim=True)  # of several classes the last, as in SSD
            each = -conf.log_softmax(2).gather(2, label.gather(1, last)[:, 0, :, None])[..., 0]
            each.data.clamp_(max=WORST)  # past autograd, as in SoftmaxWithLoss
            return each, each.detach()
        own = torch.arange(self.classes, device=label.device) == label[..., None]
        mines = self.mining != MultiBoxLossParameter.NONE
        target = torch.where((own & (matched | mines)[..., None]).any(1), 1, self.background).to(conf.dtype)
        each = F.binary_cross_entropy_with_logits(conf, target, reduction="none").sum(-1)
        if not mines or self.background == 0:
            return each, each.detach()
        target = own[:, 0].to(conf.dtype)
        return each, F.binary_cross_entropy_with_logits(conf.detach(), target, reduction="none").sum(-1)

    def _mine(self, loss: Tensor, matches: Tensor, overlap: Tensor, own: Tensor, counts: Tensor) -> Tensor:
        """Which priors (num, priors) count, by their ``loss`` (num, priors), as boxes ``own`` (num, priors, 4): of
        those that ``counts`` (num, 1 or priors) says.
        """
        param, matched = self.settings, matches >= 0
        if self.mining == MultiBoxLossParameter.MAX_NEGATIVE:
            candidates = ~matched & (overlap < param.neg_overlap)
            count = (matched.sum(1).float() * param.neg_pos_ratio).long()
        else:
            candidates = torch.ones_like(matched)
            count = torch.full_like(matched[:, 0], param.sample_size, dtype=torch.long)
        candidates &= counts
        order = loss.masked_fill(~candidates, -math.inf).argsort(dim=1, descending=True, stable=True)
        if self.suppresses:
            mined = self._suppressed(order, candidates, count, own)
        else:
            if loss.device.type == "cpu":
                self._order_ties(order, loss, candidates, count)
            first = torch.arange(loss.shape[1], device=loss.device) < count[:, None]
            mined = candidates & torch.zeros_like(candidates).scatter(1, order, first)
        if self.mining == MultiBoxLossParameter.MAX_NEGATIVE:
            return matched | mined
        return mined & overlap.isfinite()

    def _order_ties(self, order: Tensor, loss: Tensor, candidates: Tensor, count: Tensor) -> None:
        """Order the candidates of images in which ``count`` parts equal losses, as SSD's ``std::sort`` does."""
        some, falling = candidates.sum(1), loss.gather(1, order)
        last = (count - 1).clamp(0, loss.shape[1] - 1)[:, None]
        after = (last + 1).clamp(max=loss.shape[1] - 1)
        tied = (count > 0) & (count < some) & (falling.gather(1, last) == falling.gather(1, after))[:, 0]
        for image in tied.nonzero()[:, 0].tolist():
            places = candidates[image].nonzero()[:, 0]
            order[image, : len(places)] = places[std_sort.falling(loss[image, places].tolist())]

    def _suppressed(self, order: Tensor, candidates: Tensor, count: Tensor, own: Tensor) -> Tensor:
        """As many candidates as ``count`` says, by falling loss, without those that others suppress."""
        mined, nms = torch.zeros_like(candidates), self.settings.nms_param
        for image, (some, most) in enumerate(zip(candidates.sum(1).tolist(), count.tolist(), strict=True)):
            best = order[image, :some][: nms.top_k if nms.top_k > -1 else None]
            best = best[boxes.sizes(own[image, best]).clamp(min=0).prod(-1) >= _SMALL]
            if most > 0:
                mined[image, best[boxes.first_of_those_that_stay(own[image, best], nms.nms_threshold, most=most)]] = (
                    True
                )
        return mined


class _Divided(torch.autograd.Function):
    """``difference / by``. Written out because SSD's gradient leaves the division out."""

    @staticmethod
    def forward(ctx: Any, difference: Tensor, by: Tensor) -> Tensor:
        return difference / by

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
