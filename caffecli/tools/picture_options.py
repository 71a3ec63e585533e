"""What the commands classify and detect share: the net and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from caffe import mode
from caffecli.errors import FormatError, SolverError
from caffecli.formats import mean, npy
from caffecli.layers import user_modules

ROOT = Path(__file__).parents[2]
_CAFFENET = Path("models", "bvlc_reference_caffenet")


_MEAN = Path("data", "ilsvrc12", "imagenet_mean.binaryproto")


def default_file(path: Path) -> Path:
    """A file of a Caffe checkout: below the working folder, as Caffe's scripts have it, else in this repository."""
    return path if path.exists() else ROOT / path


def choose_mode(gpu: bool) -> None:
    """Caffe's mode, as the flag ``--gpu`` says. Raises SolverError where there is none."""
    if gpu and not torch.cuda.is_available():
        raise SolverError("--gpu asks for a GPU and there is none that PyTorch can use; leave it out")
    if gpu:
        mode.set_mode_gpu()
    else:
        mode.set_mode_cpu()


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """``mean_file``: a .npy or a binaryproto, "" for none. Where a file is None, that of Caffe's reference net is
    used, below the working folder or in this repository.

    ``layers``: modules of the user's own that register layers.
    """

    model_def: str | None = None
    pretrained_model: str | None = None
    mean_file: str | None = None
    input_scale: float | None = None
    raw_scale: float | None = 255.0
    channel_swap: tuple[int, ...] | None = (2, 1, 0)
    gpu: bool = False
    layers: tuple[str, ...] = ()

    def net(self) -> dict[str, Any]:
        """The arguments that ``Classifier`` and ``Detector`` have in common;
        sets Caffe's mode, and loads the layers.
        """
        user_modules.load(self.layers)
        choose_mode(self.gpu)
        return {
            "model_file": str(self.model_def or default_file(_CAFFENET / "deploy.prototxt")),
            "pretrained_file": str(
                self.pretrained_model or default_file(_CAFFENET / "bvlc_reference_caffenet.caffemodel")
            ),
            "mean": self.mean(),
            "input_scale": self.input_scale,
            "raw_scale": self.raw_scale,
            "channel_swap": self.channel_swap,
        }

    def mean(self) -> NDArray[Any] | None:
        """The mean in ``mean_file``."""
        if self.mean_file == "":
            return None
        path = Path(self.mean_file) if self.mean_file else default_file(_MEAN)
        if not path.exists():
            where = "" if self.mean_file else f", nor below the working folder, {str(Path.cwd())!r}"
            raise FormatError(
                f"there is no mean {str(path)!r}{where}; give --mean_file, or --mean_file '' to subtract none"
            )
        return npy.read(path) if path.suffix == ".npy" else mean.read(path)
