"""caffe.Detector against answers of pycaffe (Caffe 1.0; its float indices made whole,
which the NumPy of its day did itself).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe
from tests.caffe.pictures import picture

WINDOWS = np.array([[5, 6, 30, 40], [0, 0, 20, 15], [30, 20, 60, 50], [10, 10, 11, 12], [0, 0, 60, 50], [40, 2, 59, 9]])
MEAN = picture(24, 24, 3, 9, 90, 130).transpose(2, 0, 1).astype(float)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"mean": MEAN.mean(1).mean(1), "raw_scale": 255.0, "channel_swap": (2, 1, 0)},
    "context": {"mean": MEAN.mean(1).mean(1), "raw_scale": 255.0, "channel_swap": (2, 0, 1), "context_pad": 4},
    "mean": {"mean": MEAN, "raw_scale": 255.0, "channel_swap": (2, 0, 1), "context_pad": 3},
    "zero": {"context_pad": 2},
}


@pytest.fixture
def folder(golden: Path) -> Path:
    return golden / "pycaffe"


def detector(folder: Path, **settings: Any) -> caffe.Detector:
    return caffe.Detector(str(folder / "windows.prototxt"), str(folder / "windows.caffemodel"), **settings)


@pytest.mark.parametrize("name", SETTINGS)
def test_detect_windows(name: str, folder: Path) -> None:
    net = detector(folder, **SETTINGS[name])
    image = folder / "windows.png"
    found = net.detect_windows(iter([(image, WINDOWS)]))
    assert [detection["filename"] for detection in found] == [image] * len(WINDOWS)
    assert np.array_equal([detection["window"] for detection in found], WINDOWS)
    with np.load(folder / "pictures.npz") as answers:
        np.testing.assert_allclose(
            [detection["prediction"] for detection in found], answers[f"detect/{name}"], atol=1e-4
        )
        if name != "plain":
            crops = [net.crop(caffe.io.load_image(image), window) for window in WINDOWS]
            np.testing.assert_allclose(crops, answers[f"crop/{name}"], atol=1e-4)


def test_the_input_scale_of_july_2014_comes_before_the_mean(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", MEAN)
    settings = {"channel_swap": (2, 0, 1), "context_pad": 3}
    net = detector(folder, mean_file=tmp_path / "mean.npy", input_scale=255.0, **settings)
    found = net.detect_windows([(folder / "windows.png", WINDOWS)])
    with np.load(folder / "pictures.npz") as answers:
        np.testing.assert_allclose([detection["prediction"] for detection in found], answers["detect/mean"], atol=1e-4)


def test_without_windows_there_are_no_detections(folder: Path) -> None:
    assert detector(folder).detect_windows([]) == []


def test_mistakes_are_named(folder: Path) -> None:
    net = detector(folder)
    for window in ([30, 6, 30, 40], [70, 0, 80, 10]):
        with pytest.raises(RuntimeError, match=r"windows.png': window \(.*\) shows nothing of a picture of 60 x 50"):
            net.detect_windows([(folder / "windows.png", [window])])
    with pytest.raises(RuntimeError, match="context_pad 10: expected less than half of the net's input, 20 x 20"):
        net.configure_crop(10)
    with pytest.raises(
        ImportError, match="selective search needs MATLAB and the Python module selective_search_ijcv_with_python"
    ):
        net.detect_selective_search(["windows.png"])
