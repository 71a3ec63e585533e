"""Small ONNX models, and what onnxruntime makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (2, 6, 9, 8)


def node(kind: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node; names of inputs and outputs are separated by spaces, ``_`` is one left out."""
    read, made = (["" if one == "_" else one for one in text.split()] for text in (inputs, outputs))
    domain = attributes.pop("domain", "")
    return helper.make_node(kind, read, made, name=name, domain=domain, **attributes)


def model(
    nodes: list[onnx.NodeProto],
    arrays: dict[str, np.ndarray] | None = None,
    shape: tuple[Any, ...] = SHAPE,
    outputs: str = "y",
    opset: int = 17,
    **given: Any,
) -> onnx.ModelProto:
    """A model with the input ``x`` and these outputs; its weights are ``arrays``."""
    kind = given.pop("type", TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (arrays or {}).items()],
    )
    for output in graph.output:
        output.type.tensor_type.elem_type = given.get("output_type", TensorProto.FLOAT)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def one(kind: str, *arrays: Any, opset: int = 17, shape: tuple[int, ...] = SHAPE, **attributes: Any) -> onnx.ModelProto:
    """A model of one node, which reads ``x`` and these arrays; None is an input left out."""
    names = " ".join("_" if array is None else f"a{i}" for i, array in enumerate(arrays))
    stored = {f"a{i}": array for i, array in enumerate(arrays) if array is not None}
    return model([node(kind, f"x {names}", "y", **attributes)], stored, shape, opset=opset)


def floats(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def runtime(made: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """The outputs under onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {made.graph.input[0].name: x}))
