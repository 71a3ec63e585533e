"""download_model: a model's published weights, from the address in its readme, with their checksum verified.

The readme begins with front matter: lines ``key: value`` between two lines ``---``. ``caffemodel`` is the file's name,
``caffemodel_url`` where it is, ``sha1`` its checksum. What has come so far is kept beside as ``NAME.part``; a later
call goes on from there (HTTP Range). The file gets its name when it is whole and its checksum right.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from caffecli import __version__, logs
from caffecli.errors import FormatError
from caffecli.formats import atomic, caffemodel, locks
from caffecli.logs import Bar

#: seconds without a byte after which a connection counts as broken
TIMEOUT = 60.0
#: seconds before each further try that follows one in which nothing came
PAUSES = (1.0, 4.0)
_CHUNK = 2**18
#: statuses below 500 that are worth another try: Request Timeout, Too Early, Too Many Requests
_TEMPORARY = (408, 425, 429)
_LOG = "download_model.py"


@dataclass(frozen=True)
class Published:
    """The weights that a readme names: the file to write, their address, and their SHA-1 ("" where it is not known)."""

    path: Path
    url: str
    sha1: str


class ConnectionLost(Exception):
    """The connection ended before the file did."""


_CONNECTION_ERRORS = (
    ConnectionLost,
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    TimeoutError,
    ConnectionError,
)


def download_model(folder: str | os.PathLike[str]) -> Path:
    """Download the weights of the model in ``folder`` unless they are there; returns their path.

    Raises FormatError: no such entry in the readme, a place that cannot be reached, weights of another checksum.
    """
    published = read_readme(folder)
    if published.path.exists():
        _check_sum(published, published.path, f"{str(published.path)!r} is there, but is another file: remove it first")
        logs.info(_LOG, f"{published.path} is there already")
        return published.path
    part = published.path.with_name(published.path.name + ".part")
    try:
        with _locked(part) as file:
            _fetch(published, part, file)
            os.fsync(file.fileno())
            part.replace(published.path)
        atomic.sync(published.path.parent)
    except OSError as error:
        raise atomic.cannot_write(part, error) from error
    return published.path


def read_readme(folder: str | os.PathLike[str]) -> Published:
    """What ``folder/readme.md`` says in its front matter. Raises FormatError."""
    readme = Path(folder) / "readme.md"
    content = atomic.read_bytes(readme).decode("utf-8", "replace")
    front_matter = re.match(r"---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", content, re.DOTALL)
    entries = dict(re.findall(r"^(\w+):[ \t]*(.*?)[ \t\r]*$", front_matter[1], re.MULTILINE)) if front_matter else {}
    entries = {key: value.strip("\"'") for key, value in entries.items()}
    missing = [key for key in ("caffemodel", "caffemodel_url") if not entries.get(key)]
    if missing:
        lacks = f"its front matter lacks {' and '.join(missing)}"
        raise FormatError(
            f"{str(readme)!r} names no weights to download: {lacks}; train the net, or add where they are"
        )
    name, url, sha1 = entries["caffemodel"], entries["caffemodel_url"], entries.get("sha1", "").lower()
    if Path(name).name != name or name.startswith("."):
        raise FormatError(f"{str(readme)!r}: caffemodel is {name!r}; expected the name of a file in that folder")
    if sha1 and not re.fullmatch("[0-9a-f]{40}", sha1):
        raise FormatError(f"{str(readme)!r}: sha1 is {sha1!r}; expected 40 hexadecimal digits")
    _check_url(url, readme)
    return Published(Path(folder) / name, url, sha1)


def _check_url(url: str, said_by: object) -> None:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc or re.search(r"\s", url):
        raise FormatError(
            f"{str(said_by)!r} leads to {url!r}; expected an address that begins with https:// or http://"
        )


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The part file, opened to append, locked against a second download, and removed if it stays empty."""
    with part.open("ab+") as file:
        try:
            locks.take(file)
        except BlockingIOError as error:
            raise FormatError(f"{str(part)!r} is being written by another download; wait for it") from error
        try:
            yield file
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _fetch(published: Published, part: Path, file: IO[bytes]) -> None:
    """Complete ``file``; where its earlier part turns out to be of another file, download all of it anew."""
    for resumed in (file.seek(0, os.SEEK_END) > 0, False):
        if resumed:
            logs.info(_LOG, f"Going on behind the {file.tell():,} bytes that are there")
        _download(published.url, part, file)
        file.flush()
        try:
            _check_sum(published, part, f"what {published.url} gave is not the expected file, look for another address")
            return
        except FormatError:
            file.truncate(0)
            if not resumed:
                raise
            logs.warning(_LOG, "The part that was there belongs to another file: starting anew")


def _download(url: str, part: Path, file: IO[bytes]) -> None:
    """Request the missing bytes until all are there.

    A broken connection is tried again: at once where it brought something, else after the next of PAUSES.
    """
    idle = 0
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            _request(url, file, before)
            return
        except _CONNECTION_ERRORS as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code < 500 and error.code not in _TEMPORARY:
                    said = " ".join(str(error.reason).split())  # of a circle of redirections it speaks in three lines
                    raise FormatError(
                        f"{url}: the server says {error.code} {said}; look for another address"
                    ) from error
            idle = 0 if file.seek(0, os.SEEK_END) > before else idle + 1
            if idle > len(PAUSES):
                why = getattr(error, "reason", None) or error
                kept = (
                    f"{file.tell():,} bytes are kept as {str(part)!r}, call again to go on"
                    if file.tell()
                    else "try later"
                )
                raise FormatError(f"{url}: {str(why) or type(why).__name__}; {kept}") from error
            time.sleep(PAUSES[idle - 1] if idle else 0)


def _request(url: str, file: IO[bytes], start: int) -> None:
    """One request for the bytes from ``start`` on. Raises ConnectionLost when the connection ends before the file."""
    request = urllib.request.Request(
        url, headers={"User-Agent": f"caffecli/{__version__}", "Accept-Encoding": "identity"}
    )
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        answer = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        size = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if size is None or int(size[1]) != start:  # no longer the file that was begun
            file.truncate(0)
            raise ConnectionLost("the server has a shorter file") from error
        return
    with answer:
        if start and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            file.truncate(0)  # the server cannot go on in the middle
            start = 0
        length = answer.headers.get("Content-Length")
        _receive(answer, file, start, None if length is None else start + int(length))


def _receive(answer: Any, file: IO[bytes], start: int, end: int | None) -> None:
    with Bar(end, start, unit="B") as progress:
        while data := answer.read1(_CHUNK):
            file.write(data)
            progress.advance(len(data))
    file.flush()
    if end is not None and file.tell() != end:
        raise ConnectionLost(f"the connection ended after {file.tell():,} of {end:,} bytes")


def _check_sum(published: Published, path: Path, otherwise: str) -> None:
    """Raise FormatError, ``otherwise`` and why, for a wrong checksum or, without one, for an unreadable file."""
    if not published.sha1:
        caffemodel.read(path)
        logs.warning(_LOG, "The readme has no sha1: all that is known is that the weights can be read")
        return
    try:
        with path.open("rb") as file:
            came = _sha1(file)
    except OSError as error:
        raise atomic.cannot_read(path, error) from error
    if came != published.sha1:
        raise FormatError(f"{otherwise}; its sha1 is {came}, expected {published.sha1}")


def _sha1(file: IO[bytes]) -> str:
    digest = hashlib.sha1()
    while data := file.read(_CHUNK):
        digest.update(data)
    return digest.hexdigest()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https alone, never to a file of this machine or another protocol."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_url(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
