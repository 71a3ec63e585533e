"""VideoSource: the frames of a video in turn, left out, resumed, and at their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffecli.errors import CaffeError
from caffecli.proto.caffe_pb2 import TEST, LayerParameter
from caffecli.sources import VideoEnd, VideoSource
from caffecli.spec import text

FRAMES = 7


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Seven frames, 16 high and 24 wide, each brighter than the one before."""
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (24, 16))
    for i in range(FRAMES):
        writer.write(np.full((16, 24, 3), 20 + 30 * i, np.uint8))
    writer.release()
    return "v.avi"


def param(
    settings: str = "", batch: int = 2, tops: str = 'top: "x" top: "y"', more: str = "", file: str = "v.avi"
) -> LayerParameter:
    return text.parse(
        f'name: "data" type: "VideoData" {tops} data_param {{ batch_size: {batch} }} {more} '
        f'video_data_param {{ video_type: VIDEO video_file: "{file}" {settings} }}',
        LayerParameter(),
    )


def numbers(array: np.ndarray) -> list[int]:
    """Which frames these are."""
    return [round((each - 20) / 30) for each in array.reshape(len(array), -1).mean(1)]


def all_of(source: VideoSource) -> list[list[int]]:
    found = []
    with pytest.raises(VideoEnd, match=r"layer 'data': video 'v\.avi' has ended"):
        while True:
            found.append(numbers(source.next().arrays[0]))
    return found


@pytest.mark.parametrize(
    ("skip", "batch", "expected"),
    [
        (0, 2, [[0, 1], [2, 3], [4, 5]]),
        (0, 1, [[i] for i in range(7)]),
        (1, 1, [[1], [3], [5]]),
        (2, 2, [[2, 5]]),
    ],
)
def test_frames_in_turn(video: str, skip: int, batch: int, expected: list[list[int]]) -> None:
    source = VideoSource(param(f"skip_frames: {skip}", batch), TEST)
    assert source.shapes == ((batch, 3, 16, 24), (batch,))
    assert source.count() == FRAMES // (skip + 1)
    assert all_of(source) == expected
    source.close()
    source.close()


def test_keys_labels_and_going_on(video: str) -> None:
    source = VideoSource(param(), TEST)
    source.next()
    state = source.state
    batch = source.next()
    assert batch.keys == ("frame 2 of video 'v.avi'", "frame 3 of video 'v.avi'")
    assert batch.arrays[1].tolist() == [0, 0]
    source.restore(state)
    assert numbers(source.next().arrays[0]) == [2, 3]
    other = VideoSource(param(), TEST)
    other.restore(state)
    assert numbers(other.next().arrays[0]) == [2, 3]


def test_several_readers_share_the_frames(video: str) -> None:
    sources = [VideoSource(param(batch=1, tops='top: "x"'), TEST, 0, (rank, 3)) for rank in range(3)]
    assert [all_of(source) for source in sources] == [[[0], [3], [6]], [[1], [4]], [[2], [5]]]


def test_the_pictures_are_transformed_as_ssd_does(video: str) -> None:
    more = """transform_param { mean_value: 10 mean_value: 20 mean_value: 30
      resize_param { prob: 1 resize_mode: WARP height: 5 width: 6 interp_mode: LINEAR } }"""
    source = VideoSource(param(batch=1, more=more), TEST)
    assert source.shapes[0] == (1, 3, 5, 6)
    means = source.next().arrays[0].mean((0, 2, 3))
    np.testing.assert_allclose(means, [10, 0, -10], atol=3)


def test_a_camera_gives_what_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    class Camera:
        def __init__(self, number: int) -> None:
            self.number, self.seen = number, 0

        def isOpened(self) -> bool:
            return self.number == 3

        def read(self) -> tuple[bool, np.ndarray]:
            self.seen += 1
            return True, np.full((4, 5, 3), self.seen, np.uint8)

        def grab(self) -> bool:
            self.seen += 1
            return True

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    layer = text.parse(
        'name: "data" type: "VideoData" top: "x" data_param { batch_size: 1 } '
        "video_data_param { device_id: 3 skip_frames: 1 }",
        LayerParameter(),
    )
    source = VideoSource(layer, TEST)
    assert source.count() is None
    # the first picture told the size
    assert [source.next().arrays[0].mean() for _ in range(3)] == [3, 5, 7]
    source.restore(source.state)
    assert source.next().arrays[0].mean() == 9
    layer.video_data_param.device_id = 1
    with pytest.raises(CaffeError, match="layer 'data': cannot open camera 1; set device_id"):
        VideoSource(layer, TEST)


def test_a_video_that_is_cut_is_told(video: str, caplog: pytest.LogCaptureFixture) -> None:
    class Cut:
        """Tells of more frames than it has."""

        def __init__(self, of: Any) -> None:
            self.left = 3

        def isOpened(self) -> bool:
            return True

        def get(self, _: int) -> float:
            return 9

        def read(self) -> tuple[bool, np.ndarray | None]:
            self.left -= 1
            return self.left >= 0, np.zeros((4, 5, 3), np.uint8) if self.left >= 0 else None

        def release(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", Cut)
        source = VideoSource(param(batch=1), TEST)
        assert len(all_of(source)) == 3
    assert "layer 'data': video 'v.avi' tells of 9 frames, but 3 could be read" in caplog.text


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("", "video_data_param names no video; set video_file"),
        ("no.mp4", "layer 'data': video_file 'no.mp4' does not exist; give the path of a video"),
        ("bad.mp4", "layer 'data': cannot open video 'bad.mp4'; OpenCV knows no such form of videos"),
    ],
)
def test_errors(video: str, file: str, said: str) -> None:
    Path("bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(CaffeError) as error:
        VideoSource(param(file=file), TEST)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_batch_of_none_is_refused(video: str) -> None:
    with pytest.raises(CaffeError, match="expected batch_size of at least 1, got 0"):
        VideoSource(param(batch=0), TEST)
