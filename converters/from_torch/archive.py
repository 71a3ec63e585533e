"""Reads the files of ``torch.export.save`` (PyTorch 2.8 and later): a zip of JSON and of arrays as bytes.

``torch.export.load`` would unpickle parts of a file and evaluate expressions in it. This reader runs nothing, so that a
file of unknown origin is safe to read. Pickled parts (the example inputs always are) are not read.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caffecli.errors import FormatError, SpecError
from caffecli.formats.atomic import cannot_read, read_bytes
from caffecli.formats.bounds import check_unpacked
from caffecli.formats.foreign import describe
from caffecli.host import check_file
from converters.from_torch.in_place import functionalize
from converters.to_caffe.program import Array, Op, Program, Ref, Shape
from converters.to_caffe.simplify import simplify

Path_ = str | os.PathLike[str]
Json = Any

#: ``ScalarType`` of the file's schema
_BFLOAT16 = 13
_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f2", 7: "<f4", 8: "<f8", 12: "?", _BFLOAT16: "<u2"}
_FLOATS = (6, 7, 8, _BFLOAT16)
#: what reading a damaged file may raise
_READ_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, zipfile.BadZipFile)
_LONGEST_EXPRESSION = 200
_SAVE = "save it anew: torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"
#: the functions in a size's expression, ``Mul(Integer(2), Symbol('s0', integer=True))``; for others the example's size
#: is taken
_FUNCTIONS: dict[str, Callable[..., int]] = {
    "Add": lambda *terms: sum(terms),
    "Integer": lambda number: number,
    "Mul": lambda *factors: math.prod(factors),
}


def read(path: Path_, batch: int | None = None) -> Program:
    """The program in a .pt2 file; a free batch axis gets the size ``batch`` (1). Raises FormatError, SpecError."""
    try:
        check_file(path)
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
            check_unpacked(path, sum(info.file_size for info in file.infolist()))
    except OSError as error:
        raise cannot_read(path, error) from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        data = read_bytes(path, 4096)
        if data.startswith(b"PK"):
            raise FormatError(
                f"{str(path)!r} is a zip file that is cut off or damaged; copy it again, or {_SAVE}"
            ) from error
        raise describe(path, data, "a torch.export program (.pt2)") from error
    models = sorted(name for name in names if "/models/" in f"/{name}" and name.endswith(".json"))
    if not models:
        raise FormatError(f"{str(path)!r} {_describe_zip(names)}; {_SAVE}")
    archive = _Archive(Path(path), models[0])
    try:
        return archive.program(1 if batch is None else batch)
    except _READ_ERRORS as error:
        raise _damaged(path, error) from error


def _damaged(path: Path_, error: Exception) -> FormatError:
    what = f"{type(error).__name__}: {error}"
    return FormatError(f"{str(path)!r}: the program in it is damaged, or of another version ({what}); {_SAVE}")


def _describe_zip(names: set[str]) -> str:
    """What a zip file without a program seems to be."""
    if "serialized_exported_program.json" in names:
        return "was saved by PyTorch before 2.8, and is not read: its arrays are pickled"
    if any(name.endswith("data.pkl") for name in names):
        return "was pickled (by torch.save or torch.jit.save), and is not read: reading it could run any code"
    return "is a zip file, but holds no torch.export program"


class _Archive:
    """One model of a .pt2 file."""

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self.root, _, name = model.rpartition("models/")
        self.model = name.removesuffix(".json")

    def program(self, batch: int) -> Program:
        whole = self.json(f"models/{self.model}.json")["graph_module"]
        graph, signature = whole["graph"], whole["signature"]
        inputs, paths = _inputs(signature["input_specs"])
        values = graph["tensor_values"]
        sizes = _Sizes(_batch_symbols(values, inputs), batch)
        numbers: dict[str, float] = {name: sizes.of(value) for name, value in graph.get("sym_int_values", {}).items()}
        numbers |= {
            name: value["as_float"] for name, value in graph.get("sym_float_values", {}).items() if "as_float" in value
        }
        ops, outputs = functionalize(
            _check_order([_op(node) for node in graph["nodes"]]), _outputs(signature["output_specs"])
        )
        return simplify(
            Program(
                inputs=inputs,
                outputs=outputs,
                ops=ops,
                shapes={name: tuple(sizes.of(size) for size in value["sizes"]) for name, value in values.items()},
                free_axes={
                    name: frozenset(i for i, n in enumerate(v["sizes"]) if "as_int" not in n)
                    for name, v in values.items()
                },
                integral=frozenset(name for name, value in values.items() if value["dtype"] not in _FLOATS),
                numbers=numbers,
                arrays=self.arrays(paths),
                paths=paths,
            )
        )

    def arrays(self, paths: Mapping[str, str]) -> dict[str, Callable[[], Array]]:
        """A function for each array that reads it, by the array's name in the graph."""
        stored: dict[str, Callable[[], Array]] = {}
        for kind in ("weights", "constants"):
            for path, entry in self.json(f"data/{kind}/{self.model}_{kind}_config.json")["config"].items():
                stored[path] = functools.partial(self.array, f"data/{kind}/", path, entry)
        return {name: stored[path] for name, path in paths.items() if path in stored}

    def array(self, folder: str, path: str, entry: Json) -> Array:
        """An array of the file. Raises FormatError where it is pickled, or is larger than its bytes."""
        try:
            return self._array(folder, path, entry)
        except _READ_ERRORS as error:
            raise _damaged(self.path, error) from error

    def _array(self, folder: str, path: str, entry: Json) -> Array:
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None or meta["dtype"] not in _DTYPES:
            raise FormatError(
                f"{str(self.path)!r}: {path!r} is not kept as plain numbers; use a plain float tensor, and {_SAVE}"
            )
        dtype = np.dtype(_DTYPES[meta["dtype"]])
        shape, strides = _ints(meta["sizes"]), _ints(meta["strides"])
        offset = int(meta["storage_offset"]["as_int"])
        data = self.bytes(folder + str(entry["path_name"]))
        flat = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
        if len(strides) != len(shape) or min((*shape, *strides, offset)) < 0:
            raise ValueError(f"array {path!r} has sizes {shape} and strides {strides}")
        if 0 not in shape and offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) >= len(flat):
            raise ValueError(f"array {path!r} reaches beyond its {flat.nbytes} bytes")
        bytes_ = [step * dtype.itemsize for step in strides]
        array = (
            np.lib.stride_tricks.as_strided(flat[offset:], shape, bytes_) if 0 not in shape else np.empty(shape, dtype)
        )
        return (array.astype("<u4") << 16).view("<f4") if meta["dtype"] == _BFLOAT16 else array

    def json(self, name: str) -> Json:
        return json.loads(self.bytes(name))

    def bytes(self, name: str) -> bytes:
        with zipfile.ZipFile(self.path) as file:
            info = file.getinfo(self.root + name)
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed")
            return file.read(info)


class _Sizes:
    """Evaluates sizes: the symbols of the batch are ``batch``, others have the example's size."""

    def __init__(self, symbols: set[str], batch: int) -> None:
        self.known = dict.fromkeys(symbols, batch)

    def of(self, size: Json) -> int:
        if "as_int" in size:
            return int(size["as_int"])
        expression = size["as_expr"]
        try:
            return self._evaluate(ast.parse(expression["expr_str"][:_LONGEST_EXPRESSION], mode="eval").body)
        except (KeyError, SyntaxError, TypeError):
            if expression.get("hint") is None:
                raise SpecError("cannot be imported: sizes in it depend on values; Caffe's are fixed") from None
            return int(expression["hint"]["as_int"])

    def _evaluate(self, node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._evaluate(node.operand)
        symbol = _symbol(node)
        if symbol is not None:
            return self.known[symbol]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return _FUNCTIONS[node.func.id](*map(self._evaluate, node.args))
        raise KeyError(ast.dump(node))


def _symbol(node: ast.AST) -> str | None:
    """The name in ``Symbol('s0', ...)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Symbol" and node.args:
        return str(node.args[0].value) if isinstance(node.args[0], ast.Constant) else None
    return None


def _batch_symbols(values: Json, inputs: list[str]) -> set[str]:
    """The symbols that are the size of an input's first axis."""
    first = [values[name]["sizes"][0] for name in inputs if values[name]["sizes"]]
    found = [
        _symbol(ast.parse(n["as_expr"]["expr_str"][:_LONGEST_EXPRESSION], mode="eval").body)
        for n in first
        if "as_expr" in n
    ]
    return {symbol for symbol in found if symbol is not None}


def _inputs(specs: list[Json]) -> tuple[list[str], dict[str, str]]:
    """The inputs that the user gives, and the path in the module of each parameter, buffer and constant."""
    inputs: list[str] = []
    paths: dict[str, str] = {}
    for spec in specs:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            if "as_tensor" not in content["arg"]:
                raise ValueError("an argument is not a tensor; give only tensors to torch.export.export")
            inputs.append(content["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            paths[content["arg"]["name"]] = content[f"{kind}_name"]
    return inputs, paths


def _outputs(specs: list[Json]) -> list[str]:
    """The values that the program returns; updates of its buffers are left out."""
    wanted = [spec["user_output"]["arg"] for spec in specs if "user_output" in spec]
    return [arg["as_tensor"]["name"] for arg in wanted if "as_tensor" in arg]


def _check_order(ops: list[Op]) -> list[Op]:
    """The operations; raises ValueError where one reads a value before it is computed, so that there are no cycles."""
    later = {output for op in ops for output in op.outputs}
    for op in ops:
        early = later.intersection(op.refs())
        if early:
            raise ValueError(f"{op.name!r} reads {min(early)!r} before it is made")
        later.difference_update(op.outputs)
    return ops


def _op(node: Json) -> Op:
    target = str(node["target"]).removeprefix("torch.ops.").split(".")
    outputs: list[str] = []
    for output in node["outputs"]:
        for kind, value in output.items():
            if kind in ("as_tensor", "as_optional_tensor"):
                outputs.append(value.get("name", ""))
            elif kind == "as_tensors":
                outputs += [item["name"] for item in value]
    stack = [part.split(",") for part in node["metadata"].get("nn_module_stack", "").split(";")]
    module = stack[-1][1] if len(stack[-1]) == 3 and stack[-1][0].startswith("L__self__") else ""
    args = {item["name"]: _value(item["arg"]) for item in node["inputs"]}
    return Op(node.get("name") or (outputs[0] if outputs else ""), ".".join(target[:2]), args, tuple(outputs), module)


def _value(arg: Json) -> Any:
    """An argument as a plain Python value, or as Ref for a value of the graph."""
    ((kind, value),) = arg.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _ref_or_number(value)
    if kind in ("as_tensors", "as_sym_ints", "as_sym_floats"):
        return [_ref_or_number(item) for item in value]
    if kind == "as_optional_tensors":
        return [_value(item) for item in value]
    return value


def _ref_or_number(value: Json) -> Any:
    for key in ("name", "as_name"):
        if key in value:
            return Ref(value[key])
    return next(iter(value.values()))


def _ints(sizes: Json) -> Shape:
    return tuple(int(size["as_int"]) for size in sizes)
