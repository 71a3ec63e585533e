"""``make demo``: digits to a trained, scored, resumable LeNet, all in the folder ``demo``.

The digits are scikit-learn's: 1,797 of 8x8 pixels, enlarged here to LeNet's 28x28; 360 are held out. Each step is a
command that any user could type; it is shown before it runs. The last two runs show that a run that was stopped ends as
one that was not.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

from caffecli.formats import caffemodel
from converters.convert_mnist_data import write_idx

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("demo")
ITERATIONS = 400
STOP_AT = 200
HELD_OUT = 360
NEEDED = 0.97


def say(text: str) -> None:
    """Say what comes next."""
    print(f"\n== {text}", flush=True)


def caffecli(*args: str | Path) -> list[str]:
    """A command, as typed by a user of the environment that this runs in; shown."""
    words = [str(arg) for arg in args]
    print(f"$ caffecli {shlex.join(words)}", flush=True)
    return [sys.executable, "-m", "caffecli", *words]


def run(*args: str | Path) -> None:
    """Show a command, run it, stop when it fails."""
    done = subprocess.run(caffecli(*args))
    if done.returncode:
        sys.exit(f"demo: that command failed with exit code {done.returncode}; its last line above says why")


def write_digits() -> None:
    """scikit-learn's digits as MNIST-like idx files: ``demo/train-images`` and so on."""
    digits = load_digits()
    images = np.stack([cv2.resize(image, (28, 28), interpolation=cv2.INTER_CUBIC) for image in digits.images])
    pixels = (images * (255 / 16)).clip(0, 255).round().astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    for name, part in (("test", order[:HELD_OUT]), ("train", order[HELD_OUT:])):
        write_idx(DEMO / f"{name}-images", pixels[part])
        write_idx(DEMO / f"{name}-labels", labels[part])
        print(f"{DEMO}/{name}-images, {DEMO}/{name}-labels: {len(part)} digits")


def write_net() -> None:
    """LeNet over the demo's databases, and two solvers that differ in nothing but where their snapshots go."""
    text = (ROOT / "models/lenet/train_val.prototxt").read_text()
    for old, new in (
        ("data/mnist/mnist_train_lmdb", f"{DEMO}/train_lmdb"),
        ("data/mnist/mnist_test_lmdb", f"{DEMO}/test_lmdb"),
        ("batch_size: 100", "batch_size: 60"),
        ("transform_param {", f'transform_param {{\n    mean_file: "{DEMO}/mean.binaryproto"'),
    ):
        text = text.replace(old, new)
    (DEMO / "train_val.prototxt").write_text(text)
    for name in ("lenet", "stopped"):
        (DEMO / f"{name}_solver.prototxt").write_text(
            f"""net: "{DEMO}/train_val.prototxt"
test_iter: {HELD_OUT // 60}
test_interval: {ITERATIONS // 2}
base_lr: 0.01
momentum: 0.9
weight_decay: 0.0005
lr_policy: "inv"
gamma: 0.0001
power: 0.75
display: 100
max_iter: {ITERATIONS}
snapshot: {STOP_AT}
snapshot_prefix: "{DEMO}/{name}"
random_seed: 1
solver_mode: CPU
"""
        )
    print(f"{DEMO}/train_val.prototxt, {DEMO}/lenet_solver.prototxt, {DEMO}/stopped_solver.prototxt")


def score(weights: Path) -> float:
    """The held-out accuracy that ``caffecli test`` reports."""
    command = caffecli(
        "test", "--model", DEMO / "train_val.prototxt", "--weights", weights, "--iterations", str(HELD_OUT // 60)
    )
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "GLOG_minloglevel": "0"})
    found = re.findall(r"\] accuracy = (\S+)", done.stderr)
    print("\n".join(done.stderr.splitlines()[-4:]))
    if done.returncode or not found:
        sys.exit("demo: caffecli test gave no accuracy; its last lines above say why")
    return float(found[-1])


def train_until_stopped() -> Path:
    """Train, press Ctrl-C (SIGINT) once the first snapshot is there, and return the solverstate that the stop left."""
    first = DEMO / f"stopped_iter_{STOP_AT}.solverstate"
    training = subprocess.Popen(caffecli("train", "--solver", DEMO / "stopped_solver.prototxt"))
    while training.poll() is None and not first.exists():
        time.sleep(0.01)
    training.send_signal(signal.SIGINT)
    if training.wait():
        sys.exit(f"demo: training ended with exit code {training.returncode}; its last line above says why")
    return max(DEMO.glob("stopped_iter_*.solverstate"), key=iteration_of)


def iteration_of(path: Path) -> int:
    """The N of ``..._iter_N.solverstate``."""
    return int(path.stem.rpartition("_")[2])


def same_weights(one: Path, other: Path) -> bool:
    """Whether two caffemodels hold the same numbers, bit for bit."""
    first, second = caffemodel.read(one), caffemodel.read(other)
    return list(first) == list(second) and all(
        len(first[name]) == len(second[name])
        and all(np.array_equal(a, b) for a, b in zip(first[name], second[name], strict=True))
        for name in first
    )


def main() -> None:
    """All steps, in the repository's root."""
    begun = time.monotonic()
    os.chdir(ROOT)
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()

    say("scikit-learn's digits, as MNIST's files are")
    write_digits()
    say("Databases of them, and their mean")
    for name in ("train", "test"):
        run(
            "convert_mnist_data",
            DEMO / f"{name}-images",
            DEMO / f"{name}-labels",
            DEMO / f"{name}_lmdb",
            "--backend=lmdb",
        )
    run("compute_image_mean", DEMO / "train_lmdb", DEMO / "mean.binaryproto")
    say("LeNet, trained")
    write_net()
    run("train", "--solver", DEMO / "lenet_solver.prototxt")
    weights = DEMO / f"lenet_iter_{ITERATIONS}.caffemodel"
    say("Scored on the digits it has not seen")
    accuracy = score(weights)

    say(f"The same again, stopped by Ctrl-C after iteration {STOP_AT}")
    state = train_until_stopped()
    say(f"Resumed at iteration {iteration_of(state)}")
    run("train", "--solver", DEMO / "stopped_solver.prototxt", "--snapshot", state)
    same = same_weights(weights, DEMO / f"stopped_iter_{ITERATIONS}.caffemodel")

    activate = ", after `. .venv/bin/activate`" if Path(sys.executable).is_relative_to(ROOT / ".venv") else ""
    weights_are = "the same weights, bit for bit" if same else "OTHER weights"
    print(f"""
== Done in {time.monotonic() - begun:.0f} s
Held-out accuracy: {accuracy:.4f} on {HELD_OUT} digits ({NEEDED} or more is expected).
Stopped at {iteration_of(state)} and resumed, the run ended with {weights_are}.
Made in {DEMO}/: the databases train_lmdb and test_lmdb, mean.binaryproto, the net and its solvers, and
  {weights}  the trained weights
  {state}  from where a run goes on

To try next{activate}:
  caffecli time --model {DEMO}/train_val.prototxt --iterations 20
  data/mnist/get_mnist.sh && scripts/create_mnist.sh && scripts/train_lenet.sh
  caffecli --help""")
    if accuracy < NEEDED or not same:
        sys.exit("demo: that is not as it should be; please report it")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
