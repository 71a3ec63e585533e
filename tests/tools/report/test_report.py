"""The report on logs: what it says, and that it is one sound page that runs nobody else's code."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from caffecli.errors import DataError, FormatError
from caffecli.tools.report import charts, page, runs
from tests.tools.report.pages import LOG, Page, made

PLOTLY = charts.script() is not None
needs_plotly = pytest.mark.skipif(not PLOTLY, reason="needs plotly")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "small.log").write_text(LOG)
    return tmp_path / "small.log"


def test_what_a_log_tells(log: Path) -> None:
    (run,) = runs.read_all([log])
    assert run.name == "small"
    assert run.last == 30
    assert run.solver is not None
    assert (run.solver.max_iter, run.solver.type) == (30, "SGD")
    assert run.train_net is not None
    assert [layer.name for layer in run.train_net.layer] == ["data"]
    assert run.end == "finished"
    assert run.pace == [(10, 0.2), (20, 0.15)]  # the second of the test at 20 left out
    assert run.spent == {"setting up": 0.25, "training": 4.0, "testing": 1.5}
    assert [(one.level, one.count) for one in run.warnings] == [("W", 2)]


def test_lines_out_of_order_and_a_run_over_midnight(tmp_path: Path) -> None:
    times = ("23:59:58.000000", "23:59:59.000900", "23:59:59.000100", "00:00:01.000000")
    words = ("Solving n", "Iteration 0, loss = 1", "Restarting data prefetching from start.", "Iteration 10, loss = 1")
    lines = [f"I0102 {at} 7 solver.cpp:1] {said}\n" for at, said in zip(times, words, strict=True)]
    (tmp_path / "a.log").write_text("".join(lines))
    (run,) = runs.read_all([tmp_path / "a.log"])
    assert sum(run.spent.values()) == pytest.approx(3)


def test_the_page(tmp_path: Path, log: Path) -> None:
    shown = made(tmp_path, log)
    facts = {row[0]: row[1] for row in shown.tables["Settings and course"][1:]}
    assert facts["Iterations"] == "30 of 30"
    assert facts["Learning rate"] == "0.01, policy step, gamma 0.5, stepsize 20"
    assert facts["Data of training"] == "train_lmdb, 8 a batch"
    assert facts["Device"] == "CPU"
    assert shown.tables["Last and best values"][1:] == [
        ["test accuracy", "0.5", "0.75", "20"],
        ["test loss", "0.6", "0.5", "20"],
        ["train loss", "0.75", "0.75", "20"],
    ]
    assert shown.tables["Warnings and errors of the logs"][1][1:] == [
        'layer "<img src=x onerror=alert(1)>" is odd: 1',
        "2",
    ]


@needs_plotly
def test_curves(tmp_path: Path, log: Path) -> None:
    shown = made(tmp_path, log)
    loss, accuracy, rate = (shown.charts[f"curve-{key}"] for key in ("0", "1", "rate"))
    assert [(one["name"], one["x"], one["y"]) for one in loss["traces"]] == [
        ("train", [0, 10, 20], [2.5, None, 0.75]),
        ("test", [0, 20, 30], [2.5, 0.5, 0.6]),
    ]
    assert accuracy["traces"][0]["y"] == [0.1, 0.75, 0.5]
    assert rate["traces"][0]["y"] == [0.01, 0.01, 0.005]
    assert "1 values that are nan or infinite are not drawn" in shown.sections["curves"]


@needs_plotly
def test_runs_side_by_side(tmp_path: Path, log: Path) -> None:
    other = tmp_path / "other.log"
    other.write_text(LOG.replace("accuracy = 0.5", "accuracy = 0.9").replace("base_lr: 0.01", "base_lr: 0.1"))
    shown = made(tmp_path, log, other)
    assert shown.tables["Settings and course"][0] == ["", "small", "other"]
    assert ["other", "test accuracy", "0.9", "0.9", "30"] in shown.tables["Last and best values"]
    names = [one["name"] for one in shown.charts["curve-0"]["traces"]]
    assert names == ["small: train", "small: test", "other: train", "other: test"]
    assert [one["colour"] for one in shown.charts["curve-0"]["traces"]] == [0, 0, 1, 1]


def test_nothing_from_a_file_is_markup(tmp_path: Path) -> None:
    bad = '</script><script>alert(1)</script><b>&amp;\u2028\x00"'
    log = tmp_path / "<b>run.log"
    log.write_text(LOG.replace("accuracy", bad.replace(" ", "_")))
    shown = made(tmp_path, log)
    assert {tag for tag, _ in shown.seen} <= {
        "html", "head", "meta", "link", "title", "style", "body", "a", "header", "h1", "h2", "h3", "p", "nav", "ul",
        "li", "main", "section", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "details",
        "summary", "pre", "figure", "figcaption", "script", "noscript", "img", "footer",
        "svg", "g", "rect", "path", "text",
    }  # fmt: skip
    assert not any(name.startswith("on") for _, found in shown.seen for name in found)
    scripts = [found for tag, found in shown.seen if tag == "script" and found.get("type") != "application/json"]
    assert len(scripts) == 1 + PLOTLY
    assert any("alert(1)" in text for text in shown.sections.values())


def test_the_policy_lets_only_our_scripts_run(tmp_path: Path, log: Path) -> None:
    text = made(tmp_path, log).text
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-")
    inline = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    for script in inline:
        known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{known}'" in policy
    assert not re.search(r'(src|href)="(?!data:|#)', text.replace("".join(inline), "")[:200_000])


def test_without_plotly_there_are_pictures(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(charts, "script", lambda: None)
    shown = made(tmp_path, log)
    assert not shown.charts
    drawn = [found for tag, found in shown.seen if tag == "img"]
    assert len(drawn) == 4
    assert all(found["src"].startswith("data:image/svg+xml;base64,") for found in drawn)


def test_without_matplotlib_too(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_picture", lambda chart: None)
    assert "the curves need matplotlib: pip install 'caffecli[report]'" in made(tmp_path, log).sections["curves"]
    monkeypatch.setattr(charts, "script", lambda: None)
    assert "Curves need plotly or matplotlib" in made(tmp_path, log).sections["curves"]


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick", "solvers/adam"])
def test_logs_of_caffe_itself(golden: Path, tmp_path: Path, name: str) -> None:
    shown = made(tmp_path, golden / name / "train.log")
    lacks = "the log does not hold the solver's text" in shown.sections["trained"]
    assert lacks == (name != "solvers/adam")
    scores = {row[0]: row[1:] for row in shown.tables["Last and best values"][1:]}
    assert set(scores) == {"test accuracy", "test loss", "train loss"}
    assert 0.5 < float(scores["test accuracy"][1]) <= 1


def test_what_is_no_log_is_told_in_a_line(tmp_path: Path) -> None:
    for content in (b"", b"\x00\xff" * 999, b"no log\n", b"I1231 23:59:58.0 7 a] Iteration nan, loss = inf\n"):
        (tmp_path / "x.log").write_bytes(content)
        with pytest.raises(DataError, match=r"tells of no iteration; expected the log of a training"):
            made(tmp_path, tmp_path / "x.log")
        assert not (tmp_path / "page.html").exists()
    with pytest.raises(FormatError, match=r"cannot read .*gone\.log"):
        made(tmp_path, tmp_path / "gone.log")
    with pytest.raises(FormatError, match=r"cannot read .*gone\.caffemodel"):
        made(tmp_path, tmp_path / "gone.caffemodel")


def test_odd_lines_do_no_harm(tmp_path: Path) -> None:
    """Broken texts of solver and net, numbers that are none, names with every sign."""
    log = LOG.replace("base_lr: 0.01", "base_lr: {").replace("phase: TRAIN", "phase: \x00")
    log = log.replace("loss = 0.75", "loss = inf").replace("lr = 0.005", "lr = -inf")
    (tmp_path / "x.log").write_bytes(log.encode() + b"\xff\xfe" + b"I0101 99:99:99.0 7 x] Iteration 40, loss = 1\n")
    shown = made(tmp_path, tmp_path / "x.log")
    assert "the solver's text in the log cannot be read" in shown.sections["trained"]
    assert ["train loss", "inf", "2.5", "0"] in shown.tables["Last and best values"]


def test_a_page_is_whole_or_not_there(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, log)
    before = (tmp_path / "page.html").read_bytes()

    def fails(*args: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "make", fails)
    with pytest.raises(FormatError, match="No space left"):
        made(tmp_path, log)
    assert (tmp_path / "page.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "small.log"]


def test_long_curves_keep_their_peaks() -> None:
    y = [0.0] * 50_000
    y[12_345], y[33_333], y[40_000] = 7.0, -7.0, float("nan")
    x, thin = charts.thinned(range(50_000), y)
    assert len(x) < 5_000
    assert {7.0, -7.0} <= set(thin)
    assert (x[0], x[-1]) == (0, 49_999)
    assert any(value != value for value in thin)


def test_colours_are_the_same_in_both_places() -> None:
    script = page._file("page.js")
    assert all(f'"{colour}"' in script for colour in charts.COLOURS)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme: int) -> None:
    """Text on page and card 4.5 and more, as WCAG's AA has it; curves too."""
    colours = [dict(re.findall(r"--([a-z]+): (#\w{6})", part)) for part in page._file("page.css").split("@media")[:2]]
    used = colours[scheme]
    lines = re.search(rf"{('light', 'dark')[scheme]}: \[(.*?)\]", page._file("page.js"))[1]
    front = [used[name] for name in ("text", "quiet", "link", "bad")]
    pairs = [(one, used[back]) for one in front for back in ("page", "card")] + [(used["text"], used["bar"])]
    pairs += [(one, used["card"]) for one in re.findall(r"#\w{6}", lines)]
    for one, back in pairs:
        low, high = sorted((_luminance(one), _luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{one} on {back}"


def test_pages_nest() -> None:
    with pytest.raises(AssertionError):
        Page("<p><b></p></b>")
