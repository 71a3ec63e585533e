"""Writes docs/layers.md, the catalogue of all layer types: ``make docs``.

Everything in it comes from where it is true: types from the registry, equations from the docstrings, settings and
defaults from caffe.proto, examples from docs/layer_examples.prototxt, which a test builds and runs.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor

from caffecli.layers import registry
from caffecli.layers.base import Layer
from caffecli.proto import forks
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.spec import text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "layers.md"
EXAMPLES = ROOT / "docs" / "layer_examples.prototxt"

#: how wide a line of prose may be
COLUMNS = 120
#: what a layer of Caffe, or of a fork, can be told
FIELDS: list[FieldDescriptor] = list(LayerParameter.DESCRIPTOR.fields)

HEAD = """# Layers

Every layer type that `caffecli` knows, made by `make docs` from the code, so that it says what the code does. Sizes
read (N, C, H, W): items, channels, height, width. A setting's default stands where caffe.proto has one; `repeated` ones
may be given several times. Each example is a layer of [layer_examples.prototxt](layer_examples.prototxt), which the
tests build and run.
"""


def catalogue() -> str:
    """The whole page."""
    families: dict[str, list[type[Layer]]] = {}
    for cls in registry.classes():
        families.setdefault(cls.__module__, []).append(cls)
    shown = examples()
    parts = [HEAD]
    for module in sorted(families):
        doc = inspect.getdoc(inspect.getmodule(families[module][0])) or ""
        first, _, _ = doc.partition("\n\n")
        parts.append(f"## {_title(module)}\n\n{_markdown(first)}\n")
        parts += [_section(cls, shown.get(cls.type, "")) for cls in families[module]]
    return "\n".join(parts)


def examples() -> dict[str, str]:
    """The text of the example of each type."""
    net = text.read(EXAMPLES, NetParameter)
    return {_class(layer).type: text.format(NetParameter(layer=[layer])).rstrip() for layer in net.layer}


def _class(layer: LayerParameter) -> type[Layer]:
    return type(registry.create(layer))


def settings(cls: type[Layer]) -> list[str]:
    """The LayerParameter fields (``pooling_param``) that a layer's code reads."""
    sources = "".join(inspect.getsource(base) for base in cls.__mro__ if issubclass(base, Layer) and base is not Layer)
    known = {field.name for field in FIELDS}
    return [name for name in dict.fromkeys(re.findall(r"\b(\w+_param)\b", sources)) if name in known]


def _section(cls: type[Layer], example: str) -> str:
    lines = [f"### {cls.type}\n", _markdown(inspect.getdoc(cls) or ""), ""]
    lines.append(f"Bottoms: {_count(cls.bottom_count)}. Tops: {_count(cls.top_count)}.\n")
    for name in settings(cls):
        (message,) = (field.message_type for field in FIELDS if field.name == name)
        lines += [f"| `{name}` | type | default |", "|---|---|---|", *_rows(message.fields), ""]
    if example:
        lines += ["```prototxt", example, "```", ""]
    return "\n".join(lines)


def _rows(fields: list[FieldDescriptor]) -> Iterator[str]:
    for field in fields:
        if not forks.is_read(field.containing_type.name, field.name):
            continue
        kind = _type_name(field)
        repeated = field.label == FieldDescriptor.LABEL_REPEATED if hasattr(field, "label") else field.is_repeated
        default = ""
        if not repeated and field.message_type is None and field.has_default_value:
            default = field.enum_type.values_by_number[field.default_value].name if field.enum_type else _value(field)
        yield f"| `{field.name}` | {'repeated ' if repeated else ''}{kind} | {default} |"


def _type_name(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.name
    if field.enum_type is not None:
        enum = field.enum_type.full_name.removeprefix("caffe.")
        ours = forks.is_of_reference(field.containing_type.name, field.number)
        values = [each for each in field.enum_type.values if not ours or forks.is_of_reference(enum, each.number)]
        return " or ".join(value.name for value in values)
    kinds = {FieldDescriptor.CPPTYPE_BOOL: "bool", FieldDescriptor.CPPTYPE_STRING: "string"}
    numbers = {FieldDescriptor.CPPTYPE_FLOAT: "float", FieldDescriptor.CPPTYPE_DOUBLE: "float"}
    return kinds.get(field.cpp_type) or numbers.get(field.cpp_type, "integer")


def _value(field: FieldDescriptor) -> str:
    value = field.default_value
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else f"`{value}`" if isinstance(value, str) else str(value)


def _count(limits: tuple[int, int | None]) -> str:
    least, most = limits
    return str(least) if least == most else f"{least} or more" if most is None else f"{least} to {most}"


def _title(module: str) -> str:
    title = module.partition(".layers.")[2].removeprefix("forks.").replace("_", " ").replace(".", ", ")
    return f"From the forks: {title}" if ".forks." in module else title.capitalize()


def _markdown(doc: str) -> str:
    """A docstring as Markdown: code in single backticks, asterisks as they stand,
    lines wrapped where they are too long.
    """
    text = re.sub(r"(`[^`]*`)|\*", lambda m: m[1] or r"\*", doc.replace("``", "`"))
    return "\n\n".join(map(_wrapped, text.split("\n\n")))


def _wrapped(paragraph: str) -> str:
    lines = paragraph.splitlines()
    if all(len(line) <= COLUMNS for line in lines) or any(line.startswith((" ", "- ")) for line in lines):
        return paragraph
    return textwrap.fill(" ".join(lines), COLUMNS, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    PAGE.write_text(catalogue(), encoding="utf-8")
    print(f"Wrote {PAGE.relative_to(ROOT)}: {len(registry.types())} layer types")


if __name__ == "__main__":
    main()
