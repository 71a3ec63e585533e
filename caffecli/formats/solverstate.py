"""solverstate files: where a training run stands, beside its weights.

Binary ones are a SolverState message. HDF5 ones hold ``iter``, ``current_step`` (one int32 each), ``learned_net`` and
``history/<i>``. Source: Caffe's ``SGDSolver::SnapshotSolverStateToBinaryProto`` and ``...ToHDF5``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caffecli.errors import FormatError
from caffecli.formats import blob as blobs
from caffecli.formats import hdf5
from caffecli.formats.atomic import read_bytes, replacing
from caffecli.formats.blob import Array
from caffecli.formats.foreign import describe
from caffecli.proto import encoding


@dataclass
class SolverState:
    """What a run needs to go on: iterations done, the current step of step policies, the path of the weights,
    the history.

    The history is the update rule's: one blob a parameter; for AdaDelta and Adam two, all first ones before all second.
    ``minimum_loss`` and ``iter_last_event`` are those of SSD's ``lr_policy: "plateau"``, and None where there is none.
    """

    iter: int
    current_step: int = 0
    learned_net: str = ""
    history: list[Array] = field(default_factory=list)
    minimum_loss: float | None = None
    iter_last_event: int | None = None


_StateTwin = blobs.twin("SolverState")


def read(path: str | os.PathLike[str]) -> SolverState:
    """The solver state in ``path``, binary or HDF5, told apart by content.

    Raises FormatError for a file that is missing, damaged, or something else, and says what it seems to be.
    """
    if hdf5.starts_hdf5(read_bytes(path, 8)):
        return _read_hdf5(path)
    data = read_bytes(path)
    state = blobs.parse(_StateTwin, data)
    if state is None or not state.HasField("iter") or not _plausible(state):
        raise describe(path, data, "a solverstate")
    history = []
    for index, blob in enumerate(state.history):
        try:
            history.append(blobs.twin_to_array(blob))
        except FormatError as error:
            raise FormatError(f"{str(path)!r}, history {index}: {error}") from error
    minimum = state.minimum_loss if state.HasField("minimum_loss") else None
    event = state.iter_last_event if state.HasField("iter_last_event") else None
    return _checked(
        path, SolverState(state.iter, state.current_step, _text(state.learned_net), history, minimum, event)
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else encoding.as_text(value)[0]


def _plausible(state: Any) -> bool:
    """Whether the message looks like a solver state:
    other files may begin with bytes that parse as its first number.
    """
    return bool(state.history) or state.HasField("learned_net")


def write(path: str | os.PathLike[str], state: SolverState) -> None:
    """Write ``state``; HDF5 when the name ends in ``.h5``. Raises FormatError when the file cannot be written."""
    if hdf5.is_hdf5_name(path):
        _write_hdf5(path, state)
        return
    blobs.check_size(path, sum(array.size * 4 for array in state.history))
    made = _StateTwin(
        iter=state.iter, current_step=state.current_step, learned_net=state.learned_net,
        minimum_loss=state.minimum_loss, iter_last_event=state.iter_last_event,
    )  # fmt: skip
    for array in state.history:
        blobs.fill_twin(made.history.add(), array)
    data = made.SerializeToString()
    with replacing(path) as file:
        file.write(data)


def _read_hdf5(path: str | os.PathLike[str]) -> SolverState:
    with hdf5.reading(path) as file:
        missing = [name for name in ("iter", "current_step", "history") if name not in file]
        if missing:
            what = (
                "weights; give them to --weights"
                if "data" in file
                else f"of other content ({', '.join(file) or 'nothing'})"
            )
            raise FormatError(f"{str(path)!r} is not a solverstate: it lacks {missing[0]!r} and seems to be {what}")
        names = sorted(file["history"], key=lambda name: (len(name), name))
        state = SolverState(
            iter=_number(file["iter"]),
            current_step=_number(file["current_step"]),
            learned_net=hdf5.read_string(file["learned_net"]) if "learned_net" in file else "",
            history=[hdf5.numbers(file["history"][name]) for name in names],
            minimum_loss=float(hdf5.numbers(file["minimum_loss"]).item()) if "minimum_loss" in file else None,
            iter_last_event=_number(file["iter_last_event"]) if "iter_last_event" in file else None,
        )
    return _checked(path, state)


def _number(dataset: Any) -> int:
    """The whole number that a dataset holds. Raises ValueError."""
    value = np.asarray(dataset[()])
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ValueError(f"{dataset.name} is no whole number")
    return int(value.item())


def _checked(path: str | os.PathLike[str], state: SolverState) -> SolverState:
    """The state; raises FormatError for numbers that no run can have reached."""
    numbers = (
        ("iter", state.iter),
        ("current_step", state.current_step),
        ("iter_last_event", state.iter_last_event or 0),
    )
    for name, value in numbers:
        if not 0 <= value < 2**31:
            raise FormatError(
                f"{str(path)!r} is damaged: {name} is {value}; resume from another snapshot, or copy it again"
            )
    return state


def _write_hdf5(path: str | os.PathLike[str], state: SolverState) -> None:
    with hdf5.writing(path) as file:
        file.create_dataset("iter", data=np.array([state.iter], "<i4"))
        hdf5.write_string(file, "learned_net", state.learned_net)
        file.create_dataset("current_step", data=np.array([state.current_step], "<i4"))
        if state.minimum_loss is not None:
            file.create_dataset("minimum_loss", data=np.array([state.minimum_loss], "<f4"))
        if state.iter_last_event is not None:
            file.create_dataset("iter_last_event", data=np.array([state.iter_last_event], "<i4"))
        history = file.create_group("history")
        for index, array in enumerate(state.history):
            history.create_dataset(str(index), data=np.asarray(array, np.float32))
