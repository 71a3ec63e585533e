"""``python scripts/digits.py``: what several tutorials begin with, in the folder ``tutorial``;
what is there already stays.

scikit-learn's 1,797 digits, enlarged to 28x28: 1,437 in ``digits_train_lmdb``, 360 held out in ``digits_test_lmdb``,
twenty of those also as pictures ``digits/LABEL_N.png``; and LeNet trained on them for 200 iterations,
``lenet_iter_200.caffemodel``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from caffecli.formats import datum, db

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("tutorial")
HELD_OUT = 360
SHOWN = 20
SOLVER = f"""net: "{OUT}/lenet_train_val.prototxt"
test_iter: {HELD_OUT // 60}
test_interval: 200
base_lr: 0.01
momentum: 0.9
weight_decay: 0.0005
lr_policy: "inv"
gamma: 0.0001
power: 0.75
display: 50
max_iter: 200
snapshot_prefix: "{OUT}/lenet"
random_seed: 1
solver_mode: CPU
"""


def load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All digits, (1797, 28, 28) bytes, and what they are; the first ``HELD_OUT`` are those held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.stack([cv2.resize(image, (28, 28), interpolation=cv2.INTER_CUBIC) for image in digits.images])
    pixels = (images * (255 / 16)).clip(0, 255).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order], digits.target[order]


def write_lmdb(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """A database of grey pictures (N, H, W), keys 00000, 00001, ...; one that exists stays as it is."""
    if path.exists():
        return
    with db.open_writer(path, "lmdb") as writer:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            writer.put(b"%05d" % index, datum.from_array(image[np.newaxis], int(label)).SerializeToString())


def write_net(train: str, test: str, path: Path) -> None:
    """LeNet's train_val.prototxt over other databases."""
    text = (ROOT / "models/lenet/train_val.prototxt").read_text()
    for old, new in (
        ("data/mnist/mnist_train_lmdb", train),
        ("data/mnist/mnist_test_lmdb", test),
        ("batch_size: 100", "batch_size: 60"),
    ):
        text = text.replace(old, new)
    path.write_text(text)


def write_data() -> None:
    """The two databases and the pictures."""
    images, labels = load()
    write_lmdb(OUT / "digits_test_lmdb", images[:HELD_OUT], labels[:HELD_OUT])
    write_lmdb(OUT / "digits_train_lmdb", images[HELD_OUT:], labels[HELD_OUT:])
    (OUT / "digits").mkdir(exist_ok=True)
    for index in range(SHOWN):
        cv2.imwrite(str(OUT / "digits" / f"{labels[index]}_{index}.png"), images[index])


def main() -> None:
    """All of it, but for what is there."""
    OUT.mkdir(exist_ok=True)
    if len(list(OUT.glob("digits_*_lmdb/data.mdb"))) < 2 or len(list(OUT.glob("digits/*.png"))) < SHOWN:
        write_data()
    write_net(f"{OUT}/digits_train_lmdb", f"{OUT}/digits_test_lmdb", OUT / "lenet_train_val.prototxt")
    (OUT / "lenet_solver.prototxt").write_text(SOLVER)
    if not (OUT / "lenet_iter_200.caffemodel").exists():
        done = subprocess.run([sys.executable, "-m", "caffecli", "train", "--solver", OUT / "lenet_solver.prototxt"])
        if done.returncode:
            sys.exit("digits: that training failed; its last line above says why")
    print(f"{OUT}/digits_train_lmdb, digits_test_lmdb, digits/*.png, lenet_iter_200.caffemodel")


if __name__ == "__main__":
    main()
