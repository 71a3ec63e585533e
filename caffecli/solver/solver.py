"""The solver: a train net, test nets that share its weights, an update rule, and where the run stands."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import DataError, SolverError
from caffecli.formats import solverstate
from caffecli.formats.solverstate import SolverState
from caffecli.layers.base import Context
from caffecli.net import weights
from caffecli.net.net import Net
from caffecli.net.params import Param
from caffecli.net.runners.base import Runner
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
from caffecli.solver import checks, detection, learning_rate, loop, nets, rules, snapshot
from caffecli.solver.averaging import Averaging
from caffecli.solver.callbacks import Callback, callback_states, checked, restore_callbacks
from caffecli.solver.debug import Debug, first_bad_blob
from caffecli.solver.learning_rate import LossPlateau, RateOptions
from caffecli.solver.parallel import World
from caffecli.solver.progress import Losses, Speed
from caffecli.solver.rules import Rule
from caffecli.solver.signals import Action


class Solver:
    """Trains the net of ``param`` on ``device``, alone or as one process of a ``world``.

    ``requested`` is called after each iteration and each test batch: does the user want a stop or a snapshot?
    ``runner`` makes what runs the train net (``caffecli.net.runners``), ``test_runner`` what runs a test net, ``rule``
    the update rule. ``callbacks``: see ``callbacks.Callback``. ``rate``: a warm-up, a floor.
    ``prepare`` is called with the train net before its runner is made. Not ``ends_at_nan``: a
    loss that is not finite is a warning, and training goes on, as Caffe's does.
    Raises SpecError, ShapeError, SolverError before anything runs when the definition cannot work.
    """

    def __init__(
        self,
        param: SolverParameter,
        device: torch.device | str = "cpu",
        requested: Callable[[], Action] = lambda: Action.NONE,
        world: World | None = None,
        *,
        runner: Callable[[Net], Runner] = Whole,
        test_runner: Callable[[Net], Runner] = Whole,
        rule: Callable[[SolverParameter, Sequence[Param]], Rule] = rules.create,
        callbacks: Sequence[Callback] = (),
        rate: RateOptions = learning_rate.PLAIN,
        prepare: Callable[[Net], None] | None = None,
        ends_at_nan: bool = True,
    ) -> None:
        if not isinstance(param, SolverParameter):
            raise SolverError(f"a Solver takes a SolverParameter, as load_solver(path) gives it; not {param!r:.60}")
        logs.block("solver.cpp:45", "Initializing solver from parameters: ", nets.shown(param))
        self.param = SolverParameter()
        self.param.CopyFrom(param)
        self.param.snapshot_prefix = param.snapshot_prefix or "solver"
        self.device = torch.device(device)
        self.requested = requested
        self.world = world or World()
        self.iter = 0
        self.stopped = False
        self.callbacks = checked(callbacks)
        self.rate = rate
        self._ends_at_nan = ends_at_nan
        self._warned_of_nan = False
        #: the factor that callbacks (plateau) apply to the policy's learning rate
        self.lr_factor = 1.0
        #: the last iteration that has been tested; a run resumed from a snapshot after its tests does not test again
        self.tested = -1
        self.last_snapshot: Path | None = None
        #: what the bar shows of the last test of test net 0
        self.score: dict[str, float] = {}
        #: the command, without ``--snapshot``, that a user is told to go on with where a signal stops the run
        self.command: tuple[str, ...] = ()
        #: the flags that a resumed run goes on with, as JSON; each snapshot has them
        self.flags: dict[str, Any] = {}
        self._interrupted = False
        checks.settings(self.param, self.rate)
        if (param.snapshot or param.snapshot_after_train) and self.world.rank == 0:
            snapshot.check_writable(self.param.snapshot_prefix)
        weights.check_there(nets.weight_files(self.param.weights))
        self._seed = self._seed_generator()
        self._folders = nets.folders(self.param)
        self.net = self._net(nets.train_net(self.param))
        if prepare is not None:
            prepare(self.net)
        checks.warn_if_nothing_learns(self.net)
        self.test_nets = [self._test_net(*named) for named in enumerate(nets.test_nets(self.param))]
        if detection.is_asked(self.param):
            for index, net in enumerate(self.test_nets):
                detection.check_net(net, index)
        checks.warn_of_uneven_tests(self.test_nets, self.param.test_iter)
        if self.world.size > 1:
            checks.refuse_shared_files([self.net, *self.test_nets])
        self.runner = runner(self.net)
        self.test_runners = [test_runner(net) for net in self.test_nets]
        #: with debug_info: runs the train net where an iteration is displayed
        self.debug: Debug | None = None
        if self.param.debug_info:
            self.debug = Debug(self.net, self.runner.precision)
            self.test_runners = [Debug(made.net, made.precision) for made in self.test_runners]
        self.averaging = Averaging(self.world, [p.tensor for p in self.net.params]) if self.world.size > 1 else None
        self.rule = rule(self.param, self.net.params)
        snapshot.check_written(self.param, self.net, self.rule.history)
        #: of lr_policy "plateau": its steps, which follow the loss
        self.plateau = LossPlateau() if self.param.lr_policy == "plateau" else None
        self.losses = self._losses()
        self.speed = Speed()
        self._follow_rank_0()
        logs.info("solver.cpp:57", "Solver scaffolding done.")

    # -- running ---------------------------------------------------------------------------------------------------

    def solve(self) -> bool:
        """Train to ``max_iter``, with the snapshots, tests and displays due. Returns False when stopped early."""
        logs.info("solver.cpp:289", f"Solving {self.net.name}")
        logs.info("solver.cpp:290", f"Learning Rate Policy: {self.param.lr_policy}")
        self.stopped = self._interrupted = False
        checks.warn_of_doubts([self.net, *self.test_nets], self.iter, self.param)
        for callback in self.callbacks:
            callback.started(self)
        with logs.Bar(self.param.max_iter, self.iter, shown=self.world.rank == 0) as bar:
            loop.train(self, 0 if self.stopped else self.param.max_iter - self.iter, bar)
        due = self.param.snapshot and self.iter % self.param.snapshot == 0
        if self.param.snapshot_after_train and not due:
            self.snapshot()
        if self.stopped:
            logs.info("solver.cpp:316", "Optimization stopped early.")
            if self._interrupted:
                self.tell_how_to_go_on()
        else:
            self._last_figures()
            logs.info("solver.cpp:332", "Optimization Done.")
        finished = not self.stopped
        for callback in self.callbacks:
            callback.finished(self)
        return finished

    def _last_figures(self) -> None:
        if self.param.display and self.iter % self.param.display == 0:
            loop.final_loss(self)
            logs.info("solver.cpp:327", f"Iteration {self.iter}, loss = {logs.number(self.settled_loss())}")
        if self.param.test_interval and self.iter % self.param.test_interval == 0 and self.tested != self.iter:
            self.test_all()

    def stop(self, why: str) -> None:
        """End the run before the next iteration, with a line that says why; for callbacks, on all ranks alike."""
        logs.info("solver.cpp:316", f"Iteration {self.iter}: {why}")
        self.stopped = True

    def interrupt(self) -> None:
        """End the run before the next iteration, as a user asks for by a signal."""
        self.stopped = self._interrupted = True

    def tell_how_to_go_on(self) -> None:
        """Log the command that goes on from the last snapshot, where there is one and the command is known."""
        if self.command and self.last_snapshot is not None and self.world.rank == 0:
            words = shlex.join([*self.command, f"--snapshot={self.last_snapshot}"])
            logs.info("solver.cpp:316", f"To go on from there: {words}")

    def step(self, count: int) -> None:
        """``count`` iterations. Raises SolverError for what is no count."""
        if not isinstance(count, int) or count < 0:
            raise SolverError(f"step takes a number of iterations, not {count!r}")
        self.stopped = False
        loop.train(self, count)

    def test_all(self) -> None:
        """Score every test net on its test_iter batches."""
        for index in range(len(self.test_nets)):
            if not self.stopped:
                loop.test(self, index)
        if self.callbacks and not self.stopped:
            self.tested = self.iter
            for callback in self.callbacks:
                callback.tests_done(self)

    def test_figures(self, index: int) -> list[str]:
        """The names of the single numbers that a test of net ``index`` gives."""
        net = self.test_nets[index]
        if detection.is_asked(self.param):
            return detection.figures(net, self.param.show_per_class_result)
        return [name for name in net.outputs if math.prod(net.shape(name)) == 1]

    def settled_loss(self) -> float:
        """The smoothed loss of all iterations so far; raises SolverError at the first that was not finite."""
        bad = self.losses.settle()
        if bad is not None and self._ends_at_nan:
            raise self._diverged(*bad)
        if bad is not None and not self._warned_of_nan:
            self._warned_of_nan = True
            iteration, value = bad
            logs.warning(
                "solver.cpp:239",
                f"Iteration {iteration}: the loss is {value:g}; training goes on, as Caffe's does; "
                "lower base_lr, or set clip_gradients",
            )
        return self.losses.smoothed

    def _diverged(self, iteration: int, value: float) -> SolverError:
        """The error for a loss that is not finite."""
        try:
            blob = first_bad_blob(self.net, self._last_batch(), self.runner.precision)
        except DataError as error:
            raise loop.with_record(error, self.net) from error
        found = self.world.gather(blob)
        blob = next((one for one in found if one.startswith("layer")), blob)
        kept = f"; the last snapshot is {self.last_snapshot}" if self.last_snapshot else ""
        return SolverError(
            f"iteration {iteration}: the loss is {value:g}; first bad blob: {blob}{kept}; "
            "lower base_lr, or set clip_gradients"
        )

    def _last_batch(self) -> dict[str, Tensor]:
        """What the train net's data layers served last, by blob."""
        batch: dict[str, Tensor] = {}
        for layer in self.net.source_layers.values():
            if layer.batch is not None:
                tops = (torch.from_numpy(array).to(self.device) for array in layer.batch.arrays)
                batch |= dict(zip(layer.param.top, tops, strict=False))
        return batch

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self, name: str = "") -> tuple[Path, Path]:
        """Write weights, position and solver state; returns the caffemodel's and the solverstate's path. Rank 0 writes.

        As ``PREFIX_iter_N``; with a ``name`` as ``PREFIX_name``, in place of the last one of that name.
        """
        self.settled_loss()
        ranks = self.world.gather(snapshot.random_state(self.device))
        if self.world.rank:
            return self._snapshotted(*snapshot.paths(self.param, self.iter, name), name)
        history = [weights.to_numpy(blob) for blob in self.rule.history]
        state = SolverState(self.iter, learning_rate.current_step(self.param, max(0, self.iter - 1)), "", history)
        if self.plateau is not None:
            state.current_step, state.minimum_loss = self.plateau.step, self.plateau.minimum
            state.iter_last_event = self.plateau.event
        position = {
            "random": ranks[0],
            "ranks": ranks[1:],
            "data": snapshot.data_positions([self.net, *self.test_nets]),
            "losses": self.losses.state(),
        }
        position |= callback_states(self) | ({"flags": self.flags} if self.flags else {})
        return self._snapshotted(*snapshot.write(self.param, self.net, state, position, self.rule.diffs(), name), name)

    def _snapshotted(self, model: Path, state: Path, name: str) -> tuple[Path, Path]:
        if not name:
            self.last_snapshot = state
            for callback in self.callbacks:
                callback.snapshotted(self, model, state)
        return model, state

    def restore(self, path: str | Path) -> None:
        """Go on from a solverstate: iteration, history, weights; if we wrote it, data and random numbers too."""
        path = Path(path)
        state = solverstate.read(path)
        checks.history(path, state, self.rule)
        position = snapshot.read_position(path, state)
        learned = snapshot.find_learned_net(path, state, position)
        weights.load(self.net, learned)
        if path.suffix != ".h5":
            logs.info("sgd_solver.cpp:336", "SGDSolver: restoring history")
        for blob, array in zip(self.rule.history, state.history, strict=True):
            blob.copy_(torch.from_numpy(array.copy()).reshape(blob.shape))
        self.iter = state.iter
        if self.plateau is not None:
            self.plateau = LossPlateau.of(state)
        self.last_snapshot = path
        self._follow_rank_0()
        if position is not None:
            try:
                self._go_to(position)
                kept = restore_callbacks(self, position)
            except ValueError as error:
                raise snapshot.damaged_position(path, error) from error
            if kept:
                missing = f"{path} was written by a run with {', '.join(kept)}; this one goes on without"
                logs.warning("solver.cpp:316", missing)

    def _go_to(self, position: dict[str, Any]) -> None:
        """Set the data, the random numbers and the losses to a position. Raises ValueError for a wrong one."""
        randoms = [position["random"], *position["ranks"]]
        if self.world.rank < len(randoms):
            snapshot.restore_random(randoms[self.world.rank], self.device)
        snapshot.restore_positions([self.net, *self.test_nets], position["data"])
        self.losses.restore(position["losses"])

    def to(self, device: torch.device) -> None:
        """Go on training on ``device``."""
        for runner in (self.runner, *self.test_runners):
            runner.to(device)
        for net in self.test_nets:
            weights.share(net, self.net)  # what moves is made anew in each net
        self.rule.to(device)
        self.device = device
        self.losses = self._losses()

    def _losses(self) -> Losses:
        return Losses(self.param.average_loss, self.device, each=self.plateau is not None)

    def close(self) -> None:
        """End the data layers' threads, and what the callbacks hold."""
        with contextlib.ExitStack() as last:  # each is closed, whatever another raises
            for callback in reversed(self.callbacks):
                last.callback(callback.close)
            for net in (self.net, *self.test_nets):
                last.callback(net.close)

    # -- building --------------------------------------------------------------------------------------------------

    def _seed_generator(self) -> int:
        """Seed torch's generator by random_seed, or by chance; returns the seed for the data layers of all ranks."""
        if self.param.random_seed >= 0:
            torch.manual_seed(self.param.random_seed)
            return self.param.random_seed
        return self.world.gather(torch.seed() % 2**63)[0]

    def _follow_rank_0(self) -> None:
        """Take rank 0's weights, buffers and history; and random numbers that differ from those of the other ranks."""
        for net in (self.net, *self.test_nets):
            self.world.share(snapshot.blobs(net))
        self.world.share(self.rule.history)
        if self.world.rank:
            torch.manual_seed((self._seed + 1_000_003 * self.iter + self.world.rank) % 2**63)

    def _net(self, param: NetParameter) -> Net:
        net = self._make_net(param, (self.world.rank, self.world.size))
        self._start_from(self.param.weights, net)
        return net

    def _test_net(self, index: int, named: tuple[str, NetParameter]) -> Net:
        source, param = named
        logs.info("solver.cpp:190", f"Creating test net (#{index}) specified by {source}")
        net = self._make_net(param)
        weights.share(net, self.net)
        self._start_from(self.param.weights, net)
        return net

    def _make_net(self, param: NetParameter, shard: tuple[int, int] = (0, 1)) -> Net:
        """A net whose data layers serve ``shard``.

        Test nets serve all records: each rank reads a part of the batches.
        """
        return Net(param, Context(self._seed, shard, self._folders)).place(self.device)

    def _start_from(self, weight_files: Iterable[str], net: Net) -> None:
        """Load trained weights.

        An entry is one file, or several separated by commas; later files overwrite earlier ones.
        """
        for name in nets.weight_files(weight_files):
            logs.info("solver.cpp:72", f"Finetuning from {name}")
            weights.load(net, name)
