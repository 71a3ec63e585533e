"""The phases of a net, as Python code sees them."""

from __future__ import annotations

import enum

from caffecli.proto.caffe_pb2 import TEST, TRAIN


class Phase(enum.IntEnum):
    """A phase: a number, as in Caffe, that reads as its name, as in Faster R-CNN's fork."""

    TRAIN = TRAIN
    TEST = TEST

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def __format__(self, form: str) -> str:
        return format(int(self) if form[-1:] in "bcdoxX" and form else self.name, form)
