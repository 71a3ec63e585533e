"""Fixtures that the layers' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caffecli.layers import registry


@pytest.fixture
def own_types() -> Iterator[None]:
    """What a test registers is gone after it."""
    known = dict(registry._LAYERS)
    yield
    registry._LAYERS.clear()
    registry._LAYERS.update(known)
