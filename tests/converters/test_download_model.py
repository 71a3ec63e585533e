"""download_model against a server on this machine that breaks off, forgets ranges, and lies."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from caffecli.cli.main import cli
from caffecli.errors import FormatError
from converters import download_model as module
from converters.download_model import download_model, read_readme

ROOT = Path(__file__).parents[2]
CONTENT = bytes(i * i % 251 for i in range(300_000))
SHA1 = hashlib.sha1(CONTENT).hexdigest()


class Server:
    """What is served, and how: ``cuts`` are the lengths after which the next answers break off."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/w.caffemodel"
        self.content, self.ranges = CONTENT, True
        self.cuts: list[int] = []
        self.asked: list[object] = []
        self.status, self.location = 0, ""
        #: sends away, once; stops there until the other side is gone
        self.moved, self.wait_at = False, 0


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            state.asked.append(found and int(found[1]))
            content, start = state.content, int(found[1]) if found and state.ranges else 0
            if state.moved and self.path == "/w.caffemodel":
                self.send_response(301)
                self.send_header("Location", "/moved/w")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if state.status:
                self.send_response(state.status)
                self.send_header("Location", state.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if state.wait_at:
                self.wfile.write(content[: state.wait_at])
                self.wfile.flush()
                self.connection.recv(1)  # until it is closed
                self.close_connection = True
                return
            cut = state.cuts.pop(0) if state.cuts else None
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])
            self.close_connection = cut is not None

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(httpd.server_address[1])
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def readme(folder, server, sha1=SHA1, name="w.caffemodel", url=None):
    text = f"---\nname: W\ncaffemodel: {name}\ncaffemodel_url: {url or server.url}\nsha1: {sha1}\n---\n\n# W\n"
    (folder / "readme.md").write_text(text)


@pytest.fixture
def model(tmp_path, server):
    """The folder of a model that is served."""
    readme(tmp_path, server)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_download(model, server):
    path = download_model(model)
    assert path.read_bytes() == CONTENT
    assert names(model) == ["readme.md", "w.caffemodel"]
    download_model(model)
    assert server.asked == [None]  # what is there is not fetched again


def test_broken_connections_are_taken_up_where_they_stopped(model, server):
    server.cuts = [1000, 70_000, 0, 9]
    assert download_model(model).read_bytes() == CONTENT
    assert server.asked == [None, 1000, 71_000, 71_000, 71_009]


def test_a_server_that_stays_broken_leaves_the_part(model, server):
    server.cuts = [5000, 0, 0, 0]
    with pytest.raises(
        FormatError, match=r"ended after 5,000 of 300,000 bytes; 5,000 bytes are kept as .*part', call again to go on"
    ):
        download_model(model)
    assert names(model) == ["readme.md", "w.caffemodel.part"]
    assert download_model(model).read_bytes() == CONTENT
    assert server.asked[-1] == 5000
    assert names(model) == ["readme.md", "w.caffemodel"]


def test_interrupted_by_the_user(model, server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_CHUNK", 1000)
        bar = module.Bar  # type: ignore[attr-defined]

        def short(*args, **more):
            made = bar(*args, **more)
            seen: list[int] = []

            def advance(count):
                seen.append(count)
                if sum(seen) > 20_000:
                    raise KeyboardInterrupt

            made.advance = advance  # type: ignore[assignment, method-assign]
            return made

        patch.setattr(module, "Bar", short)
        with pytest.raises(KeyboardInterrupt):
            download_model(model)
    assert names(model) == ["readme.md", "w.caffemodel.part"]
    assert download_model(model).read_bytes() == CONTENT
    assert server.asked[1] > 20_000


def test_a_server_without_ranges_starts_anew(model, server):
    server.ranges, server.cuts = False, [1000]
    assert download_model(model).read_bytes() == CONTENT
    assert server.asked == [None, 1000]


@pytest.mark.parametrize("left", [CONTENT[:100] + b"x", b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_a_part_of_another_file_is_dropped(model, server, left):
    (model / "w.caffemodel.part").write_bytes(left)
    assert download_model(model).read_bytes() == CONTENT


def test_a_whole_part_needs_no_more(model, server):
    (model / "w.caffemodel.part").write_bytes(CONTENT)
    assert download_model(model).read_bytes() == CONTENT
    assert names(model) == ["readme.md", "w.caffemodel"]


def test_another_checksum(model, server):
    server.content = b"<html>sorry</html>"
    sums = f"look for another address; its sha1 is {hashlib.sha1(server.content).hexdigest()}, expected {SHA1}"
    with pytest.raises(FormatError, match=f"what {server.url} gave is not the expected file, {sums}"):
        download_model(model)
    assert names(model) == ["readme.md"]
    (model / "w.caffemodel").write_bytes(b"mine")
    with pytest.raises(FormatError, match=r"w.caffemodel' is there, but is another file: remove it first; its sha1 is"):
        download_model(model)
    assert (model / "w.caffemodel").read_bytes() == b"mine"


def test_without_a_checksum_the_weights_are_read(model, server, golden):
    readme(model, server, sha1="")
    server.content = b"<html>sorry</html>"
    with pytest.raises(FormatError, match="is not a caffemodel: it is a web page, saved instead of the file"):
        download_model(model)
    assert names(model) == ["readme.md"]
    server.content = (golden / "lenet" / "lenet_iter_10000.caffemodel").read_bytes()
    assert download_model(model).read_bytes() == server.content


def test_what_the_server_says(model, server):
    server.status = 404
    with pytest.raises(FormatError, match=r"the server says 404 Not Found; look for another address"):
        download_model(model)
    server.status = 429
    with pytest.raises(FormatError, match=r"Too Many Requests; try later"):
        download_model(model)
    server.status = 503
    with pytest.raises(FormatError, match=r"Service Unavailable; try later"):
        download_model(model)
    server.status, server.location = 302, "ftp://127.0.0.1/w"
    with pytest.raises(
        FormatError, match=r"leads to 'ftp://127.0.0.1/w'; expected an address that begins with https://"
    ):
        download_model(model)
    server.location = "file:///etc/hostname"
    with pytest.raises(FormatError, match=r"Redirection to url 'file:///etc/hostname' is not allowed"):
        download_model(model)
    server.location = server.url
    with pytest.raises(FormatError, match=r"the server says 302 .*infinite loop.*; look for another address") as caught:
        download_model(model)
    assert "\n" not in str(caught.value)
    assert names(model) == ["readme.md"]


def test_a_redirection_is_followed(model, server):
    server.moved = True
    assert download_model(model).read_bytes() == CONTENT
    assert server.asked == [None, None]


def start(model, limit=None):
    """The command in a process of its own, whose files may have ``limit`` bytes."""
    limits = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); " if limit else ""
    program = f"{limits}import runpy; runpy.run_module('caffecli', run_name='__main__')"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"}
    args = [sys.executable, "-c", program, "download_model", str(model)]
    return subprocess.Popen(args, env=env, stderr=subprocess.PIPE, text=True)


def test_killed_in_the_middle(model, server):
    server.wait_at = 100_000
    process = start(model)
    part = model / "w.caffemodel.part"
    for _ in range(1000):
        if part.exists() and part.stat().st_size >= server.wait_at:
            break
        time.sleep(0.01)
    process.kill()
    process.communicate()
    server.wait_at, kept = 0, part.stat().st_size
    assert kept == 100_000
    assert names(model) == ["readme.md", "w.caffemodel.part"]
    assert download_model(model).read_bytes() == CONTENT
    assert server.asked == [None, kept]
    assert names(model) == ["readme.md", "w.caffemodel"]


def test_no_room(model, server):
    limit = 120_000
    process = start(model, limit)
    _, err = process.communicate()
    assert process.returncode == 1
    assert re.search(r"\AError: cannot write '.*w.caffemodel.part': File too large; raise the limit .*\n\Z", err), err
    assert names(model) == ["readme.md", "w.caffemodel.part"]
    assert download_model(model).read_bytes() == CONTENT
    assert server.asked[-1] == limit


def test_a_folder_in_its_place(model, server):
    (model / "w.caffemodel").mkdir()
    with pytest.raises(FormatError, match=r"cannot read '.*w.caffemodel': Is a directory"):
        download_model(model)
    assert server.asked == []


def test_nobody_listens(model, server):
    readme(model, server, url="http://127.0.0.1:1/w")
    with pytest.raises(FormatError, match=r"http://127.0.0.1:1/w: .*Connection refused; try later"):
        download_model(model)


def test_two_at_once(model, server):
    with (
        module._locked(model / "w.caffemodel.part"),
        pytest.raises(FormatError, match="is being written by another download"),
    ):
        download_model(model)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"url": "file:///etc/passwd"},
            r"leads to 'file:///etc/passwd'; expected an address that begins with https://",
        ),
        ({"url": "ftp://a/b"}, "leads to 'ftp://a/b'"),
        ({"name": "../w"}, r"caffemodel is '\.\./w'; expected the name of a file in that folder"),
        ({"name": "/w"}, "expected the name of a file in that folder"),
        ({"sha1": "12"}, "sha1 is '12'; expected 40 hexadecimal digits"),
        ({"name": ""}, "names no weights to download: its front matter lacks caffemodel"),
    ],
)
def test_readmes(model, server, entries, words):
    readme(model, server, **entries)
    with pytest.raises(FormatError, match=words):
        read_readme(model)


def test_no_readme_no_front_matter(tmp_path):
    with pytest.raises(FormatError, match=r"cannot read .*readme.md'"):
        download_model(tmp_path)
    (tmp_path / "readme.md").write_text("# A model\n---\ncaffemodel: x\n---\n")
    with pytest.raises(FormatError, match=r"its front matter lacks caffemodel and caffemodel_url"):
        download_model(tmp_path)


def test_command(model, capsys):
    cli.main(["download_model", str(model)], standalone_mode=False)
    assert f"The weights are in {model / 'w.caffemodel'}" in capsys.readouterr().out
