"""``caffe.Detector``: a net's classes for windows of pictures, as R-CNN runs it (Girshick et al., arXiv:1311.2524)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe import io
from caffe.errors import ArgumentError
from caffe.net import StrPath
from caffe.picture_net import PictureNet
from caffecli.errors import CaffeError

Array = NDArray[Any]


class MissingModule(CaffeError, ImportError):
    """A module that is not installed."""


class Detector(PictureNet):
    """A net that classifies windows of pictures, each warped to the net's input size.

    ``context_pad``: how many pixels of the input, on each side, show what surrounds the window; where the picture ends,
    the mean. ``mean``, ``input_scale``, ``raw_scale``, ``channel_swap``: see
    ``caffe.io.Transformer``; ``mean_file``, ``gpu``: ``PictureNet``.
    """

    def __init__(
        self,
        model_file: StrPath,
        pretrained_file: StrPath,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
        *,
        mean_file: StrPath | None = None,
        gpu: bool = False,
    ) -> None:
        super().__init__(
            model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap, mean_file=mean_file, gpu=gpu
        )
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[StrPath, Iterable[Any]]]) -> list[dict[str, Any]]:
        """Classify windows: ``images_windows`` has (picture's file, its windows), a window (ymin, xmin, ymax, xmax).

        Returns a dict for each window: "window", "prediction" and "filename".
        """
        detections: list[dict[str, Any]] = []
        crops = []
        for filename, windows in images_windows:
            image = io.load_image(filename, color=self.crop_dims[2] != 1)
            for window in windows:
                try:
                    crops.append(self.crop(image, window))
                except ArgumentError as error:
                    raise ArgumentError(f"{os.fspath(filename)!r}: {error}") from None
                detections.append({"window": window, "prediction": None, "filename": filename})
        if crops:
            for detection, prediction in zip(detections, self._predictions(crops), strict=True):
                detection["prediction"] = prediction
        return detections

    def detect_selective_search(self, image_fnames: Iterable[StrPath]) -> list[dict[str, Any]]:
        """``detect_windows`` on the windows that selective search proposes.

        It runs in MATLAB. Raises ImportError without.
        """
        try:
            import selective_search_ijcv_with_python as selective_search  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise MissingModule(
                "selective search needs MATLAB and the Python module selective_search_ijcv_with_python "
                "(github.com/sergeyk/selective_search_ijcv_with_python); or give windows to detect_windows"
            ) from error
        names = [str(Path(name).absolute()) for name in image_fnames]
        windows = selective_search.get_windows(names, cmd="selective_search_rcnn")
        return self.detect_windows(list(zip(names, windows, strict=True)))

    def crop(self, im: Array, window: Any) -> Array:
        """The window (ymin, xmin, ymax, xmax) of an (H, W, K) image,
        with its surroundings when there is a ``context_pad``.

        Ends count as Python's slices do: the window has ymax - ymin rows. Raises RuntimeError when it shows nothing of
        the image.
        """
        top, left, bottom, right = (int(edge) for edge in window)
        crop = im[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if not crop.size:
            raise ArgumentError(
                f"window ({top}, {left}, {bottom}, {right}) shows nothing of a picture of {im.shape[0]} x "
                f"{im.shape[1]}; it goes (ymin, xmin, ymax, xmax)"
            )
        return self._with_context(im, np.array([top, left]), np.array([bottom, right])) if self.context_pad else crop

    def _with_context(self, im: Array, low: Array, high: Array) -> Array:
        """The window with its surroundings, resized to the net's input;
        these are ``context_pad`` pixels wide on each side.

        ``low`` and ``high``: the window's corners, (y, x). Outside of the picture is the mean.
        """
        size = np.array(self.crop_dims[:2])
        half = (high - low + 1) / 2
        grown = half * size / (size - 2.0 * (self.context_pad or 0))
        centre = low + half
        low, high = np.round(centre - grown), np.round(centre + grown)
        scale = size / (high - low + 1)
        pad = np.round(np.maximum(0, -low) * scale).astype(int)
        low, high = (np.clip(corner, 0, im.shape[:2]).astype(int) for corner in (low, high))
        height, width = np.minimum(np.round((high - low + 1) * scale).astype(int), size - pad).tolist()
        crop = np.array(np.broadcast_to(self.crop_mean, self.crop_dims), np.float32)
        part = io.resize_image(im[low[0] : high[0], low[1] : high[1]], (height, width))
        crop[pad[0] : pad[0] + height, pad[1] : pad[1] + width] = part
        return crop

    def configure_crop(self, context_pad: int | None) -> None:
        """Set ``context_pad``, and ``crop_mean``: the mean as an image is before it is transformed.

        None or 0 for no context.
        """
        in_ = self.inputs[0]
        channels, height, width = self.blobs[in_].data.shape[1:]
        self.crop_dims = np.array([height, width, channels])
        self.context_pad = context_pad
        if not context_pad:
            return
        if context_pad < 0 or 2 * context_pad >= min(height, width):
            raise ArgumentError(
                f"context_pad {context_pad}: expected less than half of the net's input, {height} x {width}"
            )
        mean = self.transformer.mean.get(in_)
        if mean is None:
            self.crop_mean: Array = np.zeros(self.crop_dims, np.float32)
            return
        mean = mean.reshape(-1, *mean.shape[-2:]).transpose(1, 2, 0)
        if in_ in self.transformer.channel_swap and mean.shape[2] == channels:
            mean = mean[:, :, np.argsort(self.transformer.channel_swap[in_])]
        raw_scale, _ = self.transformer._scales(in_)
        self.crop_mean = np.array(mean / (1 if raw_scale is None else raw_scale), np.float32)
