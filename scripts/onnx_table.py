"""The table of ONNX models in docs/from-pytorch.md: nets of torchvision, timm and ultralytics, out and in.

    python -m scripts.onnx_table FOLDER [NET ...]

A net is a name of torchvision's, ``timm:NAME``, or ``yolo:NAME`` (a YAML file of ultralytics), by default those of the
table. Each is made with random weights and statistics, exported to FOLDER by both of PyTorch's exporters, imported, and
compared with onnxruntime. It runs wherever these packages and caffecli's own are installed; a row for each net.
"""

from __future__ import annotations

import datetime
import logging
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from caffecli.errors import CaffeError
from converters.from_onnx import compare, graph
from converters.import_ import convert

NETS = (
    *("alexnet", "vgg16", "resnet18", "resnet50", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "googlenet"),
    *("inception_v3", "densenet121", "shufflenet_v2_x1_0", "mnasnet1_0", "efficientnet_b0", "regnet_y_400mf"),
    *("convnext_tiny", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50"),
    *("lraspp_mobilenet_v3_large", "swin_t", "vit_b_16"),
    *("timm:resnetv2_50", "timm:resnext50_32x4d", "timm:seresnet50", "timm:mobilenetv3_large_100", "timm:ghostnet_100"),
    *(
        "timm:tf_efficientnet_lite0",
        "timm:tf_efficientnetv2_b0",
        "timm:dla34",
        "timm:hrnet_w18_small",
        "timm:repvgg_a0",
    ),
    *("timm:cspdarknet53", "timm:mobileone_s0", "timm:nfnet_f0", "timm:mixer_s32_224", "timm:convnextv2_atto"),
    *("yolo:yolov5n.yaml", "yolo:yolov5n6.yaml", "yolo:yolov6n.yaml", "yolo:yolov8n.yaml", "yolo:yolov8n-cls.yaml"),
    *("yolo:yolov8n-seg.yaml", "yolo:yolov3-tiny.yaml"),
)
#: by the exporter of before, which writes these opsets, and by torch.export
FORMS = ("9", "11", "13", "17", "dynamo")
AUDIENCES = ("both", "opencv", "caffe", "forks")


class Plain(nn.Module):
    """A net whose outputs are tensors."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        made = self.net(x)
        if isinstance(made, dict):
            return made["out"]
        return made[0] if isinstance(made, list | tuple) else made


def make(name: str) -> tuple[nn.Module, Tensor]:
    """A net with random weights, in evaluation, and a picture for it."""
    torch.manual_seed(1)
    size = 299 if name == "inception_v3" else 224
    if name.startswith("timm:"):
        import timm

        net = timm.create_model(name.removeprefix("timm:"), pretrained=False)
        size = net.default_cfg["input_size"][-1]
    elif name.startswith("yolo:"):
        from ultralytics import YOLO

        net = YOLO(name.removeprefix("yolo:")).model.fuse()
        net.model[-1].export = True
        net.model[-1].format = "onnx"
        size = 320
    else:
        from torchvision import models

        given: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        if name in models.segmentation.__dict__:
            given["weights_backbone"] = None
        net = models.get_model(name, weights=None, **given)
    for layer in net.modules():
        if (
            isinstance(layer, nn.modules.batchnorm._BatchNorm)
            and layer.running_mean is not None
            and layer.running_var is not None
        ):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return Plain(net).eval(), torch.randn(1, 3, size, size)


def export(name: str, form: str, file: Path) -> None:
    """Write a net as ONNX, unless the file is there."""
    if file.exists():
        return
    net, picture = make(name)
    if form == "dynamo":
        torch.onnx.export(net, (picture,), file, dynamo=True, verbose=False, external_data=False)
    else:
        torch.onnx.export(
            net,
            (picture,),
            file,
            dynamo=False,
            opset_version=int(form),
            input_names=["data"],
            output_names=["output"],
        )


def imported(file: Path) -> tuple[str, float]:
    """Who the net can be for, and the largest difference; raises CaffeError with the last reason."""
    for audience in AUDIENCES:
        try:
            program = graph.read(file)
            made = convert(program, file.stem, None, audience)  # type: ignore[arg-type]
            difference = compare.check(file, program, made)
        except CaffeError as error:
            reason = error
            continue
        return audience, float("nan") if difference is None else difference
    raise reason


def row(name: str, folder: Path) -> str:
    """The table's row of a net: its nodes, who it is for, the largest difference; or why it is refused."""
    nodes, differences, audiences, reasons = 0, [], [], []
    for form in FORMS:
        file = folder / f"{name.replace(':', '_').removesuffix('.yaml')}.{form}.onnx"
        try:
            export(name, form, file)
        except Exception as error:  # an exporter cannot say every net in every opset
            print(f"  {name} {form}: not exported: {str(error).splitlines()[0][:150]}", file=sys.stderr)
            continue
        nodes = max(nodes, len(onnx.load(file, load_external_data=False).graph.node))
        try:
            audience, difference = imported(file)
            audiences.append(audience)
            differences.append(difference)
            print(f"  {name} {form}: {audience} {difference:.1e}", file=sys.stderr)
        except CaffeError as error:
            reasons.append(str(error))
            print(f"  {name} {form}: {str(error)[:1500]}", file=sys.stderr)
    count = f"{len(differences)} of {len(differences) + len(reasons)}"
    largest = f"{max(differences):.0e}" if differences else reasons[0][:200] if reasons else "not exported"
    widest = max(audiences, key=AUDIENCES.index, default="")
    return f"| `{name}` | {nodes} | {count} | {widest} | {largest} |"


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    packages = ("torch", "torchvision", "timm", "ultralytics", "onnx", "onnxruntime")
    print(f"{datetime.date.today()}: {', '.join(f'{name} {version(name)}' for name in packages)}\n")
    print("| net | nodes | files | `--for` | largest difference |\n|---|---|---|---|---|")
    for name in sys.argv[2:] or NETS:
        print(row(name, folder), flush=True)


if __name__ == "__main__":
    main()
