"""docs/coming-from-caffe.md: its blocks run; what stands between backquotes is there;
each row of its tables has a test.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import caffe
from caffecli.cli.main import COMMANDS
from caffecli.proto.caffe_pb2 import LayerParameter, SolverParameter
from caffecli.tools.link_tools import PROGRAMS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/coming-from-caffe.md"
TEXT = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
SPANS = sorted(set(re.findall(r"`([^`]+)`", TEXT)))

#: what Caffe has under these names; and others' things
CAFFES = {
    "~", "$HOME",  # a shell\'s
    "build/tools/caffe", "build/tools/caffe train", "examples/mnist", "python/classify.py", "python/detect.py",
    "python/draw_net.py", "tools/train_net.py", "test_net.py",
    "tools/extra/parse_log.py", "plot_training_log.py", "download_model_binary.py", "resize_and_crop_images.py", "2to3",
    "dot", "torchrun", "torch.nn.Module", "pip install .", "import caffe", "GLOG_minloglevel", "CAFFECLI_LAYERS", ".h5",
        ".dot",
    "CAFFECLI_EXTERNAL_FILES=1", "CAFFECLI_MAX_GB", "OPENCV_IO_MAX_IMAGE_PIXELS", "data_param { shuffle: true }",
    "mean.binaryproto", "step(1)", "solver.step", "GLOG_minloglevel=2", 'sys.path.insert(0, caffe_root + "python")',
    "model_libs",
}  # fmt: skip

#: how a row begins -> the test that holds it, FILE::NAME below tests/; "block": the page's own; "names": these are
#: looked up
EVIDENCE = {
    "nothing to build": "scripts/test_make.py::test_the_demo_trains_scores_stops_and_resumes",
    "errors": "block",
    "resuming": "solver/test_resume.py::test_n_plus_n_is_2n",
    "stopping": "solver/test_kill.py::test_killed_while_it_writes_snapshots",
    "figures": "solver/test_recorders.py::test_csv",
    "when to stop": "solver/test_monitor.py::test_early_stop",
    "speed": "solver/test_amp.py::test_training",
    "repeating": "solver/test_deterministic.py::test_a_deterministic_run",
    "shuffling": "solver/test_resume_data.py::test_shuffled_databases",
    "several GPUs": "solver/test_parallel.py::test_resume_on_another_number_of_processes",
    "scores": "cli/test_predictions.py::test_confusion_counts_pairs_and_tells_each_class",
    "features": "cli/test_extract_features.py::test_all_takes_each_record_once",
    "a look at a net": "block",
    "weights in other forms": "names",
    "layers of your own": "cli/test_layers_option.py::test_each_command_that_builds_a_net",
    "what a net has learnt": "tools/test_visualize.py::test_each_kind",
    "models": "converters/test_download_model.py::test_download",
    "Python": "caffe/test_net.py::test_threads",
    "layers of forks": "names",
    "an error ends with exit code 134": "block",
    "a solver that says `solver_mode: GPU`": "cli/test_wrong_input.py::test_a_gpu_where_there_is_none",
    "`random_seed` repeats Caffe's run": "solver/test_resume.py::test_same_seed_same_weights",
    "the examples keep their databases": "models/test_models.py::test_solvers_name_files_of_the_repository",
    "an in-place layer": "layers/test_activation.py::test_in_place_has_the_same_gradient",
    "labels past the number of classes": "layers/test_loss.py::test_softmax_loss_names_the_label_past_the_classes",
    "with several GPUs, the log": "solver/test_parallel.py::test_two_processes_equal_one_with_twice_the_batch",
    "`caffe.io` works by scikit-image": "caffe/test_io.py::test_resize_image_without_smoothing_takes_what_lies_there",
    "`caffe.draw` needs pydot": "caffe/test_draw.py::test_files",
    "a loss of inf or nan": "caffe/test_solver.py::test_training_goes_on_after_a_loss_that_is_no_number",
    "the rate in the log of a `step(1)`": (
        "caffe/test_solver.py::test_the_rate_of_single_steps_is_that_since_the_last_display"
    ),
    "HDF5 files may read others": "formats/test_bounds.py::test_other_files_are_read_only_if_allowed",
    "a small file may unpack": "formats/test_bounds.py::test_archives_that_unpack_to_gigabytes",
    "`stepvalue`s changed before a run is resumed": "solver/test_loop.py::test_a_solver_changed_before_it_is_resumed",
    "`iter_size` below 1": "cli/test_wrong_net.py::test_solvers",
    "an empty prototxt": "spec/test_text.py::test_files_that_hold_no_prototxt",
    "`~` and `$HOME` in a path of a prototxt": "cli/test_unexpanded_paths.py::test_a_source",
    "SIGTERM ends a training at once": "solver/test_loop.py::test_signals",
    "`debug_info` of a solver that is driven from Python": "cli/test_logs.py::test_debug_info",
    "the C++ library, its headers, layers of your own in C++ or CUDA": "block",
    "other layers of forks": "block",
    "cuDNN's choice by `engine`": "here",
    "the MATLAB interface": "names",
    "the web demo and the C++ classification example": "cli/test_pictures.py::test_classify_prints_the_best_five",
}
#: rows that say what is not supported at all: nothing to test
PLAIN = {"Python 2", "OpenCL, and forks for other processors", "scripts that publish models as gists"}


@functools.cache
def usage(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "caffecli", command, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def some_command_has(flag: str) -> bool:
    return any(re.search(rf"{flag}\b", usage(command)) for command in ("train", "test", "time"))


def is_name(span: str) -> bool:
    """Whether ``caffe.io.load_image`` and the like can be imported or is an attribute of what can."""
    module, _, name = span.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name) or importlib.import_module(span) is not None
    except ImportError:
        return False


def is_there(span: str) -> bool:
    """Whether a span of the page names something of ours."""
    words = shlex.split(span)
    if words[0] == "caffecli":
        return words[1] in COMMANDS and all(word in usage(words[1]) for word in words[2:] if word.startswith("-"))
    if words[0].startswith("-"):
        return some_command_has("--" + words[0].lstrip("-").partition("=")[0])
    if span.startswith(("caffe.", "caffecli.")):
        return is_name(span)
    if words[0] == "python" or "/" in span:
        return (ROOT / words[-1]).exists()
    if span.endswith(".bin"):
        return span.removesuffix(".bin") in {Path(program).name for program in PROGRAMS}
    if ":" in span:
        field, value = span.split(": ")
        return known_setting(field) and value in ("GPU", "CUDNN")
    kinds = {"caffe", *COMMANDS, *caffe.layer_type_list()}
    return span in kinds or hasattr(caffe, f"{span}Solver") or known_setting(span)


def known_setting(name: str) -> bool:
    layers = [field.message_type for field in LayerParameter.DESCRIPTOR.fields if field.message_type]
    return any(name in message.fields_by_name for message in (SolverParameter.DESCRIPTOR, *layers))


@pytest.mark.parametrize("span", SPANS)
def test_what_it_names_is_there(span):
    assert span in CAFFES or is_there(span), f"{PAGE.name} names {span!r}, and who knows it?"


def test_each_row_of_its_tables_is_held_by_a_test():
    rows = re.findall(r"^\| (.+?) \| .* \|$", TEXT.partition("## Better")[2], re.MULTILINE)
    rows = [row for row in rows if row not in (" ", "in Caffe", "what")]
    known = {*EVIDENCE, *PLAIN}
    for row in rows:
        assert row in known or any(row.startswith(beginning) for beginning in known), (
            f"which test holds the row {row!r}?"
        )
    assert len(rows) == len(known)
    for row, test in EVIDENCE.items():
        if "::" in test:
            path, name = test.split("::")
            assert re.search(rf"def {name}\(", (ROOT / "tests" / path).read_text()), f"{row}: {test}"


def test_engine_is_read_and_chooses_nothing(tmp_path):
    text = (ROOT / "models/lenet/deploy.prototxt").read_text().replace("num_output: 20", "num_output: 20 engine: CUDNN")
    (tmp_path / "net.prototxt").write_text(text)
    assert caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).forward()["prob"].shape == (64, 10)


def test_its_blocks_print_what_it_shows(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "tutorial")
    for name in ("models", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "scripts/tutorial.py", PAGE],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
