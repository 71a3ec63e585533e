"""Writes docs/models.md, the table of the nets in models/: ``make docs``.

    python -m scripts.model_table [--time] [NAME ...]

Layers, parameters and multiply-adds are those of ``caffecli summarize`` at a batch of 1. Times stand in
docs/model_times.json, which ``--time`` measures anew (of the nets named, else of all), each net in a process of its own
(scripts/model_times.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from caffecli import logs
from caffecli.proto.caffe_pb2 import TEST
from caffecli.tools.summarize import NetSummary, summarize
from scripts.model_times import FEW, RUNS

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
PAGE = ROOT / "docs" / "models.md"
TIMES = ROOT / "docs" / "model_times.json"

HEAD = """# Models

The nets in [models/](../models/readme.md) by their deploy.prototxt, made by `make docs` from the files. Layers are all
but the inputs; parameters, multiply-adds and inputs are those of `caffecli summarize --batch 1`, inputs without their
first axis.

| net | layers | parameters | multiply-adds | input | forward, ms | OpenCV, ms | step, ms |
|---|---|---|---|---|---|---|---|
"""
TAIL = """
**forward** is a pass of one picture through the deploy net (of s2vt, of one word), **OpenCV** the same by its importer
of Caffe nets, from our caffemodel, **step** an iteration of training on one picture by the solver beside the net
(iter_size apart): forward, backward, update, which is most of it where a net has many parameters. Medians of {runs}
runs or more ({few} where one takes over two seconds) after one that does not count, on made-up pictures and weights,
each net in a process of its own, on two threads:
{machine}. **forward** has the weights laid out as `caffecli test` has them.

```
python -m scripts.model_table --time
```

measures them anew, in the environment of `make .venv`, whose OpenCV is 4: OpenCV 5 has no importer of Caffe nets, and
leaves its column as it is. What it reads gives our outputs to 1e-4, CNN-F, -M and -S apart: it takes the k of an LRN
for 1.
[benchmarks.md](benchmarks.md) has the speed of training at the solvers' own batches.
"""


def names() -> list[str]:
    """Every folder of models/ with a deploy net, in order."""
    return sorted(path.parent.name for path in MODELS.glob("*/deploy.prototxt"))


def page() -> str:
    """The whole page."""
    times = json.loads(TIMES.read_text(encoding="utf-8"))
    notes: list[str] = []
    rows = [_row(name, times["nets"].get(name, {}), notes) for name in names()]
    reasons = [f"{number}. {reason}" for number, reason in enumerate(notes, 1)]
    told = TAIL.format(runs=RUNS, few=FEW, machine=times["machine"])
    return HEAD + "\n".join(rows) + "\n" + ("\nNotes:\n\n" + "\n".join(reasons) + "\n" if reasons else "") + told


def _row(name: str, times: dict[str, Any], notes: list[str]) -> str:
    with logs.quiet():
        net = summarize(MODELS / name / "deploy.prototxt", TEST, batch=1)
    inputs = [layer for layer in net.layers if layer.type == "Input"]
    cells = [f"[{name}](../models/{name}/readme.md)", str(len(net.layers) - len(inputs))]
    cells += [short(net.parameters), short(net.multiply_adds), _inputs(net)]
    cells += [cell(times.get(kind), notes) for kind in ("forward", "opencv", "step")]
    return f"| {' | '.join(cells)} |"


def _inputs(net: NetSummary) -> str:
    """``3×227×227``; where there are several inputs, each with its name."""
    shapes = {top: shape for layer in net.layers if layer.type == "Input" for top, shape in layer.tops.items()}
    told = {top: "×".join(map(str, shape[1:])) for top, shape in shapes.items()}
    return ", ".join(f"{top} {shape}" for top, shape in told.items()) if len(told) > 1 else "".join(told.values())


def cell(found: float | str | None, notes: list[str]) -> str:
    """Milliseconds to three digits, or the number of the note that says why there are none."""
    if isinstance(found, str):
        if found not in notes:
            notes.append(found)
        return f"note {notes.index(found) + 1}"
    if found is None:
        return ""
    return f"{found:.0f}" if found >= 100 else f"{found:#.3g}".rstrip(".")


def short(count: float) -> str:
    """Three digits and a unit: ``61.0 M``."""
    units = ["", " k", " M", " G"]
    while round(count) >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:#.3g}".rstrip(".") + units[0] if units[0] else str(count)


def measure(wanted: list[str]) -> None:
    """Time the nets, each in its own process; write what came of each before the next begins."""
    for name in wanted:
        command = [sys.executable, "-W", "ignore", "-m", "scripts.model_times", name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} could not be timed:\n{done.stderr}")
        came = json.loads(done.stdout.splitlines()[-1])
        nets = json.loads(TIMES.read_text(encoding="utf-8"))["nets"] if TIMES.exists() else {}
        nets[name] = {**nets.get(name, {}), **came["net"]}
        times = {"machine": came["machine"], "nets": dict(sorted(nets.items()))}
        TIMES.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
        print(name, nets[name], flush=True)


def main(arguments: list[str]) -> None:
    wanted = [name for name in arguments if name != "--time"]
    if strange := [name for name in wanted if name not in names()]:
        sys.exit(f"there is no model {strange[0]!r}; the models are {', '.join(names())}")
    if "--time" in arguments:
        measure(wanted or names())
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE.relative_to(ROOT)}: {len(names())} nets")


if __name__ == "__main__":
    main(sys.argv[1:])
