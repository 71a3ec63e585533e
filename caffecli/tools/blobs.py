"""The blobs of an opened net: found by name, and seen in a pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from caffecli.errors import DataError, SpecError
from caffecli.net.graph import AUTOMATIC, Node
from caffecli.net.net import Net
from caffecli.net.runners.base import Result
from caffecli.net.runners.whole import Whole
from caffecli.solver import loop
from caffecli.wording import did_you_mean


def find_blob(net: Net, name: str) -> int:
    """The slot of the blob as the last layer that fills it leaves it. Raises SpecError with a hint."""
    slots = {known: slot for slot, known in enumerate(net.slot_names) if known != AUTOMATIC}
    if name not in slots:
        hint = did_you_mean(name, slots, f"its blobs: {', '.join(slots)}")
        raise SpecError(f"net {net.name!r} has no blob {name!r}{hint}")
    return slots[name]


def run_and_observe(runner: Whole, slots: Sequence[int]) -> tuple[Result, list[Tensor]]:
    """One pass, and the values of the blobs in ``slots``;
    an error about an item of the batch names the record's key.
    """
    seen: dict[int, Tensor] = {}

    def observe(node: Node, tops: tuple[Tensor, ...]) -> None:
        seen.update({slot: top for slot, top in zip(node.outputs, tops, strict=True) if slot in slots})

    try:
        result = runner.forward(observe=observe if slots else None)
    except DataError as error:
        raise loop.with_record(error, runner.net) from error
    return result, [seen[slot] for slot in slots]
