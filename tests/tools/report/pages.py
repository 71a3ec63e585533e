"""What tests of the report share: a log, and a page taken apart."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from caffecli.tools.report import ReportOptions, report

#: elements that have no end
VOID = {"meta", "link", "img", "br", "hr", "input"}

LOG = """\
I1231 23:59:58.000000 77 caffe.cpp:197] Use CPU.
I1231 23:59:58.000000 77 solver.cpp:45] Initializing solver from parameters:\x20
test_iter: 3
test_interval: 20
base_lr: 0.01
max_iter: 30
lr_policy: "step"
gamma: 0.5
stepsize: 20
momentum: 0.9
snapshot_prefix: "small"
net: "net.prototxt"
I1231 23:59:58.000000 77 solver.cpp:102] Creating training net from net file: net.prototxt
I1231 23:59:58.000000 77 net.cpp:53] Initializing net from parameters:\x20
name: "small <script>alert(1)</script>"
state {
  phase: TRAIN
}
layer {
  name: "data"
  type: "Data"
  top: "data"
  top: "label"
  data_param {
    source: "train_lmdb"
    batch_size: 8
  }
}
I1231 23:59:58.250000 77 solver.cpp:279] Solving small
W1231 23:59:58.250000 77 net.cpp:1] layer "<img src=x onerror=alert(1)>" is odd: 1
I1231 23:59:58.500000 77 solver.cpp:337] Iteration 0, Testing net (#0)
I1231 23:59:59.000000 77 solver.cpp:404]     Test net output #0: accuracy = 0.1
I1231 23:59:59.000000 77 solver.cpp:404]     Test net output #1: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:59.250000 77 solver.cpp:228] Iteration 0 (0 iter/s, 0.1s/10 iters), loss = 2.5
I1231 23:59:59.250000 77 solver.cpp:244]     Train net output #0: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:59.250000 77 sgd_solver.cpp:106] Iteration 0, lr = 0.01
W1231 23:59:59.250000 77 net.cpp:1] layer "<img src=x onerror=alert(1)>" is odd: 2
I0101 00:00:01.250000 77 solver.cpp:228] Iteration 10 (5 iter/s, 2s/10 iters), loss = nan
I0101 00:00:01.250000 77 solver.cpp:244]     Train net output #0: loss = nan (* 1 = nan loss)
I0101 00:00:01.250000 77 sgd_solver.cpp:106] Iteration 10, lr = 0.01
I0101 00:00:02.250000 77 solver.cpp:337] Iteration 20, Testing net (#0)
I0101 00:00:03.250000 77 solver.cpp:404]     Test net output #0: accuracy = 0.75
I0101 00:00:03.250000 77 solver.cpp:404]     Test net output #1: loss = 0.5 (* 1 = 0.5 loss)
I0101 00:00:03.750000 77 solver.cpp:228] Iteration 20 (5 iter/s, 2s/10 iters), loss = 0.75
I0101 00:00:03.750000 77 solver.cpp:244]     Train net output #0: loss = 0.75 (* 1 = 0.75 loss)
I0101 00:00:03.750000 77 sgd_solver.cpp:106] Iteration 20, lr = 0.005
I0101 00:00:03.750000 77 solver.cpp:337] Iteration 30, Testing net (#0)
I0101 00:00:03.750000 77 solver.cpp:404]     Test net output #0: accuracy = 0.5
I0101 00:00:03.750000 77 solver.cpp:404]     Test net output #1: loss = 0.6 (* 1 = 0.6 loss)
I0101 00:00:03.750000 77 solver.cpp:332] Optimization Done.
"""


class Page(HTMLParser):
    """An HTML page: its text by section, its tables, its charts. Fails where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.charts: dict[str, Any] = {}
        self._table: list[list[str]] = []
        self._caption = ""
        self._section = ""
        self._chart = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"
        assert len(set(self.ids)) == len(self.ids), "an id stands twice"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), f"an attribute of {tag} stands twice"
        self.seen.append((tag, found))
        if found.get("id"):
            self.ids.append(found["id"])
        if tag == "img":
            assert found.get("alt"), "a picture without words"
            assert found["src"].startswith("data:"), "a picture that is loaded"
        if tag == "section":
            self._section = found["id"]
        if tag == "table":
            self._table, self._caption = [], ""
        if tag == "tr":
            self._table.append([])
        if tag in ("td", "th"):
            self._table[-1].append("")
        if found.get("class") == "chart":
            self._chart = found["id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} ends and was not open"
        assert self.open.pop() == tag, f"{tag} ends within another"
        if tag == "table":
            self.tables[self._caption] = self._table

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            if self.seen[-1][1].get("class") == "chart-data":
                self.charts[self._chart] = json.loads(data)
            return
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if "caption" in self.open:
            self._caption += data
        elif "td" in self.open or "th" in self.open:
            self._table[-1][-1] += data


def made(folder: Path, *inputs: Path, **more: Any) -> Page:
    """The page of these logs and snapshots."""
    report(ReportOptions(inputs, folder / "page.html", **more))
    return Page((folder / "page.html").read_text())
