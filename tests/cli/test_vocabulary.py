"""One set of flags in all commands: the new names, the old ones, and the arguments in their places."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffecli.cli.main import COMMANDS, load_command
from caffecli.cli.options import CaffeCommand, Option

Command = Callable[..., tuple[int, str]]

NET = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "prob" type: "Softmax" bottom: "bn" top: "prob" }
"""
#: what is called otherwise in other commands
OLD = {"model_def", "pretrained_model", "mean_file", "mean_value", "input_scale"}


def options(name: str) -> list[Option]:
    return [param for param in load_command(name).params if isinstance(param, Option)]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_name_is_one_flag_and_old_ones_stand_in_no_help(name: str) -> None:
    command = load_command(name)
    assert isinstance(command, CaffeCommand)
    names = [opt.lstrip("-") for param in command.params for opt in param.opts]
    aliases = [alias for option in options(name) for alias in option.aliases if alias != "v"]
    assert len({*names, *aliases}) == len(set(names)) + len(aliases)
    assert not OLD & set(names)


def test_flags_that_several_commands_take_say_the_same() -> None:
    asked = {
        "model": "classify detect draw_net export extract_features merge_bn summarize test time visualize",
        "weights": "classify detect export extract_features merge_bn summarize test time train visualize",
        "mean": "classify detect visualize",
        "scale": "classify detect visualize",
        "like": "classify detect visualize",
        "rgb": "classify detect visualize",
        "gpu": "classify detect extract_features test time train device_query",
        "labels": "classify detect score_detections",
    }
    for flag, commands in asked.items():
        for name in commands.split():
            assert any(f"--{flag}" in param.opts for param in load_command(name).params), f"{name} has no --{flag}"
    for flag in ("mean", "scale", "like"):
        assert (
            len({next(o.help for o in load_command(n).params if f"--{flag}" in o.opts) for n in asked[flag].split()})
            == 1
        )


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    caffe.Net("net.prototxt", caffe.TEST).save("w.caffemodel")
    cv2.imwrite("p.png", np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8))


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("draw_net {net} out.dot", "out.dot"),
        ("merge_bn {net_weights} out.prototxt out.caffemodel", "out.caffemodel"),
        ("export {net_weights} out.safetensors", "out.safetensors"),
        ("visualize filters {net_weights} out.png --layer conv", "out.png"),
        ("visualize saliency {net_weights} out.png --layer conv --image p.png --mean 1,2,3 --scale .5", "out.png"),
    ],
)
def test_the_net_by_flags_or_in_its_place(net: None, command: Command, words: str, made: str) -> None:
    flags = {"net": "--model net.prototxt", "net_weights": "--weights=w.caffemodel --model=net.prototxt"}
    old = {"net": "-model_def net.prototxt", "net_weights": "--pretrained_model w.caffemodel --model-def net.prototxt"}
    places = {"net": "net.prototxt", "net_weights": "net.prototxt w.caffemodel"}
    files = []
    for form in (flags, old, places):
        code, err = command(*words.format(**form).split())
        assert code == 0, err
        files.append(Path(made).read_bytes())
        Path(made).unlink()
    assert len(set(files)) == 1


def test_export_by_the_ending(net: None, command: Command) -> None:
    given = ("--model=net.prototxt", "--weights=w.caffemodel")
    code, err = command("export", "out", *given)
    assert code == 2 and "OUT 'out' ends in none of .onnx, .pt2, .safetensors, .npy; name it so, or say --to" in err
    assert command("export", "net.prototxt", "OUT.SAFETENSORS")[0] == 0
    code, err = command("export", *given, "a", "b")
    assert code == 2 and "expected OUT with --model (and --weights), or NET [WEIGHTS] OUT; got 'a b'." in err


def test_extract_features_by_flags_or_in_their_places(folder: Path, command: Command) -> None:
    caffe.Net("net.prototxt", caffe.TEST).save("w.caffemodel")
    made = []
    rest = ["ip1", "out.npy", "2", "npy"]
    for words in (
        ["w.caffemodel", "net.prototxt", *rest, "CPU"],
        [*rest, "--model=net.prototxt", "--weights=w.caffemodel"],
        ["--weights=w.caffemodel", "net.prototxt", *rest, "--gpu=0", "--cpu"],
    ):
        code, err = command("extract_features", *words)
        assert code == 0, err
        made.append(np.load("out.npy"))
        for path in Path().glob("out*.npy"):
            path.unlink()
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])
    code, err = command("extract_features", "w.caffemodel", "net.prototxt", "ip2")
    assert code == 2 and re.search(r"expected BLOB and OUT, and the net by --model and --weights; got 'w", err)
