"""The training loop and the test loop.

One iteration: test if due; zero the diffs; iter_size passes forward and backward; display; learning rate; clip,
normalize, regularize, update; iteration + 1; snapshot if due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import DataError, SolverError
from caffecli.net.net import Net
from caffecli.net.runners.base import Result, Runner
from caffecli.solver import detection, learning_rate, progress, snapshot
from caffecli.solver.callbacks import plain
from caffecli.solver.detection import DetectionTest
from caffecli.solver.signals import Action

if TYPE_CHECKING:
    from caffecli.solver.solver import Solver


def train(solver: Solver, count: int, bar: logs.Bar | None = None) -> None:
    """``count`` iterations, or fewer when a stop is asked for (then ``solver.stopped``)."""
    param, speed = solver.param, solver.speed
    speed.start(solver.iter)
    end = solver.iter + count
    while solver.iter < end:
        if (
            param.test_interval
            and solver.iter % param.test_interval == 0
            and (solver.iter > 0 or param.test_initialization)
        ):
            if solver.tested != solver.iter:
                solver.test_all()
            if solver.stopped:
                break
        display = bool(param.display) and solver.iter % param.display == 0
        solver.rule.clear_diffs()
        outputs = _accumulate(solver, solver.debug if display and solver.debug else solver.runner)
        if display or solver.losses.due:
            loss = solver.settled_loss()
        if display:
            logs.info("solver.cpp:239", speed.line(solver.iter, loss, param.display))
            outputs = _mean_outputs(solver, outputs)
            progress.train_outputs(solver.net, outputs)
        rate = _learning_rate(solver, display)
        if display and solver.callbacks:
            figures, shown = {"loss": loss, "lr": rate, "iter/s": speed.rate}, plain(outputs)
            for callback in solver.callbacks:
                callback.displayed(solver, figures, shown)
        if bar is not None:
            bar.note(loss=solver.losses.smoothed, lr=rate, **solver.score)
        solver.rule.update(rate, solver.iter, report_clipping=display)
        solver.iter += 1
        if bar is not None:
            bar.advance()
        action = solver.requested()
        if action is Action.SNAPSHOT or (param.snapshot and solver.iter % param.snapshot == 0):
            solver.snapshot()
        if action is Action.SNAPSHOT:
            solver.tell_how_to_go_on()
        if action is Action.STOP:
            solver.interrupt()
            break
    speed.pause(solver.iter)


def _accumulate(solver: Solver, runner: Runner) -> dict[str, Tensor]:
    """iter_size passes forward and backward, their diffs added up; returns the last outputs."""
    total = torch.zeros((), device=solver.device)
    for left in reversed(range(solver.param.iter_size)):
        result = forward(runner)
        total += result.loss.detach()
        if not left:
            total /= solver.param.iter_size
            if solver.averaging is not None:
                solver.averaging.begin(total)
        runner.backward(result)
    if solver.averaging is not None:
        solver.averaging.finish()
    solver.losses.add(solver.iter, total)
    return result.outputs


def _mean_outputs(solver: Solver, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of this rank, the losses replaced by their means over all ranks."""
    if solver.world.size == 1:
        return outputs
    weights = dict(zip(solver.net.outputs, solver.net.output_weights, strict=True))
    losses = {name: value.detach().clone() for name, value in outputs.items() if weights[name]}
    solver.world.average([*losses.values(), torch.zeros((), device=solver.device)])
    return outputs | losses


@torch.no_grad()
def final_loss(solver: Solver) -> None:
    """One more forward pass after the last update, for the loss it ends with; debug_info as in the last iteration."""
    shown = (solver.iter - 1) % solver.param.display == 0
    loss = forward(solver.debug if shown and solver.debug else solver.runner).loss.clone()
    solver.world.average([loss])
    solver.losses.add(solver.iter, loss)


def _learning_rate(solver: Solver, display: bool) -> float:
    param, plateau = solver.param, solver.plateau
    if plateau is not None:
        plateau.update(param, solver.iter, solver.losses.smoothed)
    step = plateau.step if plateau is not None else 0
    rate = learning_rate.learning_rate(param, solver.iter, solver.rate, solver.lr_factor, step)
    step = learning_rate.current_step(param, solver.iter)
    if param.lr_policy == "multistep" and step > learning_rate.current_step(param, solver.iter - 1):
        logs.info("sgd_solver.cpp:50", f"MultiStep Status: Iteration {solver.iter}, step = {step}")
    if display:
        logs.info("sgd_solver.cpp:112", f"Iteration {solver.iter}, lr = {logs.number(rate)}")
    return rate


@torch.no_grad()
def test(solver: Solver, index: int) -> dict[str, Tensor]:
    """Score a test net on its test_iter batches; logs and returns the mean of each output, nothing when stopped.

    Several ranks share the batches out, each a stretch of them, and all get the mean over all.
    """
    logs.info("solver.cpp:347", f"Iteration {solver.iter}, Testing net (#{index})")
    net, count = solver.test_nets[index], solver.param.test_iter[index]
    if count < 1:
        return {}
    sums: dict[str, Tensor] = {}
    scored = detection.scored(net) if detection.is_asked(solver.param) else {}
    detections = DetectionTest()
    total = torch.zeros((), device=solver.device)
    world = solver.world
    first, end = world.portion(count)
    world.share(blob for blob in snapshot.blobs(solver.net) if not blob.requires_grad)
    snapshot.skip(net, first)
    turns = -(-count // world.size)
    with logs.Bar(turns, unit="batch", shown=world.rank == 0) as bar:
        for turn in range(turns):
            while (action := solver.requested()) is not Action.NONE:
                if action is Action.SNAPSHOT:
                    solver.snapshot()
                    solver.tell_how_to_go_on()
                else:
                    solver.interrupt()
            if solver.stopped:
                logs.info("solver.cpp:379", "Test interrupted.")
                return {}
            if turn >= end - first:
                continue
            loss, outputs = forward(solver.test_runners[index])
            total += loss
            detections.add(outputs, scored)
            _add(sums, {name: value for name, value in outputs.items() if name not in scored}, index)
            bar.advance()
    if world.size > 1:
        snapshot.skip(net, count - end)
        total, sums = _sum_over_ranks(solver, total, sums)
    if solver.param.test_compute_loss:
        logs.info("solver.cpp:401", f"Test loss: {logs.number(float(total) / count)}")
    means = {name: value / count for name, value in sums.items()}
    if detection.is_asked(solver.param):
        means = _score(solver, net, detections, means)
    else:
        progress.test_outputs(net, means)
    if index == 0:
        solver.score = _first_score(net, means)
    if solver.callbacks:
        shown = plain(means)
        for callback in solver.callbacks:
            callback.tested(solver, index, shown)
    return means


def _first_score(net: Net, means: dict[str, Tensor]) -> dict[str, float]:
    """The figure of a test that the bar shows: the first single number that is no loss, else the first one."""
    weights = dict(zip(net.outputs, net.output_weights, strict=True))
    single = sorted((name for name in means if means[name].numel() == 1), key=lambda name: bool(weights.get(name)))
    return {f"test {name}": float(means[name]) for name in single[:1]}


def _add(sums: dict[str, Tensor], outputs: dict[str, Tensor], index: int) -> None:
    """Add a batch's outputs to the sums."""
    for name, value in outputs.items():
        if name in sums and sums[name].shape != value.shape:
            raise SolverError(
                f"test net #{index}: output {name!r} changes its shape from batch to batch, "
                f"{tuple(sums[name].shape)} and then {tuple(value.shape)}, and has no mean; for detections set "
                'eval_type: "detection"'
            )
        sums[name] = sums[name] + value if name in sums else value.detach().clone()


def _score(solver: Solver, net: Net, detections: DetectionTest, means: dict[str, Tensor]) -> dict[str, Tensor]:
    """The figures of a test of detections, and the means of its other outputs, which are logged; all ranks get those of
    all batches.
    """
    if solver.world.size > 1:
        parts = solver.world.gather(detections)
        detections = DetectionTest()
        detections.join(parts)
    param = solver.param
    found: dict[str, Tensor] = {}
    for i, (name, weight) in enumerate(zip(net.outputs, net.output_weights, strict=True)):
        if name in detections.outputs:
            precisions = detections.outputs[name].precisions(param.ap_version)
            figures = detection.log_precisions(name, precisions, param.show_per_class_result)
        else:
            figures = {name: float(means[name])}
        for line in progress.output_lines([(name, figures[name], weight)]):
            logs.info("solver.cpp:546", f"    Test net output #{i}: {line}")
        found |= {name: torch.tensor(value) for name, value in figures.items()}
    return found


def _sum_over_ranks(solver: Solver, total: Tensor, sums: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and outputs of a test, summed over the ranks; a rank may have had no batch."""
    parts = solver.world.gather((total.cpu(), {name: value.cpu() for name, value in sums.items()}))
    full = [outputs for _, outputs in parts if outputs] or [{}]
    summed = {name: sum((outputs[name] for outputs in full[1:]), full[0][name]).to(solver.device) for name in full[0]}
    return sum((part for part, _ in parts), torch.zeros(())), summed


def forward(runner: Runner) -> Result:
    """One pass; an error about an item of the batch names the record's key."""
    try:
        return runner.forward()
    except DataError as error:
        raise with_record(error, runner.net) from error


def with_record(error: DataError, net: Net) -> DataError:
    """The error with the record's key, where a batch item is to blame."""
    item = getattr(error, "item", None)
    for name, layer in net.source_layers.items():
        if item is not None and layer.batch is not None and item < len(layer.batch.keys):
            return DataError(f"{error}; record {layer.batch.keys[item]!r} of layer {name!r}")
    return error
