"""data/*/get_*.sh against a server on this machine: whole files, wrong sums, missing ones, broken connections."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None and shutil.which("wget") is None, reason="needs curl or wget"
)

MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Server:
    """Serves ``files`` by path; breaks the connection after ``cut[path]`` bytes, once;
    goes on from a byte where asked to.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                asked = self.headers.get("Range")
                server.requests.append((name, asked))
                if name not in server.files:
                    self.send_error(404)
                    return
                body, start = server.files[name], 0
                if asked is not None and server.ranges:
                    start = int(asked.removeprefix("bytes=").split("-")[0])
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                self.wfile.write(body[start : server.cut.pop(name, len(body))])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    it = Server()
    yield it
    it.close()


@pytest.fixture
def mnist(server: Server, repository: Path) -> dict[str, bytes]:
    """Four small files under MNIST's names, served, with their sums in the copied script."""
    contents = {name: f"{name} ".encode() * 3000 for name in MNIST}
    server.files = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in contents.items()}
    script = repository / "data/mnist/get_mnist.sh"
    text = script.read_text()
    for line in text.splitlines():
        if line.endswith("-ubyte"):
            _, name = line.split()
            text = text.replace(line, f"{hashlib.sha256(contents[name]).hexdigest()} {name}")
    script.write_text(text)
    return contents


def test_mnist_is_downloaded_checked_and_unpacked_once(server, mnist, repository, script):
    done = script("data/mnist/get_mnist.sh", MNIST_URL=server.url)
    assert done.returncode == 0, done.stderr
    folder = repository / "data/mnist"
    assert {name: (folder / name).read_bytes() for name in MNIST} == mnist
    assert sorted(path.name for path in folder.iterdir()) == sorted([*MNIST, "get_mnist.sh"])
    assert "Next: scripts/create_mnist.sh" in done.stdout

    (folder / MNIST[1]).write_bytes(b"damaged")
    server.requests.clear()
    again = script("data/mnist/get_mnist.sh", MNIST_URL=server.url)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is there already") == 3
    assert [name for name, _ in server.requests] == [f"{MNIST[1]}.gz"]
    assert (folder / MNIST[1]).read_bytes() == mnist[MNIST[1]]


def test_a_file_with_a_wrong_sum_is_refused_and_removed(server, mnist, repository, script):
    server.files[f"{MNIST[0]}.gz"] = gzip.compress(b"something else")
    done = script("data/mnist/get_mnist.sh", MNIST_URL=server.url)
    assert done.returncode == 1
    assert done.stderr.startswith(f"get_mnist.sh: could not get {MNIST[0]}.gz; {server.url}/{MNIST[0]}.gz: what came (")
    assert "is not the expected file" in done.stderr
    assert "by hand" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in (repository / "data/mnist").iterdir()] == ["get_mnist.sh"]


def test_the_next_mirror_is_tried_when_a_file_is_missing_or_wrong(server, mnist, repository, script):
    server.files[f"wrong/{MNIST[0]}.gz"] = gzip.compress(b"something else")
    done = script("data/mnist/get_mnist.sh", MNIST_URL=f"{server.url}/absent {server.url}/wrong {server.url}")
    assert done.returncode == 0, done.stderr
    assert (repository / "data/mnist" / MNIST[0]).read_bytes() == mnist[MNIST[0]]


def test_a_missing_file_is_named_with_the_server_s_answer(server, mnist, script):
    server.files.clear()
    done = script("data/mnist/get_mnist.sh", MNIST_URL=server.url)
    assert done.returncode == 1
    assert "404" in done.stderr
    assert f"{server.url}/{MNIST[0]}.gz" in done.stderr


def test_an_unreachable_server_is_named(script):
    done = script("data/mnist/get_mnist.sh", MNIST_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert f"could not get {MNIST[0]}.gz; http://127.0.0.1:9/{MNIST[0]}.gz: " in done.stderr


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on_where_it_stopped(server, mnist, repository, script, ranges):
    name = f"{MNIST[0]}.gz"
    server.ranges = ranges
    server.cut[name] = 40
    first = script("data/mnist/get_mnist.sh", MNIST_URL=server.url)
    assert first.returncode == 1
    assert (repository / "data/mnist" / f"{name}.part").read_bytes() == server.files[name][:40]
    server.requests.clear()
    second = script("data/mnist/get_mnist.sh", MNIST_URL=server.url)
    assert second.returncode == 0, second.stderr
    assert server.requests[0] == (name, "bytes=40-")
    assert (repository / "data/mnist" / MNIST[0]).read_bytes() == mnist[MNIST[0]]
    assert not list((repository / "data/mnist").glob("*.part"))


@pytest.mark.skipif(shutil.which("wget") is None, reason="needs wget")
def test_wget_serves_where_there_is_no_curl(server, mnist, repository, script, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("basename", "bash", "cut", "dirname", "gzip", "mv", "rm", "sha256sum", "tail", "wc", "wget"):
        (tools / name).symlink_to(str(shutil.which(name)))
    name = f"{MNIST[0]}.gz"
    server.cut[name] = 40
    first = script("data/mnist/get_mnist.sh", MNIST_URL=f"{server.url}/absent {server.url}", PATH=str(tools))
    assert first.returncode == 1
    assert "404" in first.stderr
    second = script("data/mnist/get_mnist.sh", MNIST_URL=server.url, PATH=str(tools))
    assert second.returncode == 0, second.stderr
    assert (repository / "data/mnist" / MNIST[0]).read_bytes() == mnist[MNIST[0]]


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_cifar10_is_downloaded_checked_and_unpacked_once(server, repository, script):
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    members = {f"cifar-10-batches-bin/{name}": name.encode() for name in names}
    members["cifar-10-batches-bin/batches.meta.txt"] = b"airplane\n"
    server.files["cifar-10-binary.tar.gz"] = packed = archive(members)
    path = repository / "data/cifar10/get_cifar10.sh"
    text = path.read_text().replace("size=30730000", f"size={len(names[0])}")
    names_of_size = [name for name in names if len(name) == len(names[0])]
    path.write_text(text)

    refused = script("data/cifar10/get_cifar10.sh", CIFAR10_URL=server.url)
    assert refused.returncode == 1
    assert "what came" in refused.stderr
    assert not list(path.parent.glob("*.bin"))

    path.write_text(
        text.replace(
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", hashlib.sha256(packed).hexdigest()
        ).replace(" test_batch.bin", "")
    )
    done = script("data/cifar10/get_cifar10.sh", CIFAR10_URL=server.url)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([*names, "batches.meta.txt", "get_cifar10.sh"])
    server.requests.clear()
    again = script("data/cifar10/get_cifar10.sh", CIFAR10_URL=server.url)
    assert "already" in again.stdout
    assert server.requests == []
    assert len(names_of_size) == 5


def ilsvrc(val_lines: int) -> dict[str, bytes]:
    return {
        "imagenet_mean.binaryproto": b"mean",
        "synset_words.txt": b"n01440764 tench\n" * 1000,
        "synsets.txt": b"n01440764\n" * 1000,
        "train.txt": b"a 0\n" * 1281167,
        "val.txt": b"a 0\n" * val_lines,
        "test.txt": b"a 0\n" * 100000,
    }


def test_the_imagenet_lists_are_downloaded_and_a_mean_that_is_there_stays(server, repository, script):
    folder = repository / "data/ilsvrc12"
    (folder / "imagenet_mean.binaryproto").write_bytes(b"my own")
    server.files["caffe_ilsvrc12.tar.gz"] = archive(ilsvrc(50000))
    done = script("data/ilsvrc12/get_ilsvrc_aux.sh", ILSVRC_URL=server.url)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == sorted([*ilsvrc(1), "get_ilsvrc_aux.sh"])
    assert (folder / "imagenet_mean.binaryproto").read_bytes() == b"my own"
    assert "already" in script("data/ilsvrc12/get_ilsvrc_aux.sh", ILSVRC_URL=server.url).stdout


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (b"<html>moved</html>", "is not the expected file"),
        (archive({"val.txt": b"a 0\n"}), "is not the expected file"),
        (archive(ilsvrc(7)), "val.txt has 7 lines, expected 50000"),
    ],
    ids=["no archive", "other members", "other lists"],
)
def test_another_archive_than_the_imagenet_lists_is_refused(server, repository, script, packed, said):
    server.files["caffe_ilsvrc12.tar.gz"] = packed
    done = script("data/ilsvrc12/get_ilsvrc_aux.sh", ILSVRC_URL=server.url)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (repository / "data/ilsvrc12/val.txt").exists()
