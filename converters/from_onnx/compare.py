"""Compares the net that was made of an ONNX model with the model itself, under onnxruntime."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from caffecli import logs
from caffecli.errors import CaffeError, SpecError
from converters.to_caffe.assemble import Imported
from converters.to_caffe.program import Array, Program

Path_ = str | os.PathLike[str]

_LOG = "import_.py"
#: outputs are equal up to this part of their scale; what differs by more than the second is another net
EQUAL, _WRONG = 1e-5, 1e-2


def check(path: Path_, program: Program, made: Imported) -> float | None:
    """Run the net, and the model beside it; log, and return, the largest difference, as a part of the largest value.

    None where onnxruntime is not there, or does not run the model. Raises SpecError where the outputs are others, or
    where the net does not run.
    """
    inputs = _inputs(program)
    try:
        came = outputs(made, list(inputs.values()))
    except CaffeError as error:
        raise SpecError(f"cannot be imported: the net of it does not run: {error}") from error
    for name, output, value in zip(made.outputs, came, program.outputs, strict=True):
        if output.shape != program.shapes[value]:
            raise SpecError(
                f"cannot be imported: its output {name!r} would have the shape {list(output.shape)}, not "
                f"{list(program.shapes[value])}"
            )
    try:
        import onnxruntime
    except ImportError:
        logs.info(_LOG, "The outputs were not compared, as onnxruntime is not here; pip install 'caffecli[onnx]'")
        return None
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = _session(path, program, options)
        types = {one.name: _TYPES.get(one.type, np.float32) for one in session.get_inputs()}
        wanted = session.run(program.output_names, {name: x.astype(types[name]) for name, x in inputs.items()})
    except Exception as error:  # onnxruntime has many types of its own
        lines = str(error).splitlines() or [repr(error)]
        logs.warning(_LOG, f"The outputs were not compared, as onnxruntime does not run the model: {lines[0]}")
        return None
    differences = [_difference(*each) for each in zip(came, wanted, strict=True)]
    largest = max(differences, default=0.0)
    if not largest <= _WRONG:
        name = (program.output_names or program.outputs)[differences.index(largest)]
        raise SpecError(
            f"cannot be imported: its output {name!r} would differ from onnxruntime's by {largest:.1e} of its scale; "
            f"export it anew with another opset, and tell us"
        )
    text = f"Outputs for random inputs differ from onnxruntime's by {largest:.1e} of their scale"
    if largest <= EQUAL:
        logs.info(_LOG, text)
    else:
        logs.warning(_LOG, f"{text}, more than {EQUAL:g}")
    return largest


def _session(path: Path_, program: Program, options: Any) -> Any:
    """The model under onnxruntime; where the program ends at other values, the model that ends there."""
    import onnx
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    if set(program.output_names or ()) <= {one.name for one in session.get_outputs()}:
        return session
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in program.output_names or ())
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


_TYPES: dict[str, Any] = {
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}


def _inputs(program: Program) -> dict[str, Array]:
    """Random numbers for each input; 0 and 1 for integers."""
    rng = np.random.default_rng(1)
    return {
        name: rng.integers(0, 2, program.shapes[name]).astype(np.float32)
        if name in program.integral
        else rng.standard_normal(program.shapes[name], dtype=np.float32)
        for name in program.inputs
    }


def outputs(made: Imported, inputs: list[Array]) -> list[Array]:
    """What the net gives, in the order of its outputs."""
    import torch

    from caffecli.net import weights
    from caffecli.net.net import Net
    from caffecli.proto.caffe_pb2 import TEST
    from caffecli.spec.load import prepare_net

    with logs.quiet():
        net = Net(prepare_net(made.net, TEST))
        weights.copy(net, made.weights, "the model")
    with torch.no_grad():
        tops = net({name: torch.from_numpy(x) for name, x in zip(made.inputs, inputs, strict=True)})
    return [tops[name].numpy() for name in made.outputs]


def _difference(came: Array, wanted: Array) -> float:
    """The largest difference as a part of the largest value; of integers, the share of places that differ."""
    if came.shape != wanted.shape:
        return float("inf")
    if not came.size:
        return 0.0
    if wanted.dtype.kind != "f":
        return float(np.mean(came != wanted))
    scale = max(float(np.nanmax(np.abs(wanted), initial=0)), 1e-30)
    with np.errstate(invalid="ignore"):
        apart = np.where((came == wanted) | (np.isnan(came) & np.isnan(wanted)), 0, np.abs(came - wanted))
    return float(apart.max()) / scale
