"""Every exception that caffecli raises on purpose.

::

    CaffeError            what a user can mend; the command line prints its text and exits with 1
      SpecError           a prototxt, or a setting in it: unknown field, layer type, blob, policy
      ShapeError          blobs whose shapes do not fit
      FormatError         a file that is missing, damaged, foreign, or cannot be written
      DataError           a record, label or picture that cannot be used
      SolverError         a training run that cannot start or go on
      PythonLayerError    a user's own layer that failed; ``__cause__`` is its error, whose traceback is shown

A text says where, what was expected, what came, and the remedy, on one line.
"""


def words_of(error: BaseException) -> str:
    """What an error says; nothing where its ``__str__`` fails."""
    try:
        return str(error)
    except Exception:
        return ""


def in_a_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return next((line.strip() for line in words_of(error).splitlines() if line.strip()), type(error).__name__)


class CaffeError(Exception):
    """Base of all errors a user can mend."""


class SpecError(CaffeError):
    """A net or solver definition that cannot be used."""


class ShapeError(CaffeError):
    """Blobs or parameters whose shapes do not fit."""


class FormatError(CaffeError):
    """A file that is missing, damaged, foreign, or cannot be written."""


class DataError(CaffeError):
    """A record, label or picture that cannot be used."""


class SolverError(CaffeError):
    """A training run that cannot start or go on."""


class PythonLayerError(CaffeError):
    """A user's own layer, in NumPy or PyTorch, or module of layers, that failed.

    ``__cause__`` is what it raised, with its traceback.
    """
