"""Old nets and solvers: the recorded answers, and each branch by itself."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.proto import forks
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter, V0LayerParameter, V1LayerParameter
from caffecli.proto.fork_types import TYPES
from caffecli.spec import text, upgrade, upgrade_v0, upgrade_v1
from caffecli.spec.upgrade import needs_upgrade, upgrade_net, upgrade_net_checked, upgrade_solver

NETS = ["v0_small", "v1_lenet", "v1_include_share", "bn_with_params"]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, without glog's prefix but for the level."""
    stream = io.StringIO()
    handler = logs.show(stream)
    yield stream
    logs.hide(handler)


def lines(log: io.StringIO) -> list[str]:
    return [re.sub(r"^([IWE])\d+ [\d:.]+ \d+ ", r"\1 ", line) for line in log.getvalue().splitlines()]


def net(source: str) -> NetParameter:
    return text.parse(source, NetParameter())


def refuses(source: str) -> str:
    with pytest.raises(SpecError) as error:
        upgrade_net(net(source), "n.prototxt")
    return str(error.value)


@pytest.mark.parametrize("name", NETS)
def test_recorded_nets(golden: Path, log: io.StringIO, name: str) -> None:
    old = text.read(golden / "upgrade" / f"{name}.prototxt", NetParameter)
    copy = NetParameter()
    copy.CopyFrom(old)
    recorded = (golden / "upgrade" / f"{name}.upgraded.prototxt").read_text()
    assert needs_upgrade(old)
    upgraded, complete = upgrade_net_checked(old, f"{name}.prototxt")
    assert complete
    assert upgraded == text.parse(recorded, NetParameter())
    assert text.format(upgraded) == recorded
    assert old == copy
    wanted = (golden / "upgrade" / f"{name}.log").read_text().splitlines()[:-1]  # the last is the tool's
    assert lines(log) == [re.sub(r"^([IWE])\d+ [\d:.]+ \d+ ", r"\1 ", line) for line in wanted]


def test_recorded_solver(golden: Path, log: io.StringIO) -> None:
    old = text.read(golden / "upgrade" / "solver_enum.prototxt", SolverParameter)
    assert (
        text.format(upgrade_solver(old, "solver_enum.prototxt"))
        == (golden / "upgrade" / "solver_enum.upgraded.prototxt").read_text()
    )
    wanted = (golden / "upgrade" / "solver_enum.log").read_text().splitlines()[:-1]
    assert lines(log) == [re.sub(r"^([IWE])\d+ [\d:.]+ \d+ ", r"\1 ", line) for line in wanted]


@pytest.mark.parametrize(
    ("old", "new"),
    [(0, "SGD"), (1, "Nesterov"), (2, "AdaGrad"), (3, "RMSProp"), (4, "AdaDelta"), (5, "Adam")],
)
def test_solver_types(old: int, new: str) -> None:
    assert upgrade_solver(text.parse(f"solver_type: {old}", SolverParameter())) == SolverParameter(type=new)


def test_solver_that_is_up_to_date_stays() -> None:
    solver = SolverParameter(type="Adam")
    assert upgrade_solver(solver) is solver


def test_solver_with_both_types() -> None:
    with pytest.raises(SpecError) as error:
        upgrade_solver(SolverParameter(type="Adam", solver_type="SGD"), "s.prototxt")
    assert str(error.value) == "s.prototxt: the solver has both 'solver_type' (old) and 'type'; remove 'solver_type'"


def test_net_that_is_up_to_date_stays() -> None:
    new = net("layer { name: 'a' type: 'ReLU' param { } } state { phase: TEST } input_dim: 3")
    assert not needs_upgrade(new)
    assert upgrade_net(new) is new


def test_every_v1_type_has_a_present_name() -> None:
    types = V1LayerParameter.LayerType.items()
    ours = [name for name, number in types if forks.is_of_reference("V1LayerParameter.LayerType", number)]
    assert set(upgrade_v1.TYPE_NAMES) == {*ours, "CROP"}


def test_v1_types_of_forks_get_the_names_that_they_have_today() -> None:
    types = V1LayerParameter.LayerType.items()
    named = {name: upgrade_v1._type(name) for name, _ in types if name not in upgrade_v1.TYPE_NAMES}
    known = {name for types in TYPES.values() for name in types.split()}
    assert (named["IMAGE_SEG_DATA"], named["CONVOLUTION3D"], named["BN"]) == ("ImageSegData", "Convolution3D", "BN")
    assert set(named.values()) <= known
    apart = ("NORMALIZE", "BATCH_NORM", "ELTWISE_PRODUCT", "DICE_LOSS")  # they are not what has this name today
    assert [named[name] for name in apart] == list(apart)


def test_every_v1_setting_has_a_place() -> None:
    present = {field.name for field in LayerParameter.DESCRIPTOR.fields}
    ours = [
        each for each in V1LayerParameter.DESCRIPTOR.fields if forks.is_of_reference("V1LayerParameter", each.number)
    ]
    assert {field.name for field in ours} - upgrade_v1._CHANGED <= present


def test_every_v0_setting_has_a_place_or_a_line() -> None:
    known = set(upgrade_v0._COMMON) | set(upgrade_v0._LINES) | upgrade_v0._IGNORED
    assert {field.name for field in V0LayerParameter.DESCRIPTOR.fields} == known
    assert set(upgrade_v0._PLACES) <= set(upgrade_v0._TYPES)


def test_v1_params_are_as_many_as_the_longest_of_their_parts() -> None:
    old = "layers { param: 'w' blob_share_mode: [STRICT, PERMISSIVE] blobs_lr: [1, 2, 0] weight_decay: 3 }"
    assert upgrade_net(net(old)) == net(
        "layer { param { name: 'w' share_mode: STRICT lr_mult: 1 decay_mult: 3 } "
        "param { share_mode: PERMISSIVE lr_mult: 2 } param { lr_mult: 0 } }"
    )


def test_v1_keeps_blobs_rules_weights_and_empty_messages() -> None:
    rest = (
        "name: 'a' bottom: 'b' top: 't' loss_weight: 2 blobs { num: 1 data: 3 } "
        "include { stage: 's' } pooling_param { } loss_param { }"
    )
    whole = "name: 'n' state { level: 2 } force_backward: true debug_info: true"
    assert upgrade_net(net(f"{whole} layers {{ {rest} type: POOLING }}")) == net(
        f"{whole} layer {{ {rest} type: 'Pooling' }}"
    )


def test_data_settings_move_and_leave_both_messages() -> None:
    for kind, name, param in [
        ("DATA", "Data", "data_param"),
        ("IMAGE_DATA", "ImageData", "image_data_param"),
        ("WINDOW_DATA", "WindowData", "window_data_param"),
    ]:
        old = net(
            f"layers {{ type: {kind} {param} {{ scale: 2 mean_file: 'm' crop_size: 3 mirror: true batch_size: 4 }} }} "
            "layers { type: DATA }"
        )
        assert upgrade_net(old) == net(
            f"layer {{ type: '{name}' {param} {{ batch_size: 4 }} "
            "transform_param { scale: 2 mean_file: 'm' crop_size: 3 mirror: true } } "
            "layer { type: 'Data' data_param { } transform_param { } }"
        )


def test_data_settings_of_other_layers_stay() -> None:
    assert upgrade_net(net("layers { type: RELU data_param { scale: 2 } }")) == net(
        "layer { type: 'ReLU' data_param { scale: 2 } }"
    )


def test_inputs_become_an_input_layer() -> None:
    layer = "layer { name: 'r' type: 'ReLU' bottom: 'a' top: 'r' }"
    for dims in (
        "input_dim: [1, 2, 3, 4, 5, 6, 7, 8]",
        "input_shape { dim: [1, 2, 3, 4] } input_shape { dim: [5, 6, 7, 8] }",
    ):
        assert upgrade_net(net(f"input: 'a' input: 'b' {dims} {layer}")) == net(
            "layer { name: 'input' type: 'Input' top: 'a' top: 'b' "
            f"input_param {{ shape {{ dim: [1, 2, 3, 4] }} shape {{ dim: [5, 6, 7, 8] }} }} }} {layer}"
        )


def test_inputs_without_shapes_are_dropped() -> None:
    assert upgrade_net(net("input: 'a' layer { name: 'r' }")) == net("layer { name: 'r' }")


def test_inputs_with_too_few_dimensions() -> None:
    assert refuses("input: 'a' input: 'b' input_dim: [1, 2, 3, 4]") == (
        "n.prototxt: expected 4 input_dim for each of the 2 input(s), got 4"
    )
    assert refuses("input: 'a' input: 'b' input_shape { dim: 3 }") == (
        "n.prototxt: expected an input_shape for each of the 2 input(s), got 1"
    )


def test_batch_norm_keeps_the_names_of_its_params() -> None:
    old = "layer { type: 'BatchNorm' param { name: 'a' lr_mult: 3 } param { } param { decay_mult: 2 } } "
    old += "layer { type: 'BatchNorm' param { } }"
    zero = "lr_mult: 0 decay_mult: 0"
    assert upgrade_net(net(old)) == net(
        f"layer {{ type: 'BatchNorm' param {{ name: 'a' {zero} }} param {{ {zero} }} param {{ {zero} }} }} "
        "layer { type: 'BatchNorm' param { } }"
    )


def test_v0_padding_is_folded_into_each_reader() -> None:
    old = net(
        "input: 'x' input_dim: [1, 1, 4, 4] layers { layer { name: 'p' type: 'padding' pad: 2 } bottom: 'x' top: 'p' } "
        "layers { layer { name: 'c' type: 'conv' pad: 9 } bottom: 'p' top: 'c' } "
        "layers { layer { name: 'm' type: 'pool' } bottom: 'p' top: 'm' }"
    )
    upgraded = upgrade_net(old)
    assert [layer.name for layer in upgraded.layer] == ["input", "c", "m"]
    assert [list(layer.bottom) for layer in upgraded.layer] == [[], ["x"], ["x"]]
    assert list(upgraded.layer[1].convolution_param.pad) == [2]
    assert upgraded.layer[2].pooling_param.pad == 2


def test_v0_settings_that_find_no_place_are_logged(log: io.StringIO) -> None:
    upgraded, complete = upgrade_net_checked(
        net("layers { layer { type: 'relu' name: 'r' stride: 2 shuffle_images: true new_num: 3 blobs { data: 1 } } }"),
        "n.prototxt",
    )
    assert not complete
    assert upgraded == net("layer { type: 'ReLU' name: 'r' blobs { data: 1 } }")
    assert lines(log)[1:4] == [
        "E upgrade_proto.cpp:316] Unknown parameter stride for layer type relu",
        "E upgrade_proto.cpp:458] Unknown parameter shuffle for layer type relu",
        "E upgrade_proto.cpp:33] Warning: had one or more problems upgrading V0NetParameter to NetParameter (see "
        "above); continuing anyway.",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "layer { } layers { }",
            "n.prototxt: the net has both 'layer' and 'layers' fields; write all as layer { type: ",
        ),
        ("layer { } layers { layer { } }", "the net has both 'layer' and 'layers' fields"),
        (
            "layers { layer { type: 'relu' } } layers { name: 'b' type: RELU }",
            "layers 1 ('b') is of the V1 format in a net of the V0",
        ),
        ("layers { layer { name: 'a' type: 'convv' } }", "layer 'a': unknown V0 type 'convv'; did you mean 'conv'?"),
        ("layers { layer { name: 'a' type: 'conv' } bottom: 'x' }", "layer 'a': unknown bottom blob 'x'"),
        (
            "input: 'x' layers { layer { name: 'p' type: 'padding' } bottom: 'x' top: 'p' } "
            "layers { layer { name: 'r' type: 'relu' } bottom: 'p' }",
            "layer 'r' (relu): reads the padding layer 'p'; only a conv or pool layer can",
        ),
        (
            "input: 'x' layers { layer { name: 'p' type: 'padding' } bottom: 'x' top: 'p' top: 'q' } "
            "layers { layer { name: 'c' type: 'conv' } bottom: 'p' }",
            "layer 'c': it and the padding layer 'p' it reads must have one bottom each, and the padding layer one top",
        ),
    ],
)
def test_old_nets_that_never_were_valid(source: str, words: str) -> None:
    assert words in refuses(source)


def test_upgrading_twice_changes_nothing(golden: Path) -> None:
    for name in NETS:
        once = upgrade.upgrade_net(text.read(golden / "upgrade" / f"{name}.prototxt", NetParameter))
        assert upgrade.upgrade_net(once) == once


@pytest.mark.parametrize(
    "settings",
    [
        "softmaxloss_param { ignore_label: 3 }",
        "window_cls_data_param { }",
        "strict_dim: false",
        "multi_stage_meanfield_param { num_iterations: 5 }",
    ],
)
def test_what_forks_add_to_v1_layers_goes_on(settings: str) -> None:
    new = upgrade_net(net(f"layers {{ name: 'x' type: SOFTMAX_LOSS {settings} }}"))
    assert new == net(f"layer {{ name: 'x' type: 'SoftmaxWithLoss' {settings} }}")
    assert NetParameter.FromString(new.SerializeToString()) == new


def test_a_v1_setting_whose_name_is_another_message_today_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logs, "warning", lambda source, words: said.append(words))
    assert upgrade_net(net("layers { name: 'u' type: UNPOOLING unpooling_param { } }")) == net(
        "layer { name: 'u' type: 'Unpooling' }"
    )
    assert "Layer 'u': unpooling_param has no place in the present form, and is left out" in said
