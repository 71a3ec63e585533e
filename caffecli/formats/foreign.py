"""Guesses what a file is, for errors about files of the wrong kind."""

from __future__ import annotations

import os

from caffecli.errors import FormatError
from caffecli.formats.blob import parse
from caffecli.proto.caffe_pb2 import BlobProto, Datum, NetParameter, SolverState

#: the kinds of file that training writes; their remedies do not help with other kinds
TRAINED = ("a caffemodel", "a binary caffemodel, which holds the net's definition", "a solverstate")

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

#: how the source of a web page begins, in lower case
WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")

_MAGICS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run 'git lfs pull'"),
    (b"\x1f\x8b", "a gzip file", "unpack it with gunzip"),
    (b"BZh", "a bzip2 file", "unpack it with bunzip2"),
    (b"\xfd7zXZ", "an xz file", "unpack it with unxz"),
    (b"PK\x03\x04", "a zip file (PyTorch's .pt and .pth are such)", "unpack it, or give a file in Caffe's format"),
    (b"\x80\x02", "a Python pickle", "give a file in Caffe's format"),
    (b"\x93NUMPY", "a numpy array", "give a file in Caffe's format"),
    (b"\xff\xd8\xff", "a JPEG picture", "give a file in Caffe's format"),
    (b"\x89PNG", "a PNG picture", "give a file in Caffe's format"),
)


def describe(path: str | os.PathLike[str], data: bytes, wanted: str) -> FormatError:
    """The error for ``path`` whose content ``data`` is not ``wanted`` ("a caffemodel"):
    what it is instead, and the remedy.
    """
    seems, remedy = _guess(data)
    if wanted not in TRAINED and not remedy.startswith(("copy", "download", "run", "unpack")):
        remedy = f"give {wanted}"
    return FormatError(f"{str(path)!r} is not {wanted}: it {seems}; {remedy}")


def _guess(data: bytes) -> tuple[str, str]:
    if not data:
        return "is empty", "copy or download it again"
    for magic, what, remedy in _MAGICS:
        if data.startswith(magic):
            return f"seems to be {what}", remedy
    if data.startswith(HDF5_MAGIC):
        return (
            "is an HDF5 file without the expected groups",
            "give weights (.caffemodel.h5) or a solver state (.solverstate.h5)",
        )
    head = data[:512].lstrip().lower()
    if head.startswith(WEB_PAGES):
        return "is a web page, saved instead of the file", "download it again from the file's own address"
    if _is_text(data[:4096]):
        return "is text, perhaps a prototxt", "give the binary file that training wrote"
    return _guess_message(data)


def _guess_message(data: bytes) -> tuple[str, str]:
    """Which of Caffe's messages the bytes hold, judged by fields that only this message has."""
    state = parse(SolverState, data)
    if state is not None and state.HasField("iter") and (state.history or state.HasField("learned_net")):
        return "is a solverstate", "caffecli train takes it by --snapshot; the caffemodel beside it has the weights"
    net = parse(NetParameter, data)
    if net is not None and (net.layer or net.layers):
        return "is a caffemodel", "caffecli train takes it by --weights; the solverstate beside it goes to --snapshot"
    blob = parse(BlobProto, data)
    if blob is not None and (blob.data or blob.double_data) and (blob.HasField("channels") or blob.shape.dim):
        return "is a single blob, perhaps a mean.binaryproto", "give it as mean_file"
    datum = parse(Datum, data)
    if datum is not None and datum.HasField("data") and datum.HasField("label"):
        return "is a single datum", "give the file that training wrote"
    return "is damaged or truncated, or of another kind", "copy or download it again, and compare its size and checksum"


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not just a character cut off at the end
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n\f" for c in text)
