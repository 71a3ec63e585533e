"""The lists that Caffe's compiled part hands out, by its names for them: for programs that ask for their types."""

from __future__ import annotations

from typing import Any


class RawBlobVec(list[Any]):
    """The bottoms, or the tops, of a layer."""


class LayerVec(list[Any]):
    """The layers of a net."""


class NetVec(list[Any]):
    """The test nets of a solver."""


class IntVec(list[int]):
    """The numbers of blobs."""


class DtypeVec(list[float]):
    """The loss weights of blobs."""


class StringVec(list[str]):
    """Names."""


class BoolVec(list[bool]):
    """To which bottoms a layer hands diffs down."""
