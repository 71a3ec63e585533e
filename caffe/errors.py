"""Errors of the Python interface. Each is a ``CaffeError``, and also what pycaffe's users have learnt to catch.

::

    CaffeError
      ArgumentError (RuntimeError)      an argument that cannot be used
      MissingFile (RuntimeError)        a file that cannot be opened
      URLError (OSError)                a picture that cannot be downloaded
      LayerNameError (ValueError)       no layer of that name
      BlobNameError (KeyError)          no blob of that name
"""

from __future__ import annotations

from types import TracebackType

from caffecli.errors import CaffeError, DataError, FormatError, PythonLayerError, SpecError


class ArgumentError(CaffeError, RuntimeError):
    """An argument that cannot be used."""


class MissingFile(FormatError, RuntimeError):
    """A file that cannot be opened."""


class URLError(DataError, OSError):
    """A picture that cannot be downloaded."""


class LayerNameError(SpecError, ValueError):
    """No layer of that name."""


class BlobNameError(SpecError, KeyError):
    """No blob of that name."""

    __str__ = Exception.__str__  # KeyError shows the repr


class UsersErrors:
    """While entered, a Python layer's error is also of the type that the user's code raised,
    so that both can be caught.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, PythonLayerError):
            both = _both(error)
            if both is not error:
                raise both from error.__cause__


def _both(error: PythonLayerError) -> PythonLayerError:
    """``error`` as one that is of the cause's type too, where such a type can be made."""
    cause = error.__cause__
    if cause is None or isinstance(error, type(cause)):
        return error
    try:
        both = type(type(cause).__name__, (PythonLayerError, type(cause)), {"__str__": Exception.__str__})
        return both(str(error))
    except TypeError:  # a type that cannot be mixed, or wants other arguments
        return error
