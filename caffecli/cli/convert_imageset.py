"""``caffecli convert_imageset``."""

from __future__ import annotations

from typing import Any

import click

from caffecli.cli.options import backend_of, backend_option, caffe_command


@caffe_command("convert_imageset", empty=["rootfolder"])
@click.option("--gray", "-g", is_flag=True, help="Store the pictures as grayscale ones.")
@click.option("--shuffle", is_flag=True, help="Store them in a random order.")
@backend_option
@click.option("--resize_width", type=int, default=0, help="The width to resize to; 0 does not resize.")
@click.option("--resize_height", type=int, default=0, help="The height to resize to; 0 does not resize.")
@click.option("--check_size", is_flag=True, help="Stop at a picture of another size than the first one.")
@click.option("--encoded", is_flag=True, help="Store the pictures as encoded files (PNG, JPEG).")
@click.option("--encode_type", default="", help="The encoding to store ('png', 'jpg'); the files' own by default.")
@click.argument("rootfolder", metavar="ROOTFOLDER/")
@click.argument("listfile")
@click.argument("db_name")
@click.argument("rest", nargs=-1, metavar="")
@click.pass_context
def convert_imageset(
    ctx: click.Context, /, rootfolder: str, listfile: str, db_name: str, rest: tuple[str, ...], **settings: Any
) -> None:
    """Put pictures into a new database.

    LISTFILE has a line for each: its path below ROOTFOLDER/, a space, its label.
    Pictures that cannot be read are reported and left out.

    The arguments of 2014, [0|1 to shuffle] [leveldb|lmdb] [height] [width] after DB_NAME, are read too; without lmdb
    they mean a LevelDB.
    """
    if rest:
        settings |= _of_2014(rest, ctx)
    settings["backend"] = backend_of(settings["backend"], db_name)
    from converters import convert_imageset as converter

    converter.convert_imageset(rootfolder, listfile, db_name, converter.Options(**settings))


def _of_2014(rest: tuple[str, ...], ctx: click.Context) -> dict[str, Any]:
    """The settings in the arguments that followed DB_NAME until September 2014."""
    shuffle, *words = rest
    backend = words.pop(0) if words and words[0] in ("lmdb", "leveldb") else "leveldb"
    if shuffle not in ("0", "1") or len(words) > 2 or not all(word.isascii() and word.isdigit() for word in words):
        raise click.UsageError(
            f"Got unexpected extra arguments ({' '.join(rest)}); "
            "after DB_NAME came, in 2014: 0 or 1 to shuffle, leveldb or lmdb, height, width.",
            ctx,
        )
    height, width = [*map(int, words), 0, 0][:2]
    return {"shuffle": shuffle == "1", "backend": backend, "resize_height": height, "resize_width": width}
