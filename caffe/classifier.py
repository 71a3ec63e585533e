"""``caffe.Classifier``: the classes of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe import io
from caffe.errors import ArgumentError
from caffe.net import StrPath
from caffe.picture_net import PictureNet

Array = NDArray[Any]


class Classifier(PictureNet):
    """A net that classifies pictures.

    ``image_dims``: (height, width) that pictures are resized to before crops of the net's input size are taken; by
    default the input size itself. ``mean``, ``input_scale``, ``raw_scale``, ``channel_swap``: see
    ``caffe.io.Transformer``; ``mean_file``, ``gpu``: ``PictureNet``.
    """

    def __init__(
        self,
        model_file: StrPath,
        pretrained_file: StrPath,
        image_dims: Sequence[int] | None = None,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        *,
        mean_file: StrPath | None = None,
        gpu: bool = False,
    ) -> None:
        super().__init__(
            model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap, mean_file=mean_file, gpu=gpu
        )
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims: Any = self.crop_dims if image_dims is None or len(image_dims) == 0 else image_dims
        if len(self.image_dims) != 2 or np.any(np.asarray(self.image_dims) < self.crop_dims):
            raise ArgumentError(
                f"image_dims {tuple(self.image_dims)}: expected (height, width), at least "
                f"{tuple(self.crop_dims.tolist())}"
            )

    def predict(self, inputs: Sequence[Array], oversample: bool = True) -> Array:
        """The (N, classes) predictions for N (H, W, K) images: the net's first output.

        ``oversample``: the mean over ten crops, corners and centre and their mirror images; without, the centre's
        alone.
        """
        images = [io.resize_image(image, self.image_dims) for image in inputs]
        if not images:
            raise ArgumentError("predict takes a list of images; there are none in it")
        if not oversample:
            top, left = ((np.array(self.image_dims) - self.crop_dims) // 2).tolist()
            height, width = self.crop_dims.tolist()
            return self._predictions([image[top : top + height, left : left + width] for image in images])
        predictions = self._predictions(io.oversample(images, self.crop_dims))
        average: Array = predictions.reshape(len(images), 10, -1).mean(1)
        return average
