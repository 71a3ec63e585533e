"""VideoData: the frames of a video or a camera."""

from __future__ import annotations

import signal

from torch import Tensor

from caffecli import logs, sources
from caffecli.layers.data import SourceLayer
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LayerParameter


@register("VideoData")
class VideoData(SourceLayer):
    """tops: frames of a video or a camera (batch_size, channels, height, width), blue first; labels (batch_size,), all
    0.

    ``video_data_param`` { video_type: WEBCAM (default), the camera device_id (0), or VIDEO, the file video_file;
    skip_frames (0): how many to leave out before each frame }, ``data_param`` { batch_size (1 for what is to be shown),
    prefetch (4) }, and ``transform_param``, SSD's settings in it too: see AnnotatedData.

    When no batch of frames is left, the log says so, and the process gets SIGINT, as by Ctrl-C: ``test`` ends there
    with exit code 130, ``train`` as its sigint_effect says, and Python code gets KeyboardInterrupt. ``test --all``
    takes each frame once, and ends by itself. Raises DataError for a video or camera that cannot be opened.
    Source: Liu et al., ECCV 2016 (SSD); ``video_data_layer.cpp``.

    Differences: all frames are computed before the end, of which SSD loses those that it has read ahead; SSD fails at
    skip_frames above 0. TSN's and C3D's layers of this name, told apart by their settings, read clips; they are not
    here.
    """

    reads = sources.VideoSource
    settings_name = "data_param"
    size_line = "video_data_layer.cpp:72"

    @classmethod
    def source_of(cls, param: LayerParameter) -> str:
        return param.video_data_param.video_file or str(param.video_data_param.device_id)

    @classmethod
    def drawn_at_tops(cls, param: LayerParameter) -> str:
        return f"Batch {param.data_param.batch_size}"

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        try:
            return super().forward(*bottoms)
        except sources.VideoEnd as end:
            end.__traceback__ = None  # what reads ahead keeps the error, which is not to keep the net
            logs.info("video_data_layer.cpp:118", "Finished processing video.")
            signal.raise_signal(signal.SIGINT)
            if self.batch is None:
                raise
        tops = tuple([self._tensor(array) for array in self.batch.arrays])  # once more, until the run stops
        return tops[0] if len(tops) == 1 else tops
