"""The module of a PyTorch model that a node was exported from, as ``layer1.0.conv1``; '' where no file says it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

_LONGEST = 4000


def module_of(node: Any) -> str:
    """The path of the innermost module that a node of the file comes from."""
    for entry in node.metadata_props:  # torch.onnx.export(dynamo=True): a list, whose last is the operation itself
        if entry.key == "pkg.torch.onnx.name_scopes" and len(entry.value) < _LONGEST:
            try:
                scopes = ast.literal_eval(entry.value)
            except (SyntaxError, ValueError, MemoryError, RecursionError):
                break
            if isinstance(scopes, list) and len(scopes) > 1 and all(isinstance(scope, str) for scope in scopes):
                return str(scopes[-2])
    parts = str(node.name).split("/")
    return "" if len(parts) < 3 or parts[0] else _joined(parts[1:-1])


def _joined(scopes: Sequence[str]) -> str:
    """``layer1``, ``layer1.0``, ``conv1`` are written for ``layer1.0.conv1``."""
    path: list[str] = []
    for scope in scopes:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)
