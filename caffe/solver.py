"""``caffe.SGDSolver`` and its kin: training, driven from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffe import mode
from caffe.engine import Engine
from caffe.errors import ArgumentError, UsersErrors
from caffe.net import Net, StrPath, check_file
from caffe.vectors import NetVec
from caffecli import logs
from caffecli.errors import SolverError
from caffecli.net import net as core
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver import learning_rate, rules, snapshot
from caffecli.solver.rules import Rule
from caffecli.solver.solver import Solver as Core
from caffecli.spec import load

Callback = Callable[[], Any]


class DrivenRule(Rule):
    """The update rule of ``param`` on ``engine``'s diffs, which calls the user's callbacks.

    Before an update the diffs are the gradients; after it, as in Caffe, what has been subtracted from the weights.
    """

    def __init__(self, param: SolverParameter, engine: Engine) -> None:
        self.on_start: list[Callable[[], Any]] = []
        self.on_gradients_ready: list[Callable[[], Any]] = []
        self._engine = engine
        self.param = param
        keeping = SolverParameter()
        keeping.CopyFrom(param)
        keeping.snapshot_diff = True  # so that the rule keeps what it subtracts
        self._rule = rules.create(keeping, engine.net.params)
        self.history = self._rule.history

    def diffs(self) -> list[Tensor]:
        return self._rule.diffs() if self.param.snapshot_diff else []

    def clear_diffs(self) -> None:
        """Set all diffs to 0, at the beginning of an iteration."""
        for weight in self._engine.weights:
            weight.diff.clear()
        for callback in self.on_start:
            callback()

    def update(self, rate: float, iteration: int, report_clipping: bool = True) -> None:
        """The update that ends an iteration, after the user's callbacks."""
        for callback in self.on_gradients_ready:
            callback()
        self.apply(rate, iteration, report_clipping)

    def apply(self, rate: float, iteration: int, report_clipping: bool = True) -> None:
        """One update of all weights from their diffs, without callbacks."""
        self._engine.push()
        weights = self._engine.weights
        for weight in weights:
            tensor = weight.param.tensor
            tensor.grad = weight.diff.tensor(tensor.shape, tensor.device)
        self._rule.update(rate, iteration, report_clipping)
        for weight, change in zip(weights, self._rule.diffs(), strict=True):
            weight.param.tensor.grad = None
            weight.diff.put(change)
        self._engine.pull()

    def to(self, device: torch.device) -> None:
        self._rule.to(device)
        self.history = self._rule.history


class Solver:
    """Trains the net of a solver file; see ``caffecli.solver.solver``. Its subclasses choose the update rule.

    ``net`` and ``test_nets`` share memory with what is trained; their blobs can be read after ``step``, and written
    before. Each layer runs by itself, so that all diffs are there; ``caffecli train`` runs the whole graph at once.
    Paths are relative to the working directory. Raises CaffeError; for a missing file, one that is also a RuntimeError.
    """

    #: which update rule; "" takes the file's ``type``
    type: ClassVar[str] = ""

    def __init__(self, param_file: StrPath) -> None:
        check_file(param_file)
        param = load.load_solver(param_file)
        param.snapshot_prefix = snapshot.prefix(param, str(param_file))
        if self.type:
            param.type = self.type
        seed = mode.seed()
        if param.random_seed < 0 and seed is not None:
            param.random_seed = seed
        if param.debug_info:
            logs.warning(
                "solver.cpp:45", "debug_info is shown by `caffecli train` alone; here look at the blobs themselves"
            )
            param.debug_info = False
        engines: list[Engine] = []

        def engine(net: core.Net) -> Engine:
            engines.append(Engine(net, c_order=True))
            return engines[-1]

        def rule(param: SolverParameter, _: object) -> DrivenRule:
            self._rule = DrivenRule(param, engines[0])
            return self._rule

        with UsersErrors():
            self._core = Core(param, runner=engine, test_runner=engine, rule=rule, ends_at_nan=False)
        self._net, *test_nets = [Net.of(made) for made in engines]
        self._test_nets = NetVec(test_nets)
        if mode.device() != self._core.device:
            self._core.to(mode.device())

    @property
    def net(self) -> Net:
        return self._net

    @property
    def test_nets(self) -> NetVec:
        return self._test_nets

    @property
    def iter(self) -> int:
        """How many updates the weights have had."""
        return self._core.iter

    @property
    def param(self) -> SolverParameter:
        """The solver's settings; ``base_lr`` may be changed between steps."""
        return self._core.param

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return learning_rate.learning_rate(self._core.param, self._core.iter, self._core.rate)

    def step(self, n: int) -> None:
        """``n`` iterations, with the tests, displays and snapshots due.

        A loss of inf or nan is a warning in the log, and training goes on.
        """
        with self._running():
            self._core.step(int(n))

    def solve(self, resume_file: StrPath | None = None) -> None:
        """Train to ``max_iter``, from where the solverstate ``resume_file`` stands."""
        if resume_file:
            self.restore(resume_file)
        with self._running():
            self._core.solve()

    def apply_update(self) -> None:
        """Change the weights by what their diffs hold, at this iteration's learning rate; counts as an iteration."""
        with self._running():
            self._rule.apply(self.lr, self._core.iter)
            self._core.iter += 1

    def restore(self, state_file: StrPath) -> None:
        """Go on from a solverstate, binary or HDF5."""
        check_file(state_file)
        with self._running():
            self._core.restore(Path(state_file))

    def snapshot(self) -> None:
        """Write ``PREFIX_iter_N.caffemodel`` and ``.solverstate``."""
        with self._running():
            self._core.snapshot()

    def share_weights(self, net: Net) -> None:
        """Let ``net`` use this solver's weights."""
        net.share_with(self._net)

    def add_callback(self, on_start: Callback, on_gradients_ready: Callback | None = None) -> None:
        """Call ``on_start`` at the beginning of each iteration, ``on_gradients_ready`` before each update."""
        if on_gradients_ready is None or not callable(on_start):
            raise ArgumentError("add_callback takes two functions, on_start and on_gradients_ready")
        self._rule.on_start.append(on_start)
        self._rule.on_gradients_ready.append(on_gradients_ready)

    @contextmanager
    def _running(self) -> Iterator[None]:
        if mode.device() != self._core.device:
            self._core.to(mode.device())
        for net in (self._net, *self._test_nets):
            net._engine.push()
        with UsersErrors():
            yield
        self._net._engine.pull()


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    type = "SGD"


class NesterovSolver(SGDSolver):
    """Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """Rates by the sum of squared gradients."""

    type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """Rates by a running mean of squared gradients."""

    type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """Steps by running means of squared gradients and squared steps."""

    type = "AdaDelta"


class AdamSolver(SGDSolver):
    """Steps by running means of gradients and of their squares."""

    type = "Adam"


def get_solver(filename: StrPath) -> Solver:
    """The solver of the file's ``type``. Raises SolverError for one that is not known."""
    check_file(filename)
    wanted = load.load_solver(filename).type
    kinds: list[type[SGDSolver]] = [SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver]
    known = {kind.type: kind for kind in kinds}
    if wanted not in known:
        raise SolverError(f"solver type {wanted!r} is not known; known types: {', '.join(known)}")
    return known[wanted](filename)
