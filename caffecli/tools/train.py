"""``caffecli train``: from flags to a finished run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from caffecli import logs
from caffecli.formats import log_file
from caffecli.layers import user_modules
from caffecli.net import devices, precision
from caffecli.net.net import Net
from caffecli.net.runners import compiled
from caffecli.net.runners.compiled import Compiled
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver import class_weights, parallel, recorders, snapshot
from caffecli.solver.callbacks import Callback
from caffecli.solver.deterministic import deterministic
from caffecli.solver.keep import Keep
from caffecli.solver.launch import launch
from caffecli.solver.learning_rate import PLAIN, RateOptions
from caffecli.solver.monitor import NO_WATCH, WatchOptions
from caffecli.solver.parallel import World
from caffecli.solver.signals import Action, Signals
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools import recorded
from caffecli.tools.recorded import Flags


@dataclass(frozen=True)
class TrainOptions:
    """What ``caffecli train`` can be told. ``weights``: files separated by commas; ``snapshot``: a solverstate.

    ``amp``: products of matrices in bfloat16. ``compiled``: by torch.compile. ``keep``: how many snapshots. ``seed``
    goes before random_seed. ``deterministic``: see ``caffecli.solver.deterministic``. Figures go to ``csv``, ``jsonl``
    and ``tensorboard``. ``watch``, ``rate``: what to do by a test output, and to the learning rate. ``layers``: modules
    of the user's own that register layers. ``command``: the words, without ``--snapshot``, to go on with after a stop.
    ``class_weights``: of the train net's losses, or "auto". ``recorded``: of ``watch``, ``rate`` and ``class_weights``,
    what is not given is that of the run that wrote ``snapshot``.
    """

    solver: Path
    snapshot: Path | None = None
    weights: str = ""
    gpu: str | None = None
    cpu: bool = False
    level: int = 0
    stages: tuple[str, ...] = ("",)
    sigint_effect: Action = Action.STOP
    sighup_effect: Action = Action.SNAPSHOT
    amp: bool = False
    compiled: bool = False
    keep: int | None = None
    seed: int | None = None
    deterministic: bool = False
    log_file: Path | None = None
    csv: Path | None = None
    jsonl: Path | None = None
    tensorboard: Path | None = None
    watch: WatchOptions = NO_WATCH
    rate: RateOptions = PLAIN
    layers: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    class_weights: tuple[float, ...] | str = ()
    recorded: bool = False


def train(options: TrainOptions) -> bool:
    """Run the training, on several GPUs by a process each; returns whether it came to its end (False: stopped early).

    Started by ``torchrun``, this process is one of the run's processes and starts no others.
    """
    rank = parallel.given_rank()
    with log_file.appending(options.log_file), deterministic(options.deterministic):
        user_modules.load(options.layers)
        param = load.load_solver(options.solver)
        found = devices.choose_all(*_gpu(options, param))
        if rank is not None:
            options = replace(options, command=())  # what torchrun was told is not known here
            return parallel.join(work, devices.of_rank(found, rank), (options, param))
        if len(found) > 1:
            return launch(work, found, (options, param))
        return work(World(), found, (options, param))


def work(world: World, found: list[torch.device], job: tuple[TrainOptions, SolverParameter]) -> bool:
    """The training in one process, on the first of the devices ``found``."""
    options, param = job
    user_modules.load(options.layers)  # each process of a run has to load them
    param.snapshot_prefix = snapshot.prefix(param, options.solver)
    param.train_state.level = options.level
    param.train_state.stage.extend(options.stages)
    devices.log_train(found)
    if options.compiled:
        compiled.check(found[0])
    asked = precision.choose(options.amp, found[0])
    if options.snapshot is not None:
        options = replace(options, snapshot=snapshot.find_state(options.snapshot))
        options = _as_recorded(options) if options.recorded else options
        del param.weights[:]
    elif options.weights:
        del param.weights[:]
        param.weights.append(options.weights)
    if options.seed is not None:
        param.random_seed = options.seed
    looking = _callbacks(options)
    weighed: list[float] = []

    def prepare(net: Net) -> None:
        if options.class_weights:
            weighed.extend(class_weights.weigh(net, options.class_weights))

    writes = world.rank == 0 and (param.snapshot or param.snapshot_after_train or options.watch.best)
    with (
        Signals(options.sigint_effect, options.sighup_effect) as signals,
        deterministic(options.deterministic),
        snapshot.alone(param) if writes else contextlib.nullcontext(),
    ):
        solver = Solver(
            param,
            found[0],
            world.agreed(signals.requested),
            world,
            runner=partial(Compiled if options.compiled else Whole, precision=asked),
            test_runner=partial(Whole, precision=asked),
            callbacks=looking,
            rate=options.rate,
            prepare=prepare,
        )
        solver.command = options.command
        solver.flags = Flags(options.watch, options.rate, tuple(weighed)).as_json()
        try:
            if options.snapshot is not None:
                logs.info("caffe.cpp:235", f"Resuming from {options.snapshot}")
                solver.restore(options.snapshot)
            logs.info("caffe.cpp:239", "Starting Optimization")
            finished = solver.solve()
        finally:
            solver.close()
    logs.info("caffe.cpp:250", "Optimization Done.")
    return finished


def _as_recorded(options: TrainOptions) -> TrainOptions:
    """The options with the flags of the run that wrote the snapshot in place of those that are not given."""
    kept = recorded.flags(options.snapshot) if options.snapshot else Flags()
    taken = Flags(
        kept.watch if options.watch == NO_WATCH else NO_WATCH,
        kept.rate if options.rate == PLAIN else PLAIN,
        () if options.class_weights else kept.class_weights,
    )
    if taken.words():
        logs.info(
            "caffe.cpp:235",
            f"Going on with {' '.join(taken.words())}, as the run did that wrote {options.snapshot}; "
            "--forget-flags leaves that out",
        )
    return replace(
        options,
        watch=options.watch if taken.watch == NO_WATCH else taken.watch,
        rate=options.rate if taken.rate == PLAIN else taken.rate,
        class_weights=options.class_weights or taken.class_weights,
    )


def _callbacks(options: TrainOptions) -> list[Callback]:
    """The callbacks. ``Best``, which writes snapshots, comes last, so that these hold the others' state."""
    wished: list[tuple[Path | None, type[recorders.Recorder]]] = [
        (options.csv, recorders.Csv),
        (options.jsonl, recorders.JsonLines),
        (options.tensorboard, recorders.TensorBoard),
    ]
    made: list[Callback] = [recorder(path) for path, recorder in wished if path is not None]
    made += [Keep(options.keep)] if options.keep is not None else []
    return made + options.watch.callbacks()


def _gpu(options: TrainOptions, param: SolverParameter) -> tuple[str | None, bool, str]:
    """The devices by the flags, else by the solver file's solver_mode; a file without one means CPU, as in Caffe."""
    wishes = param.HasField("solver_mode") and param.solver_mode == SolverParameter.GPU
    if options.gpu or options.cpu or not wishes:
        return options.gpu, options.cpu, ""
    return str(param.device_id), False, f"{options.solver}: solver_mode: GPU"
