"""What ``caffe.Net.forward`` costs beside the bare torch forward of the same net.

``python scripts/bench_pycaffe.py models/lenet/deploy.prototxt [batch]``: seconds per pass, the median of many taken in turns. "bare":
the net's layers called by ``caffecli.net.Net.run`` under ``no_grad`` on a tensor, "caffe": ``net.blobs["data"].data[...] = x`` and
``net.forward()``, "all": the same with an array of every blob held, so that all are copied.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import caffe
import numpy as np
import torch

from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec import load


def main(path: str, batch: int = 0, turns: int = 0) -> None:
    net = caffe.Net(path, caffe.TEST)
    held = caffe.Net(path, caffe.TEST)
    name = net.inputs[0]
    shape = list(net.blobs[name].shape)
    shape[0] = batch or shape[0]
    for made in (net, held):
        made.blobs[name].reshape(*shape)
        made.reshape()
    arrays = [blob.data for blob in held.blobs.values()]
    param = load.load_net(path)
    param.state.phase = TEST
    bare = Net(param)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    tensor = torch.from_numpy(x)

    def run_bare() -> None:
        with torch.no_grad():
            bare.run({name: tensor})

    def run_net(made: caffe.Net) -> None:
        made.blobs[name].data[...] = x
        made.forward()

    runs: dict[str, Callable[[], None]] = {"bare": run_bare, "caffe": lambda: run_net(net), "all": lambda: run_net(held)}
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    began = time.perf_counter()
    while time.perf_counter() - began < (turns or 30):
        for kind, run in runs.items():
            start = time.perf_counter()
            run()
            times[kind].append(time.perf_counter() - start)
    print(
        f"{path}, input {tuple(shape)}, {torch.get_num_threads()} threads, {len(times['bare'])} passes each, {len(arrays)} blobs"
    )
    base = statistics.median(times["bare"][1:])
    for kind, seconds in times.items():
        median = statistics.median(seconds[1:])
        print(f"{kind:6} {1000 * median:9.3f} ms   least {1000 * min(seconds[1:]):9.3f} ms   {median / base:.3f} of bare")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
