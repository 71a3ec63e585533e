"""data/VOC0712: lists and databases of a small VOCdevkit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.formats.db import open_reader
from caffecli.proto.caffe_pb2 import AnnotatedDatum
from tests.scripts.conftest import Script

XML = """<annotation><size><width>40</width><height>30</height></size>
<object><name>{name}</name><difficult>0</difficult>
<bndbox><xmin>4</xmin><ymin>3</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object></annotation>
"""


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Three pictures to learn from in each year, two of 2007 to be tested on."""
    folder = tmp_path / "VOC devkit"
    for year, sets in (("2007", {"trainval": "abc", "test": "de"}), ("2012", {"trainval": "fgh"})):
        for part in ("ImageSets/Main", "JPEGImages", "Annotations"):
            (folder / f"VOC{year}" / part).mkdir(parents=True)
        for name, pictures in sets.items():
            (folder / f"VOC{year}/ImageSets/Main/{name}.txt").write_text("".join(f"{each} \r\n" for each in pictures))
            for each in pictures:
                cv2.imwrite(str(folder / f"VOC{year}/JPEGImages/{each}.jpg"), np.zeros((30, 40, 3), np.uint8))
                (folder / f"VOC{year}/Annotations/{each}.xml").write_text(XML.format(name="dog"))
    return folder


def test_lists_and_databases(script: Script, repository: Path, devkit: Path) -> None:
    data = repository / "data/VOC0712"
    (data / "labelmap_voc.prototxt").write_text(
        (Path(__file__).parents[2] / "data/VOC0712/labelmap_voc.prototxt").read_text()
    )
    lists = []
    for _ in range(2):
        made = script("data/VOC0712/create_list.sh", devkit)
        assert made.returncode == 0, made.stderr
        lists.append((data / "trainval.txt").read_text())
    assert lists[0] == lists[1] and sorted(line[19] for line in lists[0].splitlines()) == list("abcfgh")
    assert lists[0].splitlines() != sorted(lists[0].splitlines())
    assert "VOC2012/JPEGImages/f.jpg VOC2012/Annotations/f.xml" in lists[0]
    assert (data / "test_name_size.txt").read_text() == "d 30 40\ne 30 40\n"
    done = script("data/VOC0712/create_data.sh", devkit)
    assert done.returncode == 0, done.stderr
    with open_reader(data / "VOC0712_test_lmdb") as reader:
        records = [AnnotatedDatum.FromString(value) for _, value in reader]
    assert len(records) == 2
    (group,) = records[0].annotation_group
    box = group.annotation[0].bbox
    assert group.group_label == 12  # dog
    assert [box.xmin, box.ymin, box.xmax, box.ymax] == pytest.approx([0.1, 0.1, 0.5, 0.5])
    with open_reader(data / "VOC0712_trainval_lmdb") as reader:
        assert len(reader) == 6


def test_what_is_missing_is_named(script: Script, tmp_path: Path) -> None:
    done = script("data/VOC0712/create_list.sh", tmp_path)
    assert done.returncode == 1 and "holds no VOC2007; expected the folder VOCdevkit" in done.stderr
    done = script("data/VOC0712/create_data.sh", tmp_path)
    assert (
        done.returncode == 1
        and "trainval.txt is missing or empty; run data/VOC0712/create_list.sh first" in done.stderr
    )
