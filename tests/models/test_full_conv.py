"""models/bvlc_caffenet_full_conv: CaffeNet's answers for every window of a larger picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import caffe

MODELS = Path(__file__).parents[2] / "models"
PLAIN = MODELS / "bvlc_reference_caffenet/deploy.prototxt"
FULL = MODELS / "bvlc_caffenet_full_conv/deploy.prototxt"
RANDOM = np.random.default_rng(5)


def surgery(plain: caffe.Net, full: caffe.Net) -> None:
    """Random weights for ``plain``, and the same for ``full``."""
    for name, layer in plain.params.items():
        shape = layer[0].data.shape
        layer[0].data[...] = RANDOM.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        layer[1].data[...] = 0.1 * RANDOM.standard_normal(layer[1].data.shape)
        for old, new in zip(layer, full.params[f"{name}-conv" if name.startswith("fc") else name], strict=True):
            new.data.flat = old.data.flat  # type: ignore[misc]


def nets(folder: Path, thin: int = 1, window: int = 227, pad: bool = True) -> tuple[caffe.Net, caffe.Net]:
    """The two nets, with a ``thin``-th of the outputs of each layer, for windows of other sizes, without padding."""
    made = []
    for path in (PLAIN, FULL):
        text = re.sub(r"num_output: (\d+)", lambda found: f"num_output: {int(found[1]) // thin}", path.read_text())
        text = text.replace("227", str(window)).replace("451", str(window + 224))
        if not pad:
            text = re.sub(r"pad: \d+", "pad: 0", text)
        (folder / path.parent.name).write_text(text)
        made.append(caffe.Net(str(folder / path.parent.name), caffe.TEST))
    surgery(*made)
    return made[0], made[1]


def windows_of(array: np.ndarray, size: int, step: int) -> list[np.ndarray]:
    return [array[:, y : y + size, x : x + size] for y in range(0, 8 * step, step) for x in range(0, 8 * step, step)]


def as_map(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(8, 8, -1).transpose(2, 0, 1)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= 1e-4 * np.abs(other).max())


def picture(size: int) -> np.ndarray:
    return RANDOM.standard_normal((3, size, size), np.float32) * 50


def check(plain: caffe.Net, full: caffe.Net) -> None:
    """The map on 451x451 is that of pool5's windows; on 227x227 it is the plain net's answer."""
    full.blobs["data"].data[0] = picture(451)
    full.forward()
    pool5 = full.blobs["pool5"].data[0]
    assert pool5.shape[1:] == (13, 13)
    plain.blobs["data"].reshape(64, 3, 227, 227)
    plain.reshape()
    plain.blobs["pool5"].data[...] = windows_of(pool5, 6, 1)
    plain.forward(start="fc6")
    assert full.blobs["prob"].shape[2:] == (8, 8)
    for blob in ("fc8", "prob"):
        assert close(full.blobs[blob.replace("fc8", "fc8-conv")].data[0], as_map(plain.blobs[blob].data))

    for net in (plain, full):
        net.blobs["data"].reshape(1, 3, 227, 227)
    plain.blobs["data"].data[0] = full.blobs["data"].data[0] = picture(227)
    assert close(full.forward()["prob"][0, :, 0, 0], plain.forward()["prob"][0])


def test_a_thin_one_agrees_with_the_plain_net(tmp_path):
    check(*nets(tmp_path, thin=8))


def test_the_whole_one_agrees_with_the_plain_net(tmp_path):
    check(*nets(tmp_path))


def test_without_padding_it_agrees_on_windows_cut_out_of_the_picture(tmp_path):
    plain, full = nets(tmp_path, thin=8, window=355, pad=False)  # whose pool5 is 6x6 then
    assert plain.blobs["pool5"].shape[2:] == (6, 6)
    image = picture(579)
    full.blobs["data"].data[0] = image
    plain.blobs["data"].reshape(64, 3, 355, 355)
    plain.blobs["data"].data[...] = windows_of(image, 355, 32)
    plain.forward()
    full.forward()
    assert close(full.blobs["fc8-conv"].data[0], as_map(plain.blobs["fc8"].data))
    assert close(full.blobs["prob"].data[0], as_map(plain.blobs["prob"].data))
