"""Caffe's forks: what to call them, and whose a field or a type is.

caffe.proto has exactly the reference's fields. What a fork adds stands in a file of its own, ``proto/forks/*.proto``;
the messages of ``caffe_pb2`` have the fields of all. ``wire`` reads and writes the forks' numbers.
"""

from __future__ import annotations

import functools

from caffecli.proto.fork_types import OTHERS, TYPES
from caffecli.proto.unsupported import FIELDS as UNSUPPORTED
from caffecli.proto.unsupported import HOW, NAMES

#: the forks whose fields are here: name of the file in proto/forks -> title. New ones come last: a number that two
#: forks use stays with the first
FORKS = {
    "ssd": "SSD (weiliu89/caffe)",
    "segnet": "SegNet (alexgkendall/caffe-segnet)",
    "deeplab": "DeepLab (version 2, and hszhao/PSPNet)",
    "pspnet": "PSPNet (hszhao/PSPNet)",
    "deeplab_v1": "DeepLab (version 1, TheLegendAli/DeepLab-Context)",
    "shufflenet": "ShuffleNet (farmingyard/ShuffleNet)",
    "faster_rcnn": "Faster R-CNN (rbgirshick/caffe-fast-rcnn)",
    "mobilenet_yolo": "MobileNet-YOLO (eric612/MobileNet-YOLO)",
    "ceil_mode": "ceil_mode (pull request 3057 of BVLC/caffe, which many forks took)",
    "nvidia": "NVIDIA (NVIDIA/caffe)",
    "parsenet": "ParseNet (weiliu89/caffe, branch fcn)",
    "rfcn": "R-FCN (daijifeng001/caffe-rfcn)",
    "microsoft": "R-FCN for Windows (microsoft/caffe)",
    "mnc": "MNC (daijifeng001/caffe-mnc)",
    "mscnn": "MS-CNN (zhaoweicai/mscnn)",
    "cascade_rcnn": "Cascade R-CNN (zhaoweicai/cascade-rcnn)",
    "tsn": "TSN (yjxiong/caffe)",
    "caffe_face": "center loss (ydwen/caffe-face)",
    "sphereface": "SphereFace (wy1iu/sphereface)",
    "lsoftmax": "L-Softmax (wy1iu/LargeMargin_Softmax_Loss)",
    "caffe_windows": "NormFace and AM-Softmax (happynear/caffe-windows)",
    "intel": "Intel (intel/caffe)",
    "yolo": "YOLO (yeahkun/caffe-yolo)",
    "flownet": "FlowNet (lmb-freiburg/flownet2)",
    "c3d": "C3D (facebook/C3D)",
    "c3d_v1": "C3D (facebook/C3D, version 1.0)",
    "caffe_ocr": "caffe_ocr (senlinuc/caffe_ocr)",
    "ctpn": "CTPN (tianzhi0549/CTPN)",
    "warpctc": "WarpCTC (xmfbit/warpctc-caffe)",
    "openpose": "OpenPose (CMU-Perceptual-Computing-Lab/caffe_train)",
    "cpm": "CPM (shihenw/caffe)",
    "crfasrnn": "CRF as RNN (torrvision/caffe)",
    "deconvnet": "DeconvNet (HyeonwooNoh/caffe)",
    "refinedet": "RefineDet (sfzhang15/RefineDet)",
    "textboxes_pp": "TextBoxes++ (MhLiao/TextBoxes_plusplus)",
    "caffe_augmentation": "caffe-augmentation (kevinlin311tw/caffe-augmentation)",
    "caffenet_benchmark": "caffenet-benchmark (ducha-aiki/caffe)",
    "ristretto": "Ristretto (pmgysel/caffe)",
    "lifted_structure": "lifted structure (rksltnl/Caffe-Deep-Metric-Learning-CVPR16)",
    "compact_bilinear": "compact bilinear pooling (gy20073/compact_bilinear_pooling)",
    "deepdetect": "deepdetect (jolibrain/caffe)",
    "lrcn": "LRCN (LisaAnne/lisa-caffe-public)",
    "dgd": "dgd_person_reid (Cysu/dgd_person_reid)",
    "gradient_reversal": "gradient reversal (ddtm/caffe)",
    "transfer": "transfer-caffe (thuml/transfer-caffe)",
    "caffe_sl": "caffe-sl (wanji/caffe-sl)",
    "stn": "spatial transformer networks (daerduoCarey/SpatialTransformerLayer)",
    "segnet_cudnn5": "SegNet (TimoSaemann/caffe-segnet-cudnn5)",
    "caffe_augmentation_2016": "caffe-augmentation (twtygqyy/caffe-augmentation)",
    "openpose_2018": "OpenPose (CMU-Perceptual-Computing-Lab/openpose_caffe_train)",
    "deep_compression": "DeepCompression (may0324/DeepCompression-caffe)",
    "enet": "ENet (TimoSaemann/caffe-enet)",
    "structured_sparsity": "structured sparsity (wenwei202/caffe)",
    "faceboxes": "FaceBoxes (lippman1125/faceboxes_lqy)",
    "mask_rcnn": "Mask R-CNN (jasjeetIM/Mask-RCNN)",
    "caffe_lstm": "caffe-lstm (junhyukoh/caffe-lstm)",
    "yolov2": "YOLO (version 2, gklz1982/caffe-yolov2)",
    "affordance_net": "AffordanceNet (nqanh/affordance-net)",
}

#: from here on are the numbers of fields whose own number the reference or an earlier fork uses
#: (scripts/generate_schema.py)
MOVED = 8_000_000


def title(fork: str) -> str:
    """What to call a fork."""
    return FORKS.get(fork) or OTHERS[fork]


def of_type(layer_type: str) -> list[str]:
    """The forks that have this type of layer, beyond the reference's."""
    return [fork for fork, types in TYPES.items() if layer_type in types.split()]


def of_unsupported(message: str, field: str) -> list[str]:
    """The forks that have this field; none where something here reads it."""
    tables = (*UNSUPPORTED.items(), *NAMES.items())
    return [fork for fork, messages in tables if field in messages.get(message, "").split()]


def of_name(message: str, name: str) -> str | None:
    """The title of the fork that has this field, of which only the name is known."""
    return next((title(fork) for fork, known in NAMES.items() if name in known.get(message, "").split()), None)


def is_of_reference(message: str, number: int) -> bool:
    """Whether a field, or a value of an enum, is one of the reference's, by its number here."""
    from caffecli.proto.fork_numbers import FIELDS, VALUES

    owners = (FIELDS.get(message) or VALUES.get(message, {})).get(number, ())
    return number < MOVED and (not owners or ("", number) in owners)


def is_read(message: str, field: str) -> bool:
    """Whether something here reads the field."""
    return field not in HOW.get(message, "").split() and not of_unsupported(message, field)


@functools.cache
def forks_of_types() -> dict[str, frozenset[str]]:
    """The forks of each type that the reference does not have."""
    forks: dict[str, frozenset[str]] = {}
    for fork, names in TYPES.items():
        for name in names.split():
            forks[name] = forks.get(name, frozenset()) | {fork}
    return forks
