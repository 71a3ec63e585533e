"""``caffe.proto.caffe_pb2``: the very module ``caffecli.proto.caffe_pb2``, so that messages of both are the same.

Once ``caffe`` is imported, a message that is made by keywords takes whole numbers that are floats, as ``NetSpec`` does:
``SolverParameter(test_iter=[images / batch_size])`` was written for Python 2's division.
"""

from __future__ import annotations

import sys
from typing import Any

from google.protobuf.message import Message

from caffecli.proto import caffe_pb2

sys.modules[f"{__name__}.caffe_pb2"] = caffe_pb2

__all__ = ["caffe_pb2"]


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return {name: _whole(item) for name, item in value.items()} if isinstance(value, dict) else value


def _take_whole_floats(message: type[Message]) -> None:
    fill = message.__init__

    def __init__(self: Message, **fields: Any) -> None:
        try:
            fill(self, **fields)
            return
        except TypeError:
            self.Clear()
        fill(self, **_whole(fields))

    setattr(message, "__init__", __init__)  # noqa: B010 - mypy takes no assignment to a method


for _message in vars(caffe_pb2).values():
    if isinstance(_message, type) and issubclass(_message, Message):
        _take_whole_floats(_message)
