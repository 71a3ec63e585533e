"""What OpenCV's importer of Caffe nets makes of our files; OpenCV 5 has lost it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffecli.formats import caffemodel
from caffecli.net import weights
from caffecli.net.net import Net
from scripts.zoo import made_up

needs_importer = pytest.mark.skipif(
    not hasattr(getattr(cv2, "dnn", None), "readNetFromCaffe"), reason="this OpenCV has no importer of Caffe nets"
)


def read(net: Net, definition: Path, folder: Path) -> cv2.dnn.Net:
    """The net of a prototxt with the weights of ``net``, as OpenCV reads them from a caffemodel that we write."""
    path = folder / "net.caffemodel"
    caffemodel.write(path, weights.definition(net), weights.export(net))
    return cv2.dnn.readNetFromCaffe(str(definition), str(path))


def assert_agree(net: Net, theirs: cv2.dnn.Net, batch: int = 1) -> None:
    """Every output of both nets is the same, to 1e-4 of its largest value."""
    given = made_up.inputs(net, batch)
    for name, values in given.items():
        theirs.setInput(values.numpy(), name)
    with torch.no_grad():
        outputs = net(given)
    for name, ours in outputs.items():
        came = theirs.forward(name).reshape(tuple(ours.shape))
        if net.nodes[-1].layer.type == "DetectionOutput":  # OpenCV has them by score, not by class
            ours, came = (torch.from_numpy(by_class(np.asarray(rows))) for rows in (ours, came))
        np.testing.assert_allclose(
            np.asarray(came), ours.numpy(), rtol=0, atol=1e-4 * float(ours.abs().max()), err_msg=name
        )


def by_class(rows: np.ndarray) -> np.ndarray:
    """Boxes (1, 1, count, 7), by item, class and falling score."""
    order = np.lexsort((-rows[0, 0, :, 2], rows[0, 0, :, 1], rows[0, 0, :, 0]))
    return rows[:, :, order]
