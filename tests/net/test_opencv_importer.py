"""OpenCV's importer of Caffe nets reads our caffemodels and gives our outputs; OpenCV 5 has lost it, then this is skipped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffecli.formats import caffemodel
from caffecli.net import weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec import load

MODELS = Path(__file__).parents[2] / "models"
pytestmark = pytest.mark.skipif(
    not hasattr(getattr(cv2, "dnn", None), "readNetFromCaffe"), reason="this OpenCV has no importer of Caffe nets"
)


@pytest.mark.parametrize("model", ["lenet", "cifar10_quick", "cifar10_full"])
def test_outputs_agree(model: str, tmp_path: Path) -> None:
    definition = MODELS / model / "deploy.prototxt"
    param = load.load_net(definition)
    param.state.phase = TEST
    torch.manual_seed(1)
    net = Net(param)
    with torch.no_grad():
        for learned in net.params:
            learned.tensor.normal_(std=0.1)
    path = tmp_path / "weights.caffemodel"
    caffemodel.write(path, net.param, weights.export(net))
    data = torch.rand(tuple(net.shape("data")))
    ours = net({"data": data})[net.outputs[0]].detach().numpy()
    theirs = cv2.dnn.readNetFromCaffe(str(definition), str(path))
    theirs.setInput(data.numpy())
    np.testing.assert_allclose(ours, theirs.forward(net.outputs[0]).reshape(ours.shape), rtol=1e-4, atol=1e-5)
