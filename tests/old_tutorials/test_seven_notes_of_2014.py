"""Seven reading notes on Caffe, of July 2014: CIFAR-10, features, pictures of one's own, LeNet, what a net sees."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffecli.formats import db
from caffecli.proto.caffe_pb2 import Datum
from tests.old_tutorials.conftest import GOLDEN, MODELS, Terminal, pictures

QUICK = """
name: "CIFAR10_quick_{phase}"
layers {{
  layer {{ name: "cifar" type: "data" source: "cifar10-leveldb/cifar-{phase}-leveldb" meanfile: "mean.binaryproto"
    batchsize: 20 }}
  top: "data" top: "label"
}}
layers {{
  layer {{ name: "conv1" type: "conv" num_output: 8 kernelsize: 5 pad: 2 stride: 1
    weight_filler {{ type: "gaussian" std: 0.01 }} bias_filler {{ type: "constant" }} blobs_lr: 1. blobs_lr: 2. }}
  bottom: "data" top: "conv1"
}}
layers {{ layer {{ name: "pool1" type: "pool" kernelsize: 3 stride: 2 pool: MAX }} bottom: "conv1" top: "pool1" }}
layers {{ layer {{ name: "relu1" type: "relu" }} bottom: "pool1" top: "pool1" }}
layers {{
  layer {{ name: "ip1" type: "innerproduct" num_output: 10 weight_filler {{ type: "gaussian" std: 0.01 }}
    bias_filler {{ type: "constant" }} blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. }}
  bottom: "pool1" top: "ip1"
}}
{end}
"""
ENDS = {
    "train": 'layers { layer { name: "loss" type: "softmax_loss" } bottom: "ip1" bottom: "label" }',
    "test": 'layers { layer { name: "prob" type: "softmax" } bottom: "ip1" top: "prob" } '
    'layers { layer { name: "accuracy" type: "accuracy" } bottom: "prob" bottom: "label" top: "accuracy" }',
}


def test_note_1_cifar10(cifar_files: int, typed: Terminal) -> None:
    """create_cifar10.sh and train_quick.sh of that time; lines of the rate, the loss, and two scores of each test."""
    for phase, end in ENDS.items():
        Path(f"examples/cifar10/cifar10_quick_{phase}.prototxt").write_text(QUICK.format(phase=phase, end=end))
    Path("examples/cifar10/cifar10_quick_solver.prototxt").write_text(
        'train_net: "cifar10_quick_train.prototxt" test_net: "cifar10_quick_test.prototxt" test_iter: 1 '
        'test_interval: 20 base_lr: 0.001 momentum: 0.9 weight_decay: 0.004 lr_policy: "fixed" display: 10 '
        'max_iter: 40 snapshot: 40 snapshot_prefix: "cifar10_quick" solver_mode: CPU random_seed: 1'
    )
    said = typed("""
        cd examples/cifar10
        mkdir cifar10-leveldb
        ../../build/examples/cifar10/convert_cifar_data.bin ../../data/cifar10 ./cifar10-leveldb
        ../../build/tools/compute_image_mean.bin ./cifar10-leveldb/cifar-train-leveldb mean.binaryproto
        GLOG_logtostderr=1 ../../build/tools/train_net.bin cifar10_quick_solver.prototxt
    """)
    assert re.findall(r"Iteration (\d+), lr = (\S+)", said) == [(str(i), "0.001") for i in range(0, 40, 10)]
    losses = [float(value) for value in re.findall(r"Iteration \d+.*, loss = (\S+)", said)]
    assert losses[-1] < losses[0]
    scores = [float(value) for value in re.findall(r"Test net output #0: accuracy = (\S+)", said)]
    assert len(scores) == 3 and scores[-1] > 0.5
    assert Path("cifar10_quick_iter_40.caffemodel").exists() and Path("cifar10_quick_iter_40.solverstate").exists()


def test_note_2_features(typed: Terminal, caffenet: tuple[Path, Path]) -> None:
    """A list of the pictures in a folder, a net of V1 over it, fc7 into a LevelDB; a second run says that it exists."""
    for name in ("cat.jpg", "cat1.jpg"):
        cv2.imwrite(f"examples/images/{name}", pictures(1, 3, 64, 1)[0][0].transpose(1, 2, 0))
    Path("data/ilsvrc12").mkdir()
    np.save("mean.npy", np.full((3, 256, 256), 110, np.float32))
    from converters.convert_mean import convert_mean

    convert_mean("mean.npy", "data/ilsvrc12/imagenet_mean.binaryproto")
    deploy = caffenet[0].read_text()
    head = """
        layers { name: "data" type: IMAGE_DATA top: "data" top: "label"
          image_data_param { source: "examples/_temp/file_list.txt" batch_size: 2 new_height: 256 new_width: 256 }
          transform_param { mean_file: "data/ilsvrc12/imagenet_mean.binaryproto" crop_size: 227 mirror: false } }
    """
    kinds = {"Convolution": "CONVOLUTION", "ReLU": "RELU", "Pooling": "POOLING", "LRN": "LRN"}
    kinds |= {"InnerProduct": "INNER_PRODUCT", "Dropout": "DROPOUT", "Softmax": "SOFTMAX"}
    body = deploy[deploy.index("layer {", deploy.index("input_param")) :].replace("layer {", "layers {")
    body = re.sub(r'type: "(\w+)"', lambda found: f"type: {kinds[found[1]]}" if found[1] in kinds else found[0], body)
    Path("examples/feature_extraction").mkdir()
    Path("examples/feature_extraction/imagenet_val.prototxt").write_text(head + body)
    Path("model").symlink_to(caffenet[1])
    typed("""
        mkdir examples/_temp
        find `pwd`/examples/images -type f -exec echo {} \\; > examples/_temp/temp.txt
        sed "s/$/ 0/" examples/_temp/temp.txt > examples/_temp/file_list.txt
        cp examples/feature_extraction/imagenet_val.prototxt examples/_temp
    """)
    extract = (
        "build/tools/extract_features.bin model examples/_temp/imagenet_val.prototxt fc7 examples/_temp/features 1"
    )
    typed(extract)
    with db.open_reader("examples/_temp/features", "leveldb") as reader:
        features = [Datum.FromString(value) for _, value in reader]
    assert [len(each.float_data) for each in features] == [256, 256]
    assert features[0].float_data == features[1].float_data and max(features[0].float_data) > 0
    with pytest.raises(
        AssertionError, match="examples/_temp/features"
    ):  # "where the folder exists it fails: remove it"
        typed(extract)


def test_note_3_pictures_of_ones_own(typed: Terminal) -> None:
    """Two classes of JPEGs, with what create_imagenet.sh, make_imagenet_mean.sh, train_imagenet.sh and
    resume_training.sh called in 2014.
    """
    for split, count in (("train", 12), ("val", 4)):
        images, labels = pictures(count, 3, 40, 2)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = Path("data/myself", split, ("cat", "bird")[label], f"{i}.jpeg")
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), image.transpose(1, 2, 0))
    Path("myself").mkdir()
    net = """
        name: "CaffeNet"
        layers { layer { name: "data" type: "data" source: "imagenet_%s_leveldb"
          meanfile: "../data/myself/imagenet_mean.binaryproto" batchsize: %d cropsize: 32 mirror: %s }
          top: "data" top: "label" }
        layers { layer { name: "fc8" type: "innerproduct" num_output: 2 weight_filler { type: "gaussian" std: 0.001 }
          bias_filler { type: "constant" } } bottom: "data" top: "fc8" }
    """
    Path("myself/imagenet_train.prototxt").write_text(
        net % ("train", 6, "false")
        + 'layers { layer { name: "loss" type: "softmax_loss" } bottom: "fc8" bottom: "label" }'
    )
    Path("myself/imagenet_val.prototxt").write_text(net % ("val", 4, "false") + ENDS["test"].replace('"ip1"', '"fc8"'))
    Path("myself/imagenet_solver.prototxt").write_text(
        'train_net: "imagenet_train.prototxt" test_net: "imagenet_val.prototxt" test_iter: 1 test_interval: 10 '
        'base_lr: 0.00001 lr_policy: "step" gamma: 0.1 stepsize: 100000 display: 10 max_iter: 20 momentum: 0.9 '
        'weight_decay: 0.0005 snapshot: 10 snapshot_prefix: "caffe_imagenet_train" solver_mode: CPU random_seed: 1'
    )
    said = typed("""
        cd data/myself/train
        find -name "*.jpeg" | sort | cut -d '/' -f2-3 > ../train_names.txt
        awk '{print $1, ($1 ~ /bird/)}' ../train_names.txt > ../train.txt
        cd ../val
        find -name "*.jpeg" | sort | cut -d '/' -f2-3 | awk '{print $1, ($1 ~ /bird/)}' > ../val.txt
        cd ../../../myself
        ../build/tools/convert_imageset.bin ../data/myself/train/ ../data/myself/train.txt imagenet_train_leveldb 1
        ../build/tools/convert_imageset.bin ../data/myself/val/ ../data/myself/val.txt imagenet_val_leveldb 1
        ../build/tools/compute_image_mean.bin imagenet_train_leveldb ../data/myself/imagenet_mean.binaryproto
        ../build/tools/train_net.bin imagenet_solver.prototxt
        ../build/tools/train_net.bin imagenet_solver.prototxt caffe_imagenet_train_iter_10.solverstate
    """)
    scores = [float(value) for value in re.findall(r"Test net output #0: accuracy = (\S+)", said)]
    assert scores[2] == scores[-1] == 1  # "with two classes the accuracy is high"
    assert "Resuming from caffe_imagenet_train_iter_10.solverstate" in said


LENET = """
name: "LeNet"
layers { name: "mnist" type: DATA data_param { source: "mnist-%s-leveldb" batch_size: %d scale: 0.00390625 }
  top: "data" top: "label" }
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2
  convolution_param { num_output: 20 kernel_size: 5 stride: 1 weight_filler { type: "xavier" }
    bias_filler { type: "constant" } } }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layers { name: "conv2" type: CONVOLUTION bottom: "pool1" top: "conv2" blobs_lr: 1 blobs_lr: 2
  convolution_param { num_output: 50 kernel_size: 5 stride: 1 weight_filler { type: "xavier" }
    bias_filler { type: "constant" } } }
layers { name: "pool2" type: POOLING bottom: "conv2" top: "pool2" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layers { name: "ip1" type: INNER_PRODUCT blobs_lr: 1. blobs_lr: 2.
  inner_product_param { num_output: 500 weight_filler { type: "xavier" } bias_filler { type: "constant" } }
  bottom: "pool2" top: "ip1" }
layers { name: "relu1" type: RELU bottom: "ip1" top: "ip1" }
layers { name: "ip2" type: INNER_PRODUCT blobs_lr: 1. blobs_lr: 2.
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } bias_filler { type: "constant" } }
  bottom: "ip1" top: "ip2" }
%s
"""


def test_note_4_lenet(typed: Terminal) -> None:
    """The net as the note types it, layer by layer; the rates that its log shows, to the digit."""
    for name, source in (("train-images-idx3-ubyte", "train-images"), ("train-labels-idx1-ubyte", "train-labels")):
        shutil.copy(GOLDEN / "mnist_tools" / source, Path("data", name))
        shutil.copy(
            GOLDEN / "mnist_tools" / source.replace("train", "test"), Path("data", name.replace("train", "t10k"))
        )
    loss = 'layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip2" bottom: "label" }'
    score = 'layers { name: "accuracy" type: ACCURACY bottom: "ip2" bottom: "label" top: "accuracy" }'
    Path("examples/mnist/lenet_train.prototxt").write_text(LENET % ("train", 8, loss))
    Path("examples/mnist/lenet_test.prototxt").write_text(LENET % ("test", 64, score))
    Path("examples/mnist/lenet_solver.prototxt").write_text(
        'train_net: "lenet_train.prototxt" test_net: "lenet_test.prototxt" test_iter: 1 test_interval: 500 '
        'base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 100 '
        'max_iter: 501 snapshot: 5000 snapshot_prefix: "lenet" solver_mode: CPU random_seed: 1'
    )
    said = typed("""
        cd examples/mnist
        ../../build/examples/mnist/convert_mnist_data.bin ../../data/train-images-idx3-ubyte \
          ../../data/train-labels-idx1-ubyte mnist-train-leveldb
        ../../build/examples/mnist/convert_mnist_data.bin ../../data/t10k-images-idx3-ubyte \
          ../../data/t10k-labels-idx1-ubyte mnist-test-leveldb
        GLOG_logtostderr=1 ../../build/tools/train_net.bin lenet_solver.prototxt
    """)
    rates = dict(re.findall(r"Iteration (\d+), lr = (\S+)", said))
    assert (rates["400"], rates["500"]) == ("0.00971013", "0.00964069")
    assert "Iteration 500, Testing net" in said
    assert Path("lenet_iter_501.caffemodel").exists()


CAFFENET_BLOBS = [
    ("data", (10, 3, 227, 227)), ("conv1", (10, 96, 55, 55)), ("pool1", (10, 96, 27, 27)),
    ("norm1", (10, 96, 27, 27)), ("conv2", (10, 256, 27, 27)), ("pool2", (10, 256, 13, 13)),
    ("norm2", (10, 256, 13, 13)), ("conv3", (10, 384, 13, 13)), ("conv4", (10, 384, 13, 13)),
    ("conv5", (10, 256, 13, 13)), ("pool5", (10, 256, 6, 6)), ("fc6", (10, 4096)), ("fc7", (10, 4096)),
    ("fc8", (10, 1000)), ("prob", (10, 1000)),
]  # fmt: skip
CAFFENET_PARAMS = [
    ("conv1", (96, 3, 11, 11)), ("conv2", (256, 48, 5, 5)), ("conv3", (384, 256, 3, 3)), ("conv4", (384, 192, 3, 3)),
    ("conv5", (256, 192, 3, 3)), ("fc6", (4096, 9216)), ("fc7", (4096, 4096)), ("fc8", (1000, 4096)),
]  # fmt: skip


def test_note_5_the_shapes_of_caffenet() -> None:
    """As the note lists them, but for axes of length 1, which Caffe left out since."""
    net = caffe.Net(str(MODELS / "bvlc_reference_caffenet/deploy.prototxt"), caffe.TEST)
    assert [(k, v.data.shape) for k, v in net.blobs.items()] == CAFFENET_BLOBS
    assert [(k, v[0].data.shape) for k, v in net.params.items()] == CAFFENET_PARAMS


def vis_square(data: np.ndarray, padsize: int = 1, padval: float = 0) -> np.ndarray:
    """As the note types it, but that it returns the picture; the blob's own values are changed, as there."""
    data -= data.min()
    data /= data.max()
    n = int(np.ceil(np.sqrt(data.shape[0])))
    padding = ((0, n**2 - data.shape[0]), (0, padsize), (0, padsize), *((0, 0),) * (data.ndim - 3))
    data = np.pad(data, padding, mode="constant", constant_values=(padval, padval))
    data = data.reshape((n, n, *data.shape[1:])).transpose((0, 2, 1, 3, *range(4, data.ndim + 1)))
    return data.reshape((n * data.shape[1], n * data.shape[3], *data.shape[4:]))


@pytest.fixture
def cat(caffe_root: Path) -> str:
    cv2.imwrite("examples/images/cat.jpg", np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8))
    np.save("python/caffe/imagenet/ilsvrc_2012_mean.npy", np.random.default_rng(2).uniform(90, 130, (3, 256, 256)))
    Path("data/ilsvrc12").mkdir()
    names = "".join(f"n{i:08} name {i}\n" for i in range(1000))
    Path("data/ilsvrc12/synset_words.txt").write_text(names)
    return "examples/images/cat.jpg"


def expected_scores(model: Path, weights: Path, crops: np.ndarray) -> np.ndarray:
    """What the net says of crops (10, 227, 227, 3), red first, 0 to 1: by hand."""
    mean = caffe.io.resize_image(np.load("python/caffe/imagenet/ilsvrc_2012_mean.npy").transpose(1, 2, 0), (227, 227))
    net = caffe.Net(str(model), str(weights), caffe.TEST)
    net.blobs["data"].data[...] = (crops[..., ::-1] * 255 - mean).transpose(0, 3, 1, 2)
    return net.forward()["prob"].copy()


def test_note_5_what_a_net_sees(caffenet: tuple[Path, Path], cat: str) -> None:
    net = caffe.Classifier(str(caffenet[0]), str(caffenet[1]))
    net.set_phase_test()
    net.set_mode_cpu()
    net.set_mean("data", "python/caffe/imagenet/ilsvrc_2012_mean.npy")
    net.set_channel_swap("data", (2, 1, 0))
    net.set_input_scale("data", 255)
    scores = net.predict([caffe.io.load_image(cat)])
    crops = caffe.io.oversample([caffe.io.resize_image(caffe.io.load_image(cat), (227, 227))], (227, 227))
    expected = expected_scores(*caffenet, crops)
    np.testing.assert_allclose(scores, expected.mean(0)[None], atol=1e-5)
    labels = np.loadtxt("data/ilsvrc12/synset_words.txt", str, delimiter="\t")
    top_k = net.blobs["prob"].data[4].flatten().argsort()[-1:-6:-1]
    assert list(labels[top_k]) == [f"n{i:08} name {i}" for i in expected[4].argsort()[-1:-6:-1]]
    image = net.blobs["data"].data[4].copy()  # "index four is the center crop"
    image -= image.min()
    image /= image.max()
    assert image.transpose(1, 2, 0).shape == (227, 227, 3)
    filters = net.params["conv1"][0].data
    assert vis_square(filters.transpose(0, 2, 3, 1)).shape == (3 * 12, 3 * 12, 3)  # six filters, each with a border
    assert (filters.min(), filters.max()) == (0, 1)  # its memory was the net's
    for blob, shape in (("conv1", (3 * 56, 3 * 56)), ("conv2", (4 * 28, 4 * 28)), ("pool5", (4 * 7, 4 * 7))):
        assert vis_square(net.blobs[blob].data[4], padval=1).shape == shape
    assert net.blobs["fc6"].data[4].size == net.blobs["fc7"].data[4].size == 256


def test_note_6_ways_to_classify(caffenet: tuple[Path, Path], cat: str) -> None:
    net = caffe.Classifier(
        str(caffenet[0]),
        str(caffenet[1]),
        mean_file="python/caffe/imagenet/ilsvrc_2012_mean.npy",
        channel_swap=(2, 1, 0),
        input_scale=255,
    )
    net.set_phase_test()
    net.set_mode_cpu()
    input_image = caffe.io.load_image(cat)
    prediction = net.predict([input_image])
    assert prediction[0].shape == (1000,)
    single = net.predict([input_image], oversample=False)
    assert single[0].shape == (1000,)
    input_oversampled = caffe.io.oversample([caffe.io.resize_image(input_image, net.image_dims)], net.crop_dims)
    caffe_input = np.asarray([net.preprocess("data", in_) for in_ in input_oversampled])
    out = net.forward(data=caffe_input)["prob"]
    np.testing.assert_allclose(out, expected_scores(*caffenet, input_oversampled), atol=1e-5)
    np.testing.assert_allclose(prediction[0], out.mean(0), atol=1e-5)
    np.testing.assert_allclose(single[0], out[4], atol=1e-5)
