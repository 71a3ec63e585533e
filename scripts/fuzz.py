"""Mutated files through every reader: ``make fuzz``.

    python -m scripts.fuzz [--count 12000] [--seed 0] [--only KIND,KIND] [--case KIND:NUMBER] [--keep fuzz]

A small training writes one good file of each kind that caffecli reads. Then, case by case, one of them is damaged and
given to the commands that read it, each in a process of its own. However damaged, a file gets an answer or one clear
line: a case counts against us if the process

- prints a traceback or ``internal:``, or fails without a word;
- ends by a signal, or with another code than 0, 1 or 2;
- takes over 10 seconds, or over 1 GB of memory beyond what it had at its start.

What was found lies in the folder ``--keep`` with its command, and makes the exit code 1. A case depends on the seed,
its kind and its number alone, so that ``--case`` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: children that are forked cannot use more

import numpy as np

SECONDS, MEMORY, DISK = 10.0, 1 << 30, 1 << 28


@dataclass(frozen=True)
class Kind:
    """A kind of file: the seed file that is damaged, whether it is text, and the commands that read it."""

    file: str
    commands: tuple[str, ...]
    text: bool = False


KINDS = {
    "net": Kind("train_val.prototxt", ("train --solver solver.prototxt", "summarize train_val.prototxt"), text=True),
    "deploy": Kind("deploy.prototxt", ("summarize deploy.prototxt", "draw_net deploy.prototxt out.png"), text=True),
    "old-net": Kind("v1.prototxt", ("upgrade_net_proto_text v1.prototxt out.prototxt",), text=True),
    "solver": Kind("solver.prototxt", ("train --solver solver.prototxt",), text=True),
    "old-solver": Kind("solver.prototxt", ("upgrade_solver_proto_text solver.prototxt out.prototxt",), text=True),
    "weights": Kind(
        "s_iter_2.caffemodel",
        (
            "test --model train_val.prototxt --weights s_iter_2.caffemodel --iterations 1",
            "upgrade_net_proto_binary s_iter_2.caffemodel out.caffemodel",
            "convert_weights s_iter_2.caffemodel out.npz",
        ),
    ),
    "weights-hdf5": Kind(
        "h_iter_2.caffemodel.h5",
        (
            "test --model train_val.prototxt --weights h_iter_2.caffemodel.h5 --iterations 1",
            "convert_weights h_iter_2.caffemodel.h5 out.npz",
        ),
    ),
    "weights-npz": Kind("w.npz", ("convert_weights w.npz out.caffemodel --net deploy.prototxt",)),
    "weights-safetensors": Kind(
        "w.safetensors", ("convert_weights w.safetensors out.caffemodel --net deploy.prototxt",)
    ),
    "state": Kind("s_iter_2.solverstate", ("train --solver solver.prototxt --snapshot s_iter_2.solverstate",)),
    "state-hdf5": Kind("h_iter_2.solverstate.h5", ("train --solver hdf5.prototxt --snapshot h_iter_2.solverstate.h5",)),
    "state-json": Kind(
        "s_iter_2.solverstate.json", ("train --solver solver.prototxt --snapshot s_iter_2.solverstate",), text=True
    ),
    "program": Kind("program.pt2", ("import program.pt2 out",)),
    "mean": Kind("mean.binaryproto", ("convert_mean mean.binaryproto out.npy", "train --solver mean.prototxt")),
    "mean-npy": Kind("mean.npy", ("convert_mean mean.npy out.binaryproto",)),
    "lmdb": Kind("lmdb/data.mdb", ("train --solver solver.prototxt", "compute_image_mean lmdb out.binaryproto")),
    "lmdb-pictures": Kind("encoded/data.mdb", ("compute_image_mean encoded out.binaryproto",)),
    "leveldb": Kind("leveldb/*", ("compute_image_mean --backend leveldb leveldb out.binaryproto",)),
    "datum": Kind("datum", ("compute_image_mean lmdb out.binaryproto",)),
    "png": Kind("pictures/0.png", ("convert_imageset ./ list.txt out", "convert_imageset --encoded ./ list.txt out")),
    "jpeg": Kind(
        "pictures/1.jpg",
        ("convert_imageset ./ list.txt out", "resize_images pictures out --width 8 --height 8"),
    ),
    "array": Kind(
        "pictures.npy",
        (
            "classify pictures.npy out.npy --model_def deploy.prototxt --pretrained_model s_iter_2.caffemodel"
            " --mean_file mean.npy --images_dim 12,12",
        ),
    ),
    "list": Kind("list.txt", ("convert_imageset ./ list.txt out", "train --solver pictures.prototxt"), text=True),
    "hdf5": Kind("data.h5", ("train --solver data_hdf5.prototxt",)),
    "hdf5-list": Kind("hdf5.txt", ("train --solver data_hdf5.prototxt",), text=True),
    "windows": Kind("windows.txt", ("train --solver windows.prototxt",), text=True),
    "log": Kind("train.log", ("parse_log train.log .", "plot_log 6 out.png train.log"), text=True),
    "boxes-xml": Kind(
        "boxes.xml", ("convert_annoset --anno_type detection --label_map_file map.prototxt ./ xml.txt out",), text=True
    ),
    "boxes-json": Kind(
        "boxes.json",
        ("convert_annoset --anno_type detection --label_type json --label_map_file map.prototxt ./ json.txt out",),
        text=True,
    ),
    "label-map": Kind(
        "map.prototxt",
        ("convert_annoset --anno_type detection --label_map_file map.prototxt ./ xml.txt out",),
        text=True,
    ),
    "found-json": Kind("found.json", ("score_detections found.json truth.json",), text=True),
    "found-csv": Kind("found.csv", ("score_detections found.csv truth.json --ap_version 11point",), text=True),
    "found-coco": Kind("coco.json", ("score_detections coco.json truth.json",), text=True),
    "found-voc": Kind("voc/found_cat.txt", ("score_detections voc truth.json",), text=True),
    "found-ilsvrc": Kind(
        "ilsvrc.txt", ("score_detections ilsvrc.txt truth.json --label_map_file map.prototxt",), text=True
    ),
    "truth": Kind("truth.json", ("score_detections found.json truth.json",), text=True),
    "idx": Kind("images-idx3", ("convert_mnist_data images-idx3 labels-idx1 out",)),
}


# -- seeds ---------------------------------------------------------------------------------------------------------

HEAD = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "prelu" type: "PReLU" bottom: "ip" top: "act" prelu_param { channel_shared: true } }
layer { name: "out" type: "InnerProduct" bottom: "act" top: "out"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.01 } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }\n'
SOLVER = """net: "{net}"
base_lr: 0.01
lr_policy: "step"
gamma: 0.5
stepsize: 3
momentum: 0.9
weight_decay: 0.0005
display: 1
max_iter: {until}
snapshot_prefix: "{prefix}"
snapshot_format: {form}
random_seed: 1
solver_mode: CPU
"""
V1 = """name: "old"
input: "data" input_dim: 2 input_dim: 3 input_dim: 12 input_dim: 12
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "xavier" } } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
layers { name: "pool" type: POOLING bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layers { name: "prob" type: SOFTMAX bottom: "pool" top: "prob" }
"""


BOXES_XML = """<annotation><size><width>12</width><height>12</height></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>10</ymax></bndbox></object></annotation>
"""
BOXES_JSON = """{"image": {"width": 12, "height": 12},
"annotation": [{"category_id": "cat", "bbox": [1, 2, 8, 8], "iscrowd": 0}]}
"""
TRUTH = """{"images": [{"id": 7, "file_name": "0.png", "width": 12, "height": 12}],
"categories": [{"id": 3, "name": "cat"}],
"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 8, 8], "area": 64, "iscrowd": 0}]}
"""
#: what a detector found, in each of its forms, and the truth
FOUND = {
    "truth.json": TRUTH,
    "found.json": """[{"picture": "0.png", "width": 12, "height": 12,
"objects": [{"label": 1, "name": "cat", "score": 0.9, "xmin": 1, "ymin": 2, "xmax": 9, "ymax": 10}]}]
""",
    "found.csv": "picture,label,name,score,xmin,ymin,xmax,ymax\n0.png,1,cat,0.9,1,2,9,10\n",
    "coco.json": '[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 8, 8], "score": 0.9}]\n',
    "voc/found_cat.txt": "0 0.9 1 2 9 10\n0 0.4 3 3 9 10\n",
    "ilsvrc.txt": "0 1 0.9 1 2 9 10\n0 1 0.4 3 3 9 10\n",
}


def data_layer(type: str, setting: str) -> str:
    """The layer at the bottom of a training net."""
    return f'name: "fuzzed"\nlayer {{ name: "data" type: "{type}" top: "data" top: "label"\n  {setting} }}\n'


def make_seeds() -> None:
    """One good file of each kind, in the working directory."""
    make_data()
    make_nets()
    make_weights()


def make_data() -> None:
    """Pictures, databases and lists of them, HDF5, means, boxes, MNIST's files."""
    import cv2
    import h5py

    from caffecli.formats import db
    from caffecli.proto.caffe_pb2 import Datum

    numbers = np.random.default_rng(0)
    Path("pictures").mkdir()
    pictures = numbers.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    names = [f"pictures/{i}.{'jpg' if i % 2 else 'png'}" for i in range(8)]
    for name, pixels in zip(names, pictures, strict=True):
        cv2.imwrite(name, pixels)
    Path("list.txt").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(names)))
    databases: tuple[tuple[str, db.Backend, bool], ...]
    databases = ("lmdb", "lmdb", False), ("encoded", "lmdb", True), ("leveldb", "leveldb", False)
    for folder, backend, encoded in databases:
        with contextlib.suppress(Exception), db.open_writer(Path(folder), backend) as out:  # LevelDB may be missing
            for i, (name, pixels) in enumerate(zip(names, pictures, strict=True)):
                planes = pixels.transpose(2, 0, 1).tobytes()
                datum = Datum(label=i % 3, encoded=encoded, data=Path(name).read_bytes() if encoded else planes)
                if not encoded:
                    datum.channels, datum.height, datum.width = 3, 12, 12
                    Path("datum").write_bytes(datum.SerializeToString())
                out.put(b"%08d" % i, datum.SerializeToString())
    with h5py.File("data.h5", "w") as file:
        file["data"] = pictures.transpose(0, 3, 1, 2).astype("f4")
        file["label"] = np.arange(8, dtype="f4") % 3
    Path("hdf5.txt").write_text("data.h5\n")
    windows = "".join(f"# {i}\n{name}\n3\n12\n12\n2\n1 0.9 1 1 9 9\n0 0.1 2 2 11 11\n" for i, name in enumerate(names))
    Path("windows.txt").write_text(windows)
    np.save("mean.npy", pictures[0].transpose(2, 0, 1).astype("f4"))
    np.save("pictures.npy", pictures.astype("f4") / 255)
    for form, text in (("xml", BOXES_XML), ("json", BOXES_JSON)):
        Path(f"boxes.{form}").write_text(text)
        Path(f"{form}.txt").write_text("".join(f"{name} boxes.{form}\n" for name in names))
    Path("map.prototxt").write_text('item { name: "cat" label: 1 display_name: "a cat" }\n')
    Path("voc").mkdir()
    for name, text in FOUND.items():
        Path(name).write_text(text)
    Path("images-idx3").write_bytes(struct.pack(">4i", 2051, 4, 5, 5) + bytes(100))
    Path("labels-idx1").write_bytes(struct.pack(">2i", 2049, 4) + bytes(4))


def make_nets() -> None:
    """Nets that read those, and solvers."""
    lmdb = 'data_param { source: "lmdb" batch_size: 2 backend: LMDB }'
    windows = 'window_data_param { source: "windows.txt" batch_size: 2 fg_fraction: 0.5 }'
    nets = {
        "train_val": data_layer("Data", lmdb),
        "mean_net": data_layer("Data", lmdb + ' transform_param { mean_file: "mean.binaryproto" }'),
        "pictures_net": data_layer("ImageData", 'image_data_param { source: "list.txt" batch_size: 2 }'),
        "hdf5_net": data_layer("HDF5Data", 'hdf5_data_param { source: "hdf5.txt" batch_size: 2 }'),
        "windows_net": data_layer("WindowData", windows + " transform_param { crop_size: 12 }"),
    }
    for name, layer in nets.items():
        Path(f"{name}.prototxt").write_text(layer + HEAD + LOSS)
    source = (
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }\n'
    )
    Path("deploy.prototxt").write_text(
        source + HEAD + 'layer { name: "prob" type: "Softmax" bottom: "out" top: "prob" }\n'
    )
    Path("v1.prototxt").write_text(V1)
    for name, net, form in (
        ("solver", "train_val", "BINARYPROTO"), ("hdf5", "train_val", "HDF5"), ("mean", "mean_net", "BINARYPROTO"),
        ("pictures", "pictures_net", "BINARYPROTO"), ("data_hdf5", "hdf5_net", "BINARYPROTO"),
        ("windows", "windows_net", "BINARYPROTO"),
    ):  # fmt: skip
        prefix = "h" if name == "hdf5" else "s"
        Path(f"{name}.prototxt").write_text(SOLVER.format(net=f"{net}.prototxt", until=2, prefix=prefix, form=form))


def make_weights() -> None:
    """What commands write: a mean, a log, snapshots, weights in other forms, a program."""
    caffecli("compute_image_mean lmdb mean.binaryproto")
    caffecli("train --solver solver.prototxt", log=Path("train.log"))
    caffecli("train --solver hdf5.prototxt")
    for form in ("npz", "safetensors"):
        caffecli(f"convert_weights s_iter_2.caffemodel w.{form}")
    caffecli("export --to torch deploy.prototxt s_iter_2.caffemodel program.pt2")
    for name, prefix in (("solver", "s"), ("hdf5", "h")):  # what is resumed has two iterations before it
        text = Path(f"{name}.prototxt").read_text().replace("max_iter: 2", "max_iter: 4")
        Path(f"{name}.prototxt").write_text(text.replace(f'snapshot_prefix: "{prefix}"', 'snapshot_prefix: "out"'))


def caffecli(arguments: str, log: Path = Path(os.devnull)) -> None:
    """Run a command in a process of its own; its messages go to ``log``."""
    with log.open("w") as out:
        subprocess.run([sys.executable, "-m", "caffecli", *arguments.split()], check=True, stdout=out, stderr=out)


# -- mutations -----------------------------------------------------------------------------------------------------

#: what stands in place of a word in a text
WORDS = (b"0", b"-1", b"1e39", b"nan", b"3.5", b"99999999999999999999", b'""', b'"../../x"', b'"/dev/zero"', b'"\\n"',
         b'"\xff\xfe"', b"{", b"}", b"[", b"[" * 3000, b"null", b"true", b"x" * 3000, b"\x00",
         b"\xef\xbb\xbf", b":")  # fmt: skip
INTEGERS = (0, 1, -1, 127, 128, 255, 256, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, 2**64 - 1)


def flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def overwrite(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    data[at : at + 8] = draw.randbytes(len(data[at : at + 8]))


def integer(data: bytearray, draw: random.Random) -> None:
    size, at = draw.choice((1, 2, 4, 8)), draw.randrange(len(data))
    value = (draw.choice(INTEGERS) % (1 << 8 * size)).to_bytes(size, "little")
    data[at : at + size] = draw.choice((value, value[::-1]))[: len(data) - at]


def truncate(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def cut_out(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    del data[at : at + draw.choice((1, 4, 16, 256))]


def repeat(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    part = data[at : at + draw.choice((1, 4, 64, 1024))]
    data[at:at] = part * draw.choice((1, 2, 50))


def blank(data: bytearray, draw: random.Random) -> None:
    at, size = draw.randrange(len(data)), draw.choice((16, 512, 4096))
    data[at : at + size] = draw.choice((b"\x00", b"\xff")) * len(data[at : at + size])


def insert(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    data[at:at] = draw.randbytes(draw.choice((1, 4, 300)))


def word(data: bytearray, draw: random.Random) -> None:
    """Another word in place of one."""
    words = list(re.finditer(rb'"[^"\n]*"|[\w.+-]+|\S', data))
    if words:
        place = draw.choice(words)
        other = draw.choice(WORDS) if draw.random() < 0.6 else bytes(draw.choice(words)[0])
        data[place.start() : place.end()] = other


def line(data: bytearray, draw: random.Random) -> None:
    """A line left out, said twice, or moved."""
    lines = data.splitlines(keepends=True)
    at, to = draw.randrange(len(lines)), draw.randrange(len(lines))
    taken = [lines.pop(at)] if draw.random() < 0.7 else [lines[at]]
    if draw.random() < 0.6:
        lines[to:to] = taken
    data[:] = b"".join(lines)


BYTES = (flip, overwrite, integer, truncate, cut_out, repeat, blank, insert)
TEXT = (word, word, word, word, line, line, flip, truncate, cut_out, repeat, insert)


def mutated(data: bytes, text: bool, draw: random.Random) -> bytes:
    """``data`` after one to four mutations."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if out:
            draw.choice(TEXT if text else BYTES)(out, draw)
    return bytes(out)


# -- cases ---------------------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    case: str
    command: str
    faults: list[str]
    output: str


def run_case(seeds: Path, seed: int, kind: str, number: int, keep: Path | None) -> tuple[str, list[Finding]]:
    """Damage one file, run the commands that read it; what was wrong with them. Kept is the folder of a finding."""
    draw = random.Random(f"{seed}:{kind}:{number}")
    case = f"{kind}:{number}"
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "case"
        shutil.copytree(seeds, here, copy_function=os.link)
        damage(here, kind, draw)
        findings = []
        for command in KINDS[kind].commands:
            faults, output = run(here, command.split())
            if faults:
                findings.append(Finding(case, command, faults, output))
        if findings and keep:
            to = keep / case.replace(":", "-")
            shutil.copytree(here, to, dirs_exist_ok=True)
            (to / "findings.json").write_text(json.dumps([finding._asdict() for finding in findings], indent=1))
    return case, findings


def damage(folder: Path, kind: str, draw: random.Random) -> None:
    """Put a mutated file in the place of the kind's seed."""
    files = sorted(folder.glob(KINDS[kind].file))
    if not files:
        return
    file = draw.choice(files)
    new = mutated(file.read_bytes(), KINDS[kind].text, draw)
    if kind == "datum":
        from caffecli.formats import db

        shutil.rmtree(folder / "lmdb")
        with db.open_writer(folder / "lmdb", "lmdb") as out:
            out.put(b"00000000", file.read_bytes())
            out.put(b"00000001", new)
        return
    file.unlink()  # its bytes are those of the seed itself
    file.write_bytes(new)


def run(folder: Path, arguments: list[str]) -> tuple[list[str], str]:
    """What is wrong with how a command ends in ``folder``, and what it printed."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    out = folder.parent / "output"
    child = os.fork()
    if child == 0:
        in_child(folder, out, arguments)
    started = time.monotonic()
    ended = os.pidfd_open(child)
    hangs = not select.select([ended], [], [], SECONDS)[0]
    os.close(ended)
    if hangs:
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    printed = out.read_bytes().decode(errors="replace")
    faults = []
    code = os.waitstatus_to_exitcode(status)
    if hangs:
        faults.append(f"took over {time.monotonic() - started:.0f} s")
    elif code < 0:
        faults.append(f"ended by {signal.Signals(-code).name}")
    elif code not in (0, 1, 2):
        faults.append(f"exit code {code}")
    elif code and not printed.strip():
        faults.append("failed without a word")
    faults += [f"printed {word!r}" for word in ("Traceback (most", "internal:") if word in printed]
    taken = usage.ru_maxrss * 1024 - before
    if taken > MEMORY:
        faults.append(f"took {taken >> 20} MiB")
    return faults, printed


def in_child(folder: Path, out: Path, arguments: list[str]) -> None:
    """The command, as the program ``caffecli`` would run it; never returns."""
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, DISK))
        stream = os.open(out, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (stream, 1), (stream, 2)):
            os.dup2(source, target)
        sys.argv = ["caffecli", *arguments]
        from caffecli.cli import main

        main.main("caffecli")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # a fault of caffecli's; said as Python would say it
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def prepare() -> None:
    """Import in the parent what the children need."""
    import torch

    from caffecli import logs
    from caffecli.cli import main

    torch.set_num_threads(1)
    for name in main.COMMANDS:
        main.load_command(name)
    for module in ("caffe", "caffe.classifier", "caffecli.solver.solver", "caffecli.net.net", "matplotlib.pyplot"):
        __import__(module)
    logs.show_by_default(False)  # which importing caffe has begun


def _case(job: tuple[Path, int, str, int, Path | None]) -> tuple[str, list[Finding]]:
    return run_case(*job)


def cases(only: list[str], count: int) -> Iterator[tuple[str, int]]:
    """All kinds in turn, until there are ``count`` cases."""
    for number in range(count):
        yield only[number % len(only)], number // len(only)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--case", help="KIND:NUMBER, that one alone, its output shown")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    prepare()
    start, found = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)
        make_seeds()
        os.chdir(here)
        keep = args.keep.resolve()
        if args.case:
            kind, number = args.case.split(":")
            jobs = [(Path(folder), args.seed, kind, int(number), keep)]
        else:
            jobs = [(Path(folder), args.seed, *case, keep) for case in cases(args.only.split(","), args.count)]
        with multiprocessing.get_context("fork").Pool(args.processes) as pool:
            for done, (_, findings) in enumerate(pool.imap_unordered(_case, jobs, chunksize=4), 1):
                for finding in findings:
                    found += 1
                    last = finding.output.strip().splitlines()[-1:] or [""]
                    print(
                        f"{finding.case}  {finding.command}: {', '.join(finding.faults)}\n    {last[0][:200]}",
                        flush=True,
                    )
                if done % 1000 == 0:
                    print(f"{done} of {len(jobs)} cases, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{len(jobs)} damaged files, {found} findings, {time.monotonic() - start:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
