"""Every command that writes, where the disk gives room for 100 bytes a file: one line that names the file, and no part
of it left.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import fuzz

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCORE = "test --model train_val.prototxt --weights s_iter_2.caffemodel --iterations 4"
FEATURES = "extract_features s_iter_2.caffemodel train_val.prototxt ip"
#: a command, and the file that it cannot write
WRITERS = [
    ("train --solver solver.prototxt --snapshot s_iter_2.solverstate", "out_iter_4.caffemodel"),
    ("train --solver hdf5.prototxt --snapshot h_iter_2.solverstate.h5", "out_iter_4.caffemodel.h5"),
    (f"{SCORE} --predictions o.csv", "o.csv"),
    ("convert_imageset ./ list.txt out", "out"),
    ("convert_imageset ./ list.txt out --backend leveldb", "out"),
    ("compute_image_mean lmdb out.binaryproto", "out.binaryproto"),
    ("convert_mean mean.binaryproto out.npy", "out.npy"),
    ("convert_mean mean.npy out.binaryproto", "out.binaryproto"),
    ("convert_mnist_data images-idx3 labels-idx1 out", "out"),
    (f"{FEATURES} out 2 lmdb", "out"),
    (f"{FEATURES} out.h5 2 hdf5", "out.h5"),
    (f"{FEATURES} out.npy 2 npy", "out.keys.npy"),
    (
        "classify pictures.npy out.npy --model_def deploy.prototxt --pretrained_model s_iter_2.caffemodel"
        " --mean_file mean.npy --images_dim 12,12",
        "out.npy",
    ),
    ("draw_net deploy.prototxt out.dot", "out.dot"),
    ("upgrade_net_proto_text v1.prototxt out.prototxt", "out.prototxt"),
    ("upgrade_net_proto_binary s_iter_2.caffemodel out.caffemodel", "out.caffemodel"),
    ("upgrade_solver_proto_text solver.prototxt out.prototxt", "out.prototxt"),
    ("plot_log 6 out.png train.log", "out.png"),
    ("report train.log out.html", "out.html"),
    ("resize_images pictures out", "out/0.png"),
    ("export --to torch deploy.prototxt s_iter_2.caffemodel out.pt2", "out.pt2"),
    ("export --to onnx deploy.prototxt s_iter_2.caffemodel out.onnx", "out.onnx"),
    ("import program.pt2 out", "out.prototxt"),
    ("convert_weights s_iter_2.caffemodel out.npz", "out.npz"),
    ("convert_weights s_iter_2.caffemodel out.safetensors", "out.safetensors"),
    ("convert_weights s_iter_2.caffemodel out.caffemodel.h5", "out.caffemodel.h5"),
    ("convert_weights s_iter_2.caffemodel out.caffemodel", "out.caffemodel"),
    ("visualize filters deploy.prototxt s_iter_2.caffemodel out.png --layer ip", "out.png"),
    ("link_tools checkout", "checkout/tools/caffe"),
]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, its nets and data."""
    folder = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(ROOT))
        fuzz.make_seeds()
    return folder


def no_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


@pytest.mark.parametrize(("command", "file"), WRITERS)
def test_names_the_file_and_leaves_no_part_of_it(command: str, file: str, seeds: Path, tmp_path: Path) -> None:
    here = tmp_path / "run"
    shutil.copytree(seeds, here)
    done = subprocess.run(
        [sys.executable, "-m", "caffecli", *command.split()],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=no_room,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert f"Error: cannot write '{file}': File too large; " in done.stderr
    assert "Traceback" not in done.stderr
    assert {path for path in here.rglob("*") if path.is_file()} == {
        here / path.relative_to(seeds) for path in seeds.rglob("*") if path.is_file()
    }
