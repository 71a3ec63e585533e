"""How many records a net's sources have, and whether a number of batches takes each of them once."""

from __future__ import annotations

from caffecli.errors import SpecError
from caffecli.net.net import Net


def record_count(net: Net) -> int:
    """The records of the net's source. Raises SpecError where the source has no end, or where several do not agree."""
    counts = {name: (layer.record_count(), layer.reshape([])[0][0]) for name, layer in net.source_layers.items()}
    if not counts:
        raise SpecError(f"net {net.name!r} has no layer that reads records; give a number of batches in place of --all")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count} by {size}" for name, (count, size) in counts.items())
        raise SpecError(
            f"--all expects one count of records, and of those a batch, for all layers, got {listed}; "
            "give a number of batches"
        )
    return next(iter(counts.values()))[0]


def uneven(net: Net, batches: int) -> str | None:
    """In words, how so many batches miss counting each record as often as any other.

    None where they do not, and where that cannot be told: for sources without end, several that differ, ``rand_skip``,
    and databases that are counted by reading them.
    """
    layers = net.source_layers.values()
    if any(getattr(layer.settings, "rand_skip", 0) for layer in layers):
        return None
    found = {(layer.count(quick=True), layer.reshape([])[0][0]) for layer in layers}
    if len(found) != 1:
        return None
    ((records, size),) = found
    rows = batches * size
    if not records or not rows % records:
        return None
    if rows < records:
        missed = f"{records - rows} of them left out"
    else:
        turns = rows // records
        missed = f"{rows % records} of them counted {turns + 1} times" + (f", others {turns}" if turns > 1 else "")
        missed = missed.replace("counted 2 times", "counted twice")
    return f"{batches} batches of {size} are {rows} rows, there are {records} records: {missed}"


def even(net: Net) -> tuple[int, int] | None:
    """The batch size nearest below the net's, and the number of batches, that take each record once.

    None where there is none of at least half the net's, or where ``uneven`` cannot tell.
    """
    for layer in net.source_layers.values():
        records, size = layer.count(quick=True), layer.reshape([])[0][0]
        if not records:
            return None
        for smaller in range(size, size // 2, -1):
            if records % smaller == 0:
                return smaller, records // smaller
    return None
