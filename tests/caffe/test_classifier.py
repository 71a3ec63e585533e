"""caffe.Classifier against answers of pycaffe (Caffe 1.0, scikit-image 0.19.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import caffe
from tests.caffe.pictures import picture

IMAGES = [picture(26, 31, 3, 1), picture(26, 31, 3, 2), picture(40, 22, 3, 3)]
MEAN = picture(24, 24, 3, 9, 90, 130).transpose(2, 0, 1).astype(float)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dims": {"image_dims": [25, 23]},
    "all": {"image_dims": (24, 24), "mean": MEAN, "raw_scale": 255.0, "channel_swap": (2, 1, 0), "input_scale": 0.02},
    "channels": {
        "image_dims": (24, 25),
        "mean": np.array([100.0, 110.0, 120.0]),
        "raw_scale": 255,
        "channel_swap": [2, 1, 0],
    },
}


@pytest.fixture
def folder(golden: Path) -> Path:
    return golden / "pycaffe"


def classifier(folder: Path, **settings: Any) -> caffe.Classifier:
    return caffe.Classifier(str(folder / "pictures.prototxt"), str(folder / "pictures.caffemodel"), **settings)


@pytest.mark.parametrize("name", SETTINGS)
def test_predict(name: str, folder: Path) -> None:
    net = classifier(folder, **SETTINGS[name])
    with np.load(folder / "pictures.npz") as answers:
        np.testing.assert_allclose(net.predict(IMAGES), answers[f"{name}/ten"], atol=1e-4)
        np.testing.assert_allclose(net.predict(IMAGES, oversample=False), answers[f"{name}/centre"], atol=1e-4)


def test_a_mean_of_four_dimensions(folder: Path) -> None:
    settings = SETTINGS["all"]
    with np.load(folder / "pictures.npz") as answers:
        net = classifier(folder, **{**settings, "mean": MEAN[None]})
        np.testing.assert_allclose(net.predict(IMAGES), answers["all/ten"], atol=1e-4)


def test_the_forms_of_2014_set_what_predict_uses(folder: Path) -> None:
    net = classifier(folder, image_dims=(24, 25))
    net.set_mean("data", np.array([100.0, 110.0, 120.0]))
    net.set_raw_scale("data", 255)
    net.set_channel_swap("data", (2, 1, 0))
    with np.load(folder / "pictures.npz") as answers:
        np.testing.assert_allclose(net.predict(IMAGES), answers["channels/ten"], atol=1e-4)


def test_it_is_a_net(folder: Path) -> None:
    net = classifier(folder)
    assert isinstance(net, caffe.Net) and net.inputs == ["data"] and net.image_dims.tolist() == [20, 18]
    assert net.transformer.preprocess("data", IMAGES[0]).shape == (3, 20, 18)


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    net = classifier(folder)
    with pytest.raises(RuntimeError, match=r"input 'data' takes images of \(height, width, 3\), got \(20, 18, 1\)"):
        net.predict([IMAGES[0][:, :, :1]], oversample=False)
    with pytest.raises(RuntimeError, match="predict takes a list of images; there are none in it"):
        net.predict([])
    with pytest.raises(RuntimeError, match=r"image_dims \(19, 30\): expected \(height, width\), at least \(20, 18\)"):
        classifier(folder, image_dims=(19, 30))
    (tmp_path / "train.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 } } }'
    )
    with pytest.raises(
        RuntimeError, match=r"has no input of \(batch, channels, height, width\); give a deploy.prototxt"
    ):
        caffe.Classifier(tmp_path / "train.prototxt", folder / "pictures.caffemodel")


def test_as_in_2014(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", MEAN)
    settings = {name: value for name, value in SETTINGS["all"].items() if name != "mean"}
    net = classifier(folder, mean_file=str(tmp_path / "mean.npy"), gpu=False, **settings)
    with np.load(folder / "pictures.npz") as answers:
        np.testing.assert_allclose(net.predict(IMAGES), answers["all/ten"], atol=1e-4)


@pytest.mark.parametrize("form", ["constructor", "setters", "scale first", "plain net"])
def test_the_input_scale_of_july_2014_comes_before_the_mean(
    form: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, swap = str(tmp_path / "mean.npy"), (2, 1, 0)
    np.save(file, MEAN)
    if form == "constructor":
        net: Any = classifier(folder, mean_file=file, input_scale=255, channel_swap=swap)
    else:
        kind = caffe.Net if form == "plain net" else caffe.Classifier
        net = kind(str(folder / "pictures.prototxt"), str(folder / "pictures.caffemodel"))
        if form == "scale first":
            net.set_input_scale("data", 255)
        net.set_mean("data", file)
        net.set_channel_swap("data", swap)
        net.set_input_scale("data", 255)
    today = classifier(folder, mean=MEAN, raw_scale=255, channel_swap=swap)
    image = IMAGES[0][:20, :18]
    expected = today.transformer.preprocess("data", image)
    assert -140 < expected.min() < expected.max() < 170
    assert "raw_scale" not in caplog.text
    for _ in range(2):
        given = net.preprocess("data", image)
        np.testing.assert_array_equal(given, expected)
        np.testing.assert_allclose(net.deprocess("data", given), image, atol=1e-5)
    assert caplog.text.count("as until August 2014; call it raw_scale") == 1
    if form != "plain net":
        np.testing.assert_array_equal(net.predict([image]), today.predict([image]))


def test_an_input_scale_of_today_comes_after_the_mean(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "mean.npy", MEAN)
    net, image = classifier(folder, input_scale=0.5), IMAGES[0][:20, :18]
    after = {}
    for form, mean in {"array": MEAN, "file": tmp_path / "mean.npy"}.items():
        net.set_mean("data", mean)
        if form == "file":
            net.set_raw_scale("data", 1)
        after[form] = net.preprocess("data", image)
    np.testing.assert_array_equal(after["array"], after["file"])
    np.testing.assert_allclose(after["array"], (image.transpose(2, 0, 1) - net.transformer.mean["data"]) / 2, atol=1e-4)
    assert "raw_scale" not in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_gpu_where_there_is_none(folder: Path) -> None:
    with pytest.raises(caffe.errors.ArgumentError, match="no GPU that can be used"):
        classifier(folder, gpu=True)
