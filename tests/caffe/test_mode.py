"""The settings of the process, and what nets could do in 2014."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffecli import logs
from tests.caffe.nets import DEPLOY, net_of, pictures


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    yield
    caffe.set_mode_cpu()
    caffe.set_phase_test()
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.init_log(stderr=False)


def test_names_are_there() -> None:
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert caffe.__version__ == "1.0.0"
    assert {"Data", "Convolution", "InnerProduct", "Python"} <= set(caffe.layer_type_list())
    assert caffe.has_nccl() is False
    missing = [name for name in caffe.__all__ if not hasattr(caffe, name)]
    assert not missing


def test_solver_count() -> None:
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank()) == (4, 3)


def test_random_seed(tmp_path: Path) -> None:
    made = []
    for seed in (1, 1, 2):
        caffe.set_random_seed(seed)
        made.append(net_of(tmp_path).params["conv"][0].data)
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="set_mode_gpu: no GPU that can be used"):
        caffe.set_mode_gpu()
    with pytest.raises(RuntimeError, match=r"set_device\(3\): there are 0 GPUs"):
        net_of(tmp_path).set_device(3)
    caffe.set_device(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_arrays_stay_valid_across_devices(tmp_path: Path) -> None:
    net = net_of(tmp_path, "force_backward: true" + DEPLOY)
    x, weight, prob = pictures(2, 3, 8, 6), net.params["ip"][0].data, net.blobs["prob"].data
    wanted = net.forward(data=x)["prob"].copy()
    caffe.set_mode_gpu()
    np.testing.assert_allclose(net.forward(data=x)["prob"], wanted, 1e-3)
    weight[...] = 0
    net.forward()
    assert np.ptp(net.blobs["ip"].data[:, 0]) == 0
    net.backward(prob=np.ones((2, 5)))
    caffe.set_mode_cpu()
    net.forward()
    assert np.shares_memory(prob, net.blobs["prob"].data) and np.shares_memory(weight, net.params["ip"][0].data)


def test_log(capsys: pytest.CaptureFixture[str]) -> None:
    caffe.init_log(stderr=False)
    caffe.log("unheard")
    caffe.init_log(0)
    caffe.log("heard")
    caffe.init_log(1)
    caffe.log("unheard too")
    error = capsys.readouterr().err
    assert error.startswith("I") and error.endswith("] heard\n") and "unheard" not in error
    handler = logs.show(io.StringIO())
    assert isinstance(handler, logs.StderrHandler)
    logs.hide(handler)


@pytest.mark.parametrize(("level", "shown"), [("", "iwe"), ("0", "iwe"), ("1", "we"), ("2", "e"), ("3", "")])
def test_the_log_is_shown_unasked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, level: str, shown: str
) -> None:
    """As glog's, from the level of GLOG_minloglevel on; a program that shows it itself has it once."""
    monkeypatch.setenv("GLOG_minloglevel", level)
    logs.show_by_default()
    logs.show_by_default()
    heard = io.StringIO()
    for stream in (None, heard, None):
        handler = logs.show(stream) if stream else None
        caffe.log("i")
        logs.warning("x.py:1", "w")
        logs.error("x.py:1", "e")
        if handler:
            logs.hide(handler)
    said = [line[-1] for line in capsys.readouterr().err.splitlines()]
    assert said == [*shown, *shown]
    assert [line[-1] for line in heard.getvalue().splitlines()] == [*shown]


def test_import_caffe_shows_the_log(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DEPLOY)
    code = "import caffe; caffe.Net('net.prototxt', caffe.TEST)"
    for level, lines in (("0", True), ("2", False)):
        env = {**os.environ, "GLOG_minloglevel": level}
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout == ""
        assert ("net.cpp:382] conv -> conv" in done.stderr) is lines and bool(done.stderr) is lines


def test_timer() -> None:
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    timer.stop()
    assert timer.ms >= 0


def test_phases_of_2014(tmp_path: Path) -> None:
    net = net_of(tmp_path)
    x = pictures(2, 3, 8, 6)
    quiet = net.forward(["drop"], data=x)["drop"].copy()
    net.set_phase_train()
    assert any((net.forward(["drop"])["drop"] == 0).any() for _ in range(5))
    net.set_phase_test()
    np.testing.assert_array_equal(net.forward(["drop"])["drop"], quiet)
    net.set_mode_cpu()
    net.save(str(tmp_path / "w"))
    caffe.set_phase_train()
    assert caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "w"))._engine.net.phase == int(caffe.TRAIN)


def test_preprocessing_of_2014(tmp_path: Path) -> None:
    net = net_of(tmp_path)
    image = np.random.default_rng(1).random((8, 6, 3)).astype(np.float32)
    mean = pictures(3, 8, 6)
    np.save(tmp_path / "mean.npy", mean)
    net.set_mean("data", str(tmp_path / "mean.npy"))
    net.set_raw_scale("data", 255)
    net.set_channel_swap("data", (2, 1, 0))
    net.set_input_scale("data", 0.5)
    made = net.preprocess("data", image)
    np.testing.assert_allclose(made, (image.transpose(2, 0, 1)[::-1] * 255 - mean) * 0.5, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(net.deprocess("data", made), image, atol=1e-5)
    net.set_mean("data", mean[None], mode="channel")
    channel = (image.transpose(2, 0, 1)[::-1] * 255 - mean.mean((1, 2))[:, None, None]) * 0.5
    np.testing.assert_allclose(net.preprocess("data", image), channel, rtol=1e-5, atol=1e-4)
    with pytest.raises(Exception, match=r"Input not in \['data'\]: 'image'"):
        net.set_raw_scale("image", 1)
    with pytest.raises(Exception, match=r"Mode not in \['elementwise', 'channel'\]: 'pixel'"):
        net.set_mean("data", mean, mode="pixel")


MEMORY = (
    'layer { name: "in" type: "MemoryData" top: "x" top: "y" memory_data_param { batch_size: 2 channels: 1 height: 2 '
    "width: 2 } }"
)


def test_set_input_arrays(tmp_path: Path) -> None:
    net = net_of(tmp_path, MEMORY)
    data, labels = pictures(4, 1, 2, 2), np.arange(4, dtype=np.float32)
    net.set_input_arrays(data, labels)
    for turn in range(3):
        net.forward()
        np.testing.assert_array_equal(net.blobs["x"].data, data[turn % 2 * 2 :][:2])
        np.testing.assert_array_equal(net.blobs["y"].data.ravel(), labels[turn % 2 * 2 :][:2])
    for wrong, said in (
        (data[:3], "multiple of batch size 2, got 3"),
        (data.astype(float), "data array must be float32"),
        (data[:, :, :, :1].copy(), "data array has wrong width: expected 2, got 1"),
        (data.transpose(0, 1, 3, 2), "data array must be C contiguous"),
        (data[0], "data array must be 4-d"),
    ):
        with pytest.raises(RuntimeError, match=said):
            net.set_input_arrays(wrong, labels[: len(wrong)])
    with pytest.raises(RuntimeError, match="may only be called if the first layer is a MemoryDataLayer"):
        net_of(tmp_path).set_input_arrays(data, labels)
