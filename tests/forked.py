"""``caffecli`` in processes that are forked from one that has imported torch: commands of pages then begin
at once, not with two seconds of imports each.

::

    python tests/forked.py serve SOCKET         # says "ready"; until it is ended
    python tests/forked.py call SOCKET ARG...   # as caffecli ARG..., in this folder, environment and streams
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def serve(path: str) -> None:
    """Fork a process for each call; it returns from here to run the command."""
    import cv2  # noqa: F401

    import caffe  # noqa: F401
    from caffecli.cli import main
    from caffecli.tools import test, train  # noqa: F401
    from converters import convert_imageset  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while more := connection.recv(1 << 16):
        request += more
    worker = os.fork()
    if worker:
        code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        connection.sendall(str(code).encode())
        os._exit(0)
    connection.close()
    args, folder, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    sys.argv = ["caffecli", *args]
    main.main()


def call(path: str, args: list[str]) -> int:
    """Run a command at the server; its exit code, or the end by its signal."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = json.dumps([args, os.getcwd(), dict(os.environ)]).encode()  # noqa: PTH109 - pathlib takes its time
        socket.send_fds(connection, [request], [0, 1, 2])
        connection.shutdown(socket.SHUT_WR)
        code = int(connection.recv(16))
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(call(sys.argv[2], sys.argv[3:]))
