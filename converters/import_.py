"""import: a PyTorch program or module -> a deploy prototxt and a caffemodel.

Layers are called by the modules that they come from (``features.0``), weights stay bit for bit. Blobs are what the
program's values are: pictures in the order of channels and the scale that it was trained with.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caffecli import logs
from caffecli.errors import FormatError, SpecError
from caffecli.formats import caffemodel
from caffecli.formats.atomic import replacing
from caffecli.spec import text
from converters.from_onnx import compare, graph
from converters.from_torch import archive
from converters.to_caffe.assemble import Imported, assemble
from converters.to_caffe.builder import Audience
from converters.to_caffe.layout import sink_permutes
from converters.to_caffe.program import Program, Shape
from converters.to_caffe.recompose import recompose

if TYPE_CHECKING:
    from torch import Tensor, nn

Path_ = str | os.PathLike[str]

_LOG = "import_.py"


def import_program(
    path: Path_,
    out: Path_,
    inputs: Sequence[str] | None = None,
    batch: int | None = None,
    audience: Audience = "both",
    shapes: Sequence[Shape] | None = None,
    outputs: Sequence[str] | None = None,
) -> list[Path]:
    """Write the program in the .pt2 or .onnx file ``path`` as ``out``.prototxt and ``out``.caffemodel, both or neither.

    Returns the two paths.

    ``inputs`` are the blobs' names for the program's inputs, in its order. ``batch`` is the size for a free batch axis
    (1); another batch axis has the size that the program was traced with. Of an ONNX model, ``shapes`` are those of its
    inputs, where its sizes are free, and ``outputs`` the values of it to end at, by default its outputs. ``audience``:
    ``both`` writes layers that the reference and OpenCV read alike, ``caffe`` takes Clip, Bias and ``round_mode`` too,
    which OpenCV does not read, ``forks`` also Permute, Interp and Upsample, which the reference does not, and
    ``opencv`` Permute, and nothing that OpenCV does not read.

    Raises FormatError for a file that cannot be read or written, or that exists; SpecError naming all that Caffe cannot
    say.
    """
    files = [Path(f"{out}{ending}") for ending in (".prototxt", ".caffemodel")]
    for file in files:
        if os.path.lexists(file):
            raise FormatError(f"{str(file)!r} exists; remove it or choose another name")
    try:
        onnx = Path(path).suffix.lower() == ".onnx"
        if (shapes or outputs) and not onnx:
            raise SpecError("is no .onnx file; --shape and --outputs are for ONNX models")
        program = graph.read(path, batch, shapes, outputs) if onnx else archive.read(path, batch)
        made = convert(program, Path(out).name, inputs, audience)
        if onnx:
            compare.check(path, program, made)
    except SpecError as error:
        raise SpecError(f"{str(path)!r} {error}") from error
    with replacing(files[0], "w") as written:
        written.write(text.format(made.net))
        written.flush()
        caffemodel.write(files[1], made.net, made.weights)
    logs.info(_LOG, f"Inputs: {', '.join(made.inputs)}; outputs: {', '.join(made.outputs)}")
    return files


def import_module(
    module: nn.Module,
    examples: Sequence[Tensor],
    name: str = "net",
    inputs: Sequence[str] | None = None,
    audience: Audience = "both",
) -> Imported:
    """The net and the weights of a module in evaluation mode, traced with example inputs, whose shapes the net has.

    Raises SpecError for a module that torch.export cannot trace, or with operations that Caffe has not.
    """
    import torch

    try:
        with torch.no_grad():
            made = torch.export.export(module, tuple(examples))
    except Exception as error:  # torch.export raises many types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SpecError(
            f"{type(module).__name__} cannot be traced by torch.export: {lines[0] if lines else error!r}"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(made, Path(folder) / "module.pt2")
        return convert(archive.read(Path(folder) / "module.pt2"), name, inputs, audience)


def convert(program: Program, name: str, inputs: Sequence[str] | None = None, audience: Audience = "both") -> Imported:
    """The net and the weights of a program; its shapes are checked against the program's. Raises SpecError."""
    from caffecli.layers import layer_class

    names = list(inputs or program.inputs)
    if len(names) != len(program.inputs) or len(set(names)) != len(names):
        raise SpecError(
            f"has {len(program.inputs)} input(s), {', '.join(program.inputs)}: give as many different names, not "
            f"{names}"
        )
    made = assemble(sink_permutes(recompose(program)), name, names, audience)
    types = sorted({layer.type for layer in made.net.layer})
    unread = [name for name in types if (cls := layer_class(name)) is not None and not cls.read_by_opencv]
    if unread and audience == "both":
        logs.warning(_LOG, f"OpenCV's importer does not read {', '.join(unread)}; Caffe does")
    return made
