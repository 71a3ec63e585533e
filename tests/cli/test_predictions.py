"""test --predictions and --confusion: what a net says of each record."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "solvers"
Command = Callable[..., tuple[int, str]]
SCORE = ("test", "--model=net.prototxt", "--weights=t_iter_15.caffemodel")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a recorded run over 128 digits, 32 a batch."""
    for name in ("test_lmdb", "sgd_inv"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    monkeypatch.chdir(tmp_path / "sgd_inv")
    return tmp_path / "sgd_inv"


@pytest.fixture
def truth(folder: Path, command: Command) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys, labels and scores of all records, by another way."""
    files = "label.npy,ip2.npy"
    code, err = command("extract_features", "--all", "t_iter_15.caffemodel", "net.prototxt", "label,ip2", files, "npy")
    assert code == 0, err
    return np.load("ip2.keys.npy").tolist(), np.load("label.npy").astype(int), np.load("ip2.npy")


def table(path: str) -> list[list[str]]:
    with Path(path).open(newline="") as file:
        return list(csv.reader(file))


def score(command: Command, *args: str) -> str:
    code, err = command(*SCORE, *args)
    assert code == 0, err
    return err


def test_predictions_are_the_best_scores_of_each_record(
    truth: tuple[list[str], np.ndarray, np.ndarray], command: Command
) -> None:
    keys, labels, scores = truth
    score(command, "--iterations=4", "--predictions=p.csv", "--top=3")
    header, *rows = table("p.csv")
    assert header == ["key", "label", "class_1", "score_1", "class_2", "score_2", "class_3", "score_3"]
    assert [row[0] for row in rows] == keys
    assert [int(row[1]) for row in rows] == labels.tolist()
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    assert [[int(row[2 + 2 * i]) for i in range(3)] for row in rows] == best.tolist()
    values = np.array([[row[3 + 2 * i] for i in range(3)] for row in rows]).astype(np.float32)
    assert np.array_equal(values, np.take_along_axis(scores, best, 1))


def test_predictions_agree_with_the_accuracy_of_each_batch(folder: Path, command: Command) -> None:
    err = score(command, "--iterations=3", "--predictions=p.csv")
    told = [float(value) for value in re.findall(r"Batch \d, accuracy = (\S+)", err)]
    header, *rows = table("p.csv")
    assert len(header) == 2 + 2 * 5
    right = np.array([row[1] == row[2] for row in rows]).reshape(3, 32)
    assert right.mean(1).tolist() == told == [0.34375, 0.46875, 0.4375]  # the reference's


def test_confusion_counts_pairs_and_tells_each_class(
    truth: tuple[list[str], np.ndarray, np.ndarray], command: Command
) -> None:
    _, labels, scores = truth
    err = score(command, "--iterations=4", "--confusion=c.csv")
    header, *rows = table("c.csv")
    assert header == ["label", *map(str, range(10))]
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, scores.argmax(1)), 1)
    assert [[int(cell) for cell in row] for row in rows] == [[i, *row] for i, row in enumerate(counts.tolist())]
    told = re.findall(r"\] Class (\d): accuracy = (\S+) \((\d+) of (\d+)\)", err)
    assert [(int(c), int(right), int(count)) for c, _, right, count in told] == [
        (i, counts[i, i], counts[i].sum()) for i in range(10) if counts[i].sum()
    ]
    assert all(float(share) == pytest.approx(int(right) / int(count), rel=1e-5) for _, share, right, count in told)


def test_a_class_without_records_is_told_of(folder: Path, command: Command) -> None:
    text = (
        Path("net.prototxt")
        .read_text()
        .replace("num_output: 10", "num_output: 12")
        .replace('name: "ip2"', 'name: "ip12"')
    )
    Path("net.prototxt").write_text(text)
    err = score(command, "--iterations=1", "--confusion=c.csv")
    assert "] Class 11: no records" in err
    assert len(table("c.csv")) == 13


def test_the_log_stays_caffes_but_for_the_classes(folder: Path, command: Command) -> None:
    def texts(*args: str) -> list[str]:
        lines = [
            line.partition(" ")[2].split(" ", 2)[-1] for line in score(command, "--iterations=2", *args).splitlines()
        ]
        return [line for line in lines if "data_layer.cpp:73" not in line]

    plain = texts()
    recorded = texts("--predictions=p.csv", "--confusion=c.csv")
    assert [line for line in recorded if not line.startswith("confusion]")] == plain
    assert not any(line.startswith("confusion]") for line in plain)


GRAPHS = {
    # which blob is found, by what follows ip2
    "softmax of its own": ('layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }', "ip2"),
    "accuracy of the softmax": (
        'layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }'
        'layer { name: "a" type: "Accuracy" bottom: "prob" bottom: "label" top: "a" }',
        "prob",
    ),
    "loss of a second classifier": (
        'layer { name: "ip3" type: "InnerProduct" bottom: "ip1" top: "ip3" inner_product_param { num_output: 10 } }'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "l" }',
        "ip3",
    ),
}
TAIL = re.compile(r'layer \{ name: "accuracy".*', re.DOTALL)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_blob_is_found_in_the_graph(folder: Path, command: Command, name: str) -> None:
    layers, blob = GRAPHS[name]
    text = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text((TAIL.sub("", text) if "own" in name else text) + layers)
    score(command, "--iterations=1", "--predictions=found.csv")
    score(command, "--iterations=1", "--predictions=named.csv", "--blob", blob)
    assert table("found.csv") == table("named.csv")


def test_a_named_blob_gets_the_labels_of_the_net(folder: Path, command: Command) -> None:
    with Path("net.prototxt").open("a") as file:
        file.write('layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }')
    score(command, "--iterations=1", "--predictions=logits.csv", "--blob=ip2")
    score(command, "--iterations=1", "--predictions=prob.csv", "--blob=prob", "--confusion=c.csv", "--top=100")
    assert [row[:2] + row[2:12:2] for row in table("prob.csv")] == [
        row[:2] + row[2:12:2] for row in table("logits.csv")
    ]
    probabilities = np.array([row[3::2] for row in table("prob.csv")[1:]]).astype(float)
    assert probabilities.shape == (32, 10)
    assert np.allclose(probabilities.sum(1), 1)


def test_a_net_without_labels_has_none_to_tell(folder: Path, command: Command) -> None:
    text = TAIL.sub("", Path("net.prototxt").read_text()).replace('top: "label"', "")
    Path("net.prototxt").write_text(text)
    score(command, "--iterations=1", "--predictions=p.csv", "--blob=ip2")
    assert {row[1] for row in table("p.csv")[1:]} == {""}
    code, err = command(*SCORE, "--iterations=1", "--confusion=c.csv", "--blob=ip2")
    assert code == 1
    assert "has no labels to hold blob 'ip2' against; leave --confusion" in err
    assert not Path("c.csv").exists()


PLACES = """
layer { name: "x" type: "DummyData" top: "x"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } data_filler { type: "gaussian" } } }
layer { name: "y" type: "DummyData" top: "y"
  dummy_data_param { shape { dim: 2 dim: 1 dim: 4 dim: 5 } data_filler { value: 2 } } }
layer { name: "a" type: "Accuracy" bottom: "x" bottom: "y" top: "a" accuracy_param { ignore_label: IGNORED } }
"""


def test_confusion_counts_each_place_of_a_picture_but_not_those_to_ignore(folder: Path, command: Command) -> None:
    Path("net.prototxt").write_text(PLACES.replace("IGNORED", "255"))
    err = score(command, "--iterations=2", "--confusion=c.csv")
    counts = np.array(table("c.csv")[1:]).astype(int)[:, 1:]
    assert counts.sum(1).tolist() == [0, 0, 80]
    accuracies = [float(value) for value in re.findall(r"Batch \d, a = (\S+)", err)]
    assert counts[2, 2] / 80 == pytest.approx(np.mean(accuracies), rel=1e-5)
    Path("net.prototxt").write_text(PLACES.replace("IGNORED", "2"))
    score(command, "--iterations=2", "--confusion=none.csv")
    assert np.array(table("none.csv")[1:]).astype(int)[:, 1:].sum() == 0
    code, err = command(*SCORE, "--iterations=2", "--predictions=p.csv")
    assert code == 1
    assert "blob 'x' of shape (2, 3, 4, 5) does not hold one prediction a record" in err
    assert not Path("p.csv").exists()


@pytest.mark.parametrize(
    ("args", "words", "code"),
    [
        (("--predictions=.",), "cannot write '.': Is a directory; name a file in it", 1),
        (("--confusion=..",), "cannot write '..': Is a directory; name a file in it", 1),
        (("--predictions=solver.prototxt",), "'solver.prototxt' exists; remove it or choose another name", 1),
        (("--confusion=solver.prototxt",), "'solver.prototxt' exists", 1),
        (
            ("--predictions=no/p.csv",),
            "cannot write 'no/p.csv': No such file or directory; create the folder 'no' first",
            1,
        ),
        (("--predictions=p.csv", "--blob=ip3"), "net 'mini' has no blob 'ip3'; its blobs: data, label, ", 1),
        (("--predictions=p.csv", "--blob=label"), "blob 'label' of shape (32,) has no axis 1 of classes", 1),
        (("--confusion=c.csv", "--blob=conv1"), "predictions, there are 32 labels; name another blob with --blob", 1),
        (("--predictions=p.csv", "--confusion=p.csv"), "both name 'p.csv'", 2),
        (("--blob=ip2",), "--blob is for --predictions and --confusion", 2),
        (("--predictions=p.csv", "--top=0"), "--top", 2),
    ],
)
def test_what_cannot_be_is_named(
    folder: Path, fails: Callable[..., str], args: tuple[str, ...], words: str, code: int
) -> None:
    assert words in fails(*SCORE, "--iterations=1", *args, code=code)


def test_a_net_without_a_score_wants_the_blob_named(folder: Path, fails: Callable[..., str]) -> None:
    Path("net.prototxt").write_text(TAIL.sub("", Path("net.prototxt").read_text()))
    assert "name the blob that does with --blob" in fails(*SCORE, "--iterations=1", "--predictions=p.csv")


def test_labels_that_are_no_classes_are_named(folder: Path, fails: Callable[..., str]) -> None:
    text = (
        TAIL.sub("", Path("net.prototxt").read_text())
        .replace("num_output: 10", "num_output: 5")
        .replace('"ip2"', '"ip5"')
    )
    Path("net.prototxt").write_text(text)
    words = fails(*SCORE, "--iterations=1", "--confusion=c.csv", "--blob=ip5")
    assert re.match(
        r"label \d is none of the 5 classes of blob 'ip5'; name another with --blob, or mend the labels", words
    )


def test_a_run_that_fails_leaves_no_files(folder: Path, fails: Callable[..., str]) -> None:
    text = (
        Path("net.prototxt")
        .read_text()
        .replace("num_output: 10", "num_output: 5")
        .replace('name: "ip2"', 'name: "ip5"')
    )
    Path("net.prototxt").write_text(text)
    assert "label" in fails(*SCORE, "--iterations=1", "--predictions=p.csv", "--confusion=c.csv")


VALUES = """
layer { name: "data" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 5 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { value: 1 } } }
layer { name: "loss" type: "LOSS" bottom: "A" bottom: "B" top: "loss" }
"""


@pytest.mark.parametrize(
    ("loss", "bottoms"),
    [
        ("SigmoidCrossEntropyLoss", ("ip", "label")),
        ("EuclideanLoss", ("ip", "label")),
        ("EuclideanLoss", ("label", "ip")),
    ],
)
def test_values_and_their_targets(folder: Path, command: Command, loss: str, bottoms: tuple[str, str]) -> None:
    targets = np.random.default_rng(0).integers(0, 2, (12, 3)).astype(np.float32)
    with h5py.File("a.h5", "w") as file:
        file["data"], file["label"] = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32), targets
    Path("list.txt").write_text("a.h5\n")
    Path("net.prototxt").write_text(
        VALUES.replace("LOSS", loss).replace('"A"', f'"{bottoms[0]}"').replace('"B"', f'"{bottoms[1]}"')
    )
    files = ("--predictions=p.csv", "--blob=ip")
    for flags in (files, files[:1]):
        Path("p.csv").unlink(missing_ok=True)
        score(command, *flags)
        header, *rows = table("p.csv")
        assert header == ["key", "target_1", "value_1", "target_2", "value_2", "target_3", "value_3"]
        assert len(rows) == 12
        assert np.array_equal(np.array([row[1::2] for row in rows]).astype(np.float32), targets)
        assert np.isfinite(np.array([row[2::2] for row in rows]).astype(float)).all()
    code, err = command(*SCORE, "--confusion=c.csv")
    assert code == 1
    assert "blob 'ip' holds values, no scores of classes, to count; leave --confusion" in err


def test_several_labels_a_record_for_softmax_get_a_hint(folder: Path, fails: Callable[..., str]) -> None:
    Path("net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "l" }'
    )
    words = fails(*SCORE)
    assert "expected 2 labels, one for each prediction along axis 1, got 6" in words
    assert words.endswith("for a 0 or 1 of each class, several to a record, take SigmoidCrossEntropyLoss")
