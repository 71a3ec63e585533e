"""What ``caffe.Net.forward`` costs beside the bare torch forward of the same net.

``OMP_NUM_THREADS=1 python scripts/bench_pycaffe.py models/lenet/deploy.prototxt 64``: a net and a batch size.
Milliseconds of processor time per pass, which other programs disturb little; medians of passes, ten of each in turns,
for half a minute:

- bare: the net's layers by ``caffecli.net.runners.whole.Whole`` under ``no_grad``, from a tensor to a tensor;
- copied: the same, the array copied into one that the net reads, and the outputs copied into arrays;
- caffe: ``net.blobs["data"].data[...] = x``, then ``net.forward()``;
- held: the same while an array of every blob is held, so that all of them are copied;
- C order: ``caffe`` after an array of every weight was taken, which puts them in C order.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

import caffe
from caffecli.net.runners.whole import Whole

SECONDS = 30
#: as in use, where pass follows on pass
IN_A_ROW = 10


def main(path: str, batch: int) -> None:
    nets = {kind: caffe.Net(path, caffe.TEST) for kind in ("caffe", "held", "C order")}
    (name,) = nets["caffe"].inputs
    shape = (batch, *nets["caffe"].blobs[name].shape[1:])
    for net in nets.values():
        net.blobs[name].reshape(*shape)
        net.reshape()
    arrays = [blob.data for blob in nets["held"].blobs.values()]
    nets["held"].share_with(nets["caffe"])
    for blobs in nets["C order"].params.values():
        arrays += [blob.data for blob in blobs]
    bare = Whole(nets["caffe"]._engine.net)  # all passes but the last are of the same weights in the same places
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    tensor = torch.from_numpy(x)
    array = np.empty_like(x)
    arrays_tensor = torch.from_numpy(array)

    def run_bare() -> None:
        with torch.no_grad():
            bare.forward({name: tensor})

    def run_copied() -> None:
        array[...] = x
        with torch.no_grad():
            tops = bare.forward({name: arrays_tensor}).outputs
        for top in tops.values():
            top.numpy().copy()

    def run(net: caffe.Net) -> None:
        net.blobs[name].data[...] = x
        net.forward()

    runs: dict[str, Callable[[], None]] = {"bare": run_bare, "copied": run_copied}
    runs |= {kind: lambda net=net: run(net) for kind, net in nets.items()}  # type: ignore[misc]
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS or len(times["bare"]) < 10:
        for kind, pass_ in runs.items():
            for _ in range(IN_A_ROW):
                start = time.process_time()
                pass_()
                times[kind].append(1000 * (time.process_time() - start))
    count, passes = len(nets["caffe"].blobs), len(times["bare"])
    print(f"{path}, input {shape}, {torch.get_num_threads()} thread(s), {count} blobs, {passes} passes of each")
    base = statistics.median(times["bare"][1:])
    for kind, spent in times.items():
        median = statistics.median(spent[1:])
        print(f"{kind:7} {median:9.3f} ms   {median / base:.3f} of bare")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
