"""export: a net -> PyTorch (safetensors and a ``torch.export`` program) or ONNX; a mean -> NumPy.

The deploy net is exported in its TEST phase. Inputs and outputs keep the blobs' names and order, weights are called
``<layer>.<blob>``, in Caffe's shapes. Blobs are Caffe's, in Caffe's units: pictures blue first, scaled and less their
mean as the net was trained.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from caffecli import logs
from caffecli.errors import CaffeError, FormatError
from caffecli.formats import safetensors
from caffecli.formats.atomic import replacing
from caffecli.spec import text
from caffecli.spec.filter import filter_net
from converters.convert_mean import binaryproto_to_npy

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from caffecli.net.net import Net

Path_ = str | os.PathLike[str]
Target = Literal["torch", "onnx", "npy"]

#: the size limit of a protobuf message, which an ONNX file is
_SIZE_LIMIT = 2**31 - 1
_LOG = "export.py"


def export(definition: Path_, weights: Path_ | None, to: Target, out: Path_, layers: Sequence[str] = ()) -> list[Path]:
    """Export the net ``definition`` with ``weights`` (else the fillers' values) to ``out``; returns the files written.

    ``torch``: ``out.safetensors`` and ``out.pt2``, or one of them when ``out`` ends so. ``onnx``: one file. ``npy``:
    ``definition`` is a mean.binaryproto. ``layers``: modules of the user's own that register layers.
    Raises SpecError that names every layer that cannot be exported, and why; FormatError.
    """
    if to == "npy":
        if weights is not None:
            raise FormatError(
                f"a mean has no weights: leave out {str(weights)!r}; convert_weights writes weights as .npz"
            )
        binaryproto_to_npy(definition, out)
        return [Path(out)]
    net = build(definition, weights, layers)
    return _to_onnx(net, Path(out)) if to == "onnx" else _to_torch(net, Path(out))


def build(definition: Path_, weights: Path_ | None, layers: Sequence[str] = ()) -> Net:
    """The net of a prototxt in its TEST phase, with its weights. Raises SpecError for one that cannot be exported."""
    from caffecli.net import exported
    from caffecli.tools.open import build_net, read_net

    param = read_net(definition, layers=layers)
    exported.check(filter_net(param, param.state))
    if weights is None:
        logs.warning(_LOG, "No weights given: exporting what the fillers made")
    return build_net(param, definition, weights=() if weights is None else (weights,))


def _to_torch(net: Net, out: Path) -> list[Path]:
    import torch

    from caffecli.net import exported

    files = [out] if out.suffix in (".safetensors", ".pt2") else [Path(f"{out}.safetensors"), Path(f"{out}.pt2")]
    whole = exported.exposed(net)
    program = exported.program(whole) if files[-1].suffix == ".pt2" else None
    arrays = {name: blob.contiguous().numpy() for name, blob in exported.state(net).items()}
    if program is None:
        safetensors.write(files[0], arrays, _texts(net))
        return files
    _log_differences(net, whole, program)
    archive = io.BytesIO()  # torch's writer ends the process when a disk is full
    with exported.quiet():
        torch.export.save(program, archive)
    with replacing(files[-1]) as file:
        file.write(archive.getbuffer())
        if len(files) == 2:  # before the first is renamed: both files appear, or none
            safetensors.write(files[0], arrays, _texts(net))
    return files


def _texts(net: Net) -> dict[str, str]:
    """The metadata of a safetensors file: the definition, and the names of each layer's blobs in Caffe's order."""
    from caffecli.net import weights as net_weights

    blobs = {name: layer.blob_names for name, layer in net.layers.items()}
    return {"caffe.net": text.format(net_weights.definition(net)), "caffe.blobs": json.dumps(blobs)}


def _to_onnx(net: Net, out: Path) -> list[Path]:
    from caffecli.net import exported

    _require_onnx()
    _check_size(sum(blob.nbytes for blob in exported.state(net).values()), out)
    whole = exported.exposed(net)
    program = exported.program(whole)
    try:
        model = _onnx(program, whole.inputs, whole.outputs)
    except Exception as error:
        raise exported.named(whole, lambda layer: _onnx(layer, None, None), error) from error
    model.producer_name, model.producer_version = "caffecli", ""
    model.graph.name = net.name or "net"
    _check_size(model.ByteSize(), out)
    _log_differences(net, whole, program)
    with replacing(out) as file:
        file.write(model.SerializeToString())
    return [out]


def _onnx(program: ExportedProgram, inputs: list[str] | None, outputs: list[str] | None) -> Any:
    """The program as an ``onnx.ModelProto``."""
    import torch

    from caffecli.net import exported

    with exported.quiet():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table={torch.ops.aten.sort.stable: _sort},
            verbose=False,
        )
    return onnx_program.model_proto  # type: ignore[union-attr]


def _check_size(size: int, out: Path) -> None:
    if size > _SIZE_LIMIT:
        what = f"{size / 2**30:.1f} GB do not fit into an ONNX file (2 GB)"
        raise FormatError(f"cannot write {str(out)!r}: {what}; --to torch takes nets of any size")


def _sort(x: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort.stable`` in ONNX, for top_k of ArgMax: TopK keeps equal values in their order."""
    import onnxscript

    onnx: Any = onnxscript.opset18
    count = onnx.Reshape(onnx.Gather(onnx.Shape(x), onnx.Constant(value_int=dim)), onnx.Constant(value_ints=[1]))
    return onnx.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


def _require_onnx() -> None:
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise CaffeError(f"--to onnx needs the package {package}; pip install 'caffecli[onnx]'")


def _log_differences(net: Net, whole: Net, program: ExportedProgram) -> None:
    """Log how the program differs from ``net``; ``whole`` is the net with recurrent states as inputs and outputs."""
    from caffecli.net import exported

    if carried := [name for name in whole.inputs if name not in net.inputs]:
        last = [name for name in whole.outputs if name not in net.outputs]
        logs.info(
            _LOG,
            f"What recurrent layers carry over: {', '.join(carried)} (zeros at first) is what {', '.join(last)} was",
        )
    fixed = [name for name, free in zip(whole.inputs, exported.free_batch(program), strict=True) if not free]
    if fixed:
        logs.info(
            _LOG, f"The batch of {', '.join(fixed)} is fixed as the definition has it; that of the others is free"
        )
