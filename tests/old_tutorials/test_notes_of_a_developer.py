"""A developer's notes in Korean: a mean as .npy, the catalogue of layers, Flickr style, ImageNet, classify.py."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from tests.old_tutorials.conftest import GOLDEN, MODELS, Terminal, pictures, thinned

ROOT = Path(__file__).parents[2]


def blobproto_to_array(blob, return_diff=False):
    """As the notes have it."""
    data = np.array(blob.diff) if return_diff else np.array(blob.data)
    if blob.HasField("num") or blob.HasField("channels") or blob.HasField("height") or blob.HasField("width"):
        return data.reshape(blob.num, blob.channels, blob.height, blob.width)
    return data.reshape(blob.shape.dim)


def test_a_mean_of_four_axes(caffe_root: Path) -> None:
    blob = caffe.proto.caffe_pb2.BlobProto()
    blob.ParseFromString((GOLDEN / "cifar10_quick/mean.binaryproto").read_bytes())
    arr = blobproto_to_array(blob)
    np.save("./company_mean.npy", arr)
    transformer = caffe.io.Transformer({"data": (10, 3, 32, 16)})
    transformer.set_mean(
        "data", np.load("company_mean.npy")
    )  # pycaffe: "Mean shape invalid"; a first axis of 1 is clear
    taken = transformer.mean["data"]
    transformer.set_mean("data", np.load("company_mean.npy")[0])
    np.testing.assert_array_equal(taken, transformer.mean["data"])
    with pytest.raises(ValueError, match="Mean"):
        transformer.set_mean("data", np.zeros((2, 3, 32, 32)))
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), arr)


CATALOGUE = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 decay_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 }
  convolution_param {
    num_output: 96     # learn 96 filters
    kernel_size: 11    # each filter is 11x11
    stride: 4          # step 4 pixels between each filter application
    weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0 } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "relu1" type: "ReLU" bottom: "pool1" top: "pool1" }
layer { name: "encode1neuron" bottom: "pool1" top: "encode1neuron" type: "Sigmoid" }
layer { name: "layer" bottom: "encode1neuron" top: "tanh" type: "TanH" }
layer { name: "layer2" bottom: "tanh" top: "abs" type: "AbsVal" }
layer { name: "layer3" bottom: "abs" top: "power" type: "Power" power_param { power: 1 scale: 1 shift: 0 } }
layer { name: "reshape" type: "Reshape" bottom: "power" top: "reshaped"
  reshape_param { shape { dim: 0  # copy the dimension from below
    dim: 2 dim: 3 dim: -1 # infer it from the other dimensions
  } } }
layer { name: "concat" bottom: "power" bottom: "abs" top: "concat" type: "Concat" concat_param { axis: 1 } }
layer { name: "slicer_label" type: "Slice" bottom: "label" top: "label1" top: "label2" top: "label3"
  slice_param { axis: 1 slice_point: 1 slice_point: 2 } }
layer { name: "fc8" type: "InnerProduct" param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 1000 weight_filler { type: "gaussian" std: 0.01 }
    bias_filler { type: "constant" value: 0 } } bottom: "power" top: "fc8" }
layer { name: "loss" type: "HingeLoss" bottom: "fc8" bottom: "label1" }
layer { name: "loss2" type: "HingeLoss" bottom: "fc8" bottom: "label2" top: "loss2" hinge_loss_param { norm: L2 } }
"""


def test_the_catalogue_of_layers(caffe_root: Path) -> None:
    """Its samples, one after another; sizes by its formulas."""
    head = 'layer { name: "data" type: "Input" top: "data" top: "label" input_param { '
    Path("net.prototxt").write_text(
        head + "shape { dim: 2 dim: 3 dim: 99 dim: 83 } shape { dim: 2 dim: 3 } } }" + CATALOGUE
    )
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    shapes = {name: blob.data.shape for name, blob in net.blobs.items()}
    high, wide = (99 - 11) // 4 + 1, (83 - 11) // 4 + 1
    assert shapes["conv1"] == (2, 96, high, wide)
    high, wide = (high - 3) // 2 + 1, (wide - 3) // 2 + 1
    assert shapes["pool1"] == shapes["power"] == (2, 96, high, wide)
    assert shapes["reshaped"] == (2, 2, 3, 16 * high * wide)
    assert shapes["concat"] == (2, 192, high, wide)
    assert shapes["label1"] == shapes["label2"] == shapes["label3"] == (2, 1)
    assert shapes["fc8"] == (2, 1000) and shapes["loss2"] == ()
    net.blobs["data"].data[...] = np.random.default_rng(0).standard_normal((2, 3, 99, 83))
    net.forward()
    np.testing.assert_allclose(net.blobs["tanh"].data, np.tanh(net.blobs["encode1neuron"].data), rtol=1e-5)


def test_the_catalogues_layer_without_quotes() -> None:
    """Its sample of BNLL never was valid: what is meant is said."""
    with pytest.raises(SpecError, match='expected a text in quotes, got BNLL; write "BNLL"'):
        text.parse('layer { name: "layer" bottom: "in" top: "out" type: BNLL }', NetParameter())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_flickr_style(caffe_root: Path, typed: Terminal) -> None:
    """Pictures downloaded, gone ones left out and counted; then CaffeNet's weights are taken but for fc8_flickr."""
    Path("site").mkdir()
    images, labels = pictures(12, 3, 60, 4)
    rows = ["image_url,label,_split"]
    folder = partial(Quiet, directory="site")
    with ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            if i != 5:
                cv2.imwrite(f"site/{i}.jpg", image.transpose(1, 2, 0))
            split = "test" if i % 3 == 0 else "train"
            rows.append(f"http://127.0.0.1:{server.server_port}/{i}.jpg,{label},{split}")
        rows.append(f"file://{caffe_root}/site/1.jpg,0,train")
        Path("data/flickr_style").mkdir()
        shutil.copy(ROOT / "data/flickr_style/assemble_data.py", "data/flickr_style")
        Path("data/flickr_style/flickr_style.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
        done = subprocess.run(
            [sys.executable, "data/flickr_style/assemble_data.py", "--workers=-1", "--images=2000", "--seed", "831486"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"},
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"Downloading 13 images with \d+ workers\.\.\.\nWriting train/val for 11 successfully downloaded images\.\n",
        done.stdout,
    )
    for name, count in (("train", 7), ("test", 4)):
        lines = Path(f"data/flickr_style/{name}.txt").read_text().splitlines()
        assert len(lines) == count
        assert all(int(label) == int(Path(path).stem) % 4 for path, label in map(str.split, lines))

    Path("models/finetune_flickr_style").mkdir(parents=True)
    Path("models/bvlc_reference_caffenet").mkdir()
    np.save("mean.npy", np.full((3, 256, 256), 110, np.float32))
    Path("data/ilsvrc12").mkdir()
    from converters.convert_mean import convert_mean

    convert_mean("mean.npy", "data/ilsvrc12/imagenet_mean.binaryproto")
    published = MODELS / "finetune_flickr_style/train_val.prototxt"
    net = re.sub(r"batch_size: \d+", "batch_size: 2", thinned(published, 16))
    Path("models/finetune_flickr_style/train_val.prototxt").write_text(net)
    Path("models/bvlc_reference_caffenet/deploy.prototxt").write_text(
        thinned(MODELS / "bvlc_reference_caffenet/deploy.prototxt", 16)
    )
    source = caffe.Net("models/bvlc_reference_caffenet/deploy.prototxt", caffe.TEST)
    for blobs in source.params.values():
        blobs[0].data[...] = np.random.default_rng(0).normal(0, 0.02, blobs[0].data.shape)
    source.save("models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel")
    solver = (MODELS / "finetune_flickr_style/solver.prototxt").read_text()
    solver = re.sub(r"max_iter: \d+", "max_iter: 2", re.sub(r"test_iter: \d+", "test_iter: 2", solver))
    solver = re.sub(r"display: \d+", "display: 1", solver.replace("solver_mode: GPU", "solver_mode: CPU"))
    Path("models/finetune_flickr_style/solver.prototxt").write_text(solver)
    said = typed("""
        ./build/tools/caffe train -solver models/finetune_flickr_style/solver.prototxt \\
          -weights models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel
    """)
    assert "Finetuning from models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel" in said
    assert "Ignoring source layer fc8" in said
    assert "Solving FlickrStyleCaffeNet" in said
    assert re.search(r"Iteration 0, Testing net \(#0\)\n.*Test net output #0: accuracy = ", said)
    assert "Iteration 1, lr = 0.001" in said


def test_imagenet(caffe_root: Path, typed: Terminal) -> None:
    """create_imagenet.sh and make_imagenet_mean.sh's commands, training, time, and going on from a snapshot."""
    for split, count in (("train", 8), ("val", 4)):
        images, labels = pictures(count, 3, 40, 2)
        lines = []
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"n0144076{label}/n_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{i:08}.JPEG"
            place = Path("imagenet", split, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite("one.jpg", image.transpose(1, 2, 0))
            Path("one.jpg").rename(place)
            lines.append(f"{name} {label}\n")
        Path("data/ilsvrc12").mkdir(exist_ok=True)
        Path(f"data/ilsvrc12/{split}.txt").write_text("".join(lines))
    Path("examples/imagenet").mkdir()
    Path("models/bvlc_reference_caffenet").mkdir(parents=True)
    net = thinned(MODELS / "bvlc_reference_caffenet/train_val.prototxt", 16)
    net = re.sub(r"data/ilsvrc12/(ilsvrc12_\w+_)lmdb", r"examples/imagenet/\1leveldb", net).replace("LMDB", "LEVELDB")
    Path("models/bvlc_reference_caffenet/train_val.prototxt").write_text(
        re.sub(r"batch_size: \d+", "batch_size: 2", net)
    )
    solver = (
        (MODELS / "bvlc_reference_caffenet/solver.prototxt").read_text().replace("solver_mode: GPU", "solver_mode: CPU")
    )
    for name, value in (("max_iter", 4), ("snapshot", 2), ("test_iter", 2), ("test_interval", 2), ("display", 1)):
        solver = re.sub(rf"\b{name}: \d+", f"{name}: {value}", solver)
    Path("models/bvlc_reference_caffenet/solver.prototxt").write_text(solver)
    prefix = re.search(r'snapshot_prefix: "(.*)"', solver)[1]
    said = typed(f"""
        GLOG_logtostderr=1 ./build/tools/convert_imageset --resize_height=256 --resize_width=256 --shuffle \\
          --backend=leveldb imagenet/train/ data/ilsvrc12/train.txt examples/imagenet/ilsvrc12_train_leveldb
        GLOG_logtostderr=1 ./build/tools/convert_imageset --resize_height=256 --resize_width=256 --shuffle \\
          --backend=leveldb imagenet/val/ data/ilsvrc12/val.txt examples/imagenet/ilsvrc12_val_leveldb
        ./build/tools/compute_image_mean --backend=leveldb examples/imagenet/ilsvrc12_train_leveldb \\
          data/ilsvrc12/imagenet_mean.binaryproto
        ./build/tools/caffe train --solver=models/bvlc_reference_caffenet/solver.prototxt
        ./build/tools/caffe time --model=models/bvlc_reference_caffenet/train_val.prototxt --iterations=1
        ./build/tools/caffe train --solver=models/bvlc_reference_caffenet/solver.prototxt \\
          --snapshot={prefix}_iter_2.solverstate
    """)
    assert "Processed 8 files." in said and "Processed 4 files." in said
    assert re.findall(r"mean_value channel \[\d\]: \S+", said.replace("  ", " ")) or "Number of channels: 3" in said
    assert said.count("Optimization Done.") == 4  # by solver.cpp and by caffe.cpp
    assert "Average Forward-Backward: " in said
    assert f"Resuming from {prefix}_iter_2.solverstate" in said
    assert re.findall(r"Iteration (\d+), Testing net", said) == ["0", "2", "4", "2", "4"]


def test_classify_py(caffenet: tuple[Path, Path], caffe_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The heart of classify.py, over a .npy file, a folder and a picture."""
    for name in ("a", "b"):
        cv2.imwrite(
            f"examples/images/{name}.jpg", np.random.default_rng(ord(name)).integers(0, 255, (80, 90, 3), np.uint8)
        )
    np.save("inputs.npy", [caffe.io.load_image("examples/images/a.jpg")])
    classifier = caffe.Classifier(
        str(caffenet[0]),
        str(caffenet[1]),
        image_dims=(256, 256),
        mean=np.full((3, 227, 227), 110),
        input_scale=None,
        raw_scale=255.0,
        channel_swap=(2, 1, 0),
    )
    found = {}
    for input_file in ("inputs.npy", "examples/images", "examples/images/a.jpg"):
        if input_file.endswith("npy"):
            inputs = np.load(input_file)
        elif Path(input_file).is_dir():
            inputs = [caffe.io.load_image(im_f) for im_f in sorted(map(str, Path(input_file).glob("*.jpg")))]
        else:
            inputs = [caffe.io.load_image(input_file)]
        found[input_file] = classifier.predict(inputs, False)
    assert [len(scores) for scores in found.values()] == [1, 2, 1]
    np.testing.assert_allclose(found["inputs.npy"][0], found["examples/images"][0], atol=1e-6)
    np.testing.assert_allclose(found["inputs.npy"][0], found["examples/images/a.jpg"][0], atol=1e-6)
    assert abs(found["inputs.npy"][0].sum() - 1) < 1e-5
