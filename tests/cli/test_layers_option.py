"""--layers MODULE and CAFFECLI_LAYERS: layers of a user's own, in each command that builds a net."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.formats import caffemodel
from caffecli.layers import registry, user_modules
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.solver.launch import launch
from caffecli.spec import load, text
from caffecli.tools.train import TrainOptions, work

Command = Callable[..., tuple[int, str]]
Fails = Callable[..., str]

HALF = """
from caffecli import Layer, register


@register("Half")
class Half(Layer):
    keeps_shape = True

    def forward(self, bottom):
        return bottom / 2
"""
DEPLOY = """
name: "halved"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "half" type: "Half" bottom: "data" top: "half" }
layer { name: "ip" type: "InnerProduct" bottom: "half" top: "ip" inner_product_param { num_output: 2 } }
"""
RELU = 'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }'


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Neither types, nor modules, nor places to look for them."""
    types, modules, places = dict(registry._LAYERS), set(sys.modules), list(sys.path)
    yield
    registry._LAYERS.clear()
    registry._LAYERS.update(types)
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]
    sys.path[:] = places
    user_modules._load.cache_clear()


@pytest.fixture
def half(folder: Path, edit: Callable[..., None]) -> Path:
    """The small run with a layer of the user's own in its net, and a deploy net with it."""
    (folder / "my_half.py").write_text(HALF)
    edit("net.prototxt", RELU, RELU.replace("ReLU", "Half"))
    (folder / "deploy.prototxt").write_text(DEPLOY)
    return folder


def test_each_command_that_builds_a_net(half: Path, command: Command) -> None:
    layers = "--layers=my_half"
    assert command("train", "--solver=solver.prototxt", layers)[0] == 0
    model = ("--model=net.prototxt", layers, "--iterations=1")
    assert command("test", *model, "--weights=s_iter_2.caffemodel")[0] == 0
    assert command("time", *model)[0] == 0
    features = ("s_iter_2.caffemodel", "net.prototxt", "conv1", "out.npy", "1", "npy")
    assert command("extract_features", layers, *features)[0] == 0
    assert command("summarize", layers, "deploy.prototxt")[0] == 0
    assert command("visualize", "filters", "deploy.prototxt", "out.png", "--layer=ip", layers)[0] == 0
    assert command("export", "--to=torch", layers, "deploy.prototxt", "out.pt2")[0] == 0
    assert command("draw_net", layers, "--phase=TEST", "deploy.prototxt", "out.dot")[0] == 0
    assert {path.name for path in half.glob("out.*")} == {"out.npy", "out.keys.npy", "out.png", "out.pt2", "out.dot"}


@pytest.mark.parametrize(
    ("method", "name", "args"),
    [
        ("def multiply_adds(self, bottoms, tops):", "half", ("summarize", "deploy.prototxt")),
        ("def doubt(self):", "relu1", ("train", "--solver=solver.prototxt")),
        ("@classmethod\n    def drawn(cls, param):", "half", ("draw_net", "--phase=TEST", "deploy.prototxt", "o.dot")),
    ],
)
def test_a_method_that_raises(half: Path, command: Command, method: str, name: str, args: tuple[str, ...]) -> None:
    (half / "my_half.py").write_text(f"{HALF}\n    {method}\n        return {{}}['k']\n")
    code, err = command(*args, "--layers=my_half")
    lines = [line for line in err.splitlines() if not line.startswith(("I", "W"))]
    called = method.split("def ")[1].split("(")[0]
    line = len(HALF.splitlines()) + 2 + method.count("\n") + 1
    assert code == 1
    assert lines[-1] == f"Error: layer {name!r} (Half): its {called} failed: KeyError: 'k' (my_half.py, line {line})"
    assert "click" not in err and "internal" not in err


def test_classify(half: Path, command: Command) -> None:
    assert command("train", "--solver=solver.prototxt", "--layers=my_half")[0] == 0
    picture = next(path for path in sorted((half / "images").rglob("*.*")))
    flags = (
        "--model_def=deploy.prototxt",
        "--pretrained_model=s_iter_2.caffemodel",
        "--mean_file=",
        "--layers=my_half",
    )
    assert command("classify", str(picture), *flags)[0] == 0


AFFINE = """
import numpy as np

from caffecli import Layer, register
from caffecli.layers.folding import Foldable


@register("Affine")
class Affine(Foldable, Layer):
    blob_order = ("gain", "offset")

    @classmethod
    def factor_and_shift(cls, param, blobs):
        return blobs[0], blobs[1]
"""


def test_converters_that_ask_the_layers_classes(folder: Path, command: Command, fails: Fails) -> None:
    (folder / "my_affine.py").write_text(AFFINE)
    source = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
        layer { name: "a" type: "Affine" bottom: "ip" top: "a" }"""
    (folder / "a.prototxt").write_text(source)
    two = np.array([2, 3], np.float32)
    weights = {"ip": [np.ones((2, 4), np.float32), two], "a": [two, two]}
    caffemodel.write(folder / "a.caffemodel", text.parse(source, NetParameter()), weights)
    files = ("a.prototxt", "a.caffemodel", "out.prototxt", "out.caffemodel")
    assert "it has no BatchNorm, BN or Scale layer" in fails("merge_bn", *files)
    assert command("merge_bn", *files, "--layers=my_affine")[0] == 0
    assert caffemodel.read(folder / "out.caffemodel")["ip"][1].tolist() == [6, 12]
    assert command("convert_weights", "a.caffemodel", "a.npz", "--layers=my_affine")[0] == 0
    assert {"a.gain", "a.offset", "ip.bias"} <= set(np.load("a.npz"))


def test_the_variable(half: Path, command: Command, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown type 'Half'" in fails("train", "--solver=solver.prototxt")
    monkeypatch.setenv("CAFFECLI_LAYERS", "my_half")
    assert command("train", "--solver=solver.prototxt")[0] == 0
    assert "no module 'my_other'" in fails(
        "train", "--solver=solver.prototxt", "--layers=my_other"
    )  # the flag goes before it
    for value, words in (
        ("my_other", "CAFFECLI_LAYERS my_other: no module 'my_other' in "),
        ("my_half.py", "CAFFECLI_LAYERS: 'my_half.py' is no name of a module, such as my_layers"),
    ):
        monkeypatch.setenv("CAFFECLI_LAYERS", value)
        assert fails("train", "--solver=solver.prototxt").startswith(words)


def test_a_package_on_pythons_path(half: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    package = half / "lib" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("from my_package import more\n")
    (package / "more.py").write_text(HALF)
    (half / "my_half.py").unlink()
    monkeypatch.syspath_prepend(half / "lib")
    assert (
        command("time", "--model=net.prototxt", "--iterations=1", "--layers", "my_package.layers,my_package.more")[0]
        == 0
    )


def test_a_module_that_is_loaded_already(half: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(half)
    user_modules.import_module("my_half", [], "here")
    for _ in range(2):
        assert command("time", "--model=net.prototxt", "--iterations=1", "--layers=my_half")[0] == 0


@pytest.mark.usefixtures("ranks_at_once")
def test_in_each_process_of_a_run(half: Path) -> None:
    options = TrainOptions(Path("solver.prototxt"), layers=("my_half",))
    assert launch(work, [torch.device("cpu")] * 2, (options, load.load_solver(options.solver)))


TIME = ("time", "--model=net.prototxt", "--iterations=1")


def test_no_such_module(half: Path, fails: Fails) -> None:
    words = fails(*TIME, "--layers=my_haff")
    assert words.startswith("--layers my_haff: no module 'my_haff' in ")
    assert str(half) in words
    assert words.endswith("; set PYTHONPATH to the folder it is in")


def test_a_module_that_registers_nothing(half: Path, fails: Fails) -> None:
    (half / "my_nothing.py").write_text("x = 1\n")
    words = (
        f'{half}/my_nothing.py registers no layer; put @caffecli.register("MyType") over a class that derives from '
        "caffecli.Layer"
    )
    assert fails(*TIME, "--layers=my_half,my_nothing") == f"--layers my_nothing: {words}"


def test_a_type_registered_twice(half: Path, fails: Fails) -> None:
    (half / "my_half.py").write_text(HALF.replace('"Half"', '"ReLU"'))
    assert fails(*TIME, "--layers=my_half") == (
        "--layers my_half: layer type 'ReLU' is registered twice, by caffecli.layers.activation.ReLU and my_half.Half; "
        "give one of them another name"
    )


def test_an_import_that_raises(half: Path, command: Command) -> None:
    (half / "my_half.py").write_text("import math\n\nhalf = math.sqrt(-1)\n")
    code, err = command(*TIME, "--layers=my_half")
    lines = err.splitlines()
    assert code == 1
    assert lines[1:3] == ["Traceback (most recent call last):", f'  File "{half}/my_half.py", line 3, in <module>']
    assert lines[-2:] == [
        "ValueError: math domain error",
        "Error: --layers my_half: import: ValueError: math domain error",
    ]
    assert "importlib" not in err


def test_an_import_in_it_that_fails(half: Path, command: Command) -> None:
    (half / "my_half.py").write_text("import my_missing\n")
    code, err = command(*TIME, "--layers=my_half")
    assert code == 1
    assert err.splitlines()[2] == f'  File "{half}/my_half.py", line 1, in <module>'
    assert err.endswith("Error: --layers my_half: import: ModuleNotFoundError: No module named 'my_missing'\n")


@pytest.mark.parametrize("name", ["my_half.py", "my_half,", "lib/my_half", "my half", "my_half.2"])
def test_names_of_modules(fails: Fails, name: str) -> None:
    assert "is no name of a module, such as my_layers or package.my_layers." in fails(*TIME, f"--layers={name}", code=2)
