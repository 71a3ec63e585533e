from __future__ import annotations

from pathlib import Path

import pytest

from caffecli.errors import DataError, FormatError
from caffecli.formats.list_file import Entry, read_list, read_text, why_not_there


@pytest.mark.parametrize(
    "data",
    [b"a b.jpg 1\nc.jpg 2\n",
     b"a b.jpg\t1\nc.jpg\t2", b"\xef\xbb\xbfa b.jpg 1\nc.jpg 2\n", b"a b.jpg 1\r\nc.jpg +2\r\n",
     b"a b.jpg  1 \rc.jpg \t 2\r", b"  a b.jpg 1\n\tc.jpg 2"],
)  # fmt: skip
def test_spellings_of_one_list(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list").write_bytes(data)
    assert read_list(tmp_path / "list") == [Entry(1, "a b.jpg", 1), Entry(2, "c.jpg", 2)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("x.jpg", "expected a path and its label ('images/cat.jpg 3'): there is no label; the line is 'x.jpg'"),
        ("7", "there is no path; the line is '7'"),
        ("x.jpg,1", "put a space in place of the ','"),
        ("my x.jpg;1", "put a space in place of the ';'"),
        (
            "x.jpg 2.0",
            "expected one whole number as the label, got '2.0'; HDF5Data takes several labels, and",
        ),
        ("x.jpg 1e-3", "expected one whole number as the label, got '1e-3'; HDF5Data takes"),
        ("x.jpg 1,0,1", "expected one whole number as the label, got '1,0,1'; HDF5Data takes"),
        ("3 x.jpg", "the label comes last; the line is '3 x.jpg'"),
        ("x.jpg cat", "'cat' is no whole number"),
        ("x.jpg 9999999999", "the label 9999999999 does not fit into 32 bits"),
    ],
)
def test_each_fault_has_its_words(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "list").write_text(f"a.jpg 1\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_list(tmp_path / "list")
    assert str(caught.value).startswith(f"{str(tmp_path / 'list')!r}, line 2: ")
    assert words in str(caught.value)


def test_what_is_no_list_is_told(tmp_path: Path) -> None:
    for data, words in (
        (b"", "lists no pictures; expected a path and its label on each line"),
        (b"\n \n", "lists no pictures"),
        ("a.jpg 1\n".encode("utf-16"), "is written in UTF-16, as Windows' PowerShell does; save it as UTF-8"),
        (b"\x89PNG\0", "is not an image list: it seems to be a PNG picture"),
    ):
        (tmp_path / "list").write_bytes(data)
        with pytest.raises(FormatError, match=words):
            read_list(tmp_path / "list")
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa.h5\nb\xff.h5")
    assert read_text(tmp_path / "list", "a list") == "a.h5\nb\udcff.h5"


def test_why_a_file_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pics/im 1.jpg", "pics/sub/Cat.JPG", "here.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    several = "the line has more than one label; HDF5Data takes several labels, and labels that are no whole numbers"
    for name, why in {
        "im 1.jpg 0 1": several,
        "none.jpg 0.5": several,
        '"im 1.jpg"': "take the quotes out of the list; a path may hold spaces without them",
        "sub\\Cat.JPG": "write / in place of \\ in the list",
        "im 1": "there is 'im 1.jpg': write the extension too",
        "sub/cat.jpg": "there is 'Cat.JPG': capitals count",
        "here.jpg": "'here.jpg' is there, without the root folder 'pics/'",
        str(tmp_path / "here.jpg"): f"'{tmp_path}/here.jpg' is there: the list has whole paths, so give the root folder"
        " as '/'",
        "nowhere/x.jpg": "there is no folder 'pics/nowhere'; check the root folder and the list",
        "x.jpg": "check the root folder and the list",
    }.items():
        assert why_not_there(name, "pics/") == why
    assert why_not_there("~/x.jpg") == "write the whole path; '~' means something to a shell only"
    assert why_not_there("x.jpg", "$HOME/") == "write the whole path; '$' means something to a shell only"
