"""What py-faster-rcnn's Python code imports as compiled modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from caffe.rcnn_helpers import bbox_overlaps, cpu_nms, gpu_nms

DETECTIONS = np.array(
    [[0, 0, 9, 9, 0.5], [0, 0, 9, 4, 0.9], [20, 20, 29, 29, 0.7], [21, 20, 30, 29, 0.8], [50, 0, 50, 0, 0.1]],
    np.float32,
)


def test_overlaps() -> None:
    expected = [[1, 0.5, 0, 0, 0], [0, 0, 90 / 110, 1, 0]]
    np.testing.assert_allclose(bbox_overlaps(DETECTIONS[[0, 3], :4], DETECTIONS[:, :4]), expected)
    assert bbox_overlaps(np.zeros((0, 4)), DETECTIONS[:, :4]).shape == (0, 5)


def test_suppression() -> None:
    assert gpu_nms(DETECTIONS, 0.6) == [1, 3, 0, 4]
    assert gpu_nms(DETECTIONS, 0.5, device_id=0) == [1, 3, 0, 4]  # an overlap of the threshold itself stays
    assert cpu_nms(DETECTIONS, 0.5) == [1, 3, 4]
    assert cpu_nms(DETECTIONS[:0], 0.5) == []


def test_found_where_nothing_was_compiled(tmp_path: Path) -> None:
    """Within the packages of py-faster-rcnn's folder lib; a module that is there comes first."""
    for package in ("utils", "nms", "pycocotools"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "nms/cpu_nms.py").write_text("def cpu_nms(dets, thresh): return 'own'\n")
    code = (
        "import caffecli\n"
        "from utils.cython_bbox import bbox_overlaps\n"
        "from utils.cython_nms import nms\n"
        "from utils.cpu_nms import cpu_nms\n"
        "from nms.gpu_nms import gpu_nms\n"
        "from nms.cpu_nms import cpu_nms\n"
        "import pycocotools._mask as masks\n"
        "import numpy as np\n"
        "print(nms(np.ones((2, 5)), 0.5), gpu_nms(np.ones((2, 5)), 0.5), cpu_nms(1, 2), masks.iou([], [], []))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=None, cwd=tmp_path, check=True
    )
    assert done.stdout == "[0] [0] own []\n"
