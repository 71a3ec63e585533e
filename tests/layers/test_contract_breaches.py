"""The contract finds layers whose class says what is not so: one small layer for each, which breaks one part."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from caffecli.errors import CaffeError
from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import FillerParameter
from tests.layers import contract
from tests.layers.contract import Case, values

pytestmark = pytest.mark.usefixtures("own_types")

CASE = Case(bottoms=(values(2, 3, 4, 5), values(2, 3, 4, 5)))
FIT = Case(bottoms=(values(2, 3, 4, 5), values(2, 3, 4, 5)), other=(values(4, 3, 6, 5), values(4, 3, 6, 5)))


class Right(Layer):
    """y = scale a b + shift, by channel; it keeps the contract. Those below break it."""

    bottom_count = (2, 2)
    keeps_shape = True
    blob_order: ClassVar[tuple[str, ...]] = ("scale", "shift")
    scale: Tensor
    shift: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        self.add_blob("scale", (bottoms[0][1], 1, 1), FillerParameter(value=2))
        self.add_blob("shift", (bottoms[0][1], 1, 1), FillerParameter(value=1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b * self.scale + self.shift


class Draws(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b) + torch.rand_like(a)


class OtherShape(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b)[:, :1]


class NotFinite(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b) / 0


class WritesItsBottom(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        y = super().forward(a, b)
        a.detach().mul_(2)
        return y


class SharesData(Right):
    shares_data = True


class Loss(Right):
    is_loss = True


class SamePlaces(Right):
    keeps_shape = False
    coordinates = Coordinates.SAME

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b)[:, :, 1:]


class NoWork(Right):
    precision = Precision.BFLOAT16


class SaysNoGradient(Right):
    no_gradient = (1,)


class HasNoGradient(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b.detach())


class LeavesABlobOut(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b * self.scale + self.shift.detach()


class DoesNotRefuse(Right):
    in_place = False

    def check_wiring(self, bottoms: object, tops: object) -> None:
        pass


class OtherInPlace(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b) + (self.param.top[0] == self.param.bottom[0])


class OtherGradientInPlace(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b.detach() if self.param.top[0] == self.param.bottom[0] else b)


class GoesByMemory(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        count, channels, height, width = a.shape
        own = a.as_strided((count, channels, height, width), (channels * height * width, height * width, width, 1))
        return super().forward(own, b)


class Counts(Right):
    """How many of them there are shows in the tops."""

    made = 0

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        Counts.made += 1
        self.number = Counts.made

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b) + self.number


class Coarse(Right):
    precision = Precision.ANY

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward((a + 256) - 256, b)


class Bfloat16Out(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b).bfloat16()


class Branches(Right):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b) if a.sum() > 0 else a


class NotExported(Right):
    not_exported = "looks at the weather"


class SettledOnce(Right):
    """The height is that of setup for ever."""

    keeps_shape = False

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.height = bottoms[0][2]

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return [torch.Size((*bottoms[0][:2], self.height, bottoms[0][3]))]


class DeclaresAgain(Right):
    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if not self.shift.is_meta:
            self.shift = torch.nn.Parameter(self.shift.detach().clone())
        return super().reshape(bottoms)


class OtherBlobOrder(Right):
    blob_order = ("shift", "scale")


class NoBlobNames(Right):
    blob_order = ()


class OtherNamesInFiles(Right):
    @classmethod
    def names_of_blobs(cls, param: object, count: int) -> tuple[str, ...]:
        return ("slope", "shift")


class LabelsWithGradient(Right):
    label_bottoms = (1,)


class SharesDiffAlone(Right):
    shares_diff = True


class UsuallyButNever(Right):
    usually_in_place = True
    in_place = False


class Colourless(Right):
    color = "blue"


BREACHES: list[tuple[type[Layer], Callable[[str, Case], None], str]] = [
    (LabelsWithGradient, contract.check_facts, "label_bottoms"),
    (SharesDiffAlone, contract.check_facts, "shares_diff"),
    (UsuallyButNever, contract.check_facts, "usually_in_place"),
    (Colourless, contract.check_facts, "color"),
    (Draws, contract.check_forward, "random"),
    (OtherShape, contract.check_forward, "keeps_shape"),
    (NotFinite, contract.check_forward, "not finite"),
    (WritesItsBottom, contract.check_forward, "changed its bottom"),
    (SharesData, contract.check_forward, "shares_data"),
    (Loss, contract.check_forward, "is_loss"),
    (SamePlaces, contract.check_forward, "coordinates"),
    (NoWork, contract.check_forward, "multiply_adds"),
    (SaysNoGradient, contract.check_gradients, r"no_gradient: bottoms \[1\] have one"),
    (HasNoGradient, contract.check_gradients, r"no_gradient: bottoms \[1\] have none"),
    (LeavesABlobOut, contract.check_gradients, "learned"),
    (DoesNotRefuse, contract.check_in_place, "in_place: the class refuses"),
    (OtherInPlace, contract.check_in_place, "in place"),
    (OtherGradientInPlace, contract.check_in_place, "diffs in place"),
    (GoesByMemory, contract.check_channels_last, "channels last"),
    (Counts, contract.check_layer_by_layer, "layer by layer"),
    (Counts, contract.check_from_python, "caffe.Net"),
    (Coarse, contract.check_mixed_precision, "precision"),
    (Bfloat16Out, contract.check_forward, "not float32"),
    (Branches, contract.check_compiling, "compiles"),
    (Branches, contract.check_exporting, "not_exported"),
    (SettledOnce, contract.check_reshaping, "reshape"),
    (DeclaresAgain, contract.check_reshaping, "its blobs changed"),
    (OtherBlobOrder, contract.check_weights_file, "blob_order"),
    (NoBlobNames, contract.check_weights_file, "blob_order"),
    (OtherNamesInFiles, contract.check_weights_file, "names_of_blobs"),
]


def test_a_right_layer_keeps_it() -> None:
    register("Tried")(Right)
    contract.check("Tried", FIT)


def test_a_refusal_that_is_said_is_kept() -> None:
    register("Tried")(NotExported)
    contract.check("Tried", FIT)


@pytest.mark.parametrize(("wrong", "check", "words"), BREACHES, ids=lambda part: getattr(part, "__name__", ""))
def test_a_breach_is_found(wrong: type[Layer], check: Callable[[str, Case], None], words: str) -> None:
    register("Tried")(wrong)
    with pytest.raises((AssertionError, CaffeError), match=words):  # some are refused as soon as the layer is used
        check("Tried", FIT)


def test_a_type_that_is_not_registered() -> None:
    with pytest.raises(AssertionError, match="no layer type 'Tried' is registered"):
        contract.check("Tried", CASE)
