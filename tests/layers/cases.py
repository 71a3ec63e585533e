"""One case a layer type for the contract: its settings, its bottoms, and bottoms of other shapes to go on with.

A type without a case fails the suite.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np

from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import AnnotatedDatum
from tests.layers.contract import PICTURES, Bottom, Case, numbers, values

VALUES = (4, 3)
FILLED = 'weight_filler { type: "xavier" } bias_filler { value: 0.1 }'
KERNEL = f"kernel_size: 3 pad: 1 {FILLED}"
SCORES = (values(4, 5), numbers(5, 4))
RECURRENT = f"recurrent_param {{ num_output: 5 {FILLED} }}"
YOLO = (values(*PICTURES), values(2, 1, 3, 5))
STEPS = (values(4, 2, 3), numbers(2, 4, 2))

CASES: dict[str, Case] = {
    "AbsVal": Case(),
    "Accuracy": Case("accuracy_param { top_k: 2 }", SCORES),
    "AnnotatedData": Case(
        'transform_param { resize_param { height: 5 width: 8 } } data_param { source: "boxes_lmdb" batch_size: 1 '
        "backend: LMDB }",
        (),
        2,
    ),
    "ArgMax": Case("argmax_param { top_k: 2 axis: 1 }"),
    "Axpy": Case("", (values(2, 6, 1, 1), values(*PICTURES), values(*PICTURES))),
    "BN": Case("bn_param { slope_filler { value: 2 } bias_filler { value: 1 } }"),
    "BNLL": Case(),
    "BatchNorm": Case(),
    "BatchReindex": Case("", (values(*VALUES), numbers(4, 5))),
    "Bias": Case("bias_param { filler { value: 2 } }"),
    "BoxData": Case(
        'data_param { source: "cells_lmdb" batch_size: 2 side: 3 backend: LMDB }',
        (),
        2,
    ),
    "BoxAnnotatorOHEM": Case(
        "box_annotator_ohem_param { roi_per_img: 2 }",
        (numbers(2, 6, 5), values(6, 1), numbers(4, 6, 1), values(6, 8)),
        2,
        (numbers(2, 9, 5), values(9, 1), numbers(4, 9, 1), values(9, 8)),
    ),
    "Clip": Case("clip_param { min: 0.25 max: 0.75 }"),
    "Concat": Case("", (values(2, 6, 5, 4), values(2, 1, 5, 4))),
    "ContrastiveLoss": Case("contrastive_loss_param { margin: 2 }", (values(4, 3), values(4, 3), numbers(2, 4))),
    "Convolution": Case(f"convolution_param {{ num_output: 4 group: 2 stride: 2 {KERNEL} }}"),
    "ConvolutionDepthwise": Case(f"convolution_param {{ {KERNEL} }}"),
    "Crop": Case("crop_param { axis: 2 offset: 1 }", (values(*PICTURES), values(2, 6, 3, 2))),
    "Data": Case(
        'transform_param { crop_size: 4 mirror: true } data_param { source: "records_lmdb" batch_size: 3 backend: LMDB '
        "}",
        (),
        2,
    ),
    "Deconvolution": Case(f"convolution_param {{ num_output: 4 group: 2 stride: 2 {KERNEL} }}"),
    "DepthwiseConvolution": Case(f"convolution_param {{ num_output: 6 group: 6 {KERNEL} }}"),
    "DetectionEvaluate": Case(
        "detection_evaluate_param { num_classes: 2 background_label_id: 1 }",
        (values(1, 1, 3, 7), values(1, 1, 4, 8)),
        other=(values(1, 1, 5, 7), values(1, 1, 2, 8)),
        exports=False,
    ),
    "DetectionLoss": Case(
        "detection_loss_param { side: 2 num_class: 1 num_object: 1 }", (values(2, 24), values(2, 28)), exports=False
    ),
    "DetectionOutput": Case(
        "detection_output_param { num_classes: 2 nms_param { nms_threshold: 0.9 } keep_top_k: 1 confidence_threshold: "
        "0.01 }",
        (values(1, 12), values(1, 6), values(1, 2, 12)),
        other=(values(1, 8), values(1, 4), values(1, 2, 8)),
        exports=False,
        shapes_known=False,
    ),
    "Dropout": Case(),
    "DummyData": Case('dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } }', ()),
    "ELU": Case(),
    "Eltwise": Case("eltwise_param { coeff: 1 coeff: -2 }", (values(*PICTURES), values(*PICTURES))),
    "Embed": Case(f"embed_param {{ input_dim: 5 num_output: 3 {FILLED} }}", (numbers(5, 4),)),
    "EuclideanLoss": Case("", (values(*VALUES), values(*VALUES))),
    "EvalDetection": Case(
        "eval_detection_param { side: 2 num_class: 1 num_object: 1 }", (values(2, 24), values(2, 28)), exports=False
    ),
    "Exp": Case("exp_param { base: 2 }"),
    "Filter": Case("", (values(*VALUES), Bottom((4,), value=1))),
    "Flatten": Case(),
    "HDF5Data": Case('hdf5_data_param { source: "records_h5.txt" batch_size: 3 }', (), 2),
    "HDF5Output": Case('hdf5_output_param { file_name: "out.h5" }', (values(4, 3), values(4)), 0),
    "HingeLoss": Case("hinge_loss_param { norm: L2 }", SCORES, exports=False),
    "Im2col": Case("convolution_param { kernel_size: 3 }"),
    "ImageData": Case('image_data_param { source: "records.txt" batch_size: 3 }', (), 2),
    "InfogainLoss": Case(
        "", (*SCORES, values(1, 1, 5, 5)), other=(values(6, 5), numbers(5, 6), values(1, 1, 5, 5)), exports=False
    ),
    "InnerProduct": Case(f"inner_product_param {{ num_output: 3 {FILLED} }}"),
    "Input": Case("input_param { shape { dim: 2 dim: 3 } }", ()),
    "Interp": Case("interp_param { zoom_factor: 2 }"),
    "L2Normalization": Case(),
    "L2Normalize": Case(),
    "LRN": Case("lrn_param { local_size: 3 alpha: 0.5 }"),
    "LSTM": Case(RECURRENT, STEPS, other=(values(6, 2, 3), numbers(2, 6, 2))),
    "LSTMUnit": Case(
        "",
        (values(1, 2, 3), values(1, 2, 12), numbers(2, 1, 2)),
        2,
        (values(1, 4, 3), values(1, 4, 12), numbers(2, 1, 4)),
    ),
    "Log": Case("log_param { base: 10 }"),
    "Lstm": Case(f"lstm_param {{ num_output: 5 {FILLED} }}", (values(4, 2, 3),), other=(values(6, 2, 3),)),
    "MVN": Case("mvn_param { across_channels: true }"),
    "MaskPooling": Case("", (values(*PICTURES), values(2, 1, 5, 4))),
    "MaskResize": Case("mask_resize_param { output_height: 3 output_width: 7 }"),
    "MemoryData": Case("memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }", (), 2, shapes_known=False),
    "MultiBoxLoss": Case(
        "multibox_loss_param { num_classes: 2 background_label_id: 1 mining_type: NONE code_type: CORNER }",
        (values(1, 24), values(1, 12), values(1, 2, 24), values(1, 1, 6, 8)),
        other=(values(1, 28), values(1, 14), values(1, 2, 28), values(1, 1, 7, 8)),
        exports=False,
    ),
    "MultinomialLogisticLoss": Case("", SCORES, exports=False),
    "Normalize": Case("norm_param { across_spatial: false scale_filler { value: 20 } channel_shared: false }"),
    "PReLU": Case("prelu_param { filler { value: 0.25 } }"),
    "PSROIPooling": Case(
        "psroi_pooling_param { spatial_scale: 0.25 output_dim: 3 group_size: 2 }",
        (values(2, 12, 5, 4), numbers(2, 3, 5)),
        other=(values(2, 12, 7, 4), numbers(2, 4, 5)),
        exports=False,
    ),
    "Parameter": Case("parameter_param { shape { dim: 2 dim: 3 } }", ()),
    "Permute": Case("permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "Pooling": Case("pooling_param { kernel_size: 3 stride: 2 }", other=(values(3, 6, 7, 4),)),
    "Power": Case("power_param { power: 2 scale: 0.5 shift: 1 }"),
    "PriorBox": Case(
        "prior_box_param { min_size: 4 aspect_ratio: 2 }",
        (values(1, 2, 3, 4), values(1, 3, 30, 40)),
        other=(values(1, 2, 4, 4), values(1, 3, 40, 40)),
    ),
    "Proposal": Case(
        "proposal_param { feat_stride: 8 min_size: 4 scale: 1 ratio: 1 post_nms_topn: 4 }",
        (values(1, 2, 4, 3), values(1, 4, 4, 3), Bottom((1, 3), value=30)),
        2,
        (values(1, 2, 5, 3), values(1, 4, 5, 3), Bottom((1, 3), value=30)),
        exports=False,
        shapes_known=False,
    ),
    "Python": Case('python_param { module: "contract_layers" layer: "Double" }'),
    "RNN": Case(RECURRENT, STEPS, other=(values(6, 2, 3), numbers(2, 6, 2))),
    "ROIAlignment": Case(
        "roi_alignment_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }",
        (values(*PICTURES), Bottom((3, 5), value=1)),
        1,
        (values(2, 3, 7, 5), Bottom((4, 5), value=1)),
        exports=False,
    ),
    "ROIAlign": Case(
        "roi_align_param { pooled_h: 2 pooled_w: 2 spatial_scale: 4 }",
        (values(2, 6, 5, 4), numbers(2, 3, 5)),
        other=(values(2, 6, 7, 4), numbers(2, 4, 5)),
        exports=False,
    ),
    "ROIPooling": Case(
        "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 4 }",
        (values(2, 6, 5, 4), numbers(2, 3, 5)),
        other=(values(2, 6, 7, 4), numbers(2, 4, 5)),
        exports=False,
    ),
    "ROIWarping": Case(
        "roi_warping_param { pooled_h: 3 pooled_w: 2 spatial_scale: 2 }",
        (values(2, 6, 5, 4), values(3, 5)),
        other=(values(2, 6, 7, 4), values(4, 5)),
        exports=False,
    ),
    "ReLU": Case("relu_param { negative_slope: 0.1 }"),
    "ReLU6": Case(),
    "Reduction": Case("reduction_param { operation: MEAN axis: 1 }"),
    "RegionLoss": Case("region_loss_param { num: 1 num_class: 1 biases: 1 biases: 2 }", YOLO, exports=False),
    "Reorg": Case("reorg_param { stride: 2 }", (values(2, 4, 6, 4),), other=(values(2, 4, 4, 4),)),
    "Reshape": Case("reshape_param { shape { dim: 0 dim: 3 dim: -1 } }"),
    "Reverse": Case("reverse_param { axis: 2 }"),
    "SPP": Case("spp_param { pyramid_height: 2 }", other=(values(2, 6, 8, 7),)),
    "Scale": Case("scale_param { filler { value: 2 } bias_term: true }"),
    "ShuffleChannel": Case("shuffle_channel_param { group: 3 }"),
    "Sigmoid": Case(),
    "SigmoidCrossEntropyLoss": Case("", (values(*VALUES), numbers(2, *VALUES))),
    "Silence": Case(tops=0),
    "Slice": Case("slice_param { slice_point: 2 }", tops=2),
    "SmoothL1Loss": Case("smooth_l1_loss_param { sigma: 2 }", (values(*VALUES),) * 4),
    "SmoothL1LossOHEM": Case("", (values(*VALUES),) * 3, 2),
    "Softmax": Case(),
    "SoftmaxWithLoss": Case("loss_param { ignore_label: 3 }", SCORES, exports=False),
    "SoftmaxWithLossOHEM": Case("loss_param { ignore_label: 3 }", SCORES, 3, exports=False),
    "Split": Case(tops=2),
    "Swish": Case("swish_param { beta: 2 }"),
    "TanH": Case(),
    "Threshold": Case("threshold_param { threshold: 0.5 }"),
    "Tile": Case("tile_param { tiles: 2 }"),
    "Transpose": Case("transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }"),
    "Upsample": Case("upsample_param { scale: 2 }"),
    "VideoData": Case(
        'data_param { batch_size: 1 } video_data_param { video_type: VIDEO video_file: "frames.avi" }', (), 2
    ),
    "WindowData": Case(
        'transform_param { crop_size: 4 } window_data_param { source: "windows.txt" batch_size: 4 }', (), 2
    ),
    "YoloDetectionOutput": Case(
        "yolo_detection_output_param { num_classes: 1 num_box: 1 biases: 1 biases: 2 }",
        exports=False,
        shapes_known=False,
    ),
    "Yolov3": Case(
        "yolov3_param { num: 1 num_class: 1 biases: 8 biases: 16 mask: 0 anchors_scale: 8 }", YOLO, exports=False
    ),
    "Yolov3DetectionOutput": Case(
        "yolov3_detection_output_param { num_classes: 1 num_box: 1 biases: 8 biases: 16 mask: 0 anchors_scale: 8 "
        "mask_group_num: 1 }",
        exports=False,
        shapes_known=False,
    ),
    "fast_rcnn.detection_layer.DetectionLayer": Case(
        """python_param { param_str: "'thresh': 0.1" }""",
        (
            Bottom((3, 5), value=3),
            Bottom((3, 3), value=0.4),
            Bottom((3, 12), value=0),
            Bottom((1, 3), value=9),
            Bottom((2, 5), value=1),
        ),
        2,
        (
            Bottom((4, 5), value=3),
            Bottom((4, 3), value=0.4),
            Bottom((4, 12), value=0),
            Bottom((1, 3), value=9),
            Bottom((2, 5), value=1),
        ),
        exports=False,
        shapes_known=False,
    ),
    "layers.text_proposal_layer.ProposalLayer": Case(
        """python_param { param_str: "'feat_stride': 16" }""",
        (values(1, 20, 4, 3), values(1, 20, 4, 3), Bottom((1, 2), value=60)),
        2,
        (values(1, 20, 5, 3), values(1, 20, 5, 3), Bottom((1, 2), value=60)),
    ),
    "roi_data_layer.layer.RoIDataLayer": Case(
        """python_param { param_str: "'num_classes': 4, 'source': 'boxes_lmdb', 'SCALES': [8]" }""",
        (),
        3,
    ),
    "rpn.anchor_target_layer.AnchorTargetLayer": Case(
        """python_param { param_str: "'feat_stride': 8, 'scales': [1], 'allowed_border': 16" }""",
        (values(1, 6, 4, 3), Bottom((2, 5), value=3), Bottom((1, 3), value=30)),
        4,
        (values(1, 6, 5, 3), Bottom((2, 5), value=3), Bottom((1, 3), value=30)),
        exports=False,
    ),
    "rpn.proposal_layer.ProposalLayer": Case(
        """python_param { param_str: "'feat_stride': 8, 'scales': [1], 'RPN_MIN_SIZE': 0, 'RPN_POST_NMS_TOP_N': 4" }""",
        (values(1, 6, 4, 3), values(1, 12, 4, 3), Bottom((1, 3), value=30)),
        2,
        (values(1, 6, 5, 3), values(1, 12, 5, 3), Bottom((1, 3), value=30)),
        exports=False,
        shapes_known=False,
    ),
    "rpn.proposal_target_layer.ProposalTargetLayer": Case(
        """python_param { param_str: "'num_classes': 4" }""",
        (Bottom((3, 5), value=0), Bottom((2, 5), value=3)),
        5,
        (Bottom((4, 5), value=0), Bottom((2, 5), value=3)),
        exports=False,
        shapes_known=False,
    ),
}


def write_files(folder: Path) -> None:
    """What the layers that read files read."""
    pictures = np.random.default_rng(0).integers(256, size=(4, 3, 6, 7), dtype=np.uint8)
    with open_writer(folder / "records_lmdb", "lmdb") as writer:
        for i, picture in enumerate(pictures):
            writer.put(b"%08d" % i, from_array(picture, i).SerializeToString())
    with open_writer(folder / "boxes_lmdb", "lmdb") as writer:
        for i, picture in enumerate(pictures):
            boxed = AnnotatedDatum(datum=from_array(picture, i), type=AnnotatedDatum.BBOX)
            box = boxed.annotation_group.add(group_label=i).annotation.add().bbox
            box.xmax = box.ymax = 0.5
            writer.put(b"%08d" % i, boxed.SerializeToString())
    with open_writer(folder / "cells_lmdb", "lmdb") as writer:
        for i, picture in enumerate(pictures):
            celled = from_array(picture, i)
            celled.float_data.extend([i, 0, 0.5, 0.4, 0.3, 0.2])
            writer.put(b"%08d" % i, celled.SerializeToString())
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{i}.png"), picture.transpose(1, 2, 0))
    video = cv2.VideoWriter(str(folder / "frames.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (8, 6))
    for _ in range(40):
        video.write(np.zeros((6, 8, 3), np.uint8))
    video.release()
    (folder / "records.txt").write_text("".join(f"{i}.png {i}\n" for i in range(4)))
    with h5py.File(folder / "records.h5", "w") as file:
        file["y0"], file["y1"] = pictures.astype(np.float32), np.arange(4, dtype=np.float32)
    (folder / "records_h5.txt").write_text("records.h5\n")
    window = "# 0\n0.png\n3\n6\n7\n2\n1 0.9 0 0 5 4\n2 0.1 1 1 6 5\n"
    (folder / "windows.txt").write_text(window)
    (folder / "contract_layers.py").write_text(
        "import caffe\n"
        "class Double(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
        "    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff\n"
    )
