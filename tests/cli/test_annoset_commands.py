"""convert_annoset, create_label_map and get_image_size as SSD's scripts call them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.formats.db import open_reader
from caffecli.proto.caffe_pb2 import AnnotatedDatum
from caffecli.tools.link_tools import link_tools

VOC = (
    "<annotation><object><name>cat</name><difficult>0</difficult>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax><ymax>4</ymax></bndbox></object></annotation>"
)
#: the flags of SSD's scripts/create_annoset.py
SCRIPT = (
    "--anno_type=detection --label_type=xml --label_map_file=map.prototxt --check_label=True --min_dim=0 --max_dim=0 "
    "--resize_height=0 --resize_width=0 --backend=lmdb --shuffle=False --check_size=False --encode_type=jpg "
    "--encoded=True --gray=False"
)


@pytest.fixture
def pictures(folder: Path) -> Path:
    """A picture, its boxes, their list and the names of the classes."""
    cv2.imwrite("a.jpg", np.zeros((6, 8, 3), np.uint8))
    Path("a.xml").write_text(VOC)
    Path("boxes.txt").write_text("a.jpg a.xml\n")
    Path("names.txt").write_text("cat 1 a_cat\ndog 2 a_dog\n")
    return folder


def test_as_ssds_scripts_call_them(pictures: Path) -> None:
    link_tools(Path("build"))
    for line in (
        "create_label_map --delimiter=, --include_background=true names.csv map.prototxt",
        f"convert_annoset {SCRIPT} ./ boxes.txt db",
        "get_image_size ./ boxes.txt sizes.txt",
    ):
        Path("names.csv").write_text("cat,1,a_cat\n")
        program, *arguments = line.split()
        done = subprocess.run([f"build/tools/{program}", *arguments], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
    with open_reader("db", "lmdb") as reader:
        ((key, value),) = reader
    record = AnnotatedDatum.FromString(value)
    assert key == b"00000000_a.jpg"
    assert record.datum.data == Path("a.jpg").read_bytes()
    assert [group.group_label for group in record.annotation_group] == [1]
    assert Path("sizes.txt").read_text() == "a 6 8\n"


def test_classification(pictures: Path, command: Callable[..., tuple[int, str]]) -> None:
    Path("labels.txt").write_text("a.jpg 3\n")
    assert command("convert_annoset", "./", "labels.txt", "db")[0] == 0
    with open_reader("db", "lmdb") as reader:
        ((_, value),) = reader
    assert AnnotatedDatum.FromString(value).datum.label == 3


DETECTION = ("convert_annoset", "--anno_type=detection", "--label_map_file=map.prototxt", "./", "boxes.txt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("convert_annoset", "--anno_type=detection", "./", "boxes.txt", "db"), "--label_map_file is missing"),
        ((*DETECTION, "db"), "cannot read 'map.prototxt'"),
        (("convert_annoset", "./", "boxes.txt", "db"), "'boxes.txt', line 1: expected a path and its label"),
        (("create_label_map", "none.txt", "map.prototxt"), "cannot read 'none.txt'"),
        (("get_image_size", "./", "list.txt", "no/sizes.txt"), "cannot write 'no/sizes.txt'"),
    ],
)
def test_what_cannot_be_done(pictures: Path, fails: Callable[..., str], arguments: tuple[str, ...], words: str) -> None:
    assert words in fails(*arguments)


def test_errors_name_the_annotation_file(pictures: Path, fails: Callable[..., str]) -> None:
    Path("map.prototxt").write_text('item { name: "horse" label: 1 }')
    said = "'./a.xml': the label map has no class 'cat'; add it, or take it out of the annotations"
    assert fails(*DETECTION, "db") == said
    Path("map.prototxt").write_text('item { name: "cat" label: 1 }')
    Path("a.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>')
    assert fails(*DETECTION, "db").startswith("'./a.xml': it has a DOCTYPE")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("convert_annoset", "--anno_type=boxes", "./", "boxes.txt", "db"), "'boxes' is not one of 'classification'"),
        (
            ("convert_annoset", "--label_type=yaml", "./", "boxes.txt", "db"),
            "'yaml' is not one of 'xml', 'json', 'txt'",
        ),
        (("convert_annoset", "./", "boxes.txt"), "Missing argument 'DB_NAME'"),
        (("create_label_map", "names.txt"), "Missing argument 'OUTFILE'"),
    ],
)
def test_wrong_use(pictures: Path, fails: Callable[..., str], arguments: tuple[str, ...], words: str) -> None:
    assert words in fails(*arguments, code=2)
