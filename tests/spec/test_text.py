"""Prototxts: what is read, how it is printed, and the words of the errors."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.proto import forks
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, PowerParameter, SolverParameter
from caffecli.spec import text
from caffecli.spec.instead import INSTEAD


def solver(source: str) -> SolverParameter:
    return text.parse(source, SolverParameter(), "s.prototxt")


@pytest.mark.parametrize(
    ("source", "field", "value"),
    [
        ("base_lr: 0.5f", "base_lr", 0.5),
        ("base_lr: 1.f", "base_lr", 1.0),
        ("base_lr: .5", "base_lr", 0.5),
        ("base_lr: 1.", "base_lr", 1.0),
        ("base_lr: - 2", "base_lr", -2.0),
        ("base_lr: -inf", "base_lr", float("-inf")),
        ("base_lr: 1e99", "base_lr", float("inf")),
        ("base_lr: 1E-2 # a 'comment'\n", "base_lr", pytest.approx(0.01)),
        ("max_iter: 0x10", "max_iter", 16),
        ("max_iter: 010", "max_iter", 8),
        ("random_seed: -1", "random_seed", -1),
        ("solver_mode: 1", "solver_mode", SolverParameter.GPU),
        ("solver_mode: GPU", "solver_mode", SolverParameter.GPU),
        ("debug_info: t", "debug_info", True),
        ("debug_info: 0", "debug_info", False),
        ("lr_policy: 'a # - 1' \"b\"", "lr_policy", "a # - 1b"),
        (r"net: 'a\tb\303\251\x41\''", "net", "a\tbéA'"),
        ("test_iter: [1, 2], display: 3; test_iter: 4", "test_iter", [1, 2, 4]),
        ("\ufeffdisplay: 3\r\n", "display", 3),
    ],
)
def test_spellings_that_cpp_reads(tmp_path: Path, source: str, field: str, value: object) -> None:
    path = tmp_path / "s.prototxt"
    path.write_bytes(source.encode())
    assert getattr(text.read(path, SolverParameter), field) == value


@pytest.mark.parametrize("source", ["net_param { name: 'n' }", "net_param: { name: 'n' };", "net_param < name: 'n' >,"])
def test_braces(source: str) -> None:
    assert solver(source).net_param.name == "n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("base_lrr: 1", "s.prototxt:1:1: unknown field 'base_lrr' in SolverParameter; did you mean 'base_lr'?"),
        (
            "display: 1\n\n  Base_LR: 1",
            "s.prototxt:3:3: unknown field 'Base_LR' in SolverParameter; did you mean 'base_lr'?",
        ),
        ("zzz: 1", "s.prototxt:1:1: unknown field 'zzz' in SolverParameter"),
        (
            "name: 'n'",
            "s.prototxt:1:1: unknown field 'name' in SolverParameter; it is one of NetParameter: is this a net file?",
        ),
        ("solver_mode: GPUU", "s.prototxt:1:14: unknown value 'GPUU' for SolverMode; did you mean 'GPU'?"),
        ("solver_mode: 7", "s.prototxt:1:14: unknown value '7' for SolverMode; expected one of CPU (0), GPU (1)"),
        ("solver_mode: 'GPU'", "s.prototxt:1:14: expected GPU, a name without quotes"),
        ("base_lr: 1\nbase_lr: 2", "s.prototxt:2:10: field 'base_lr' is given a second time; it holds one value"),
        ("base_lr 0.1", "s.prototxt:1:9: expected ':', got 0.1"),
        ("base_lr: x", "s.prototxt:1:10: expected a number, got x"),
        (
            "max_iter: cls3x",
            "s.prototxt:1:11: expected a whole number, got cls3x; if this is a template, give the file that its script "
            "writes",
        ),
        ("base_lr: 0x10", "s.prototxt:1:10: expected a number, got 0x10"),
        ("max_iter: 1e3", "s.prototxt:1:11: expected a whole number, got 1e3"),
        ("max_iter: 99999999999", "s.prototxt:1:11: 99999999999 is out of range for this field"),
        (
            "type: 'SGD' device_id: [0, 1]",
            "s.prototxt:1:24: field 'device_id' holds one value, got a list, as TSN (yjxiong/caffe) has it; "
            "keep one GPU here, and give --gpu 0,1 to train on several",
        ),
        ("test_iter: [1] max_iter: [\n1]", "s.prototxt:1:26: field 'max_iter' holds one value, got a list"),
        ("lr_policy: fixed", 's.prototxt:1:12: expected a text in quotes, got fixed; write "fixed"'),
        ("lr_policy: 'fixed", "s.prototxt:1:12: the quote is not closed: 'fixed"),
        ("debug_info: yes", "s.prototxt:1:13: expected 'true' or 'false', got yes"),
        ("net_param {\n  name: '}' # }\n", "s.prototxt:1:11: the '{' here is not closed"),
        ("display: 1 }", "s.prototxt:1:12: a } with nothing to close"),
        ("display: 1 / 2", "s.prototxt:1:12: expected a field's name, got /"),
        ("base_lr:", "s.prototxt:1:9: expected a number, but the line or the file ends"),
        (
            "net_param { layer { clip_param { min: 0 } } }",
            "s.prototxt: required field(s) are missing: net_param.layer[0].clip_param.max",
        ),
    ],
)
def test_errors_say_where_and_what(source: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        solver(source)
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "layer { kernel_size: 5 }",
            "unknown field 'kernel_size' in LayerParameter; it belongs in convolution_param or pooling_param",
        ),
        (
            "layer { name: 'a'\nlayer { name: 'b' }",
            "n:2:1: unknown field 'layer' in LayerParameter; is a '}' missing before it?",
        ),
        ("layer { type: 5 }", "n:1:15: expected a text in quotes, got 5"),
        ("layers { type: CONV }", "unknown value 'CONV' for LayerType; did you mean 'CONVOLUTION'?"),
        ("layer { bias_term: true }", "it belongs in convolution_param or inner_product_param or "),
        ("layer { scal: 1 }", "unknown field 'scal' in LayerParameter; did you mean 'scale_param'?"),
        ("net_param { net: 'x' }", "unknown field 'net_param' in NetParameter; it is one of SolverParameter"),
        ("layer {\f name: 'a'\u2028\n clip_param { \n}", "n:1:7: the '{' here is not closed"),
        ("layers { type: ZZ }", "unknown value 'ZZ' for LayerType; expected one of NONE (0), ABSVAL (35), "),
        ("layers { type: CONVOLUTON }", "unknown value 'CONVOLUTON' for LayerType; did you mean 'CONVOLUTION'?"),
        ("base_lr: 1", "it is one of SolverParameter: is this a solver file?"),
        (
            "layer { detection_output_param { coords: 4 } }",
            "unknown field 'coords' in DetectionOutputParameter; it is one of YOLO's DetectionOutput "
            '(gklz1982/caffe-yolov2); write type: "YoloDetectionOutput" and yolo_detection_output_param',
        ),
        ("layer { pooling_param {} pooling_param {} }", "field 'pooling_param' is given a second time"),
    ],
)
def test_errors_in_nets(source: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        text.parse(source, NetParameter(), "n")
    assert words in str(error.value)


def test_files_that_hold_no_prototxt(tmp_path: Path, golden: Path) -> None:
    def words(path: Path) -> str:
        with pytest.raises(SpecError) as error:
            text.read(path, NetParameter)
        return str(error.value).replace(str(tmp_path), "T")

    assert words(tmp_path / "none") == "cannot read 'T/none': No such file or directory; check the path"
    assert words(tmp_path) == "cannot read 'T': it is a folder; give a prototxt file"
    empty = tmp_path / "empty"
    empty.write_text("# only a comment\n")
    assert words(empty) == "'T/empty' is empty; expected a prototxt, the text of a NetParameter"
    assert words(golden / "lenet" / "lenet_iter_10000.caffemodel").endswith(
        "is a binary file; expected a prototxt, the text of a NetParameter"
    )


@pytest.mark.parametrize(("encoding", "title", "name"), [("gbk", "GBK", "网络"), ("latin-1", "Latin-1", "modèle")])
def test_texts_in_another_encoding_are_read_with_a_word(
    encoding: str, title: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "n.prototxt"
    path.write_bytes(f'force_backward: true\nname: "{name}"'.encode(encoding))
    handler = logs.show()
    net = text.read(path, NetParameter)
    logs.hide(handler)
    assert net.name == name
    assert re.search(rf"{path}:2:\d+: not UTF-8; read as {title}", capsys.readouterr().err)
    assert text.parse(text.format(net), NetParameter()) == net


@pytest.mark.parametrize(
    ("message", "line", "hint"),
    [
        (
            NetParameter(),
            'layer { name: "a" blobs_lr: 1 }',
            "; now it is param { lr_mult: ... }, one param for each blob",
        ),
        (NetParameter(), "layer { weight_decay: 1 }", "; in a layer it is param { decay_mult: ... }"),
        (NetParameter(), "layer { lr: 1 }", "; it is param { lr_mult: ... }"),
        (NetParameter(), "layer { convolution_param { kernel_width: 1 } }", "; it is called kernel_w"),
        (NetParameter(), "layer { data_param { is_color: true } }", "; a database's pictures have the channels"),
        (SolverParameter(), "learning_rate: 1", "; it is called base_lr"),
        (SolverParameter(), "snapshot_interval: 1", "; it is called snapshot"),
        (SolverParameter(), "beta1: 1", "; Adam's beta1 is called momentum"),
        (SolverParameter(), "batch_size: 1", "; it stands in the net, in the layer that reads the data"),
    ],
)
def test_names_of_other_times_and_programs(message: Message, line: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        text.parse(line, message)
    assert hint in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_comments_may_be_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "n.prototxt"
    path.write_bytes("name: 'a # b' # 网络\n# 层\n".encode("gbk") + b"force_backward: true")
    assert text.read(path, NetParameter) == NetParameter(name="a # b", force_backward=True)


def test_nested_too_deep_is_an_error() -> None:
    net = "net_param { layer { transform_param { " * 5000
    with pytest.raises(SpecError):
        solver(net)


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.0001, "0.0001"),
        (0.00005, "5e-05"),
        (0.1, "0.1"),
        (1e6, "1e+06"),
        (100000, "100000"),
        (16777216, "16777216"),
        (123456789, "123456792"),
        (1 / 3, "0.333333343"),
        (1e20, "1e+20"),
        (-0.0, "-0"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_floats_print_as_the_reference_prints_them(value: float, printed: str) -> None:
    assert text.format(PowerParameter(scale=value)) == f"scale: {printed}\n"


def test_format() -> None:
    layer = LayerParameter(
        name='é"\n', type="Data", bottom=["a", "b"], include=[{"phase": "TEST"}], propagate_down=[True]
    )
    layer.blobs.add(double_data=[0.1, 1e15])
    layer.pooling_param.SetInParent()
    assert text.format(layer) == (
        'name: "\\303\\251\\"\\n"\ntype: "Data"\nbottom: "a"\nbottom: "b"\n'
        "blobs {\n  double_data: 0.1\n  double_data: 1e+15\n}\n"
        "include {\n  phase: TEST\n}\npropagate_down: true\npooling_param {\n}\n"
    )


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.lists(st.floats(width=32, allow_nan=False)),
    st.lists(st.integers(-(2**31), 2**31 - 1)),
    st.floats(allow_nan=False),
)
def test_what_is_printed_reads_back_the_same(name: str, weights: list[float], axes: list[int], double: float) -> None:
    layer = LayerParameter(name=name, loss_weight=weights, blobs=[{"double_data": [double]}])
    layer.slice_param.slice_point.extend(abs(axis) for axis in axes)
    layer.softmax_param.axis = axes[0] if axes else 1
    printed = text.format(layer)
    assert text.parse(printed, LayerParameter()) == layer
    assert text_format.Parse(printed, LayerParameter()) == layer


def test_a_long_net_is_read_and_printed_within_a_second() -> None:
    layer = (
        'layer {\n name: "c%d"\n type: "Convolution"\n param {\n lr_mult: 1\n }\n convolution_param {\n num_output: '
        "20\n }\n}\n"
    )
    source = "".join(layer % i for i in range(700))
    start = time.process_time()
    net = text.parse(source, NetParameter())
    assert text.format(net).replace("  ", "") == source.replace("\n ", "\n")
    assert time.process_time() - start < 1


def test_what_stands_in_a_message_of_which_nothing_is_known_is_stepped_over(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logs, "warning", lambda source, words: said.append(words))
    read = text.parse(
        'layer { apl_param: < a: "}>" b { c: 1 } # >\n > name: "x" densecrf_param { } }', NetParameter(), "net"
    )
    assert text.format(read.layer[0]) == 'name: "x"\ndensecrf_param {\n}\napl_param {\n}\n'
    assert said == ["net: what stands in apl_param is not known here, and left out"]
    assert text.parse('name: "apl_param { x }" # apl_param { x', NetParameter()).name == "apl_param { x }"
    with pytest.raises(SpecError, match=r"<string>:3:4: unknown field 'nam' in LayerParameter"):
        text.parse("layer { apl_param { a: 1\n b: 2 }\n   nam: 'x' }", NetParameter())
    with pytest.raises(SpecError, match=r"<string>:1:19: the '{' here is not closed"):
        text.parse("layer { apl_param { a: 1", NetParameter())


def test_the_names_that_hints_give_are_there() -> None:
    """A wrong hint is worse than none."""
    messages = LayerParameter.DESCRIPTOR.file.message_types_by_name.values()
    everywhere = {field.name for message in messages for field in message.fields}
    for message, hints in INSTEAD.items():
        fields = LayerParameter.DESCRIPTOR.file.message_types_by_name[message].fields_by_name
        for name, hint in hints.items():
            known = name in fields and forks.is_of_reference(message, fields[name].number)
            assert not known, f"{message} has {name} itself"
            if hint.startswith("it is called "):
                first, _, second = hint.removeprefix("it is called ").partition(":")[0].partition(" or ")
                assert {first, second or first} <= set(fields), f"{message}.{name}: {hint}"
            named = set(re.findall(r"(?<![-\w])[a-z]+_\w+", hint)) - {"convert_imageset", "keep_prob", "keep_ratio"}
            assert named <= everywhere, f"{message}.{name}: {hint}"


def test_several_sizes_beside_the_one_of_ssds_programs() -> None:
    """MobileNet-YOLO's ``resize_param`` is repeated, SSD's is not: ``layer.transform_param.resize_param.height``."""
    sizes = "resize_param { height: 3 } # resize_param { }\n resize_param { height: 5 } resize_param: < height: 7 >"
    net = f"layer {{ transform_param {{ {sizes} }} }} layer {{ transform_param {{ resize_param {{ height: 9 }} }} }}"
    first, second = (layer.transform_param for layer in text.parse(net, NetParameter()).layer)
    assert first.resize_param.height == 3 and [each.height for each in first.resize_other] == [5, 7]
    assert second.resize_param.height == 9 and not second.resize_other
    again = text.format(first)
    assert again.count("resize_param {") == 3 and "other" not in again
    assert text.parse(f"transform_param {{ {again} }}", LayerParameter()).transform_param == first
    with pytest.raises(SpecError, match=r":2:17: unknown field 'hight' in ResizeParameter"):
        text.parse("layer { transform_param { resize_param {}\n resize_param { hight: 1 } } }", NetParameter())
    twice = "layer { detection_evaluate_param { resize_param {} resize_param {} } }"
    with pytest.raises(SpecError, match="field 'resize_param' is given a second time"):
        text.parse(twice, NetParameter())
