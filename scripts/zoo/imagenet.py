"""ILSVRC 2012: its data layers."""

from __future__ import annotations

from typing import Any

from scripts.zoo.model import Source, lmdb

TRAIN_DB = "data/ilsvrc12/ilsvrc12_train_lmdb"
VAL_DB = "data/ilsvrc12/ilsvrc12_val_lmdb"
CHANNEL_MEAN: dict[str, Any] = {"mean_value": [104, 117, 123]}
IMAGE_MEAN: dict[str, Any] = {"mean_file": "data/ilsvrc12/imagenet_mean.binaryproto"}


def ilsvrc12(batches: tuple[int, int], crop: int, *, mirror: bool = True, **mean: Any) -> list[Source]:
    """Crops of the 256x256 pictures of ``scripts/create_imagenet.sh``, flipped at random in training."""
    return lmdb(TRAIN_DB, VAL_DB, batches, mirror=mirror, crop_size=crop, **mean)
