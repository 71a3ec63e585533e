"""Errors of the Python interface. Each is a ``CaffeError``, and also what pycaffe's users have learnt to catch.

::

    CaffeError
      ArgumentError (RuntimeError)      an argument that cannot be used
      MissingFile (RuntimeError)        a file that cannot be opened
      LayerNameError (ValueError)       no layer of that name
      BlobNameError (KeyError)          no blob of that name
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caffecli.errors import CaffeError, FormatError, PythonLayerError, SpecError


class ArgumentError(CaffeError, RuntimeError):
    """An argument that cannot be used."""


class MissingFile(FormatError, RuntimeError):
    """A file that cannot be opened."""


class LayerNameError(SpecError, ValueError):
    """No layer of that name."""


class BlobNameError(SpecError, KeyError):
    """No blob of that name."""

    __str__ = Exception.__str__  # KeyError shows the repr


@contextmanager
def users_errors() -> Iterator[None]:
    """Let the error of a Python layer be also of the type that the user's own code has raised."""
    try:
        yield
    except PythonLayerError as error:
        cause = error.__cause__
        if cause is None or isinstance(error, type(cause)):
            raise
        try:
            both = type(type(cause).__name__, (PythonLayerError, type(cause)), {"__str__": Exception.__str__})
            raised = both(str(error))
        except TypeError:  # a type that cannot be mixed, or wants other arguments
            raise error from cause
        raise raised from cause
