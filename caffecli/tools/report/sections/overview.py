"""What was trained: solver, data, machine, how far it came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from caffecli.layers import layer_class
from caffecli.layers.data import SourceLayer
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from caffecli.spec import text
from caffecli.tools.report import markup
from caffecli.tools.report.markup import Cell, number
from caffecli.tools.report.material import Report
from caffecli.tools.report.runs import Run


def section(report: Report) -> str:
    """A table with a column for each run, and the texts of solver and nets."""
    columns = [dict(_facts(run)) for run in report.runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name) for column in columns)] for name in names]
    head = ["", *(run.name for run in report.runs)]
    texts = "".join(_texts(report, run) for run in report.runs)
    notes = "".join(
        markup.note(f"{report.of(run, reason)}.") for run in report.runs for reason in dict.fromkeys(run.missing)
    )
    return markup.table(head, rows, "Settings and course", sortable=False) + notes + texts


def _facts(run: Run) -> Iterator[tuple[str, Cell]]:
    net = run.train_net or (run.test_nets[0] if run.test_nets else None)
    yield "File", str(run.path)
    if net is not None:
        yield "Net", net.name or "without a name"
    if run.last >= 0:
        most = run.solver.max_iter if run.solver is not None else 0
        yield "Iterations", f"{number(run.last)} of {most:,}" if most else number(run.last)
    if run.has_log:
        yield "Ended", run.end or "not yet, or not by itself"
    total = sum(run.spent.values())
    if total > 0:
        yield "Time in all", markup.duration(total)
    if run.solver is not None:
        yield from _settings(run.solver)
    for when, of in (("Data of training", run.train_net), ("Data of the test", next(iter(run.test_nets), None))):
        if of is not None and (data := [_data(layer) for layer in sources(of)]):
            yield when, "; ".join(data)
    for name, facts in run.facts.items():
        if name != "Data" or net is None:
            yield name, ", ".join(facts)
    if run.snapshots:
        yield "Snapshots that are there", ", ".join(number(one.iteration) for one in run.snapshots)


def _settings(solver: SolverParameter) -> Iterator[tuple[str, Cell]]:
    yield "Update rule", solver.type
    yield "Learning rate", f"{number(solver.base_lr)}, policy {solver.lr_policy or 'not set'}{_policy(solver)}"
    for name, field in (("Momentum", "momentum"), ("Weight decay", "weight_decay"), ("Batches for one", "iter_size")):
        if solver.HasField(field):
            yield name, number(getattr(solver, field))
    if solver.test_iter:
        counts = ", ".join(map(str, solver.test_iter))
        yield "Tests", f"every {solver.test_interval:,} iterations, of {counts} batches"
    if solver.random_seed >= 0:
        yield "Random seed", str(solver.random_seed)


def _policy(solver: SolverParameter) -> str:
    said = [
        f", {name} {number(getattr(solver, name))}" for name in ("gamma", "power", "stepsize") if solver.HasField(name)
    ]
    if solver.stepvalue:
        said.append(f", steps at {', '.join(map(str, solver.stepvalue))}")
    return "".join(said)


def sources(net: NetParameter) -> Iterable[LayerParameter]:
    """The layers that read records."""
    for layer in net.layer:
        kind = layer_class(layer.type)
        if kind is not None and issubclass(kind, SourceLayer) and kind.settings_name:
            yield layer


def _data(layer: LayerParameter) -> str:
    kind = layer_class(layer.type)
    if kind is None or not issubclass(kind, SourceLayer):
        return layer.type
    batch = getattr(getattr(layer, kind.settings_name), "batch_size", 0)
    said = kind.source_of(layer) or layer.type
    return f"{said}, {batch:,} a batch" if batch else said


def _texts(report: Report, run: Run) -> str:
    texts = [("solver", run.solver), ("train net", run.train_net)]
    texts += [(f"test net{f' {i}' if i else ''}", net) for i, net in enumerate(run.test_nets)]
    return "".join(
        markup.folded(report.of(run, f"the {name}'s text"), markup.listing(text.format(message)))
        for name, message in texts
        if message is not None
    )
