"""``python -m scripts.zoo [NAME ...]``: write models/NAME/*.prototxt, those of every model without a name."""

from __future__ import annotations

import sys

from caffecli.errors import CaffeError
from scripts.zoo.catalogue import MODELS


def main(names: list[str]) -> None:
    """Write the files of the named models. Raises CaffeError for a name that is not known."""
    for name in names or MODELS:
        if name not in MODELS:
            raise CaffeError(f"there is no model {name!r}; the models are {', '.join(MODELS)}")
        for path, text in MODELS[name].texts().items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(path)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CaffeError as error:
        sys.exit(str(error))
