"""Layers that are Python code in their forks, named in nets by their modules, with settings in ``param_str``.

Where those modules are not to be found, ``Python`` takes the classes that are registered by their names, such as
``rpn.proposal_layer.ProposalLayer``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from caffecli.layers.base import Layer, Shape


def settings(param_str: str) -> dict[str, Any] | None:
    """The settings of a ``param_str``, as ``FromParamStr`` says; None where they cannot be read."""
    lines = param_str.strip().strip("{}").replace("!!python/tuple", "").splitlines()
    quoted = [re.sub(r"^(\w+)\s*:", r"'\1':", line.strip().rstrip(",")) for line in lines if line.strip()]
    try:
        given = ast.literal_eval("{" + ", ".join(quoted) + "}")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


class FromParamStr(Layer):
    """A layer whose settings are those of ``python_param { param_str }``: names and values, one a line or with ','
    between, as YAML or Python write them.

    ``defaults`` says which there are; None has to be given.
    """

    compiles = False
    defaults: ClassVar[Mapping[str, Any]] = {}

    def setup(self, bottoms: list[Shape]) -> None:
        text = self.param.python_param.param_str
        given = settings(text)
        if given is None:
            raise self.spec_error(f"expected a param_str such as \"'feat_stride': 16\", got {text!r:.80}")
        unknown = [key for key in given if key not in self.defaults]
        missing = [key for key, value in self.defaults.items() if value is None and key not in given]
        if unknown or missing:
            what = f"has no setting {unknown[0]!r}" if unknown else f"needs the setting {missing[0]!r}"
            raise self.spec_error(f"its param_str {what}; its settings: {', '.join(self.defaults)}")
        self.given: dict[str, Any] = {**self.defaults, **given}
        wrong = [key for key, value in given.items() if not self._fits(value, self.defaults[key])]
        if wrong:
            expected = "a text" if isinstance(self.defaults[wrong[0]], str) else "a number"
            raise self.spec_error(f"expected {expected} for {wrong[0]!r}, got {given[wrong[0]]!r:.80}")

    @staticmethod
    def _fits(value: object, default: object) -> bool:
        """Whether a value is of the default's kind: a text, a number, or numbers."""
        if isinstance(default, str):
            return isinstance(value, str)
        if isinstance(default, tuple):
            return isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value)
        return isinstance(value, int | float)

    def one_item(self, bottoms: list[Shape], scores: Shape) -> None:
        """Raise ShapeError for a batch of several pictures."""
        if len(scores) != 4 or scores[0] != 1:
            raise self.shape_error(f"expected one picture, (1, channels, height, width), got {self.listing(bottoms)}")
