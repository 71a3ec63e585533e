"""Wrong input to the commands that bring weights, means and pictures:
one line, the culprit and the remedy, nothing written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import GOLDEN, PNG, foreign, put

Fails = Callable[..., str]
ROOT = Path(__file__).parents[2]
LENET = str(ROOT / "models/lenet/deploy.prototxt")
SIGMOID_BN = str(ROOT / "models/cifar10_full_sigmoid_bn/deploy.prototxt")
FILTERS = ("visualize", "filters", LENET)
ACTIVATIONS = ("visualize", "activations", LENET, "w.caffemodel", "out.png", "--layer", "conv1")

#: what reads the file "in" -> the command line, what it takes
READERS = {
    "convert_weights": (("convert_weights", "in", "out.h5"), ("caffemodel",)),
    "convert_weights --net": (("convert_weights", "--net", "in", "w.caffemodel", "out.h5"), ("prototxt",)),
    "convert_mean": (("convert_mean", "in", "out.npy"), ("mean",)),
    "convert_mean of an array": (("convert_mean", "in", "out.binaryproto"), ()),
    "merge_bn net": (("merge_bn", "in", "w.caffemodel", "o.prototxt", "o.caffemodel"), ()),
    "merge_bn weights": (("merge_bn", SIGMOID_BN, "in", "o.prototxt", "o.caffemodel"), ()),
    "visualize net": (("visualize", "filters", "in", "out.png", "--layer", "conv1"), ()),
    "visualize weights": ((*FILTERS, "in", "out.png", "--layer", "conv1"), ("caffemodel",)),
    "visualize picture": ((*ACTIVATIONS, "--image", "in"), ("png",)),
    "visualize mean": ((*ACTIVATIONS, "--image", "p.png", "--mean", "in"), ("mean",)),
}
KINDS = [
    "missing",
    "empty",
    "folder",
    "png",
    "html",
    "zip",
    "text",
    "prototxt",
    "caffemodel",
    "solverstate",
    "mean",
    "hdf5",
]


@pytest.fixture
def prepared(folder: Path) -> Path:
    shutil.copy(GOLDEN / "lenet/lenet_iter_10000.caffemodel", folder / "w.caffemodel")
    shutil.copy(GOLDEN / "cifar10_quick/mean.binaryproto", folder / "mean.binaryproto")
    (folder / "p.png").write_bytes(PNG)
    for name in ("out.h5", "out.npy", "out.png", "out.binaryproto", "o.prototxt", "o.caffemodel"):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize(
    ("reader", "kind"), [(r, k) for r, (_, takes) in READERS.items() for k in KINDS if k not in takes]
)
def test_a_foreign_file_is_named(prepared: Path, fails: Fails, reader: str, kind: str) -> None:
    put(prepared / "in", foreign(prepared)[kind])
    error = fails(*READERS[reader][0])
    assert "in" in error.replace("'", " ").replace(":", " ").split(), error


@pytest.mark.parametrize(
    ("source", "args"),
    [
        ("lenet/lenet_iter_10000.caffemodel", READERS["convert_weights"][0]),
        ("lenet/lenet_iter_10000.caffemodel", READERS["merge_bn weights"][0]),
        ("lenet/lenet_iter_10000.caffemodel", READERS["visualize weights"][0]),
        ("cifar10_quick/mean.binaryproto", READERS["convert_mean"][0]),
        ("cifar10_quick/mean.binaryproto", READERS["visualize mean"][0]),
    ],
)
@pytest.mark.parametrize("part", [0.003, 0.4, 0.98])
def test_a_truncated_file_is_named(
    prepared: Path, fails: Fails, source: str, args: tuple[str, ...], part: float
) -> None:
    data = (GOLDEN / source).read_bytes()
    (prepared / "in").write_bytes(data[: int(len(data) * part)])
    assert "'in'" in fails(*args)


WRITERS = {
    "convert_weights": ("convert_weights", "w.caffemodel", "OUT.npz"),
    "convert_weights h5": ("convert_weights", "w.caffemodel", "OUT.h5"),
    "convert_mean": ("convert_mean", "mean.binaryproto", "OUT.npy"),
    "merge_bn net": ("merge_bn", "bn.prototxt", "bn.caffemodel", "OUT", "o.caffemodel"),
    "merge_bn weights": ("merge_bn", "bn.prototxt", "bn.caffemodel", "o.prototxt", "OUT"),
    "visualize": (*FILTERS, "w.caffemodel", "OUT.png", "--layer", "conv1"),
}


@pytest.fixture
def with_bn(prepared: Path, edit: Callable[..., None]) -> Path:
    """``prepared``, with a net to fold and its weights."""
    from caffecli.formats import caffemodel
    from caffecli.net import weights
    from caffecli.net.net import Net
    from caffecli.proto.caffe_pb2 import TEST, NetParameter
    from caffecli.spec import text
    from caffecli.spec.load import prepare_net

    source = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
    layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 3 } }
    layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" }"""
    (prepared / "bn.prototxt").write_text(source)
    net = Net(prepare_net(text.parse(source, NetParameter()), TEST))
    caffemodel.write(prepared / "bn.caffemodel", weights.definition(net), weights.export(net))
    return prepared


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("none/OUT", "No such file or directory; create the folder 'none' first"),
        ("w.caffemodel/OUT", "Not a directory; 'w.caffemodel' is no folder, name another"),
        ("FOLDER", "Is a directory; name a file in it"),
    ],
)
def test_a_place_that_cannot_be_written(with_bn: Path, fails: Fails, writer: str, place: str, words: str) -> None:
    end = next(Path(part).suffix for part in WRITERS[writer] if part.startswith("OUT"))
    out = f"folder{end}" if place == "FOLDER" else f"{place}{end}"
    if place == "FOLDER":
        (with_bn / out).mkdir()
    args = [out if part.startswith("OUT") else part for part in WRITERS[writer]]
    assert fails(*args) == f"cannot write '{out}': {words}"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("convert_weights", "w.caffemodel"), "Missing argument 'TARGET'."),
        (("convert_weights", "--nvidia", "BOOL", "w.caffemodel", "o.caffemodel"),
            "'BOOL' is not one of 'float', 'float16'"),
        (("convert_mean", "mean.binaryproto"), "Missing argument 'TARGET'."),
        (("merge_bn", LENET, "w.caffemodel", "o.prototxt"), "expected OUT_NET OUT_WEIGHTS with --model and"),
        (("download_model",), "Missing argument 'MODEL'."),
        ((*FILTERS, "w.caffemodel", "out.png"), "Missing option '--layer'."),
        ((*FILTERS, "a", "b", "c", "--layer", "conv1"), "expected OUT.png with --model (and --weights), or NET"),
        (("visualize", "dreams", LENET, "out.png", "--layer", "conv1"),
            "'dreams' is not one of 'filters', 'activations'"),
        ((*FILTERS, "w.caffemodel", "out.png", "--layer", "conv1", "--top", "0"), "0 is not in the range x>=1."),
    ],
)  # fmt: skip
def test_wrong_use(prepared: Path, fails: Fails, args: tuple[str, ...], words: str) -> None:
    assert words in fails(*args, code=2)
