"""ONNX files that are damaged, hostile, or of what Caffe has not: one clear line each, and nothing written."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from caffecli.errors import FormatError, SpecError
from converters import import_
from converters.from_onnx import graph
from tests.converters.onnx_models import floats, ints, model, node, one

CONV = one("Conv", floats(4, 6, 3, 3))


def refused(made, tmp_path, **given):
    """The error of a model that is refused; nothing is written."""
    path = tmp_path / "m.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    before = set(tmp_path.iterdir())
    with pytest.raises((FormatError, SpecError)) as caught:
        import_.import_program(path, tmp_path / "net", **given)
    assert set(tmp_path.iterdir()) == before
    error = str(caught.value)
    assert "\n" not in error
    assert error.count(str(path)) == 1
    return error


def test_truncated_and_other_files(tmp_path):
    data = CONV.SerializeToString()
    for end in (len(data) // 2, len(data) - 3, 40):
        assert "cut off or damaged; copy it again" in refused(data[:end], tmp_path)
    assert "is empty" in refused(b"", tmp_path)
    assert "is not an ONNX model" in refused(b"version https://git-lfs.github.com/spec/v1\n", tmp_path)
    assert "without a graph" in refused(onnx.ModelProto(ir_version=8).SerializeToString(), tmp_path)
    with pytest.raises(FormatError, match=r"none\.onnx"):
        import_.import_program(tmp_path / "none.onnx", tmp_path / "net")
    with pytest.raises(FormatError, match=r"folder\.onnx"):
        (tmp_path / "folder.onnx").mkdir()
        import_.import_program(tmp_path / "folder.onnx", tmp_path / "net")


def test_any_damaged_byte_raises_an_error_of_ours(tmp_path):
    data, rng = bytearray(CONV.SerializeToString()), np.random.default_rng(1)
    path = tmp_path / "m.onnx"
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 200), 2):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            import_.convert(graph.read(path), "net")
        except (FormatError, SpecError) as error:
            assert "\n" not in str(error)


def outside(location, **entries):
    made = one("Conv", floats(4, 6, 3, 3))
    (tensor,) = made.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return made


def test_data_beside_the_model(tmp_path):
    floats(4, 6, 3, 3).tofile(tmp_path / "weights.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(outside("weights.bin").SerializeToString())
    made = import_.convert(graph.read(path), "net")
    (blobs,) = made.weights.values()
    np.testing.assert_array_equal(blobs[0], floats(4, 6, 3, 3))


def test_data_outside_of_the_folder_is_never_read(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    floats(4, 6, 3, 3).tofile(tmp_path / "secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "link", "", ".", "a/../../secret"):
        assert "outside of the model's folder, where nothing is read" in refused(outside(location), folder)
    assert "is not there; copy it beside the model" in refused(outside("none"), folder)
    (folder / "short").write_bytes(b"1234")
    assert "takes 864 bytes from 0 on in 'short', which has 4" in refused(outside("short"), folder)
    assert "takes 864 bytes" in refused(outside("short", offset="9" * 17), folder)
    assert "is at '-1'" in refused(outside("short", offset="-1"), folder)


def test_graphs_that_are_none(tmp_path):
    cyclic = model([node("Relu", "b", "a"), node("Relu", "a", "b"), node("Add", "x a", "y")])
    assert "waits for what is made of it" in refused(cyclic, tmp_path)
    assert "nothing makes 'z'" in refused(model([node("Add", "x z", "y")]), tmp_path)
    twice = model([node("Relu", "x", "y"), node("Abs", "x", "y")])
    assert "'y' is made twice" in refused(twice, tmp_path)
    unordered = model([node("Relu", "a", "y"), node("Abs", "x", "a")])
    (tmp_path / "m.onnx").write_bytes(unordered.SerializeToString())
    assert [op.short for op in graph.read(tmp_path / "m.onnx").ops] == ["abs", "relu"]
    misfit = model([node("Conv", "x w", "y")], {"w": floats(4, 5, 3, 3)})
    assert "its weights are for 5 channels, and it reads 6) at 'y'" in refused(misfit, tmp_path)


def test_functions_that_call_themselves_or_unfold_without_end(tmp_path):
    made = model([node("f0", "x", "y", domain="own")])
    made.opset_import.append(helper.make_opsetid("own", 1))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for i in range(40):
        calls = [node(f"f{i + 1}", "x", "a", domain="own"), node(f"f{i + 1}", "a", "y", domain="own")]
        made.functions.append(helper.make_function("own", f"f{i}", ["x"], ["y"], calls, opsets))
    made.functions.append(helper.make_function("own", "f40", ["x"], ["y"], [node("Relu", "x", "y")], opsets))
    assert "unfold to more than" in refused(made, tmp_path)
    made.functions[-1].node[0].CopyFrom(node("f0", "x", "y", domain="own"))
    assert "calls itself" in refused(made, tmp_path)


def test_claims_of_memory(tmp_path):
    claims = one("Conv", floats(4, 6, 3, 3))
    claims.graph.initializer[0].dims[0] = 2**40
    assert "has 864 bytes for the shape [1099511627776, 6, 3, 3]" in refused(claims, tmp_path)
    claims.graph.initializer[0].dims[0] = -1
    assert "damaged" in refused(claims, tmp_path)
    claims.graph.initializer[0].dims[0] = 5
    assert "has 864 bytes for the shape [5, 6, 3, 3]" in refused(claims, tmp_path)
    many = model([node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")], {"s": ints(1 << 16, 1 << 16, 9, 8)})
    assert "Caffe's blobs have up to 2147483647 numbers" in refused(many, tmp_path)
    wide = model([node("Expand", "x s", "y")], {"s": ints(2, 6, 9, 1 << 40)}, (2, 6, 9, 1))
    assert "Caffe's blobs have up to" in refused(wide, tmp_path)


def test_types_that_caffe_has_not(tmp_path):
    half = model(
        [node("Conv", "x w", "y")],
        {"w": floats(4, 6, 3, 3).astype(np.float16)},
        type=TensorProto.FLOAT16,
        output_type=TensorProto.FLOAT16,
    )
    assert "half precision (float16, at 'x'), Caffe in single; export the model in float32" in refused(half, tmp_path)
    scale = {"s": np.float32(0.1), "z": np.uint8(128)}
    quantized = model([node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")], scale)
    error = refused(quantized, tmp_path)
    assert "QuantizeLinear (it computes with integers (int8), Caffe with single precision; take the model" in error
    assert "is text" in refused(model([node("Identity", "x", "y")], type=8), tmp_path)


def branches(kind):
    body = helper.make_graph([node("Relu", "x", "b")], "g", [], [helper.make_empty_tensor_value_info("b")])
    if kind == "If":
        nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=9)]
        return model([*nodes, node("If", "c", "y", "choice", then_branch=body, else_branch=body)])
    values = [helper.make_empty_tensor_value_info(name) for name in ("i", "c", "s")]
    inner = [node("Identity", "c", "d"), node("Relu", "s", "t")]
    outs = [helper.make_empty_tensor_value_info(name) for name in ("d", "t")]
    loop = helper.make_graph(inner, "g", values, outs)
    return model([node("Loop", "n c x", "y", "turns", body=loop)], {"n": np.int64(3), "c": np.asarray(True)})


@pytest.mark.parametrize(("kind", "name"), [("If", "choice"), ("Loop", "turns")])
def test_branches_and_loops(kind, name, tmp_path):
    error = refused(branches(kind), tmp_path).split("; what is before them: ")[0]
    assert f"{kind} (Caffe's nets have no branches and loops; export the model with what it decides by fixed)" in error
    assert error.endswith(f"at '{name}'")


def test_what_caffe_has_not_is_named_all_at_once(tmp_path):
    nodes = [
        node("Cos", "x", "c", "first"),
        node("Relu", "c", "r"),
        node("Cos", "r", "d", "second"),
        node("NonZero", "d", "n", "places"),
        node("Cast", "n", "f", to=1),
        node("Unheard", "d", "e", "own", domain="com.microsoft"),
        node("Relu", "e", "g"),
    ]
    error = refused(model(nodes, outputs="f g"), tmp_path)
    assert "Caffe has no counterpart: " in error
    assert "Cos (no such layer) at 'first', 'second'" in error
    assert "NonZero (compute it behind the net) at 'places'" in error
    assert "com.microsoft.Unheard (no such layer) at 'own'" in error
    assert "Cast" not in error
    assert "Relu" not in error


def test_opsets(tmp_path):
    assert "has opset 6; 7 and later are read" in refused(one("Relu", opset=6), tmp_path)
    assert "has opset 999, the package onnx here knows up to" in refused(one("Relu", opset=999), tmp_path)


def test_sizes_that_are_free(tmp_path):
    free = model([node("Relu", "x", "y")], shape=("n", 3, "height", "width"))
    error = refused(free, tmp_path)
    assert "[n, 3, height, width], whose sizes are free, Caffe's are fixed; give them as in " in error
    assert error.endswith("--shape 1,3,224,224")
    assert "not [1, 4, 8, 8]" in refused(free, tmp_path, shapes=[(1, 4, 8, 8)])
    (tmp_path / "m.onnx").write_bytes(free.SerializeToString())
    program = graph.read(tmp_path / "m.onnx", shapes=[(2, 3, 8, 9)])
    assert program.shapes["y"] == (2, 3, 8, 9)


def test_says_whether_outputs_were_compared(tmp_path, monkeypatch, log):
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(CONV.SerializeToString())
    import_.import_program(tmp_path / "m.onnx", tmp_path / "a")
    assert log.lines[0].startswith("I import_.py] Outputs for random inputs differ from onnxruntime's by")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    import_.import_program(tmp_path / "m.onnx", tmp_path / "b")
    assert "I import_.py] The outputs were not compared, as onnxruntime is not here; pip install" in log.lines[2]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(Exception, match=r"takes the package onnx; pip install 'caffecli\[onnx\]'"):
        import_.import_program(tmp_path / "m.onnx", tmp_path / "c")


def test_ends_before_what_caffe_has_not(tmp_path):
    nodes = [
        node("Conv", "x w", "features"),
        node("Relu", "features", "r"),
        node("Cos", "r", "c", "wave"),
        node("Add", "c features", "y"),
    ]
    made = model(nodes, {"w": floats(4, 6, 3, 3)})
    error = refused(made, tmp_path)
    assert error.endswith("Cos (no such layer) at 'wave'; what is before them: --outputs r,features")
    import_.import_program(tmp_path / "m.onnx", tmp_path / "net", outputs=["r", "features"])
    text = (tmp_path / "net.prototxt").read_text()
    assert 'top: "r"' in text
    assert 'top: "features"' in text
    with pytest.raises(SpecError, match="has no value 'none' to end at; name outputs of its nodes"):
        graph.read(tmp_path / "m.onnx", outputs=["none"])
