"""``caffecli extract_features``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from caffecli.cli import glog
from caffecli.cli.options import caffe_command, device_options, layers_option, model_option, weights_option

if TYPE_CHECKING:
    from caffecli.tools.extract_features import Format

FORMATS = ("lmdb", "leveldb", "hdf5", "npy")


@caffe_command("extract_features", quiet=True, results=["extract_features"])
@model_option("The net definition, with the data layers whose records are taken (prototxt).")
@weights_option("The trained weights; several files separated by ','.")
@click.option("--all", "each", is_flag=True, help="Take each record of the source once, in place of NUM_BATCHES.")
@device_options
@layers_option
@click.argument("words", nargs=-1, required=True, metavar="BLOB[,BLOB...] OUT[,OUT...] NUM_BATCHES DB_TYPE")
@click.pass_context
def extract_features(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    model: str | None,
    weights: str | None,
    each: bool,
    gpu: str | None,
    cpu: bool,
    layers: tuple[str, ...],
) -> None:
    """Write blobs of a trained net, record by record.

    \b
      caffecli extract_features ip2 features.h5 hdf5 --all --model train_val.prototxt --weights snapshot.caffemodel

    DB_TYPE is lmdb or leveldb, whose records are datums of floats under the keys 0000000000, 0000000001, ...; or hdf5
    or npy, which keep the records' own keys too: in the dataset "key", and in OUT.keys.npy beside OUT.npy.
    Without it, after NUM_BATCHES, leveldb, as in 2014.

    As in Caffe, the weights and then the net may stand before BLOB, and CPU, or GPU and its number, last.
    """
    rest = list(words)
    if weights is None and len(rest) > 1:
        weights = rest.pop(0)
    if model is None and len(rest) > 1:
        model = rest.pop(0)
    if weights is None or model is None or len(rest) < 2:
        raise click.UsageError(
            f"expected BLOB and OUT, and the net by --model and --weights; got {' '.join(words)!r}.", ctx
        )
    blobs, outputs = rest.pop(0), rest.pop(0)
    names, files = tuple(blobs.split(",")), tuple(outputs.split(","))
    if len(names) != len(files):
        raise click.UsageError(
            f"{len(names)} blobs ({blobs}) and {len(files)} outputs ({outputs}); give one for each.", ctx
        )
    if "" in names + files or len(set(files)) < len(files):
        raise click.UsageError(f"each name of {blobs} and {outputs} must say something, and no output come twice.", ctx)
    batches, kind, number = _settings(rest, each, ctx)
    from caffecli.tools import extract_features as tool

    tool.extract_features(
        tool.FeatureOptions(
            weights=weights,
            model=Path(model),
            blobs=names,
            outputs=files,
            batches=batches,
            format=kind,
            gpu=None if cpu else gpu or number,
            layers=layers,
            as_caffe=glog.is_caffes(ctx),
        )
    )


def _settings(rest: list[str], each: bool, ctx: click.Context) -> tuple[int | None, Format, str | None]:
    """NUM_BATCHES (none with --all), DB_TYPE, and the GPU, None for the CPU."""
    batches = None
    if not each:
        text = rest.pop(0) if rest else ""
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise click.UsageError(f"NUM_BATCHES {text!r} is no number of batches of at least 1; or say --all.", ctx)
        batches = int(text)
    kind = rest.pop(0) if rest and (each or rest[0] not in ("CPU", "GPU")) else "" if each else "leveldb"  # of 2014
    if kind not in FORMATS:
        hint = " --all takes the place of NUM_BATCHES." if each and kind.isdigit() else ""
        raise click.UsageError(f"DB_TYPE {kind!r} is none of {', '.join(FORMATS)}.{hint}", ctx)
    mode = rest.pop(0) if rest else "CPU"
    if mode not in ("CPU", "GPU"):
        raise click.UsageError(f"{mode!r} is neither CPU nor GPU.", ctx)
    device = rest.pop(0).removeprefix("DEVICE_ID=") if rest else "0"
    if rest or not device.isascii() or not device.isdigit():
        raise click.UsageError(f"expected the number of a GPU last, got {' '.join([device, *rest])!r}.", ctx)
    return batches, cast("Format", kind), device if mode == "GPU" else None
