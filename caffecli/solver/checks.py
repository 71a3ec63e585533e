"""Checks of a solver's settings, its nets and a solverstate, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.formats.solverstate import SolverState
from caffecli.net import records, weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver import detection, learning_rate
from caffecli.solver.learning_rate import RateOptions
from caffecli.solver.rules import Rule


def settings(param: SolverParameter, rate: RateOptions) -> None:
    """Raise SolverError for a setting that cannot work.

    Counts below 0 are let through where the reference runs them: ``display`` and ``snapshot`` count without their sign.
    """
    learning_rate.check(param, rate)
    detection.check(param)
    for name in ("average_loss", "iter_size"):
        if getattr(param, name) < 1:
            raise SolverError(f"{name} must be at least 1, got {getattr(param, name)}")
    for name in ("base_lr", "momentum", "weight_decay", "clip_gradients"):
        if not math.isfinite(getattr(param, name)):
            raise SolverError(f"{name} must be a finite number, got {getattr(param, name)}")


def warn_if_nothing_learns(net: Net) -> None:
    """Warn of a net that learns nothing: the reference trains it without a word."""
    if not any(any(node.loss_weights) for node in net.nodes):
        logs.warning("solver.cpp:102", f"net {net.name!r} has no loss: nothing is learned; add a loss layer")
    elif not any(param.lr_mult for param in net.params):
        logs.warning("solver.cpp:102", f"net {net.name!r} has no parameter of lr_mult > 0: nothing is learned")


def warn_of_doubts(nets: Sequence[Net], iteration: int, param: SolverParameter) -> None:
    """Warn, where a run begins, of what the reference does without a word though it cannot be meant.

    ``nets``: the train net, then the test nets. Weights that are all zero stay so, but for the last layer's. SSD's
    scripts score by ``max_iter: 0``.
    """
    scores = len(nets) > 1 and param.HasField("max_iter") and not param.max_iter
    if iteration >= param.max_iter and not scores:
        why = f"max_iter {param.max_iter} is reached" if param.max_iter else "max_iter is not set"
        logs.warning("solver.cpp:289", f"iteration {iteration}: {why}: nothing is trained; give a larger max_iter")
    matrices = [param for param in nets[0].params if param.lr_mult and param.tensor.dim() > 1]
    if len(matrices) > 1 and not any(bool(param.tensor.any()) for param in matrices):
        logs.warning(
            "solver.cpp:289",
            f"all weights of net {nets[0].name!r} are zero, and most will stay so: give its layers a weight_filler, or "
            "begin with --weights",
        )
    for net in nets:
        doubted = [(node.name, doubt) for node in net.nodes if (doubt := node.layer.doubt())]
        if doubted:
            others = f" (and {len(doubted) - 1} more)" if len(doubted) > 1 else ""
            logs.warning("solver.cpp:289", f"layer {doubted[0][0]!r}{others} {doubted[0][1]}")


def warn_of_uneven_tests(tests: Iterable[Net], test_iter: Iterable[int]) -> None:
    """Warn of each test that counts some records more often than others: the reference does so without a word."""
    for i, (net, batches) in enumerate(zip(tests, test_iter, strict=True)):
        if batches < 1:
            logs.warning("solver.cpp:191", f"Test net #{i}, test_iter {batches}: nothing is scored; give a larger one")
            continue
        words = records.uneven(net, batches)
        if words is not None:
            better = records.even(net)
            remedy = (
                f"batch_size: {better[0]} with test_iter: {better[1]} takes each once"
                if better
                else ("caffecli test --all scores each once")
            )
            logs.warning("solver.cpp:191", f"Test net #{i}, test_iter {batches}: {words}; {remedy}")


def refuse_shared_files(nets: Iterable[Net]) -> None:
    """Raise SpecError for a layer that writes a file, which several processes cannot share."""
    for node in (node for net in nets for node in net.nodes):
        if node.layer.one_process:
            raise node.layer.spec_error("writes one file, for one process: take it out, or train on one device")


def history(path: Path, state: SolverState, rule: Rule) -> None:
    """Raise SolverError where the solverstate of ``path`` is not one of this rule and net."""
    kept = rule.history
    if len(state.history) != len(kept):
        raise SolverError(
            f"{str(path)!r} has {len(state.history)} history blobs, the {rule.param.type} solver of this net keeps "
            f"{len(kept)}; resume with the net and solver type it was made by"
        )
    wrong: list[str] = []
    for i, (blob, array) in enumerate(zip(kept, state.history, strict=True)):
        if not weights.fits(tuple(blob.shape), array.shape):
            wrong.append(f"history blob {i}: expected {tuple(blob.shape)}, it has {array.shape}")
    if wrong:
        raise SolverError(f"{str(path)!r}, {'; '.join(wrong)}; resume with the net it was made by")
