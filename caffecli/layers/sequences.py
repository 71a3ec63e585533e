"""Sequences that begin and end within a batch, brought into the packed form of torch's recurrent kernels."""

from __future__ import annotations

import torch
from torch import Tensor


class Sequences:
    """The sequences of ``cont`` (T, N): in each of the N streams one begins at step 0 and wherever cont is 0.

    Packed, longest first, the sequences' first steps come first, then their second ones, and so on: ``sizes`` of them at each
    step. So kernels take as many steps as the longest sequence has. ``cont`` lies on the CPU, the data on ``device``.
    """

    def __init__(self, cont: Tensor, device: torch.device) -> None:
        self.time, self.streams = cont.shape
        begins = (cont == 0).t().contiguous()
        begins[:, 0] = True
        begins = begins.flatten()  # stream after stream
        sequence = begins.cumsum(0) - 1
        start = begins.nonzero().squeeze(1)
        step = torch.arange(len(begins)) - start[sequence]
        lengths = sequence.bincount()
        rank = lengths.argsort(descending=True, stable=True).argsort()
        place = (step * len(start) + rank[sequence]).argsort()
        rows = place % self.time * self.streams + place // self.time
        self.sizes = step.bincount()
        self.count = len(start)
        self.rows = rows.to(device)
        self.back = rows.argsort().to(device)
        self.first = rank[sequence[:: self.time]].to(device)
        self.last = rank[sequence[self.time - 1 :: self.time]].to(device)

    def pack(self, x: Tensor) -> Tensor:
        """(T, N, values) to packed (T N, values)."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, x: Tensor) -> Tensor:
        """Packed (T N, values) to (T, N, values)."""
        return x.index_select(0, self.back).view(self.time, self.streams, -1)

    def first_states(self, states: Tensor) -> Tensor:
        """The states in which the sequences begin: the streams' (N, values) for those at step 0, zeros for the others."""
        return states.new_zeros(self.count, states.shape[1]).index_copy(0, self.first, states)

    def last_states(self, states: Tensor) -> Tensor:
        """The streams' states at the end, (N, values), of those of all sequences."""
        return states.index_select(0, self.last)


def longest(cont: Tensor) -> int:
    """How many steps the longest sequence of ``cont`` has."""
    step = torch.arange(len(cont))[:, None]
    return int((step - torch.where(cont == 0, step, 0).cummax(0).values).max()) + 1
