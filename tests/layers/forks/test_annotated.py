"""AnnotatedData in a net: its second top has as many rows as the batch has boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, AnnotatedDatum, NetParameter
from caffecli.spec import text


def test_in_a_net(tmp_path: Path) -> None:
    with open_writer(tmp_path / "db") as db:
        for i in range(4):
            record = AnnotatedDatum(datum=from_array(np.full((3, 4, 5), i, np.uint8)), type=AnnotatedDatum.BBOX)
            group = record.annotation_group.add(group_label=i)
            for _ in range(3 - i):
                group.annotation.add(bbox={"xmax": 0.5, "ymax": 0.25 * (i + 1)})
            db.put(b"%d" % i, record.SerializeToString())
    net = Net(_net(tmp_path))
    assert net.shape("label") == (1, 1, 3, 8)
    runner = Whole(net)
    counts = [tuple(runner.forward().outputs["twice"].shape) for _ in range(3)]
    assert counts == [(1, 1, 5, 8), (1, 1, 1, 8), (1, 1, 5, 8)]
    np.testing.assert_array_equal(runner.forward().outputs["twice"][0, 0], [[0, 4, 0, 0, 0, 1, 1.5, 0]])
    net.close()


def _net(folder: Path) -> NetParameter:
    param = text.parse(
        'layer { name: "data" type: "AnnotatedData" top: "data" top: "label" '
        f'data_param {{ source: "{folder / "db"}" batch_size: 2 backend: LMDB }} }} '
        'layer { name: "twice" type: "Power" bottom: "label" top: "twice" power_param { scale: 2 } }',
        NetParameter(),
    )
    param.state.phase = TEST
    return param
