"""What every layer is: an ``nn.Module`` that maps bottoms to tops.

A layer's life::

    layer = registry.create(param, phase, context)  # knows its own LayerParameter, and what the context says
    layer.setup(bottom_shapes)                      # once: checks the settings, declares its blobs (on the meta device)
    top_shapes = layer.reshape(bottom_shapes)       # now, and whenever the bottoms' shapes have changed
    layer.materialize()                             # allocates the blobs and runs their fillers
    tops = layer(*bottoms)                          # a tensor, or a tuple of them; autograd differentiates

``Layer.blobs`` are the learnable tensors in Caffe's order and shapes, as a caffemodel stores them. Tensors that a layer
keeps but does not learn by gradient (BatchNorm's statistics) are blobs too, declared with ``learned=False``.
"""

from __future__ import annotations

import builtins
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from caffecli.errors import ShapeError, SpecError
from caffecli.layers.fillers import fill
from caffecli.proto.caffe_pb2 import TRAIN, FillerParameter, LayerParameter, NetParameter

Shape = Sequence[int]


def as_tuple(tops: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A layer's tops, whether it returns one or several."""
    return tops if isinstance(tops, tuple) else (tops,)


def exporting() -> bool:
    """Whether torch.export is tracing: a program must not branch on values, and should use few,
    well-known operations.
    """
    return getattr(torch.compiler, "is_exporting", bool)()  # older torch cannot tell


@dataclass
class Context:
    """What a net's layers need to know that is not in its definition: one object for all of them.

    ``seed`` feeds layers that read records (None: by chance), which serve record i where i mod count is rank, for
    ``shard`` (rank, count). Python layers look for their modules in ``folders`` too. ``device`` is where the net is,
    and new blobs go.
    """

    seed: int | None = None
    shard: tuple[int, int] = (0, 1)
    folders: tuple[Path, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Precision(enum.Enum):
    """The numbers in which a layer computes under mixed precision (``--amp``)."""

    #: multiplies matrices, which takes most of the time: in bfloat16
    BFLOAT16 = "bfloat16"
    #: is as exact in bfloat16 as its bottoms are: takes float32 or bfloat16, whichever comes
    ANY = "any"
    #: sums many values, takes powers, or is a loss: always in float32
    FLOAT32 = "float32"


class Coordinates(enum.Enum):
    """How the pixels of a layer's tops lie on those of its bottoms."""

    #: pixel for pixel
    SAME = "same"
    #: each pixel of a top lies on a window of the bottom, given by kernel_size, stride, pad and dilation
    STRIDED = "strided"
    #: a window of the top lies on each pixel of the bottom: the transpose of STRIDED
    TRANSPOSED = "transposed"
    #: the top is a part of the first bottom, cut out at an offset; the second bottom only gives the size
    CROPPED = "cropped"


class Layer(nn.Module):
    """Base of all layers.

    A subclass sets the class attributes it needs and writes ``setup``, ``reshape`` and ``forward``.

    What other parts of the program have to know about a layer, its class says here. ``tests/layers/contract.py`` checks
    it.
    """

    #: the name in prototxts. It hides the method ``type`` of ``nn.Module``, which casts; ``to`` casts as well
    type: ClassVar[str] = ""  # type: ignore[assignment]
    #: how many bottoms and tops the layer takes: (least, most); None is no limit
    bottom_count: ClassVar[tuple[int, int | None]] = (1, 1)
    top_count: ClassVar[tuple[int, int | None]] = (1, 1)
    #: a loss layer's first top has loss_weight 1 unless the net says otherwise
    is_loss: ClassVar[bool] = False
    #: Caffe's layer of this type makes another one inside, which its log shows
    makes_inner_layer: bool = False
    #: the top has the bottom's shape
    keeps_shape: ClassVar[bool] = False
    #: bottoms that never get a gradient (labels, say)
    no_gradient: tuple[int, ...] = ()
    #: bottoms that hold labels
    label_bottoms: ClassVar[tuple[int, ...]] = ()
    #: the names that the blobs can have, in Caffe's order; files that name blobs use them
    blob_order: ClassVar[tuple[str, ...]] = ()
    #: False: refuses a top that is its bottom, as Caffe does
    in_place: ClassVar[bool] = True
    #: nets usually write its top over its bottom
    usually_in_place: ClassVar[bool] = False
    #: in Caffe the data of its tops are in the memory of the first bottom's data
    shares_data: ClassVar[bool] = False
    #: and the diffs of its tops in that of the first bottom's diffs
    shares_diff: ClassVar[bool] = False
    #: its forward changes what it keeps (statistics, a state, its place in the records), so that it is run once a pass
    stateful: bool = False
    #: its forward differentiates by itself, so that it is not run in torch's inference mode
    needs_autograd: ClassVar[bool] = False
    #: what it computes in under ``--amp``
    precision: ClassVar[Precision] = Precision.FLOAT32
    #: False: ``--compile`` leaves it out, as it branches on values, or runs code that is not torch's
    compiles: ClassVar[bool] = True
    #: writes a file, which several processes cannot share
    one_process: bool = False
    #: why it cannot be part of a ``torch.export`` program, as the end of a sentence; "": it can
    not_exported: ClassVar[str] = ""
    #: whether OpenCV's importer of Caffe nets (4.x) knows the type; ``caffecli import`` asks it of what it writes
    read_by_opencv: ClassVar[bool] = False
    #: how coordinates map through it, for fully convolutional nets; None: they do not
    coordinates: ClassVar[Coordinates | None] = None
    #: the axis of the first bottom along which it scores classes; None: it does not. ``reshape`` sets it
    class_axis: int | None = None
    #: its first two bottoms hold as many values, which it brings together: predictions, and what they should be
    compares_values: ClassVar[bool] = False
    #: predictions with this label do not count; None: all do
    ignore_label: int | None = None
    #: whether its tops are better when they are greater: True, False, or None where that cannot be told
    greater_is_better: ClassVar[bool | None] = None
    #: the classes whose detections its top tells of, by ``detection_rows``; none: it tells of none
    detection_classes: tuple[int, ...] = ()
    #: the colour of its box in a drawing of the net
    color: ClassVar[str] = "#6495ED"

    #: computes the tops from the bottoms; each layer defines it with its own bottoms as arguments
    forward: Callable[..., Tensor | tuple[Tensor, ...]]

    def __init__(self, param: LayerParameter, phase: int = TRAIN, context: Context | None = None) -> None:
        super().__init__()
        self.param = param
        self.phase = phase
        self.context = context or Context()
        self.train(phase == TRAIN)
        #: the bottoms' names in errors; a net sets those of its definition, before splits were put in
        self.bottom_names = list(param.bottom)
        self.blob_names: list[str] = []
        self.fillers: list[FillerParameter | None] = []

    @classmethod
    def that_computes(cls, param: LayerParameter, context: Context) -> builtins.type[Layer]:
        """The class of which ``param`` is a layer: this one, unless its settings name another."""
        return cls

    @property
    def random(self) -> bool:
        """Whether it draws random numbers now, or runs a user's code: so that a pass runs it once, never again."""
        return False

    # -- to be written by each layer -------------------------------------------------------------------------------

    def placed_in(self, net: NetParameter) -> None:
        """Once, before ``setup``: learn from the net that it is in what its own settings leave open."""

    def detection_rows(self, top: Tensor) -> Tensor:
        """Its top that tells of detections in rows of five numbers, as ``solver.detection`` takes them."""
        return top

    def setup(self, bottoms: list[Shape]) -> None:
        """Once, before all else: check the settings and declare the blobs with ``add_blob``."""

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """The tops' shapes for bottoms of these shapes; called after ``setup``, and whenever the shapes have changed.

        Raises ShapeError for bottoms that the layer cannot take, or that its blobs do not fit. By default the shapes
        are found by running the layer on PyTorch's meta device, on tensors without values; the first such run takes a
        second or two.
        """
        if self.keeps_shape:
            return [torch.Size(bottoms[0])]
        return self._tops_without_values(bottoms)

    def multiply_adds(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        """How many products a forward pass over these shapes adds to sums.

        Biases and element-wise products do not count.
        """
        return 0

    def lattice(self) -> list[tuple[int, int, int]]:
        """(stride, extent, pad) of the window along each spatial axis, where ``coordinates`` is STRIDED or TRANSPOSED.

        Empty where the spatial axes do not follow axis 1.
        """
        return []

    def doubt(self) -> str:
        """What speaks against running the layer as it stands, in its phase, as the end of a sentence; "": nothing."""
        return ""

    def filters(self, bottom: Shape) -> Tensor | None:
        """The weights as filters, (channels of a top, channels of a bottom, kernel...); None where it has none."""
        return self.blobs[0].detach() if self.blobs and self.blobs[0].dim() > 1 else None

    def deconvolved(self, diff: Tensor) -> Tensor | None:
        """What a deconvolution by Zeiler and Fergus, ECCV 2014, passes on to the bottom, given ``diff`` at the top.

        None: the gradient.
        """
        return None

    @classmethod
    def drawn(cls, param: LayerParameter) -> list[str]:
        """The text in the layer's box in a drawing of the net, below its name: the type, and the main settings."""
        return [f"({param.type})"]

    @classmethod
    def drawn_at_tops(cls, param: LayerParameter) -> str:
        """The text at the arrows to the tops in a drawing: the number of channels or records; "": nothing."""
        return ""

    @classmethod
    def names_of_blobs(cls, param: LayerParameter, count: int) -> tuple[str, ...]:
        """The names of a layer's blobs, of which a file has ``count``, as ``blob_names`` would be after ``setup``."""
        return cls.blob_order[:count]

    # -- what they share -------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.param.name

    @property
    def blobs(self) -> list[Tensor]:
        """The layer's tensors in Caffe's order."""
        return [getattr(self, name) for name in self.blob_names]

    def add_blob(self, name: str, shape: Shape, filler: FillerParameter | None = None, learned: bool = True) -> None:
        """Declare a blob; it gets memory and values in ``materialize``. Without a filler it starts at zero.

        Raises SpecError for a name that is taken or no word, for what is no shape, and no filler.
        """
        self._check_blob(name, shape, filler)
        tensor = torch.empty(tuple(shape), device="meta")
        if learned:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)
        self.blob_names.append(name)
        self.fillers.append(filler)

    def _check_blob(self, name: object, shape: object, filler: object) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise self.spec_error(f"{name!r} is no name for a blob; expected a word, such as 'weight'")
        if name in self.blob_names:
            raise self.spec_error(f"blob {name!r} is declared twice; give one of them another name")
        if hasattr(self, name):
            raise self.spec_error(f"a blob cannot be called {name!r}, as the layer has an attribute of this name")
        if not isinstance(shape, list | tuple) or not all(isinstance(dim, int) and dim >= 0 for dim in shape):
            raise self.spec_error(f"blob {name!r}: {shape!r:.100} is no shape; expected whole numbers, such as (3, 4)")
        if filler is not None and not isinstance(filler, FillerParameter):
            raise self.spec_error(
                f"blob {name!r}: {filler!r:.60} is no filler; expected a FillerParameter, such as "
                'caffe_pb2.FillerParameter(type="xavier")'
            )

    def materialize(self) -> None:
        """Give each blob memory on the CPU and its filler's values;
        blobs that have memory already (shared ones) stay.
        """
        for name, filler in zip(self.blob_names, self.fillers, strict=True):
            blob = getattr(self, name)
            if not blob.is_meta:
                continue
            tensor = torch.zeros(blob.shape)
            if filler is not None:
                fill(tensor, filler, self.name)
            if isinstance(blob, nn.Parameter):
                setattr(self, name, nn.Parameter(tensor, requires_grad=blob.requires_grad))
            else:
                setattr(self, name, tensor)

    def _tops_without_values(self, bottoms: list[Shape]) -> list[torch.Size]:
        """The tops' shapes by a run on the meta device, the layer's own tensors replaced for it."""
        own = [*self.named_parameters(), *self.named_buffers()]
        borrowed = any(isinstance(getattr(type(self), name, None), property) for name in self.blob_names)
        # a view of another layer's blob stays where it is: then the run is a real one, over copies
        device = self.blobs[0].device if borrowed else torch.device("meta")
        copies = {name: blob.clone() if borrowed else blob.to("meta") for name, blob in own}
        with torch.no_grad():
            tops = functional_call(self, copies, tuple(torch.zeros(tuple(shape), device=device) for shape in bottoms))
        return [top.shape for top in self.checked(tops)]

    def checked(self, given: object) -> tuple[Tensor, ...]:
        """What ``forward`` gave, as a tuple; raises SpecError where that is neither a tensor nor a tuple of them."""
        tops = given if isinstance(given, tuple) else (given,)
        for top in tops:
            if not isinstance(top, Tensor):
                what = "None" if top is None else f"a {type(top).__name__}"
                inside = f"a tuple with {what} in it" if isinstance(given, tuple) else what
                raise self.spec_error(f"its forward gave {inside}; expected a tensor, or a tuple of tensors")
        return tops

    def open(self) -> None:
        """Called when the net has made the layer, before it is wired: Caffe opens databases then.

        Most have nothing to open.
        """

    def fixed_tops(self) -> dict[int, float]:
        """The tops that are filled once, each with one value, and stay as they are from pass to pass."""
        return {}

    def close(self) -> None:
        """Release what the layer holds beside its blobs: threads, open files. Most layers hold nothing."""

    def check_wiring(self, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Raise SpecError for a wrong number of bottoms or tops, or a top that is a bottom where the layer cannot run
        in place.
        """
        for what, names, (least, most) in (("bottom", bottoms, self.bottom_count), ("top", tops, self.top_count)):
            if len(names) < least or (most is not None and len(names) > most):
                wanted = str(least) if most == least else f"at least {least}" if most is None else f"{least} to {most}"
                raise SpecError(
                    f"layer {self.name!r} ({self.type}): expected {wanted} {what} blob(s), got {len(names)}"
                )
        shared = set(bottoms) & set(tops)
        if shared and not self.in_place:
            raise self.spec_error(f"cannot work in place on {min(shared)!r}; give the top another name")

    def check_fit(self, what: str, expected: object, came: object, bottoms: list[Shape]) -> None:
        """Raise ShapeError where bottoms that were reshaped no longer fit the blobs,
        which were made for ``expected``.
        """
        if came != expected:
            raise self.shape_error(
                f"its blobs are for {what} {expected}, got {came} of {self.listing(bottoms)}; reshape to what they fit"
            )

    def listing(self, bottoms: list[Shape]) -> str:
        """The bottoms with their shapes, for error texts: ``'a' (2, 3), 'b' (2, 4)``."""
        names = list(self.bottom_names)
        names += [f"bottom[{i}]" for i in range(len(names), len(bottoms))]
        return ", ".join(f"{name!r} {tuple(shape)}" for name, shape in zip(names, bottoms, strict=False))

    def channels_of(self, bottoms: list[Shape]) -> int:
        """How many channels, axis 1, the first bottom has."""
        if len(bottoms[0]) < 2:
            raise self.shape_error(
                f"expected a bottom of at least 2 axes (num, channels, ...), got {tuple(bottoms[0])}"
            )
        return bottoms[0][1]

    def axis(self, axis: int, dims: int, what: str = "axis") -> int:
        """``axis`` counted from the front for a blob of ``dims`` dimensions; negative ones count from the back."""
        if not -dims <= axis < dims:
            raise self.spec_error(f"{what} {axis} is out of range for a blob of {dims} dimensions")
        return axis % dims if dims else 0

    def spec_error(self, text: str) -> SpecError:
        """A SpecError that names this layer."""
        return SpecError(f"layer {self.name!r} ({self.type}): {text}")

    def shape_error(self, text: str) -> ShapeError:
        """A ShapeError that names this layer."""
        return ShapeError(f"layer {self.name!r} ({self.type}): {text}")

    def extra_repr(self) -> str:
        return f"{self.name!r}, type={self.type!r}"
