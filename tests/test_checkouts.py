"""``import caffe`` beside checkouts of Caffe: those that cannot be imported are passed over."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path

import pytest

from caffecli import checkouts

ROOT = Path(__file__).parents[1]
OURS = b"PyInit__caffe \0 libpython%d.%d.so.1.0" % sys.version_info[:2]


def checkout(folder: Path, library: bytes | None, suffix: str = EXTENSION_SUFFIXES[-1]) -> Path:
    """The folder ``python`` of a checkout whose compiled part has these bytes, or is not there."""
    package = folder / "python/caffe"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from ._caffe import Net")
    (package / "_caffe.cpp").touch()
    (package / "io.py").write_text("name = 'the checkout'")
    (package / "model_libs.py").write_text("name = 'SSD'")
    if library is not None:
        (package / f"_caffe{suffix}").write_bytes(library)
    return package.parent


@pytest.mark.parametrize(
    ("library", "passed_over"),
    [
        (None, True),
        (b"init_caffe \0 libpython2.7.so.1.0", True),
        (b"PyInit__caffe \0 libpython3.5m.so.1.0", True),
        (OURS, False),
        (b"PyInit__caffe", False),
    ],
)
def test_a_checkout_is_found_where_it_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: bytes | None, passed_over: bool
) -> None:
    python = checkout(tmp_path, library)
    monkeypatch.setattr(sys, "path", [str(python), b"no str", Path("no str"), str(ROOT)])
    found = checkouts._Finder.find_spec("caffe")
    assert checkouts._Finder.find_spec("caffe.io", [str(python)]) is None
    if passed_over:
        assert found.origin == str(ROOT / "caffe/__init__.py")
    else:
        assert found is None, "the usual way, which finds the checkout"


def test_a_checkout_in_a_folder_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `git clone` makes it: no package at all, which hid one of an editable installation."""
    checkout(tmp_path / "caffe", None)

    class Editable:
        @classmethod
        def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec:
            return ModuleSpec(name, None, origin="editable")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "caffe/python")])
    for editable in ([], [Editable]):
        monkeypatch.setattr(sys, "meta_path", [checkouts._Finder, PathFinder, *editable])
        found = checkouts._Finder.find_spec("caffe")
        assert getattr(found, "origin", None) == ("editable" if editable else None)


def test_a_caffe_pb2_is_ours_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs look for it in the checkout's python/caffe/proto, where only a build makes it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert checkouts._Finder.find_spec("caffe_pb2").origin == str(ROOT / "caffe/proto/caffe_pb2.py")
    (tmp_path / "caffe_pb2.py").touch()
    assert checkouts._Finder.find_spec("caffe_pb2").origin == str(tmp_path / "caffe_pb2.py")


def test_a_detector_has_its_own_model_libs(tmp_path: Path) -> None:
    """As RefineDet's, DSSD's and DSOD's checkouts, by other bodies and heads; 2to3 need not have seen them."""
    file = checkout(tmp_path, None) / "caffe/model_libs.py"
    packages = [str(ROOT / "caffe"), str(file.parent)]
    file.write_text("""
def UnpackVariable(var, num):
    assert len > 0
def CreateRefineDetHead():
    return [i for i in xrange(2)], UnpackVariable(3, 2)
""")
    spec = checkouts._Finder.find_spec("caffe.model_libs", packages)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.CreateRefineDetHead(), module.__file__) == (([0, 1], [3, 3]), str(file))
    assert checkouts._Finder.find_spec("caffe.model_libs", packages[:1]) is None, "ours, without a checkout"
    file.write_text('print "of Python 2"')
    assert checkouts._Finder.find_spec("caffe.model_libs", packages) is None


def test_importing_twice_adds_one_finder() -> None:
    checkouts.pass_over()
    assert sys.meta_path.count(checkouts._Finder) == 1


@pytest.mark.parametrize("build", ["build_wheel", "build_editable"])
def test_an_installation_passes_over_checkouts_from_the_start(tmp_path: Path, build: str) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "caffecli/__init__.py", "caffecli/checkouts.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / "caffe").mkdir()
    (source / "caffe/__init__.py").write_text("name = 'ours'")
    (source / "caffe/io.py").write_text("name = 'our io'")
    code = f"import setuptools.build_meta as m; m.{build}({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    python = checkout(tmp_path, None)
    program = "import caffe, caffe.io, caffe.model_libs; print(caffe.name, caffe.io.name, caffe.model_libs.name)"
    (python / "classify.py").write_text(program)
    inserting = tmp_path / "notebook.py"
    inserting.write_text(f"import sys; sys.path.insert(0, {str(python)!r}); {program}")
    for script, path in ((python / "classify.py", ""), (inserting, ""), (inserting, str(python))):
        start = f"""
import runpy, site, sys
site.addsitedir({str(site)!r})
sys.path[0] = {str(script.parent)!r}
runpy.run_path({str(script)!r})
"""
        env = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-S", "-c", start], env=env, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("ours our io SSD\n", "")
    shutil.rmtree(site / "caffecli", ignore_errors=True)
    shutil.rmtree(source)
    code = f"import site; site.addsitedir({str(site)!r})"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "", "no word of it where it has been removed"
