"""What a DetectionOutput finds, drawn into its pictures: in a window, and in a video."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from torch import Tensor

from caffecli import logs
from caffecli.formats.drawn import Pixels, VideoFile, with_boxes
from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import LabelMap
from caffecli.sources.augment import resize
from caffecli.sources.transformer import Transformer
from caffecli.spec import text

#: SSD's, where the net gives no visualize_threshold
_THRESHOLD = 0.6
_ESCAPE = 27
_LINE = "detection_output_layer.cpp:98"


class Shown:
    """Draws boxes into pictures, and shows them, as ``visualize``, ``visualize_threshold`` and ``save_file`` of a
    DetectionOutput say.
    """

    def __init__(self, layer: Layer) -> None:
        """Raises FormatError where the label map cannot be read."""
        param = layer.param.detection_output_param
        transform = layer.param.transform_param
        self._where = f"Layer {layer.name!r}"
        self._threshold = param.visualize_threshold if param.HasField("visualize_threshold") else _THRESHOLD
        self._transformer, self._scale = Transformer(transform, layer.phase, layer.name), transform.scale
        self._size = transform.resize_param if transform.HasField("resize_param") else None
        labels = param.save_output_param.label_map_file
        items = text.read(labels, LabelMap).item if labels and Path(labels).is_file() else []
        self._names = {item.label: item.display_name or item.name for item in items}
        self._file: VideoFile | None = None
        if param.save_file:
            path = Path(param.save_file)
            self._file = VideoFile(path, "mp4v" if path.suffix in (".mp4", ".m4v", ".mov") else "DIVX", 30)
        self._window = _can_show()
        if not self._window:
            where = f"the pictures go to {param.save_file!r} alone" if self._file else "nothing is shown; set save_file"
            logs.warning(_LINE, f"{self._where}: no window can be opened here: {where}.")

    @property
    def used(self) -> bool:
        """Whether there is anything to draw for."""
        return self._window or self._file is not None

    def add(self, pictures: Tensor, rows: Tensor) -> None:
        """Take the pictures (N, C, H, W) as the net sees them, and their boxes (K, 7)."""
        rows = rows.detach().cpu().float().nan_to_num()
        for i, blob in enumerate(pictures.detach().cpu().float().numpy()):
            picture = self._picture(blob)
            height, width = picture.shape[:2]
            own = rows[(rows[:, 0] == i) & (rows[:, 1] >= 0) & (rows[:, 2] >= self._threshold)]
            boxes = []
            for _, label, score, *corners in own[own[:, 2].argsort()].tolist():
                name = self._names.get(int(label), "Unknown")
                pixels = [corner * size for corner, size in zip(corners, (width, height) * 2, strict=True)]
                boxes.append(
                    (np.clip(pixels, -width - height, 2 * (width + height)), f"{name}: {score:.2f}", int(label))
                )
            drawn = with_boxes(picture, boxes)
            if self._file is not None:
                self._file.add(drawn)
            if self._window:
                self._show(drawn)

    def _picture(self, blob: np.ndarray) -> Pixels:
        """What was transformed into a blob (C, H, W), blue first, in the size of resize_param."""
        mean = self._transformer.mean
        values = blob / (self._scale or 1) + (0 if mean is None else mean)
        image = np.rint(values).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        image = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image)
        return image if self._size is None else resize(image, self._size, np.random.default_rng(0))

    def _show(self, picture: Pixels) -> None:
        import cv2

        try:
            cv2.imshow("detections", picture)
            pressed = cv2.waitKey(1)
        except cv2.error as error:
            self._window = False
            logs.warning(_LINE, f"{self._where}: the window is gone, nothing more is shown: {error.err}")
            return
        if pressed == _ESCAPE:
            signal.raise_signal(signal.SIGINT)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _can_show() -> bool:
    """Whether OpenCV can open windows (opencv-python-headless cannot), and there is a screen for them."""
    import cv2

    screen = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    gui = [line.split(":", 1)[1].strip() for line in cv2.getBuildInformation().splitlines() if "GUI:" in line]
    return screen and bool(gui) and gui[0] not in ("NONE", "NO")
