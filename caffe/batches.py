"""Inputs larger than a batch, and those of MemoryData layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from caffe.blob import Blob
from caffe.errors import ArgumentError
from caffe.memory import Floats


class Batches:
    """The methods of a ``Net`` that cut what they are given into batches."""

    @property
    def inputs(self) -> list[str]:
        raise NotImplementedError

    @property
    def outputs(self) -> list[str]:
        raise NotImplementedError

    @property
    def blobs(self) -> Mapping[str, Blob]:
        raise NotImplementedError

    def forward(self, blobs: Sequence[str] | None = None, **inputs: Any) -> dict[str, Floats]:
        raise NotImplementedError

    def backward(self, diffs: Sequence[str] | None = None, **top_diffs: Any) -> dict[str, Floats]:
        raise NotImplementedError

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Any) -> dict[str, Floats]:
        """``forward`` on inputs of any count of items, batch by batch, the last filled up with zeros.

        Returns the outputs, and ``blobs``, of as many items.
        """
        parts: dict[str, list[Floats]] = {name: [] for name in {*self.outputs, *(blobs or ())}}
        for batch in self._batch(inputs):
            for name, values in self.forward(blobs, **batch).items():
                parts[name].extend(values.copy())
        return _cut(parts, inputs)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **values: Any
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """``forward`` and ``backward`` on inputs, and diffs of outputs, of any count of items, batch by batch.

        Returns the outputs, and ``blobs``; and the inputs' diffs, and ``diffs``.
        """
        all_blobs: dict[str, list[Floats]] = {name: [] for name in {*self.outputs, *(blobs or ())}}
        all_diffs: dict[str, list[Floats]] = {name: [] for name in {*self.inputs, *(diffs or ())}}
        inputs = self._batch({name: values[name] for name in self.inputs if name in values})
        top_diffs = self._batch({name: values[name] for name in self.outputs if name in values})
        nothing: dict[str, Floats] = {}
        for fed, back in zip_longest(inputs, top_diffs, fillvalue=nothing):
            for name, data in self.forward(blobs, **fed).items():
                all_blobs[name].extend(data.copy())
            for name, diff in self.backward(diffs, **back).items():
                all_diffs[name].extend(diff.copy())
        return _cut(all_blobs, values), _cut(all_diffs, values)

    def _batch(self, values: Mapping[str, Any]) -> Iterator[dict[str, Floats]]:
        """The values in batches of the net's size, which is the first blob's; the last is filled up with zeros."""
        if not values:
            return
        count, size = len(next(iter(values.values()))), next(iter(self.blobs.values())).shape[0]
        for first in range(0, count, size):
            batch = {name: np.asarray(array[first : first + size]) for name, array in values.items()}
            short = size - min(size, count - first)
            if short:
                batch = {n: np.concatenate([a, np.zeros((short, *a.shape[1:]))]) for n, a in batch.items()}
            yield batch


def _cut(parts: Mapping[str, list[Floats]], given: Mapping[str, Any]) -> dict[str, Floats]:
    """The items collected, without those that only filled the last batch."""
    if not given:
        raise ArgumentError("nothing was given; name input blobs and their values")
    count = len(next(iter(given.values())))
    spare = len(next(iter(parts.values()))) - count if parts else 0
    return {name: np.asarray(items)[:-spare] if spare else np.asarray(items) for name, items in parts.items()}


def check_inputs(data: Floats, labels: Floats, top: Sequence[int]) -> None:
    """Raise ArgumentError, a RuntimeError, where arrays are not as a MemoryData layer with that top takes them."""
    batch, *size = top
    if labels.ndim == 1:
        labels = labels.reshape(-1, 1, 1, 1)
    for what, array, wanted in (("data array", data, size), ("labels array", labels, [1, 1, 1])):
        if not array.flags.c_contiguous:
            raise ArgumentError(f"{what} must be C contiguous")
        if array.ndim != 4:
            raise ArgumentError(f"{what} must be 4-d, got {array.ndim}")
        if array.dtype != np.float32:
            raise ArgumentError(f"{what} must be float32, got {array.dtype}")
        for name, got, need in zip(("number of channels", "height", "width"), array.shape[1:], wanted, strict=True):
            if got != need:
                raise ArgumentError(f"{what} has wrong {name}: expected {need}, got {got}")
    if len(data) != len(labels):
        raise ArgumentError(f"data and labels must have the same first dimension, got {len(data)} and {len(labels)}")
    if len(data) % batch:
        raise ArgumentError(f"first dimensions of input arrays must be a multiple of batch size {batch}, got {len(data)}")
