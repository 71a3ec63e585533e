"""AnnotatedData: pictures with boxes."""

from __future__ import annotations

from caffecli import sources
from caffecli.layers.data import SourceLayer
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LayerParameter


@register("AnnotatedData")
class AnnotatedData(SourceLayer):
    """tops: pictures (batch_size, channels, height, width) and their boxes (1, 1, K, 8), of an LMDB or LevelDB that
    ``convert_annoset`` made, ordered by key.

    A row for each of the K boxes of the batch: the picture's place in it, class, instance, xmin, ymin, xmax, ymax
    (parts of the picture's width and height), difficult; one row of -1 where there is none. Records that have no type,
    as ``convert_annoset`` makes them of labels, give those (batch_size,), unless ``anno_type`` is given.

    ``data_param`` as for Data. ``annotated_data_param`` { batch_sampler: draws windows of the picture, of which one, of
    all that were kept, is cut out: use_original_image (true; else it draws none), sampler { min_scale, max_scale,
    min_aspect_ratio, max_aspect_ratio, all 1 }, sample_constraint { min_ and max_jaccard_overlap, min_ and
    max_sample_coverage, min_ and max_object_coverage: one box has to satisfy all }, max_sample: how many to keep,
    max_trials (100); anno_type: BBOX; label_map_file is not read }. ``transform_param`` in this order: distort_param,
    expand_param (in mean_value's colour), the window, resize_param (WARP, FIT_SMALL_SIZE with batch_size 1,
    FIT_LARGE_SIZE_AND_PAD), noise_param, crop_size or crop_h and crop_w, mirror, mean_value or mean_file, scale;
    emit_constraint { emit_type: CENTER or MIN_OVERLAP, emit_overlap }: which boxes stay where a part is cut.

    MobileNet-YOLO's: several resize_param, of which each ten batches have one, drawn by its prob. yolo_data_type: 1:
    the boxes are (batch_size, 1, 300, 5), for each picture up to 300 rows class - 1, centre x, centre y, width, height,
    then zeros, without difficult boxes where train_diffcult is false (true). yolo_data_jitter j (0.3 with
    yolo_data_type: 1, else 0), where no batch_sampler is given: of four pictures in five a part is cut out, whose sides
    are parts 1 - j, or 1 - j / 2, to 1 of the picture's.
    TextBoxes++'s: where records have the corners of written words, the boxes are (1, 1, K, 16), x1, y1, ..., x4, y4
    behind the other values: wherever a part of the picture is taken, all of it too, the turned rectangle of their
    centre, mean width, height and angle, cut short along the word where it leaves the picture; with resize_param from
    the corner on that is the top left.
    Source: Liu et al., ECCV 2016 (SSD); ``annotated_data_layer.cpp``, ``sampler.cpp``, ``data_transformer.cpp``; the
    same files of eric612/MobileNet-YOLO and of MhLiao/TextBoxes_plusplus.

    Differences: words are mirrored with their pictures, and scaled as their boxes in all modes of resize_param, which
    TextBoxes++ leaves out. In MobileNet-YOLO the 0.3 of yolo_data_jitter holds without yolo_data_type too, and the rows
    of a batch without any box keep old values. SSD encodes the picture as a JPEG after each of the first three steps;
    here no pixel is lost so. Where a sample_constraint has bounds of several kinds, SSD looks at the first alone.
    """

    reads = sources.AnnotatedSource
    settings_name = "data_param"
    size_line = "annotated_data_layer.cpp:64"

    @classmethod
    def label_shape(cls, param: LayerParameter, batch_size: int) -> tuple[int, ...]:
        yolo = param.annotated_data_param.yolo_data_type == 1
        return (batch_size, 1, *sources.YOLO_ROWS) if yolo else (1, 1, 1, 8)

    @classmethod
    def drawn_at_tops(cls, param: LayerParameter) -> str:
        return f"Batch {param.data_param.batch_size}"
