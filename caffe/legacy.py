"""What nets had as methods in 2014: the phase, the mode, and preprocessing, which is now ``caffe.io.Transformer``'s."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from caffe import mode
from caffe.engine import Engine
from caffe.errors import ArgumentError
from caffe.io import Transformer
from caffecli.layers.blobs import Blob
from caffecli.layers.memory import Floats
from caffecli.proto.caffe_pb2 import TEST, TRAIN


class LegacyMethods:
    """The methods of a ``Net`` that are here for old programs. ``input_``, ``input_name``: the input blob's name."""

    _engine: Engine

    @property
    def inputs(self) -> list[str]:
        raise NotImplementedError

    @property
    def blobs(self) -> Mapping[str, Blob]:
        raise NotImplementedError

    def set_phase_train(self) -> None:
        """Let the layers behave as in training: dropout drops."""
        self._set_phase(TRAIN)

    def set_phase_test(self) -> None:
        """Let the layers behave as in testing."""
        self._set_phase(TEST)

    def _set_phase(self, phase: int) -> None:
        for node in self._engine.net.nodes:
            node.layer.phase = phase
            node.layer.train(phase == TRAIN)

    def set_mode_cpu(self) -> None:
        mode.set_mode_cpu()

    def set_mode_gpu(self) -> None:
        mode.set_mode_gpu()

    def set_device(self, gpu_id: int) -> None:
        mode.set_device(gpu_id)

    def set_mean(self, input_: str, mean_f: str | os.PathLike[str] | Floats, mode: str = "elementwise") -> None:
        """Subtract a mean: an array, or the .npy file of one, (C, H, W), resized where it does not fit.

        ``mode`` "channel": of each channel its mean alone.
        """
        mean = mean_f if isinstance(mean_f, np.ndarray) else np.load(mean_f)
        if mode == "channel":
            mean = mean.reshape(-1, *mean.shape[-2:]).mean((1, 2)) if mean.ndim >= 3 else mean
        elif mode != "elementwise":
            raise ArgumentError(f"Mode not in ['elementwise', 'channel']: {mode!r}")
        transformer = self._transformer_for(input_)
        transformer.set_mean(input_, mean)
        if isinstance(mean_f, np.ndarray):
            transformer._scaled_first.discard(input_)
        else:
            transformer._scaled_first.add(input_)

    def set_input_scale(self, input_: str, scale: float) -> None:
        """Multiply by ``scale`` after the mean is subtracted.

        Before, as until August 2014, where the mean was given as a file and there is no raw scale.
        """
        self._transformer_for(input_).set_input_scale(input_, scale)

    def set_raw_scale(self, input_: str, scale: float) -> None:
        """Multiply by ``scale`` before the mean is subtracted."""
        self._transformer_for(input_).set_raw_scale(input_, scale)

    def set_channel_swap(self, input_: str, order: Sequence[int]) -> None:
        """Reorder the channels: (2, 1, 0) makes BGR of RGB."""
        self._transformer_for(input_).set_channel_swap(input_, order)

    def preprocess(self, input_name: str, input_: Floats) -> Floats:
        """The image (H, W, K) as a (K, h, w) array for the input, by what has been set."""
        return self._transformer_for(input_name).preprocess(input_name, input_)

    def deprocess(self, input_name: str, input_: Floats) -> Floats:
        """The image (h, w, K) that ``preprocess`` has made ``input_`` of."""
        return self._transformer_for(input_name).deprocess(input_name, input_)

    def _transformer_for(self, input_: str) -> Transformer:
        if input_ not in self.inputs:
            raise ArgumentError(f"Input not in {self.inputs}: {input_!r}")
        self._transformer.inputs = {name: self.blobs[name].shape for name in self.inputs}
        if input_ not in self._transformer.transpose and len(self.blobs[input_].shape) == 4:
            self._transformer.set_transpose(input_, (2, 0, 1))
        return self._transformer

    @cached_property
    def _transformer(self) -> Transformer:
        return Transformer({})
