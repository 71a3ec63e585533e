"""BoxData: pictures with boxes, as the ports of the first two versions read them."""

from __future__ import annotations

import functools
import secrets

from caffecli import sources
from caffecli.layers.base import Shape
from caffecli.layers.data import SourceLayer
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter


@register("BoxData")
class BoxData(SourceLayer):
    """tops: pictures (batch_size, channels, height, width) of one size, and for each ``side`` their boxes
    (batch_size, 7 side^2), of an LMDB or LevelDB that convert_box_data or ``convert_annoset`` made, ordered by key.

    For each of side x side cells the boxes have: whether its box is difficult, whether it has one, the class from 0 on,
    -1 without, and centre x, centre y, width, height (parts of the picture) one after another. It is the cell of the
    centre; of several boxes the last. Where a top of boxes goes into a RegionLoss, or an EvalDetection with biases, it
    is gklz1982/caffe-yolov2's: (batch_size, 150), 30 rows class, centre x, centre y, width, height, then zeros.

    Classes of a database of ``convert_annoset`` count from 1 on, and are here one less.

    ``data_param`` as for Data, and side (7), one for each top of boxes. In phase TRAIN, where there is such a top, a
    part of the picture is cut out, both sides the same part of 0.71 to 1, and brought back to its size: drawn until the
    centre of a box is in it; the other boxes go. Then ``transform_param`` as for AnnotatedData.
    Source: ``box_data_layer.cpp``, ``data_transformer.cpp`` of yeahkun/caffe-yolo and of gklz1982/caffe-yolov2.

    Differences: boxes are mirrored and cropped with their pictures; a picture without boxes is served, whole, and so is
    one of whose boxes no part was found that has one. Of more than 30 boxes the first are listed.
    """

    reads = sources.BoxSource
    settings_name = "data_param"
    size_line = "box_data_layer.cpp:40"
    top_count = (1, None)
    #: whether it lists boxes, as version 2
    listed = False

    @classmethod
    def label_shape(cls, param: LayerParameter, batch_size: int) -> tuple[int, ...]:
        return batch_size, 7 * (param.data_param.side[0] if param.data_param.side else 7) ** 2

    @classmethod
    def drawn_at_tops(cls, param: LayerParameter) -> str:
        return f"Batch {param.data_param.batch_size}"

    def placed_in(self, net: NetParameter) -> None:
        boxes = set(self.param.top[1:])
        for layer in net.layer:
            if not boxes & set(layer.bottom):
                continue
            if layer.type == "Split":
                boxes |= set(layer.top)
            elif layer.HasField("region_loss_param") or layer.eval_detection_param.biases:
                self.listed = True

    def setup(self, bottoms: list[Shape]) -> None:
        sides, tops = len(self.param.data_param.side) or 1, len(self.param.top) - 1
        if tops and sides != tops:
            raise self.spec_error(f"expected a side for each of the {tops} tops of boxes, got {sides}")
        if any(not 1 <= side <= 1000 for side in self.param.data_param.side):
            raise self.spec_error(f"expected side of 1 to 1000, got {list(self.param.data_param.side)}")
        super().setup(bottoms)

    def open_source(self) -> None:
        self.close()
        seed = secrets.randbits(63) if self.context.seed is None else self.context.seed
        reads = functools.partial(sources.BoxSource, listed=self.listed)
        self.source = sources.create(reads, self.param, self.phase, seed, self.context.shard)
