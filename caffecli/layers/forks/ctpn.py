"""CTPN's layers, which find lines of text: Lstm, Transpose, Reverse, and its text proposals.

Source: Tian, Huang, He, He and Qiao, ECCV 2016; tianzhi0549/CTPN. ``Lstm`` came from junhyukoh/caffe-lstm; all three
went on to senlinuc/caffe_ocr.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from caffecli.layers.base import Layer, Precision, Shape, exporting
from caffecli.layers.forks.param_str import FromParamStr
from caffecli.layers.loss import full
from caffecli.layers.registry import register


@register("Transpose")
class Transpose(Layer):
    """y = x with its axes in another order: axis i of the top is axis ``dim[i]`` of the bottom.

    ``transpose_param { dim }``: each axis once. One bottom, one top. Raises SpecError for other axes than the bottom's.
    Source: tianzhi0549/CTPN, ``transpose_layer.cpp``.
    """

    in_place = False
    precision = Precision.ANY

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.order, dims = list(self.param.transpose_param.dim), len(bottoms[0])
        if sorted(self.order) != list(range(dims)) or not dims:
            raise self.spec_error(
                f"expected transpose_param with each axis of its bottom once as dim, 0 to {dims - 1}, got {self.order}"
            )
        return [torch.Size([bottoms[0][axis] for axis in self.order])]

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


@register("Reverse")
class Reverse(Layer):
    """y = x turned round along an axis: its last values come first.

    ``reverse_param``: axis (0), which counts from the front. One bottom, one top of its shape. Raises SpecError for an
    axis that the bottom does not have. Source: tianzhi0549/CTPN, ``reverse_layer.cpp``.
    """

    in_place = False
    keeps_shape = True
    precision = Precision.ANY

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.along = self.axis(self.param.reverse_param.axis, len(bottoms[0]))
        if self.param.reverse_param.axis < 0 or not bottoms[0]:
            raise self.spec_error(
                f"expected an axis of 0 to {len(bottoms[0]) - 1}, got {self.param.reverse_param.axis}"
            )
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(self.along)


@register("Lstm")
class Lstm(Layer):
    """(i, f, o, g) = W_x x_t + b + W_h h_(t-1); c_t = s(f) c_(t-1) + s(i) tanh(g); y_t = h_t = s(o) tanh(c_t).

    Bottoms: x (T, N, …), N sequences of T steps, top y (T, N, num_output). Or, as in caffe-lstm, the T N steps in one
    axis, x (T N, …), top (T N, num_output), N = ``batch_size`` (1): where batch_size is set, or x has two axes. A
    second bottom may mark the steps, one value for each: where it is 0 a sequence begins, without h and c of before;
    elsewhere it goes on, at the first step from the last of the batch before (the first batch from zeros). Without
    markers each batch begins N sequences. No gradient goes from batch to batch; no file keeps h and c.

    ``lstm_param``: num_output, required; weight_filler, bias_filler (constant 0); clipping_threshold (0): if above 0,
    the gradients of i, f, o and g before s and tanh are cut to it, either way, at each step. Blobs: W_x (4 num_output,
    values of a step), W_h (4 num_output, num_output), b; the rows of i, f, o and g follow each other. As in the fork,
    the gradient to W_h counts h_(t-1) also at steps that begin a sequence, and of the batch before that of the first
    sequence only. Raises ShapeError where the bottoms do not fit.
    Source: Hochreiter and Schmidhuber, Neural Computation 1997; tianzhi0549/CTPN and junhyukoh/caffe-lstm,
    ``lstm_layer.cpp``.

    Differences: with several sequences the forks read the markers of other steps than theirs, CTPN only takes one.
    """

    compiles = False
    bottom_count = (1, 2)
    no_gradient = (1,)
    blob_order = ("W_x", "W_h", "b")
    W_x: Tensor
    W_h: Tensor
    b: Tensor
    h: Tensor
    c: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.lstm_param
        if param.num_output < 1:
            raise self.spec_error("expected lstm_param { num_output: N }, N at least 1")
        if param.HasField("batch_size") and param.batch_size < 1:
            raise self.spec_error("expected a batch_size of at least 1, got 0")
        self.outputs, self.threshold = param.num_output, param.clipping_threshold
        #: whether steps and sequences are one axis
        self.flat = param.HasField("batch_size") or len(bottoms[0]) == 2
        self.stateful = len(bottoms) > 1
        values = math.prod(bottoms[0][1 if self.flat else 2 :])
        self.add_blob("W_x", (4 * self.outputs, values), param.weight_filler)
        self.add_blob("W_h", (4 * self.outputs, self.outputs), param.weight_filler)
        self.add_blob("b", (4 * self.outputs,), param.bias_filler)
        for name in ("h", "c"):
            self.register_buffer(name, torch.zeros(self._counts(bottoms)[1], self.outputs), persistent=False)

    def _counts(self, bottoms: list[Shape]) -> tuple[int, int]:
        """How many steps and how many sequences there are."""
        x, count = bottoms[0], self.param.lstm_param.batch_size
        if len(x) < 2:
            raise self.shape_error(f"expected (time, sequences, values), got {self.listing(bottoms)}")
        if self.flat and (x[0] % count or not x[0]):
            raise self.shape_error(
                f"expected the steps of {count} sequences (batch_size), a multiple of it, got {self.listing(bottoms)}"
            )
        steps, sequences = (x[0] // count, count) if self.flat else x[:2]
        if not steps or not sequences:
            raise self.shape_error(f"expected at least one step, got {self.listing(bottoms)}")
        if len(bottoms) > 1 and math.prod(bottoms[1]) != steps * sequences:
            raise self.shape_error(
                f"expected a marker for each of {steps * sequences} steps as second bottom, got {self.listing(bottoms)}"
            )
        return steps, sequences

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        steps = self._counts(bottoms)
        self.check_fit("values", self.W_x.shape[1], math.prod(bottoms[0][1 if self.flat else 2 :]), bottoms)
        return [torch.Size((steps[0] * steps[1], self.outputs) if self.flat else (*steps, self.outputs))]

    def multiply_adds(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        """Weights × steps."""
        return int((self.W_x.numel() + self.W_h.numel()) * math.prod(self._counts(bottoms)))

    def forward(self, x: Tensor, markers: Tensor | None = None) -> Tensor:
        steps, sequences = self._counts([x.shape])
        x = full(x).reshape(steps, sequences, -1)
        if markers is None:
            h = self._unmarked(x)
        elif exporting():
            raise self.spec_error("goes on from batch to batch by its markers; export it without its second bottom")
        else:
            h = self._marked(x, markers.detach().reshape(steps, sequences, 1) != 0)
        return h.flatten(0, 1) if self.flat else h

    def _unmarked(self, x: Tensor) -> Tensor:
        """h of all steps, (T, N, num_output), from zeros: by torch's kernel, which cuts no gradient on its way."""
        zeros = x.new_zeros(x.shape[1], self.outputs)
        if self.threshold > 0 and torch.is_grad_enabled() and not exporting():
            go_on = torch.ones(len(x), x.shape[1], 1, dtype=torch.bool, device=x.device)
            go_on[0] = False
            return self._steps_over(x, go_on, zeros, zeros)[0]
        own = [torch.cat([i, f, g, o]) for i, f, o, g in (blob.chunk(4) for blob in (self.W_x, self.W_h, self.b))]
        weights = [*own, torch.zeros_like(self.b)]  # the kernel has two biases
        states = (zeros[None], zeros[None])
        h: Tensor = torch.lstm(x, states, weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)[0]
        return h

    def _marked(self, x: Tensor, go_on: Tensor) -> Tensor:
        """h of all steps, which go on where ``go_on`` (T, N, 1); the last h and c are kept."""
        if len(self.h) != x.shape[1]:
            self.h = self.c = x.new_zeros(x.shape[1], self.outputs)
        h, c = self._steps_over(x, go_on, self.h.to(x), self.c.to(x))
        self.h, self.c = h[-1].detach().clone(), c.detach()
        return h

    def _steps_over(self, x: Tensor, go_on: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        inputs = F.linear(x, self.W_x, self.b)
        tops: tuple[Tensor, Tensor] = _Steps.apply(inputs, self.W_h, go_on.to(x.dtype), h, c, self.threshold)  # type: ignore[no-untyped-call]
        return tops


class _Steps(torch.autograd.Function):
    """h of all steps and the last c, of W_x x + b (T, N, 4 D), W_h, whether each step goes on (T, N, 1), h and c of
    before (N, D), and clipping_threshold; with the fork's gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, go_on: Tensor, h: Tensor, c: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        hs, cs, gates = [h], [c], []
        for sums, on in zip(inputs.unbind(), go_on.unbind(), strict=True):
            sums = torch.addmm(sums, hs[-1] * on, weight.t())
            i, f, o, g = sums.chunk(4, 1)
            i, f, o, g = i.sigmoid(), f.sigmoid() * on, o.sigmoid(), g.tanh()
            cs.append(f * cs[-1] + i * g)
            hs.append(o * cs[-1].tanh())
            gates.append(torch.cat([i, f, o, g], 1))
        states = [torch.stack(each) for each in (hs, cs, gates)]
        ctx.save_for_backward(weight, go_on, *states)
        ctx.threshold = threshold
        ctx.mark_non_differentiable(cs[-1])
        return states[0][1:], cs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        weight, go_on, hs, cs, gates = ctx.saved_tensors
        later_h = later_c = torch.zeros_like(hs[0])
        diffs = []
        for t in range(len(dh) - 1, -1, -1):
            i, f, o, g = gates[t].chunk(4, 1)
            tanh_c, d = cs[t + 1].tanh(), dh[t] + later_h
            dc = later_c + d * o * (1 - tanh_c**2)
            di, df, do, dg = (
                dc * g * i * (1 - i),
                dc * cs[t] * f * (1 - f),
                d * tanh_c * o * (1 - o),
                dc * i * (1 - g**2),
            )
            diff = torch.cat([di, df, do, dg], 1)
            if ctx.threshold > 0:
                diff = diff.clamp(-ctx.threshold, ctx.threshold)
            later_h, later_c = (diff @ weight) * go_on[t], dc * f
            diffs.append(diff)
        diff = torch.stack(diffs[::-1])
        to_weight = diff[1:].flatten(0, 1).t() @ hs[1:-1].flatten(0, 1) + torch.outer(diff[0, 0], hs[0, 0])
        return diff, to_weight, None, None, None, None


@register("layers.text_proposal_layer.ProposalLayer")
class TextProposals(FromParamStr):
    """Slices of text, as wide as a place of the features, of ten anchors and what is predicted for them.

    Bottoms: the probabilities of background and text (1, 20, H, W), changes (1, 20, H, W), im_info, of which the height
    and width of the picture come first. Tops: regions (H W 10, 4), rows (xmin, ymin, xmax, ymax), and the probability
    of text of each (H W 10, 1), place by place, row by row. An anchor of height a around y becomes one of height
    h = a exp(v) from y + u a - h / 2, (u, v) the changes of its channels; regions are clipped to the picture.

    ``param_str``: feat_stride, required. Nothing has a gradient. Raises ShapeError for a batch of several pictures.
    Source: tianzhi0549/CTPN, ``src/layers/text_proposal_layer.py`` and ``src/anchor.py``, run by Python 2.
    """

    bottom_count = (3, 3)
    top_count = (2, 2)
    no_gradient = (0, 1, 2)
    defaults: ClassVar[Mapping[str, Any]] = {"feat_stride": None}
    #: top and bottom of each anchor at place 0, which is from 0 to 15 in x: heights of 11 to 283 around 7.5, their
    #: halves and ends without fractions
    anchors: ClassVar[tuple[tuple[int, int], ...]] = tuple(
        (math.trunc(7.5 - height // 2), math.trunc(7.5 + height // 2))
        for height in (11, 16, 23, 33, 48, 68, 97, 139, 198, 283)
    )

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        scores, change, info = bottoms
        self.one_item(bottoms, scores)
        count = len(self.anchors)
        if scores[1] != 2 * count or tuple(change) != tuple(scores) or math.prod(info) < 2:
            raise self.shape_error(
                f"expected scores and changes (1, {2 * count}, height, width) of {count} anchors, and im_info, got "
                f"{self.listing(bottoms)}"
            )
        regions = count * scores[2] * scores[3]
        return [torch.Size((regions, 4)), torch.Size((regions, 1))]

    def forward(self, scores: Tensor, change: Tensor, info: Tensor) -> tuple[Tensor, Tensor]:
        count, (height, width), stride = len(self.anchors), scores.shape[2:], self.given["feat_stride"]
        scores, change, info = (bottom.detach().float() for bottom in (scores, change, info.flatten()))
        u, v = change[0].reshape(count, 2, height, width).permute(1, 2, 3, 0)  # each (H, W, anchors)
        x, y = (torch.arange(size, device=scores.device) * stride for size in (width, height))
        top, bottom = (y[:, None, None] + end for end in torch.tensor(self.anchors, device=scores.device).t())
        size = bottom - top + 1
        tall = v.exp() * size
        ymin = u * size + (top + bottom) / 2 - tall / 2
        left = x[None, :, None].to(tall).expand_as(tall)
        regions = torch.stack([left, ymin, left + 15, ymin + tall], -1).reshape(-1, 4)
        regions = torch.minimum(regions, info[:2].flip(0).repeat(2) - 1).clamp(min=0)
        return regions, scores[0, count:].permute(1, 2, 0).reshape(-1, 1)
