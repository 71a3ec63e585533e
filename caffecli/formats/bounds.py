"""How much memory a file may ask for. Pictures have OpenCV's own bound: see ``host.bound_pictures``."""

from __future__ import annotations

import math
import os

from caffecli.errors import FormatError

#: says the bound in GB, in place of the following: 1 GB, or 32 times the file's own size if that is more
VARIABLE = "CAFFECLI_MAX_GB"
_LEAST, _TIMES = 2**30, 32

#: the most blobs of a layer: a file that numbers one higher is damaged
BLOBS = 10_000


def check_unpacked(path: str | os.PathLike[str], size: int) -> None:
    """Raise FormatError where a file unpacks to ``size`` bytes, and that is beyond the bound.

    A compressed file of a few MB, or one that only tells of its arrays, may unpack to more than there is memory.
    """
    set_to = os.environ.get(VARIABLE, "")
    try:
        bound = float(set_to) * 2**30 if set_to else max(_LEAST, _TIMES * os.path.getsize(path))  # noqa: PTH202
    except ValueError as error:
        raise FormatError(f"the variable {VARIABLE} is {set_to!r}; expected a number of GB") from error
    if size > bound:
        raise FormatError(
            f"{str(path)!r} unpacks to {size / 2**30:.1f} GB, the bound for it is {bound / 2**30:.1f}; it may be "
            f"damaged, or set {VARIABLE}={math.ceil(size / 2**30)} if it is meant to be so large"
        )
