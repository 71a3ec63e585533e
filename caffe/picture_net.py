"""What ``Classifier`` and ``Detector`` share: a net of one input that takes images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe import mode
from caffe.errors import ArgumentError
from caffe.io import Transformer
from caffe.net import Net, StrPath
from caffecli.proto.caffe_pb2 import TEST

Array = NDArray[Any]


class PictureNet(Net):
    """A net in the phase TEST, with its weights, and a ``transformer`` that makes images fit for its first input.

    ``mean_file`` and ``gpu`` are as in 2014: the .npy file of a mean, with which an ``input_scale`` without a
    ``raw_scale`` comes before the mean, as it did then; and whether to call ``set_mode_gpu``.
    """

    def __init__(
        self,
        model_file: StrPath,
        pretrained_file: StrPath,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        *,
        mean_file: StrPath | None = None,
        gpu: bool = False,
    ) -> None:
        if gpu:
            mode.set_mode_gpu()
        super().__init__(model_file, TEST, weights=pretrained_file)
        if not self.inputs or len(self.blobs[self.inputs[0]].shape) != 4:
            raise ArgumentError(
                f"{str(model_file)!r} has no input of (batch, channels, height, width); "
                "give a deploy.prototxt with an Input"
            )
        in_ = self.inputs[0]
        self.transformer = Transformer({in_: self.blobs[in_].data.shape})
        self._transformer = self.transformer  # of set_mean and the other forms of 2014
        self.transformer.set_transpose(in_, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(in_, mean)
        elif mean_file is not None:
            self.set_mean(in_, mean_file)
        if input_scale is not None:
            self.transformer.set_input_scale(in_, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(in_, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(in_, channel_swap)

    def _predictions(self, images: Iterable[Array]) -> Array:
        """The first output for each (H, W, K) image, batch by batch."""
        in_ = self.inputs[0]
        channels = self.blobs[in_].shape[1]
        caffe_in = []
        for image in images:
            if image.ndim != 3 or image.shape[2] != channels:
                raise ArgumentError(
                    f"input {in_!r} takes images of (height, width, {channels}), got {image.shape}; "
                    "caffe.io.load_image makes one channel of a picture with color=False, else three"
                )
            caffe_in.append(self.transformer.preprocess(in_, image))
        inputs: dict[str, Any] = {in_: np.stack(caffe_in)}
        return self.forward_all(**inputs)[self.outputs[0]]
