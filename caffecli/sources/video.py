"""The ``VideoData`` layer's records: the frames of a video, or of a camera, one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from caffecli import logs
from caffecli.errors import DataError, SpecError
from caffecli.proto.caffe_pb2 import LayerParameter, VideoDataParameter
from caffecli.sources.base import Floats, Pixels, State
from caffecli.sources.records import RecordSource
from caffecli.wording import does_not_exist


class VideoEnd(DataError):
    """The video has no further batch of frames."""


class VideoSource(RecordSource):
    """Reads ``video_data_param { video_type device_id video_file skip_frames }``, ``data_param { batch_size }`` frames
    at a time; ``skip_frames`` are left out before each that is given.

    Labels are 0. ``next`` raises VideoEnd when too few frames are left for a batch. A camera, which gives what it sees
    now, has neither an end nor a way back. Raises SpecError for settings that are missing, DataError for a video or
    camera that cannot be opened.
    """

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        super().__init__(param, phase, param.data_param.batch_size, 0, seed, shard)
        settings = param.video_data_param
        self._step = settings.skip_frames + 1
        self._camera = settings.video_type == VideoDataParameter.WEBCAM
        self._of: int | str = settings.device_id if self._camera else settings.video_file
        self._what = f"camera {self._of}" if self._camera else f"video {self._of!r}"
        if not self._camera and not self._of:
            raise SpecError(f'{self.where}: video_data_param names no video; set video_file: "a.mp4"')
        self._capture: Any = None
        self._read_so_far = 0
        self._open()
        first = self._frame()
        if first is None:
            raise DataError(f"{self.where}: {self._what} has no picture that can be read")
        if not self._camera:
            self._open()
        picture, _ = self._augmented(first, 0, f"the first frame of {self._what}")
        self._start(self._transformer.shape(picture.shape, f"the first frame of {self._what}"))

    def _open(self) -> None:
        import cv2

        self._release()
        if not self._camera and not Path(str(self._of)).is_file():
            raise DataError(does_not_exist(f"{self.where}: video_file", str(self._of), "give the path of a video"))
        self._capture = cv2.VideoCapture(self._of)
        if not self._capture.isOpened():
            remedy = "set device_id" if self._camera else "OpenCV knows no such form of videos, or it is damaged"
            raise DataError(f"{self.where}: cannot open {self._what}; {remedy}")
        self._read_so_far = 0

    def _frame(self) -> Pixels | None:
        """The next frame, (channels, height, width); None after the last."""
        there, frame = self._capture.read()
        self._read_so_far += 1
        if not there or frame is None:
            return None
        image = np.asarray(frame)
        return image.transpose(2, 0, 1) if image.ndim == 3 else image[None]

    def _at(self, record: int) -> Pixels:
        """The frame that is a record. Raises VideoEnd."""
        wanted = record * self._step + self._step - 1
        if self._camera:
            wanted = self._read_so_far + self._step * self._ranks - 1
        elif wanted < self._read_so_far:
            self._open()
        while self._read_so_far < wanted:
            if not self._capture.grab():
                raise VideoEnd(f"{self.where}: {self._what} has ended")
            self._read_so_far += 1
        frame = self._frame()
        if frame is None:
            told = self.count()
            if told is not None and record < told - 1:
                logs.warning(
                    "video_data_layer.cpp:123",
                    f"{self.where}: {self._what} tells of {told * self._step} frames, but {wanted} could be read",
                )
            raise VideoEnd(f"{self.where}: {self._what} has ended")
        return frame

    def count(self, quick: bool = False) -> int | None:
        """As the video's head says; None for a camera, where it does not say, and ``quick``, as a video ends, and no
        frame comes twice.
        """
        import cv2

        if quick or self._camera or self._capture is None:
            return None
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) // self._step
        return count if 0 < count < 2**31 else None

    def _read(self) -> tuple[Floats, list[int], tuple[str, ...]]:
        records = [self._position + self._rank + i * self._ranks for i in range(self._batch_size)]
        frames = [self._at(record) for record in records]
        names = [f"frame {record * self._step + self._step - 1} of {self._what}" for record in records]
        data = self._fill(lambda i: self._augmented(frames[i], i, names[i])[0], lambda i: names[i])
        return data, [0] * len(records), tuple(names)

    def restore(self, state: State) -> None:
        super().restore(state)
        if not self._camera:
            self._open()

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def close(self) -> None:
        super().close()
        self._release()
