"""Split layers: the reference's names, and a graph that stays the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.spec import text
from caffecli.spec.filter import filter_net
from caffecli.spec.splits import insert_splits


def net(*layers: str) -> NetParameter:
    return text.parse("".join(f"layer {{ {layer} }}" for layer in layers), NetParameter())


def shape(layer: LayerParameter) -> tuple[str, list[str], list[str], list[float]]:
    return layer.name, list(layer.bottom), list(layer.top), list(layer.loss_weight)


def test_no_split_where_each_blob_is_read_once() -> None:
    given_net = net("name: 'd' top: 'x' top: 'y'", "name: 'l' bottom: 'x' bottom: 'y'")
    assert insert_splits(given_net) == given_net


def test_names() -> None:
    split = insert_splits(
        net(
            "name: 'd' top: 'x' top: 'y'",
            "name: 'a' bottom: 'y' top: 'a'",
            "name: 'l' bottom: 'a' bottom: 'y' bottom: 'x'",
        )
    )
    assert [shape(layer) for layer in split.layer] == [
        ("d", [], ["x", "y"], []),
        ("y_d_1_split", ["y"], ["y_d_1_split_0", "y_d_1_split_1"], []),
        ("a", ["y_d_1_split_0"], ["a"], []),
        ("l", ["a", "y_d_1_split_1", "x"], [], []),
    ]
    assert split.layer[1].type == "Split"


def test_in_place_layers_make_new_tops_of_the_same_name() -> None:
    split = insert_splits(
        net(
            "name: 'd' top: 'x'",
            "name: 'r' bottom: 'x' top: 'x'",
            "name: 'a' bottom: 'x'",
            "name: 'b' bottom: 'x' bottom: 'x'",
        )
    )
    assert [shape(layer) for layer in split.layer] == [
        ("d", [], ["x"], []),
        ("r", ["x"], ["x"], []),
        ("x_r_0_split", ["x"], ["x_r_0_split_0", "x_r_0_split_1", "x_r_0_split_2"], []),
        ("a", ["x_r_0_split_0"], [], []),
        ("b", ["x_r_0_split_1", "x_r_0_split_2"], [], []),
    ]


def test_a_loss_weight_counts_as_a_reader_and_moves_to_the_split() -> None:
    split = insert_splits(
        net("name: 'd' top: 'x'", "name: 'p' bottom: 'x' top: 'p' loss_weight: 2.5", "name: 'l' bottom: 'p'")
    )
    assert [shape(layer) for layer in split.layer][1:] == [
        ("p", ["x"], ["p"], []),
        ("p_p_0_split", ["p"], ["p_p_0_split_0", "p_p_0_split_1"], [2.5, 0.0]),
        ("l", ["p_p_0_split_1"], [], []),
    ]


def test_a_loss_weight_of_zero_counts_for_nothing() -> None:
    given_net = net("name: 'd' top: 'x' loss_weight: 0", "name: 'l' bottom: 'x'")
    assert insert_splits(given_net) == given_net


def test_the_other_tops_of_a_layer_keep_their_loss_weights() -> None:
    split = insert_splits(net("name: 'd' top: 'x' top: 'y' loss_weight: 2 loss_weight: 3", "name: 'l' bottom: 'x'"))
    assert [shape(layer) for layer in split.layer] == [
        ("d", [], ["x", "y"], [0.0, 3.0]),
        ("x_d_0_split", ["x"], ["x_d_0_split_0", "x_d_0_split_1"], [2.0, 0.0]),
        ("l", ["x_d_0_split_1"], [], []),
    ]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (
            ["name: 'd' top: 'data'", "name: 'c' bottom: 'dta'"],
            "layer 'c': unknown bottom blob 'dta'; did you mean 'data'?",
        ),
        (["name: 'c' bottom: 'z'"], "layer 'c': unknown bottom blob 'z'; no layer makes it"),
        (
            ["name: 'c' bottom: 'z'", "name: 'd' top: 'z'"],
            "unknown bottom blob 'z'; layer 'd' makes it, and must come before",
        ),
    ],
)
def test_unknown_bottoms(layers: list[str], words: str) -> None:
    with pytest.raises(SpecError) as error:
        insert_splits(net(*layers))
    assert words in str(error.value)


def test_a_bottom_that_another_phase_has() -> None:
    made = text.parse("state { phase: TEST } layer { name: 'c' bottom: 'z' }", NetParameter())
    with pytest.raises(SpecError) as error:
        insert_splits(made)
    assert str(error.value) == "layer 'c': unknown bottom blob 'z'; no layer makes it in phase TEST"


@pytest.mark.parametrize(
    ("rule", "state", "words"),
    [
        (
            "phase: TEST stage: 'a' stage: 'b'",
            "stage: 'a'",
            " without stage 'b': give --stage, or a state in the solver",
        ),
        ("stage: 'b'", "", " without stage 'b': give --stage, or a state in the solver"),
        ("phase: TRAIN stage: 'b'", "", ""),
        ("min_level: 1", "", ""),
    ],
)
def test_a_bottom_that_another_stage_has(rule: str, state: str, words: str) -> None:
    source = (
        f"state {{ phase: TEST {state} }} layer {{ name: 'd' top: 'z' include {{ {rule} }} }} layer "
        f"{{ name: 'c' bottom: 'z' }}"
    )
    whole = text.parse(source, NetParameter())
    with pytest.raises(SpecError) as error:
        insert_splits(filter_net(whole, whole.state), whole)
    assert str(error.value) == f"layer 'c': unknown bottom blob 'z'; no layer makes it in phase TEST{words}"


@st.composite
def nets(draw: st.DrawFn) -> NetParameter:
    made = NetParameter()
    blobs: list[str] = []
    for i in range(draw(st.integers(1, 8))):
        bottoms = draw(st.lists(st.sampled_from(blobs), max_size=3)) if blobs else []
        in_place = bottoms[:1] if draw(st.booleans()) else []
        tops = in_place + [f"t{i}{k}" for k in range(draw(st.integers(0, 2)))]
        weights = draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), max_size=len(tops)))
        made.layer.add(name=f"l{i}", bottom=bottoms, top=tops, loss_weight=weights)
        blobs += tops
    return made


@given(nets())
def test_the_graph_stays_the_same(original: NetParameter) -> None:
    split = insert_splits(original)
    assert [layer.name for layer in split.layer if layer.type != "Split"] == [layer.name for layer in original.layer]
    readers: dict[str, int] = {}
    copies: dict[str, str] = {}
    for layer in split.layer:
        for blob in layer.bottom:
            readers[blob] = readers.get(blob, 0) + 1
        if layer.type == "Split":
            copies |= dict.fromkeys(layer.top, layer.bottom[0])
            assert len(layer.top) > 1
    assert all(readers.get(copy, 0) <= 1 for copy in copies)
    layers = [layer for layer in split.layer if layer.type != "Split"]
    for before, after in zip(original.layer, layers, strict=True):
        assert [copies.get(blob, blob) for blob in after.bottom] == list(before.bottom)
        assert list(after.top) == list(before.top)
    assert sum(sum(layer.loss_weight) for layer in split.layer) == sum(
        sum(layer.loss_weight) for layer in original.layer
    )
    assert insert_splits(split) == split
