"""SSD's MultiBoxLoss and DetectionOutput at SSD300's size: 8,732 priors, 21 classes.

``some``: scores as of a trained net, where few priors have a class above confidence_threshold; ``all``: those of a net
that has learned nothing, where every prior has most classes. With ``--caffe`` SSD's own program runs the same layers
forward, by ``caffe test``; that includes what it takes to read the bottoms. On the CPU the times are the processor's,
so that other programs at work matter less.

``--train`` times a whole iteration of training SSD300 over VGG-16 instead, by ``caffecli train`` and ``caffe train`` on
one thread: the difference between trainings of one iteration and of five.

    python -m scripts.bench_detection [--batch 2] [--rounds 21] [--device cpu] [--caffe PROGRAM] [--train]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli does, before torch is imported

import h5py
import torch
from google.protobuf import text_format
from torch import Tensor

from caffecli import host
from caffecli import layers as _all_layers  # noqa: F401
from caffecli.layers import registry
from caffecli.layers.base import Layer, as_tuple
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter

CLASSES = 21
KINDS = ("some", "all")
#: of each feature map of SSD300: its side, min_size, max_size and aspect ratios
MAPS = [(38, 30, 60, [2]), (19, 60, 111, [2, 3]), (10, 111, 162, [2, 3]), (5, 162, 213, [2, 3]), (3, 213, 264, [2]),
        (1, 264, 315, [2])]  # fmt: skip
LOSS = """name: "loss" type: "MultiBoxLoss" bottom: "loc" bottom: "conf" bottom: "priors" bottom: "truth" top: "loss"
  multibox_loss_param { num_classes: 21 overlap_threshold: 0.5 neg_pos_ratio: 3 neg_overlap: 0.5 code_type: CENTER_SIZE
    ignore_cross_boundary_bbox: false mining_type: MAX_NEGATIVE }"""
FOUND = """name: "%s" type: "DetectionOutput" bottom: "loc" bottom: "%s" bottom: "priors" top: "%s"
  detection_output_param { num_classes: 21 nms_param { nms_threshold: 0.45 top_k: 400 } code_type: CENTER_SIZE
    keep_top_k: 200 confidence_threshold: 0.01 }"""


def layer(text: str, phase: int) -> Layer:
    return registry.create(text_format.Parse(text, LayerParameter()), phase)


def top_of(run: Layer, given: list[Tensor]) -> Tensor:
    return as_tuple(run(*given))[0]


def bottoms(batch: int) -> dict[str, Tensor]:
    """By name: predictions of random numbers, SSD300's priors, and ten true boxes in each image."""
    random, parts = torch.Generator().manual_seed(0), []
    image = torch.zeros(1, 3, 300, 300)
    for side, low, high, ratios in MAPS:
        text = f"min_size: {low} max_size: {high} variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 "
        text += " ".join(f"aspect_ratio: {ratio}" for ratio in ratios)
        prior = layer(f'name: "priors" type: "PriorBox" prior_box_param {{ {text} }}', TEST)
        features = torch.zeros(1, 1, side, side)
        prior.setup([features.shape, image.shape])
        parts.append(top_of(prior, [features, image]))
    priors = torch.cat(parts, 2)
    count = priors.shape[2] // 4
    corner, size = (torch.rand(batch, 10, 2, generator=random) for _ in range(2))
    corner, size = corner * 0.7, size * 0.25 + 0.05
    label = torch.randint(1, CLASSES, (batch, 10, 1), generator=random)
    item = torch.arange(batch)[:, None, None].expand(batch, 10, 1)
    zero = torch.zeros(batch, 10, 1)
    truth = torch.cat([item, label, zero, corner, corner + size, zero], 2).reshape(1, 1, -1, 8)
    scores = torch.randn(batch, count, CLASSES, generator=random)
    learned = scores.clone()
    learned[..., 0] += 9
    return {
        "loc": torch.randn(batch, count * 4, generator=random),
        "conf": scores.reshape(batch, -1),
        "some": learned.softmax(-1).reshape(batch, -1),
        "all": scores.softmax(-1).reshape(batch, -1),
        "priors": priors,
        "truth": truth,
    }


def milliseconds(run: Layer, given: list[Tensor]) -> tuple[float, float]:
    """Of a forward pass, and of a backward pass where the top has a gradient."""
    cuda = given[0].is_cuda
    clock = time.perf_counter if cuda else time.process_time
    start = clock()
    top = top_of(run, given)
    if cuda:
        torch.cuda.synchronize()
    middle = clock()
    if top.requires_grad:
        torch.autograd.grad(top, [each for each in given if each.requires_grad])
        if cuda:
            torch.cuda.synchronize()
    return (middle - start) * 1e3, (clock() - middle) * 1e3


def theirs(program: str, blobs: dict[str, Tensor], texts: dict[str, str], rounds: int) -> dict[str, float]:
    """Milliseconds of each layer's forward pass, by SSD's own program."""
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "none.caffemodel"
        weights.write_bytes(NetParameter(name="none").SerializeToString())
        for name, text in texts.items():
            bottoms = layer(text, TEST).param.bottom
            silent = f'{text} }} layer {{ name: "silence" type: "Silence" bottom: "{name}"'
            net = _written(Path(folder), blobs, list(bottoms), silent)
            ends = []
            for count in (1, rounds + 1):
                before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
                command = [program, "test", f"-model={net}", f"-weights={weights}", f"-iterations={count}"]
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode:
                    raise SystemExit(run.stderr[-500:])
                ends.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
            took[name] = (ends[1] - ends[0]) / rounds * 1e3
    return took


def _written(folder: Path, blobs: dict[str, Tensor], names: list[str], text: str) -> Path:
    """A net of layers ``text`` over some of the blobs, which it reads from files."""
    net = folder / "net.prototxt"
    net.write_text("\n".join(f"layer {{ {each} }}" for each in [*_sources(folder, blobs, names), text]))
    return net


def _sources(folder: Path, blobs: dict[str, Tensor], names: list[str]) -> list[str]:
    """The layers that read some of the blobs from files, which are written."""
    layers = []
    for name in names:
        path = folder / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file[name] = blobs[name].detach().cpu().numpy()
        path.with_suffix(".txt").write_text(f"{path}\n")
        source = f'batch_size: {len(blobs[name])} source: "{path.with_suffix(".txt")}"'
        layers.append(f'name: "{name}" type: "HDF5Data" top: "{name}" hdf5_data_param {{ {source} }}')
    return layers


def train(programs: dict[str, list[str]], batch: int, rounds: int) -> None:
    """Print the seconds of an iteration of SSD300 for each program, in turns."""
    blobs = {"label": bottoms(batch)["truth"], "data": torch.randn(batch, 3, 300, 300) * 50}
    net = text_format.Parse(Path("models/ssd300_vgg16/train_val.prototxt").read_text(), NetParameter())
    kept = [each for each in net.layer if each.type != "AnnotatedData"]
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as folder:
        texts = [f"layer {{ {each} }}" for each in _sources(Path(folder), blobs, ["label", "data"])]
        texts += [f"layer {{ {text_format.MessageToString(each)} }}" for each in kept]
        (Path(folder) / "net.prototxt").write_text("\n".join(texts))
        solvers = []
        for count in (1, 5):
            solvers.append(Path(folder) / f"{count}.prototxt")
            solvers[-1].write_text(
                f'net: "{folder}/net.prototxt" base_lr: 1e-4 lr_policy: "fixed" max_iter: {count} solver_mode: CPU '
                f'snapshot_after_train: false snapshot_prefix: "{folder}/s"'
            )
        for _ in range(rounds):
            took = []
            for program in programs.values():
                ends = []
                for solver in solvers:
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    command = [*program, "train", f"--solver={solver}"]
                    subprocess.run(command, capture_output=True, check=True, env=environment)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    ends.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
                took.append((ends[1] - ends[0]) / 4)
            print(", ".join(f"{name} {each:.2f} s" for name, each in zip(programs, took, strict=True)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--caffe", metavar="PROGRAM", help="SSD's own caffe, to be timed as well")
    parser.add_argument("--train", action="store_true", help="time whole iterations")
    args = parser.parse_args()
    if args.train:
        ours = {"caffecli": [sys.executable, "-m", "caffecli"]}
        train(ours | ({"SSD's": [args.caffe]} if args.caffe else {}), args.batch, args.rounds)
        return
    host.keep_memory()  # as caffecli does
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {args.device}, batch {args.batch}", flush=True)
    blobs = {name: blob.to(args.device) for name, blob in bottoms(args.batch).items()}
    texts = {"loss": LOSS} | {f"{kind}_found": FOUND % (f"{kind}_found", kind, f"{kind}_found") for kind in KINDS}
    other = theirs(args.caffe, blobs, texts, args.rounds) if args.caffe else {}
    for name in ("loc", "conf"):
        blobs[name].requires_grad_()
    for name, text in texts.items():
        run = layer(text, TRAIN if name == "loss" else TEST)
        given = [blobs[bottom] for bottom in run.param.bottom]
        run.setup([each.shape for each in given])
        run.reshape([each.shape for each in given])
        times = [milliseconds(run, given) for _ in range(args.rounds + 2)][2:]
        forward, backward = map(statistics.median, zip(*times, strict=True))
        beside = f", SSD's {other[name]:8.2f} ms" if other else ""
        print(f"{name:12} caffecli {forward:8.2f} ms{beside}", flush=True)
        if name == "loss":
            print(f"{name:12} caffecli {backward:8.2f} ms backward", flush=True)


if __name__ == "__main__":
    main()
