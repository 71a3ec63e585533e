#!/usr/bin/env python
"""Downloads the pictures of Flickr style, and writes train.txt and test.txt for models/finetune_flickr_style.

    python data/flickr_style/assemble_data.py --images=2000 --seed 831486 --workers=-1

The list of the pictures, flickr_style.csv.gz, is that of Caffe's examples/finetune_flickr_style: an address, a label
and a split for each. Pictures that are gone, or that Flickr replaces by a placeholder, are left out and counted; those
that are there already are not downloaded again.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import random
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from caffecli import logs
from caffecli.errors import CaffeError, DataError
from caffecli.formats.atomic import replacing
from caffecli.formats.picture import decode

HERE = Path(__file__).resolve().parent
LIST = "flickr_style.csv.gz"
#: the SHA-1 of the picture that Flickr gives for one that is gone
PLACEHOLDER = "6a92790b1c2a301c6e7ddef645dca1f53ea97ac2"
SECONDS = 30
MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Picture:
    address: str
    label: int
    split: str

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


def read_list(path: Path) -> list[Picture]:
    """The pictures of the list. Raises DataError where it is none."""
    try:
        with gzip.open(path, "rt", newline="") as file:
            return [Picture(row["image_url"], int(row["label"]), row["_split"]) for row in csv.DictReader(file)]
    except (OSError, EOFError, KeyError, ValueError, TypeError, UnicodeError) as error:
        raise DataError(
            f"cannot read {str(path)!r} ({error}); expected {LIST} of Caffe's examples/finetune_flickr_style, with the "
            "columns image_url, label and _split; name it by --csv"
        ) from None


def download(picture: Picture, folder: Path) -> bool:
    """Whether the picture is in ``folder`` now."""
    target = folder / picture.name
    if not picture.address.startswith(("http://", "https://")) or picture.name in ("", ".", ".."):
        return False
    if target.exists():
        return True
    try:
        with urllib.request.urlopen(picture.address, timeout=SECONDS) as answer:
            data = answer.read(MOST_BYTES)
    except (OSError, ValueError, urllib.error.URLError):
        return False
    if hashlib.sha1(data).hexdigest() == PLACEHOLDER or not is_picture(data):
        return False
    with replacing(target) as file:
        file.write(data)
    return True


def is_picture(data: bytes) -> bool:
    try:
        return decode(data) is not None
    except CaffeError:
        return False


def write_lists(pictures: list[Picture], folder: Path, images: Path) -> None:
    for split in ("train", "test"):
        lines = [f"{images / picture.name} {picture.label}\n" for picture in pictures if picture.split == split]
        with replacing(folder / f"{split}.txt") as file:
            file.write("".join(lines).encode())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-s", "--seed", default=0, help="which pictures are chosen")
@click.option("-i", "--images", default=-1, help="how many pictures; -1: all")
@click.option("-w", "--workers", default=-1, help="how many downloads at once; -1: all cores but one")
@click.option("-l", "--labels", default=0, help="only the first so many labels; 0: all")
@click.option("--csv", "source", type=click.Path(path_type=Path), help=f"the list; by default {LIST} beside this file")
def main(seed: int, images: int, workers: int, labels: int, source: Path | None) -> None:
    """Download pictures of Flickr style, and write train.txt and test.txt."""
    chosen = [picture for picture in read_list(source or HERE / LIST) if not labels or picture.label < labels]
    random.Random(seed).shuffle(chosen)
    chosen = chosen[:images] if images >= 0 else chosen
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    threads = workers if workers > 0 else max(1, (os.cpu_count() or 2) - 1)
    click.echo(f"Downloading {len(chosen)} images with {threads} workers...")
    with ThreadPoolExecutor(threads) as pool, logs.Bar(len(chosen), unit="pictures") as bar:
        there = []
        for picture, ok in zip(chosen, pool.map(lambda each: download(each, folder), chosen), strict=True):
            there += [picture] if ok else []
            bar.advance()
    if chosen and not there:
        raise DataError("none of the pictures could be downloaded; is there a connection to the addresses in the list?")
    click.echo(f"Writing train/val for {len(there)} successfully downloaded images.")
    write_lists(there, HERE, folder)


if __name__ == "__main__":
    try:
        main()
    except CaffeError as error:
        sys.exit(f"Error: {error}")
