"""A net's weights: from files, to files, from other nets."""

from __future__ import annotations

import os
from pathlib import Path

from caffe.engine import Engine
from caffe.errors import MissingFile
from caffecli.formats import caffemodel
from caffecli.net import weights

StrPath = str | os.PathLike[str]


class NetFiles:
    """The methods of a ``Net`` that load and save."""

    _engine: Engine

    def copy_from(self, trained_filename: StrPath) -> None:
        """Take the weights of all layers of the same name from a caffemodel of any age, binary or HDF5; others stay.

        Raises ShapeError, with every mismatch and nothing changed, where a layer's blobs do not fit.
        """
        check_file(trained_filename)
        self._engine.push()
        weights.load(self._engine.net, str(trained_filename))
        self._engine.pull()

    def load_hdf5(self, filename: StrPath) -> None:
        """``copy_from``, for HDF5 files."""
        self.copy_from(filename)

    def share_with(self, other: NetFiles) -> None:
        """Use the very weights of ``other`` in all layers of the same name. Raises ShapeError where their shapes differ."""
        self._engine.to(other._engine.device)
        weights.share(self._engine.net, other._engine.net)
        self._engine.shared()

    def save(self, filename: StrPath) -> None:
        """Write a binary caffemodel, under any name."""
        self._write(filename, as_hdf5=False)

    def save_hdf5(self, filename: StrPath) -> None:
        """Write the weights in Caffe's HDF5 layout, under any name."""
        self._write(filename, as_hdf5=True)

    def _write(self, path: StrPath, as_hdf5: bool) -> None:
        self._engine.push()
        net = self._engine.net
        caffemodel.write(path, weights.definition(net), weights.export(net, shared=not as_hdf5), as_hdf5=as_hdf5)


def check_file(path: StrPath) -> None:
    """Raise MissingFile, a RuntimeError, for a file that cannot be opened."""
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise MissingFile(f"Could not open file {path}: {error.strerror}") from error
