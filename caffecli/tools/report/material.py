"""What the sections of a report are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from caffecli.errors import CaffeError
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.tools.report import markup
from caffecli.tools.report.runs import Run, Snapshot

if TYPE_CHECKING:
    from caffecli.tools.report.findings import Findings


class Missing(CaffeError):
    """Why a section, or a part of one, is left out."""


class Inapplicable(Missing):
    """A section is not for nets of this kind: the page is without it."""


def refuse_code(net: NetParameter) -> None:
    """Raises Missing for a net of a log or a snapshot with Python layers: who made it could run code here."""
    for layer in net.layer:
        if layer.HasField("python_param"):
            raise Missing(f"layer {layer.name!r} is Python code, which is run only of a net named with --model")


@dataclass(frozen=True)
class ReportOptions:
    """``inputs``: logs and snapshots.

    ``model``: the net to test, with its data, in place of that of the log; ``weights``: in place of the best or last
    snapshot. ``records``: over how many the test runs, at most; 0 for none. ``labels``: a file with a line for each
    class, or a label map, by default the one that the net names, or labels.txt beside it. ``layers``: modules of the
    user's own that register layers.
    """

    inputs: tuple[Path, ...]
    out: Path
    model: Path | None = None
    weights: Path | None = None
    records: int = 1000
    labels: Path | None = None
    layers: tuple[str, ...] = ()


@dataclass
class Report:
    """The runs side by side. ``pictures_only``: there is no plotly, curves are pictures."""

    runs: list[Run]
    options: ReportOptions
    pictures_only: bool = False
    #: the classes' names by number, as far as they are known
    classes: dict[int, str] = field(default_factory=dict)
    #: finds what a run's net makes of records; None: nobody does
    finder: Callable[[Run], Findings] | None = None

    def findings(self, run: Run) -> Findings:
        """What the run's net makes of records. Raises Missing."""
        if not self.options.records or self.finder is None:
            raise Missing("--records 0 asks for no records")
        return self.finder(run)

    def snapshots(self, run: Run) -> list[Snapshot]:
        """The run's snapshots, or the weights that are to be tested. Raises Missing where there are none."""
        weights = self.options.weights
        found = run.snapshots or ([] if weights is None else [Snapshot(-1, weights)])
        if not found:
            raise Missing("no snapshot of the run is there; give one")
        return found

    def class_name(self, number: int) -> str:
        """A class's name, or its number where it has none."""
        return self.classes.get(number, str(number))

    @property
    def several(self) -> bool:
        return len(self.runs) > 1

    def of(self, run: Run, name: str) -> str:
        """A name with its run's, where there are several."""
        return f"{run.name}: {name}" if self.several else name

    def for_each(self, part: Callable[[Run], str]) -> str:
        """A part for each run, under its name where there are several; a line where one has nothing to show.

        Raises Missing where none has, Inapplicable where it is for none.
        """
        parts: list[str] = []
        reasons: list[CaffeError] = []
        for run in self.runs:
            head = markup.heading(run.name) if self.several else ""
            try:
                parts.append(head + part(run))
            except Inapplicable as error:
                reasons.append(error)
            except CaffeError as error:
                reasons.append(error)
                parts.append(head + left_out(error))
        if len(reasons) == len(self.runs):
            told = [error for error in reasons if not isinstance(error, Inapplicable)]
            if not told:
                raise reasons[0]
            alike = len(set(map(str, told))) == 1
            raise Missing(str(told[0]) if alike else self.of(self.runs[reasons.index(told[0])], str(told[0])))
        return "".join(parts)


def left_out(error: CaffeError) -> str:
    """The line in place of what is not there."""
    return markup.paragraph(f"Left out: {' '.join(str(error).split())}", "missing")
