"""Every registered layer type keeps the contract of contract.py, by its case in cases.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from caffecli.layers import registry
from tests.layers.cases import CASES, write_files
from tests.layers.contract import CHECKS, Case, check_compiling

TYPES = registry.types()


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)


def test_each_type_has_a_case_and_each_case_a_type() -> None:
    assert sorted(CASES) == TYPES, "give the type a case in tests/layers/cases.py"


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_keeps(check: Callable[[str, Case], None], name: str) -> None:
    check(name, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BatchNorm", "Convolution", "LRN", "Scale", "SoftmaxWithLoss", "Swish"])
def test_compiles_to_machine_code(name: str) -> None:
    check_compiling(name, CASES[name], backend="inductor")
