"""Layers of a user's own, told by the module of their class: errors that name the layer, and checks of what it gives.

What ``forward`` gives is checked in the first pass after each reshape, by a hook that then removes itself, so that
later passes cost nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from caffecli import logs
from caffecli.errors import CaffeError, PythonLayerError, SpecError, words_of
from caffecli.layers.base import Coordinates, Layer, Precision, Shape, exporting
from caffecli.proto.caffe_pb2 import LayerParameter

_OURS = (str(Path(__file__).parents[1]), *torch.__path__, contextlib.__file__)


def is_outside(cls: type) -> bool:
    """Whether a class is a user's own."""
    return cls.__module__.partition(".")[0] not in ("caffecli", "caffe")


@contextlib.contextmanager
def guarded(cls: type[Layer], name: str, what: str) -> Iterator[None]:
    """Turn what the code of the layer ``name`` raises in the block into a PythonLayerError, where it is a user's own.

    ``what``: the method that runs.
    """
    try:
        yield
    except CaffeError:
        raise
    except (Exception, SystemExit) as error:
        if not is_outside(cls):
            raise
        raise failed(cls, name, what, error) from error


def failure(error: BaseException, where: str, ours: tuple[str, ...]) -> PythonLayerError:
    """The error that says ``where`` a user's code has failed; ``error``'s traceback is cut to where that code begins.

    ``ours``: the files whose frames come before it.
    """
    before = (*ours, "<frozen importlib", importlib.__file__)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(before):
        trace = trace.tb_next
    error.__traceback__ = trace
    said = " ".join(words_of(error).split())
    return PythonLayerError(f"{where}: {type(error).__name__}{f': {said}' if said else ''}")


def failed(cls: type[Layer], name: str, what: str, error: BaseException, remark: str = "") -> PythonLayerError:
    """The error that says in which method and line of a user's layer ``error`` was raised."""
    file = _file(cls)
    found = failure(error, f"layer {name!r} ({cls.type}): its {what} failed", _OURS)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f"{Path(file).name}{f', line {lines[-1]}' if lines else ''}" if file else cls.__module__
    return PythonLayerError(f"{found} ({place}{remark})")


def blamed(layers: Iterable[Layer], what: str, error: BaseException) -> PythonLayerError | None:
    """``failed`` of the user's layer whose file is in the traceback of ``error``; None where none is."""
    files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    for layer in layers:
        if is_outside(type(layer)) and _file(type(layer)) in files:
            return failed(type(layer), layer.name, what, error)
    return None


def at_fault(error: BaseException) -> PythonLayerError | None:
    """``failed`` of the user's layer in one of whose methods ``error`` was raised; None where there is none."""
    trace = error.__traceback__
    while trace is not None:
        values, code = trace.tb_frame.f_locals, trace.tb_frame.f_code
        layer = values.get("self")
        cls = values.get("cls") if layer is None else type(layer)
        if isinstance(cls, type) and issubclass(cls, Layer) and is_outside(cls) and code.co_filename == _file(cls):
            param = layer.param if isinstance(layer, Layer) else values.get("param")
            error.__traceback__ = trace
            return failed(cls, param.name if isinstance(param, LayerParameter) else "", code.co_name, error)
        trace = trace.tb_next
    return None


def _file(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def check_class(cls: type[Layer]) -> None:
    """Raise SpecError for an attribute that ``Layer`` has and this class gives another kind of value."""
    for name, default in vars(Layer).items():
        value = vars(cls).get(name, default)
        if value is default or name.startswith("__") or callable(default) or hasattr(default, "__get__"):
            continue
        if hasattr(value, "__get__"):  # a property: what it gives is known of an object alone
            continue
        expected = _EXPECTED.get(name) or _KINDS.get(type(default))
        if expected is not None and not expected.holds(value):
            raise SpecError(
                f"class {cls.__module__}.{cls.__qualname__}: {name} is {value!r:.60}; expected {expected.words}"
            )


class _Expected(NamedTuple):
    """What an attribute of a class has to be."""

    words: str
    holds: Callable[[Any], bool]


def _is_count(value: object) -> bool:
    """Whether it is (least, most)."""
    if not isinstance(value, tuple) or len(value) != 2 or type(value[0]) is not int or value[0] < 0:
        return False
    return value[1] is None or (type(value[1]) is int and value[1] >= value[0])


_COUNT = _Expected("(least, most), such as (1, 1), or (1, None) for no limit", _is_count)
_PLACES = _Expected(
    "a tuple of the places of bottoms, such as (1,)",
    lambda value: isinstance(value, tuple) and all(type(one) is int and one >= 0 for one in value),
)
_EXPECTED = {
    "bottom_count": _COUNT,
    "top_count": _COUNT,
    "no_gradient": _PLACES,
    "label_bottoms": _PLACES,
    "blob_order": _Expected(
        'a tuple of names, each once, such as ("weight", "bias")',
        lambda value: (
            isinstance(value, tuple) and all(isinstance(one, str) for one in value) and len({*value}) == len(value)
        ),
    ),
    "coordinates": _Expected(
        f"None or one of {', '.join(map(str, Coordinates))}", lambda value: isinstance(value, Coordinates | None)
    ),
    "greater_is_better": _Expected("True, False or None", lambda value: isinstance(value, bool | None)),
}
#: by the kind of the default
_KINDS = {
    bool: _Expected("True or False", lambda value: isinstance(value, bool)),
    str: _Expected("a text", lambda value: isinstance(value, str)),
    Precision: _Expected(
        f"one of {', '.join(map(str, Precision))}, of caffecli.layers.base",
        lambda value: isinstance(value, Precision),
    ),
}


def check_blobs(layer: Layer) -> None:
    """Raise SpecError where the blobs that ``setup`` has declared are others than ``blob_order`` says."""
    order = iter(layer.blob_order)
    if layer.blob_order and not all(name in order for name in layer.blob_names):
        raise layer.spec_error(
            f"its setup declares the blobs {', '.join(layer.blob_names)}, its blob_order says "
            f"{', '.join(layer.blob_order)}; let them be the same"
        )


def reshaped(layer: Layer, bottoms: Sequence[Shape]) -> list[torch.Size]:
    """``layer.reshape`` checked; the next pass checks what ``forward`` gives.

    Raises SpecError for what is no list of shapes.
    """
    for hook in [hook for hook in layer._forward_hooks.values() if isinstance(hook, _Check)]:
        hook.remove()
    given: object = layer.reshape([torch.Size(bottom) for bottom in bottoms])
    if not isinstance(given, list | tuple) or not all(_is_shape(shape) for shape in given):
        raise layer.spec_error(
            f"its reshape gave {given!r:.100}; expected a list of the tops' shapes, such as [(8, 4)]"
        )
    tops = [torch.Size(shape) for shape in given]
    _Check(layer, [torch.Size(bottom) for bottom in bottoms], tops)
    return tops


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list | tuple) and all(type(dim) is int and dim >= 0 for dim in shape)


class _Check:
    """A hook on a layer's forward pass that checks the tops of the first one, and removes itself."""

    def __init__(self, layer: Layer, bottoms: list[torch.Size], tops: list[torch.Size]) -> None:
        self.bottoms = bottoms
        self.tops = tops
        self.handle: RemovableHandle = layer.register_forward_hook(self)

    def remove(self) -> None:
        self.handle.remove()

    def __call__(self, layer: nn.Module, bottoms: tuple[Tensor, ...], given: object) -> None:
        if torch.compiler.is_compiling() or exporting() or not isinstance(layer, Layer):
            return
        self.remove()
        tops = layer.checked(given)
        if len(tops) != len(self.tops):
            raise layer.spec_error(f"its forward gave {len(tops)} top(s), its reshape said {len(self.tops)}")
        # shapes that depend on values are those of a layer that says it cannot be compiled
        if layer.compiles and [bottom.shape for bottom in bottoms] == self.bottoms:
            self._check_shapes(layer, tops)
        _check_numbers(layer, bottoms, tops)

    def _check_shapes(self, layer: Layer, tops: tuple[Tensor, ...]) -> None:
        said = "keeps_shape" if layer.keeps_shape and type(layer).reshape is Layer.reshape else "its reshape"
        for top, expected in zip(tops, self.tops, strict=True):
            if top.shape != expected:
                raise layer.shape_error(
                    f"its forward gave a top of shape {tuple(top.shape)}, {said} says {tuple(expected)}; let them be "
                    "the same, or say compiles = False where the shape depends on values"
                )


def _check_numbers(layer: Layer, bottoms: tuple[Tensor, ...], tops: tuple[Tensor, ...]) -> None:
    taken = {torch.float32, torch.bfloat16, *(tensor.dtype for tensor in itertools.chain(bottoms, layer.blobs))}
    for top in tops:
        if top.dtype not in taken:
            raise layer.spec_error(f"its forward gave a top of {top.dtype}; expected torch.float32, as by .float()")
    learned = [name for name, blob in zip(layer.blob_names, layer.blobs, strict=True) if blob.requires_grad]
    if learned and torch.is_grad_enabled() and not any(top.requires_grad for top in tops):
        logs.warning(
            "net.cpp:284",
            f"layer {layer.name!r} ({layer.type}): autograd finds no way from its tops to its blobs "
            f"{', '.join(learned)}, which will not learn; detach(), .data or NumPy in its forward cut it",
        )
