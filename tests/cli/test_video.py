"""SSD's video demo: VideoData into DetectionOutput, its boxes drawn into a video."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffecli.layers.forks.ssd import shown

Command = Callable[..., tuple[int, str]]

NET = """name: "demo"
layer { name: "data" type: "VideoData" top: "data"
  video_data_param { video_type: VIDEO video_file: "in.avi" }
  data_param { batch_size: 1 }
  transform_param { mean_value: 104 mean_value: 117 mean_value: 123
    resize_param { prob: 1 resize_mode: WARP height: 30 width: 30 interp_mode: LINEAR } } }
layer { name: "input" type: "DummyData" top: "loc" top: "conf" top: "prior"
  dummy_data_param { shape { dim: 1 dim: 4 } shape { dim: 1 dim: 2 } shape { dim: 1 dim: 2 dim: 4 }
    data_filler { value: 0 } data_filler { value: 0.7 } data_filler { value: 0.25 } } }
layer { name: "wide" type: "DummyData" top: "size"
  dummy_data_param { shape { dim: 1 dim: 2 dim: 4 } data_filler { value: 0 } } }
layer { name: "priors" type: "Python" bottom: "prior" top: "priors" python_param { module: "corner" layer: "Corner" } }
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" bottom: "data" top: "found"
  detection_output_param { num_classes: 2 confidence_threshold: 0.01 keep_top_k: 5 nms_param { nms_threshold: 0.4 }
    save_output_param { label_map_file: "labels.prototxt" } visualize: true SAVE }
  transform_param { mean_value: 104 mean_value: 117 mean_value: 123
    resize_param { prob: 1 resize_mode: WARP height: 48 width: 80 interp_mode: LINEAR } } }
layer { name: "quiet" type: "Silence" bottom: "found" bottom: "size" }
"""
CORNER = """import caffe
class Corner(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(1, 2, 4)
    def forward(self, bottom, top): top[0].data[...] = [[[.25, .25, .75, .75], [.1, .1, .2, .2]]]
    def backward(self, top, down, bottom): pass
"""


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five gray frames, and a net that finds one box in each, the middle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    writer = cv2.VideoWriter("in.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 32))
    for i in range(5):
        writer.write(np.full((32, 40, 3), 40 * i, np.uint8))
    writer.release()
    Path("net.prototxt").write_text(NET.replace("SAVE", 'visualize_threshold: 0.3 save_file: "out.avi"'))
    Path("corner.py").write_text(CORNER)
    Path("labels.prototxt").write_text('item { name: "a" label: 1 display_name: "thing" }')
    caffe.Net("net.prototxt", caffe.TEST).save("w.caffemodel")
    return tmp_path


def frames(path: str) -> list[np.ndarray]:
    capture = cv2.VideoCapture(path)
    found: list[np.ndarray] = []
    while True:
        there, frame = capture.read()
        if not there:
            return found
        found.append(np.asarray(frame))


def test_the_demo_writes_its_video_and_ends_as_by_ctrl_c(demo: Path, command: Command) -> None:
    code, err = command("test", "--model=net.prototxt", "--weights=w.caffemodel", "--iterations=536870911")
    assert code == 130, err
    assert "Finished processing video." in err
    assert "--all scores each record once" not in err  # no frame is counted twice
    assert "Layer 'found': no window can be opened here: the pictures go to 'out.avi' alone." in err
    written = frames("out.avi")
    assert [frame.shape for frame in written] == [(48, 80, 3)] * 5
    for i, frame in enumerate(written):
        assert abs(frame[30, 40].mean() - 40 * i) < 12  # the frame itself
        edge = frame[24, 19:22].reshape(-1, 3).astype(int)
        assert np.ptp(edge, axis=1).max() > 60  # the box's colour
    assert sorted(path.name for path in demo.iterdir() if path.suffix == ".avi") == ["in.avi", "out.avi"]


def test_each_frame_once(demo: Path, command: Command) -> None:
    code, err = command("test", "--model=net.prototxt", "--weights=w.caffemodel", "--all")
    assert code == 0, err
    assert "Scoring 5 records, each once: 5 batches of 1" in err
    assert len(frames("out.avi")) == 5


def test_from_python(demo: Path) -> None:
    """The end is KeyboardInterrupt; what is sure enough is drawn."""
    text = Path("net.prototxt").read_text().replace("visualize_threshold: 0.3", "visualize_threshold: 0.8")
    Path("net.prototxt").write_text(text)
    net = caffe.Net("net.prototxt", caffe.TEST)
    for _ in range(5):
        net.forward()
        assert net.blobs["data"].data.shape == (1, 3, 30, 30)
    ended = False
    try:  # pytest.raises would keep the net, and its file
        net.forward()
    except KeyboardInterrupt:
        ended = True
    assert ended
    del net
    gc.collect()
    written = frames("out.avi")
    assert len(written) == 5
    assert np.ptp(written[2].reshape(-1, 3).astype(int), axis=1).max() < 20  # gray: no box


def test_a_window_where_there_is_one(demo: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape ends it."""
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(shown, "_can_show", lambda: True)
    monkeypatch.setattr(cv2, "imshow", lambda name, picture: seen.append(picture.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda _: 27 if len(seen) == 2 else -1)
    Path("net.prototxt").write_text(NET.replace("SAVE", ""))
    code, err = command("test", "--model=net.prototxt", "--weights=w.caffemodel", "--iterations=5")
    assert code == 130, err
    assert seen == [(48, 80, 3)] * 2
    assert "no window can be opened" not in err


def test_nothing_to_show_it_with(demo: Path, command: Command) -> None:
    Path("net.prototxt").write_text(NET.replace("SAVE", ""))
    code, err = command("test", "--model=net.prototxt", "--weights=w.caffemodel", "--iterations=2")
    assert code == 0, err
    assert "Layer 'found': no window can be opened here: nothing is shown; set save_file." in err
    assert not Path("out.avi").exists()


def test_a_video_that_cannot_be_written(demo: Path, command: Command) -> None:
    Path("net.prototxt").write_text(NET.replace("SAVE", 'save_file: "nowhere/out.avi"'))
    code, err = command("test", "--model=net.prototxt", "--weights=w.caffemodel", "--iterations=2")
    assert code == 1
    assert "cannot write the video 'nowhere/out.avi'; check the folder, and the ending (.avi)" in err


def test_other_forks_video_data_is_told_apart(demo: Path, command: Command) -> None:
    for setting in ("new_length: 5", "modality: RGB", 'source: "list.txt"'):
        Path("net.prototxt").write_text(
            f'layer {{ name: "data" type: "VideoData" top: "x" video_data_param {{ {setting} }} }}'
        )
        code, err = command("test", "--model=net.prototxt", "--weights=w.caffemodel", "--iterations=1")
        assert code == 1
        assert f"video_data_param.{setting.split(':')[0]} ('data') of TSN (yjxiong/caffe)" in err
        assert "which is not here" in err


def test_a_summary_without_the_video(demo: Path, command: Command) -> None:
    Path("in.avi").unlink()
    code, err = command("summarize", "net.prototxt")
    assert code == 0, err
    assert "layer 'data': there is no 'in.avi'; taken for 3 × 30 × 30" in err
