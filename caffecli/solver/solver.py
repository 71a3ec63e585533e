"""The solver: a train net, test nets that share its weights, and the loop that turns one into a better one.

One iteration: test if due; zero the diffs; iter_size passes forward and backward; display; learning rate; clip, normalize,
regularize, update; iteration + 1; snapshot if due.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import DataError, SolverError
from caffecli.formats import caffemodel, solverstate
from caffecli.formats.solverstate import SolverState
from caffecli.net import weights
from caffecli.net.net import Net, Result
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver import debug, learning_rate, nets, report, rules, snapshot
from caffecli.solver.losses import Losses
from caffecli.solver.signals import Action


class Solver:
    """Trains the net of ``param`` on ``device``.

    ``solver_file`` settles the snapshot prefix where the definition leaves it open. ``requested`` is asked after each iteration and
    each test batch what the user wants (``signals.Signals.requested``). Raises SpecError, ShapeError, SolverError before anything runs
    when the definition cannot work.
    """

    def __init__(
        self,
        param: SolverParameter,
        device: torch.device | str = "cpu",
        solver_file: str | Path | None = None,
        requested: Callable[[], Action] = lambda: Action.NONE,
    ) -> None:
        logs.info("solver.cpp:45", "Initializing solver from parameters: \n" + nets.shown(param))
        self.param = SolverParameter()
        self.param.CopyFrom(param)
        self.param.snapshot_prefix = snapshot.prefix(param, solver_file)
        self.device = torch.device(device)
        self.requested = requested
        self.iter = 0
        self.stopped = False
        self._check()
        seed = self._seed()
        self.net = Net(nets.train_net(self.param), seed)
        self.net.place(self.device)
        self._start_from(self.param.weights, self.net)
        self.test_nets = [self._test_net(i, source, net, seed) for i, (source, net) in enumerate(nets.test_nets(self.param))]
        self.rule = rules.create(self.param, self.net.params)
        self.losses = Losses(self.param.average_loss, self.device)
        self._debug = {net: debug.Debug(net) for net in (self.net, *self.test_nets)} if self.param.debug_info else {}
        logs.info("solver.cpp:57", "Solver scaffolding done.")

    # -- the loop --------------------------------------------------------------------------------------------------

    def solve(self) -> bool:
        """Train to ``max_iter``, with the snapshots, tests and displays due. Returns False when stopped early."""
        logs.info("solver.cpp:289", f"Solving {self.net.name}")
        logs.info("solver.cpp:290", f"Learning Rate Policy: {self.param.lr_policy}")
        self.stopped = False
        with report.Bar(self.param.max_iter, self.iter) as bar:
            self.step(self.param.max_iter - self.iter, bar)
        due = self.param.snapshot and self.iter % self.param.snapshot == 0
        if self.param.snapshot_after_train and not due:
            self.snapshot()
        if self.stopped:
            logs.info("solver.cpp:316", "Optimization stopped early.")
            return False
        if self.param.display and self.iter % self.param.display == 0:
            with torch.no_grad():
                self.losses.add(self.iter, self.net.run().loss.detach())
            logs.info("solver.cpp:327", f"Iteration {self.iter}, loss = {logs.number(self._settled_loss())}")
        if self.param.test_interval and self.iter % self.param.test_interval == 0:
            self.test_all()
        logs.info("solver.cpp:332", "Optimization Done.")
        return True

    def step(self, count: int, bar: report.Bar | None = None) -> None:
        """``count`` iterations, or fewer when a stop is asked for."""
        param, speed = self.param, report.Speed(self.param.display, self.iter)
        end = self.iter + count
        while self.iter < end:
            if param.test_interval and self.iter % param.test_interval == 0 and (self.iter > 0 or param.test_initialization):
                self.test_all()
                if self.stopped:
                    break
            display = bool(param.display) and self.iter % param.display == 0
            outputs = self._accumulate(display and param.debug_info)
            if display or self.losses.due:
                loss = self._settled_loss()
            if display:
                logs.info("solver.cpp:239", speed.line(self.iter, loss))
                report.train_outputs(self.net, outputs)
            rate = learning_rate.learning_rate(param, self.iter)
            if self.iter in param.stepvalue and param.lr_policy == "multistep":
                stepped = learning_rate.current_step(param, self.iter)
                logs.info("sgd_solver.cpp:50", f"MultiStep Status: Iteration {self.iter}, step = {stepped}")
            if display:
                logs.info("sgd_solver.cpp:112", f"Iteration {self.iter}, lr = {logs.number(rate)}")
            if bar is not None:
                bar.note(loss=self.losses.smoothed, lr=rate)
            self.rule.update(rate, report_clipping=display)
            self.iter += 1
            if bar is not None:
                bar.advance()
            action = self.requested()
            if action is Action.SNAPSHOT or (param.snapshot and self.iter % param.snapshot == 0):
                self.snapshot()
            if action is Action.STOP:
                self.stopped = True
                break

    def _accumulate(self, debug: bool) -> dict[str, Tensor]:
        """iter_size passes forward and backward into fresh diffs; returns the last outputs."""
        for param in self.net.params:
            param.tensor.grad = None
        total = torch.zeros((), device=self.device)
        for _ in range(self.param.iter_size):
            loss, outputs = self._debug_pass() if debug else self._pass()
            total = total + loss
        self.losses.add(self.iter, total / self.param.iter_size)
        return outputs

    def _pass(self) -> Result:
        try:
            loss, outputs = self.net.run()
        except DataError as error:
            raise self._with_record(error, self.net) from error
        if loss.requires_grad:
            loss.backward()
        return Result(loss.detach(), outputs)

    def _debug_pass(self) -> Result:
        looker = self._debug[self.net]
        loss = looker.forward()
        looker.backward()
        return Result(torch.tensor(loss, device=self.device), looker.outputs())

    def _settled_loss(self) -> float:
        """The smoothed loss of all iterations so far; raises SolverError at the first that was not a number."""
        bad = self.losses.settle()
        if bad is None:
            return self.losses.smoothed
        iteration, value = bad
        batch = {n: t for node in self.net.nodes if not node.bottoms for n, t in _last_tops(node.layer, node.tops).items()}
        try:
            blob = debug.first_bad_blob(self.net, batch)
        except DataError as error:
            raise self._with_record(error, self.net) from error
        last = f"; the last snapshot is {self._last_snapshot}" if self._last_snapshot else ""
        raise SolverError(
            f"iteration {iteration}: the loss is {value:g}; first bad blob: {blob}{last}; "
            "lower base_lr, or set clip_gradients"
        )

    # -- testing ---------------------------------------------------------------------------------------------------

    def test_all(self) -> None:
        """Score every test net on its test_iter batches."""
        for index in range(len(self.test_nets)):
            if not self.stopped:
                self.test(index)

    @torch.no_grad()
    def test(self, index: int) -> dict[str, Tensor]:
        """Score one test net; logs and returns the mean of each output."""
        logs.info("solver.cpp:347", f"Iteration {self.iter}, Testing net (#{index})")
        net, count = self.test_nets[index], self.param.test_iter[index]
        sums: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        with report.Bar(count, unit="batch") as bar:
            for _ in range(count):
                while (action := self.requested()) is not Action.NONE:
                    if action is Action.SNAPSHOT:
                        self.snapshot()
                    else:
                        self.stopped = True
                if self.stopped:
                    logs.info("solver.cpp:379", "Test interrupted.")
                    return {}
                loss, outputs = self._test_pass(net)
                total += loss
                for name, value in outputs.items():
                    sums[name] = sums[name] + value if name in sums else value.detach().clone()
                bar.advance()
        if self.param.test_compute_loss:
            logs.info("solver.cpp:396", f"Test loss: {logs.number(float(total) / count)}")
        means = {name: value / count for name, value in sums.items()}
        report.test_outputs(net, means)
        return means

    def _test_pass(self, net: Net) -> Result:
        if net in self._debug:
            return Result(torch.tensor(self._debug[net].forward(), device=self.device), self._debug[net].outputs())
        try:
            return net.run()
        except DataError as error:
            raise self._with_record(error, net) from error

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[Path, Path]:
        """Write weights, position and solver state; returns the caffemodel's and the solverstate's path."""
        self._settled_loss()
        history = [weights.to_numpy(blob) for blob in self.rule.history]
        state = SolverState(self.iter, learning_rate.current_step(self.param, max(0, self.iter - 1)), "", history)
        position = {
            "random": snapshot.random_state(self.device),
            "data": snapshot.data_positions([self.net, *self.test_nets]),
            "losses": self.losses.state(),
        }
        written = snapshot.write(self.param, self.net, state, position)
        self._last_snapshot = str(written[1])
        return written

    def restore(self, path: str | Path) -> None:
        """Go on from a solverstate: iteration, history, weights; and, where we wrote it, data positions and random numbers."""
        path = Path(path)
        state = solverstate.read(path)
        if len(state.history) != len(self.rule.history):
            raise SolverError(
                f"{str(path)!r} has {len(state.history)} history blobs, the {self.param.type} solver of this net keeps "
                f"{len(self.rule.history)}; resume with the net and solver type it was made by"
            )
        for i, (blob, array) in enumerate(zip(self.rule.history, state.history, strict=True)):
            if not weights.fits(tuple(blob.shape), array.shape):
                raise SolverError(f"{str(path)!r}, history blob {i}: expected {tuple(blob.shape)}, it has {array.shape}")
        learned = snapshot.find_learned_net(path, state)
        position = snapshot.read_position(path, state)
        weights.copy(self.net, caffemodel.read(learned), str(learned))
        logs.info("sgd_solver.cpp:336", "SGDSolver: restoring history")
        for blob, array in zip(self.rule.history, state.history, strict=True):
            blob.copy_(torch.from_numpy(array.copy()).reshape(blob.shape))
        self.iter = state.iter
        self._last_snapshot = str(path)
        if position is not None:
            snapshot.restore_random(position["random"], self.device)
            snapshot.restore_positions([self.net, *self.test_nets], position["data"])
            self.losses.restore(position["losses"])

    def _start_from(self, weight_files: Iterable[str], net: Net) -> None:
        """Load trained weights: each entry one file, or several separated by commas, later ones over earlier."""
        for name in (part.strip() for entry in weight_files for part in entry.split(",")):
            logs.info("solver.cpp:72", f"Finetuning from {name}")
            weights.copy(net, caffemodel.read(Path(name)), name)

    def close(self) -> None:
        """End the data layers' threads."""
        for net in (self.net, *self.test_nets):
            net.close()

    # -- building --------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        param = self.param
        self._last_snapshot = ""
        learning_rate.check(param)
        for name, least in (("average_loss", 1), ("iter_size", 1), ("max_iter", 0), ("display", 0), ("snapshot", 0)):
            if getattr(param, name) < least:
                raise SolverError(f"{name} must be at least {least}, got {getattr(param, name)}")
        if not math.isfinite(param.base_lr) or not math.isfinite(param.momentum) or not math.isfinite(param.weight_decay):
            raise SolverError("base_lr, momentum and weight_decay must be finite numbers")
        if param.snapshot or param.snapshot_after_train:
            snapshot.check_writable(param.snapshot_prefix)

    def _seed(self) -> int:
        if self.param.random_seed >= 0:
            torch.manual_seed(self.param.random_seed)
            return self.param.random_seed
        return torch.seed() % 2**63

    def _test_net(self, index: int, source: str, param: Any, seed: int) -> Net:
        logs.info("solver.cpp:190", f"Creating test net (#{index}) specified by {source}")
        net = Net(param, seed)
        net.place(self.device)
        weights.share(net, self.net)
        self._start_from(self.param.weights, net)
        return net

    def _with_record(self, error: DataError, net: Net) -> DataError:
        """The error with the record's key, where a batch item is to blame."""
        item = getattr(error, "item", None)
        for name, layer in net.source_layers.items():
            keys = getattr(getattr(layer, "batch", None), "keys", ())
            if item is not None and item < len(keys):
                return DataError(f"{error}; record {keys[item]!r} of layer {name!r}")
        return error


def _last_tops(layer: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The tops that a data layer served last."""
    batch = getattr(layer, "batch", None)
    if batch is None:
        return {}
    return {name: torch.from_numpy(array) for name, array in zip(names, batch.arrays, strict=False)}
