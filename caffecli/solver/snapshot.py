"""Snapshots: a caffemodel and a solverstate, as Caffe writes them, and beside them what an exact resume needs.

Three files a snapshot, each complete under its name or not there, in this order: ``P_iter_N.caffemodel``,
``P_iter_N.solverstate.json`` (where the data and the random numbers stood; Caffe does without),
``P_iter_N.solverstate``. So a solverstate that is there can be resumed from.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffecli import logs
from caffecli.errors import FormatError, SolverError, in_a_line
from caffecli.formats import atomic, caffemodel, form, solverstate
from caffecli.formats import blob as binary
from caffecli.formats.solverstate import SolverState
from caffecli.net import weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.wording import unexpanded

_RANDOM = {"cpu": str}
#: the form of a position file; the data layers, losses and callbacks check what is theirs
_POSITION = {"of": str, "random": _RANDOM, "ranks": [_RANDOM], "data": [{str: object}], "losses": {}}


def prefix(param: SolverParameter, solver_file: str | Path) -> str:
    """``snapshot_prefix`` by Caffe's rules: absent: the solver file without its extension;
    a folder gets that file's name.
    """
    stem = Path(solver_file).with_suffix("")
    given = param.snapshot_prefix
    if not given:
        made = str(stem)
        logs.info("upgrade_proto.cpp:1108", f"snapshot_prefix was not specified and is set to {made}")
        return made
    if Path(given).is_dir():
        made = str(Path(given) / stem.name)
        logs.info("upgrade_proto.cpp:1113", f"snapshot_prefix was a directory and is replaced to {made}")
        return made
    return given


def check_writable(snapshot_prefix: str) -> None:
    """Raise SolverError where no snapshot can be written; called before training."""
    folder = Path(snapshot_prefix).parent
    where = f"snapshot_prefix {snapshot_prefix!r}"
    try:
        if not folder.is_dir():
            what = "is a file; name a folder" if folder.exists() else "does not exist"
            hint = unexpanded(snapshot_prefix) or ("" if folder.exists() else "; make it, or name another")
            raise SolverError(f"{where}: the folder {str(folder)!r} {what}{hint}")
        handle, name = tempfile.mkstemp(
            prefix=f".{Path(snapshot_prefix).name}_iter_1000000.solverstate.json", dir=folder
        )
    except OSError as error:
        remedy = (
            "choose a shorter name"
            if error.errno == errno.ENAMETOOLONG
            else "check its permissions, or name another folder"
        )
        raise SolverError(f"{where}: cannot write in {str(folder)!r}: {error.strerror}; {remedy}") from error
    os.close(handle)
    Path(name).unlink()


def alone(param: SolverParameter) -> contextlib.AbstractContextManager[None]:
    """Keeps the snapshots' names to one training, until it ends. Raises FormatError where another has them."""
    return atomic.alone(param.snapshot_prefix, f"snapshot_prefix {param.snapshot_prefix!r}")


def check_written(param: SolverParameter, net: Net, history: Sequence[torch.Tensor]) -> None:
    """Raise FormatError, before hours of training, where snapshots cannot be written.

    A binary one may be larger than protobuf allows, one in HDF5 have layers whose names cannot be groups.
    """
    if not (param.snapshot or param.snapshot_after_train):
        return
    model, solver = paths(param, param.max_iter)
    if param.snapshot_format == SolverParameter.HDF5:
        caffemodel.check_hdf5_names(model, net.param)
        return
    values = sum(blob.numel() for node in net.nodes for blob in node.layer.blobs)
    binary.check_size(model, 4 * values * (2 if param.snapshot_diff else 1))
    binary.check_size(solver, 4 * sum(blob.numel() for blob in history))


def paths(param: SolverParameter, iteration: int, name: str = "") -> tuple[Path, Path]:
    """The caffemodel's and the solverstate's path at ``iteration``, or of the snapshot kept as ``name``."""
    tail = ".h5" if param.snapshot_format == SolverParameter.HDF5 else ""
    stem = f"{param.snapshot_prefix}_{name or f'iter_{iteration}'}"
    return Path(f"{stem}.caffemodel{tail}"), Path(f"{stem}.solverstate{tail}")


def write(
    param: SolverParameter,
    net: Net,
    state: SolverState,
    position: dict[str, Any],
    diffs: Sequence[torch.Tensor] = (),
    name: str = "",
) -> tuple[Path, Path]:
    """Write a snapshot; returns the two paths. ``state.learned_net`` is filled in.

    ``diffs``: those of ``net.params``, for ``snapshot_diff``. With a ``name`` of its own it replaces the last one of
    that name.
    """
    model, solver = paths(param, state.iter, name)
    hdf5 = param.snapshot_format == SolverParameter.HDF5
    kind = "HDF5" if hdf5 else "binary proto"
    logs.info("solver.cpp:474" if hdf5 else "solver.cpp:464", f"Snapshotting to {kind} file {model}")
    kept = weights.export_diffs(net, diffs) if param.snapshot_diff else None
    state.learned_net = str(model)
    with _replacing_snapshot(model, solver) if name else contextlib.nullcontext(model.parent) as folder:
        caffemodel.write(folder / model.name, weights.definition(net), weights.export(net, shared=not hdf5), kept)
        logs.info(
            "sgd_solver.cpp:296" if hdf5 else "sgd_solver.cpp:284", f"Snapshotting solver state to {kind} file {solver}"
        )
        with atomic.replacing(folder / position_path(solver).name) as file:
            ties = {"of": fingerprint(state), "weights": file_fingerprint(folder / model.name)}
            file.write(json.dumps({**ties, **position}).encode())
        solverstate.write(folder / solver.name, state)
    return model, solver


@contextlib.contextmanager
def _replacing_snapshot(model: Path, solver: Path) -> Iterator[Path]:
    """A folder to write a snapshot in; at the end its files replace those of an older snapshot.

    If the process is killed on the way, there are weights, old or new, and never a solverstate without its own weights.
    """
    folder = model.with_name(f".{model.name}.new")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
        solver.unlink(missing_ok=True)
        for path in (model, position_path(solver), solver):
            (folder / path.name).replace(path)
        atomic.sync(model.parent)
    except OSError as error:
        raise atomic.cannot_write(model, error) from error
    except FormatError as error:
        raise FormatError(str(error).replace(f"{folder.name}{os.sep}", "")) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_state(path: Path) -> Path:
    """The solverstate to resume from: ``path``, or the one of the other format beside it.

    For scripts that name ``x.solverstate`` where the solver's ``snapshot_format: HDF5`` has made ``x.solverstate.h5``,
    as Caffe's own train_full.sh does. Raises SolverError when neither is there.
    """
    if path.is_file():
        return path
    other = path.with_suffix("") if path.suffix == ".h5" else Path(f"{path}.h5")
    if ".solverstate" in path.name and other.is_file():
        logs.warning("caffe.cpp:235", f"there is no {path}; resuming from {other}, which is")
        return other
    what = "that is no file" if path.exists() else "no such file"
    raise SolverError(f"--snapshot {path}: {what}; give a .solverstate that a run has written")


def position_path(state: Path) -> Path:
    """The file beside a solverstate that holds data positions and random states."""
    return state.with_name(state.name + ".json")


def read_position(state_path: Path, state: SolverState) -> dict[str, Any] | None:
    """The position file beside a solverstate; None where there is none, as Caffe writes none,
    or it belongs to another state. Raises FormatError where a field is missing or is not what it should be.
    """
    path = position_path(state_path)
    try:
        position = json.loads(path.read_bytes())
        form.check(position, _POSITION)
        form.check(position.get("weights", ""), str, "weights")  # earlier versions wrote none
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_position(state_path, error) from error
    if position["of"] != fingerprint(state):
        logs.warning(
            "sgd_solver.cpp:284", f"{path} belongs to another solverstate; the data start at their first record"
        )
        return None
    return dict(position)


def damaged_position(state_path: Path, error: Exception) -> FormatError:
    """The error for a position file that cannot be used."""
    what = f"{str(position_path(state_path))!r} is damaged ({in_a_line(error)})"
    return FormatError(f"{what}; remove it to resume with the data from its first record")


def find_learned_net(state_path: Path, state: SolverState, position: Mapping[str, Any] | None = None) -> Path:
    """The caffemodel of a solverstate: beside it, else where it says, which may be of another folder or run by now.

    Where the ``position`` has the weights' fingerprint, the file that it is of. Raises FormatError where there is none.
    """
    said = Path(state.learned_net)
    beside = state_path.parent / said.name
    found = [path for path in dict.fromkeys((beside, said)) if path.is_file()]
    if not found:
        raise FormatError(
            f"{str(state_path)!r}: its weights {str(said)!r} are not there, nor {said.name!r} beside it; "
            "bring them back"
        )
    wanted = position.get("weights") if position else None
    own = [path for path in found if wanted in (None, file_fingerprint(path))]
    if not own:
        listed = " and ".join(repr(str(path)) for path in found)
        raise FormatError(
            f"{str(state_path)!r} was written with other weights than {listed} now {'hold' if found[1:] else 'holds'}; "
            "bring them back, or give the weights to --weights to start from them"
        )
    if own[0] != said:
        logs.info("sgd_solver.cpp:326", f"The weights of {state_path}: {own[0]}")
    return own[0]


def file_fingerprint(path: Path) -> str:
    """The size of a file and a checksum of its bytes."""
    size = check = 0
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                size, check = size + len(part), zlib.crc32(part, check)
    except OSError as error:
        raise atomic.cannot_read(path, error) from error
    return f"{size}:{check:08x}"


def fingerprint(state: SolverState) -> str:
    """Ties a position file to its solverstate: iteration and a checksum of the history."""
    check = 0
    for blob in state.history:
        check = zlib.crc32(np.asarray(blob, np.float32).tobytes(), check)
    return f"{state.iter}:{check:08x}"


def random_state(device: torch.device) -> dict[str, str]:
    """The random number generators' states, as text."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: base64.b64encode(s.numpy().tobytes()).decode() for name, s in states.items()}


def restore_random(states: dict[str, str], device: torch.device) -> None:
    """Undo ``random_state``. Raises ValueError for what is no such state."""

    def tensor(name: str) -> torch.Tensor:
        return torch.frombuffer(bytearray(base64.b64decode(states[name], validate=True)), dtype=torch.uint8)

    form.check(states, {str: str}, "random")
    try:
        torch.set_rng_state(tensor("cpu"))
        if device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(tensor("cuda"), device)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"random is no state of the random numbers: {in_a_line(error)}") from error


def blobs(net: Net) -> list[torch.Tensor]:
    """All blobs of a net: learned, frozen, and statistics."""
    return [*net.parameters(), *net.buffers()]


def skip(net: Net, batches: int) -> None:
    """Skip the next batches of the data layers."""
    for layer in net.source_layers.values() if batches else ():
        state, shapes = layer.state(), layer.reshape([])
        layer.restore({**state, "record": state["record"] + batches * shapes[0][0]})


def data_positions(nets: Sequence[Net]) -> list[dict[str, Any]]:
    """Where each net's data layers stand, after the batches they have served."""
    return [{name: layer.state() for name, layer in net.source_layers.items()} for net in nets]


def restore_positions(nets: Sequence[Net], positions: list[dict[str, Any]]) -> None:
    """Undo ``data_positions``; layers that have changed since start at their first record. Raises ValueError."""
    for net, states in zip(nets, positions, strict=False):
        for name, layer in net.source_layers.items():
            if name in states:
                try:
                    layer.restore(states[name])
                except ValueError as error:
                    raise ValueError(f"data, layer {name!r}: {error}") from error
