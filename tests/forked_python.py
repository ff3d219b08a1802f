"""A Python whose imports are done, for the many processes that Ray starts in tests.

A worker of Ray imports torch and pandas before it does anything: six seconds of a core, for a test
that trains for one. `program` starts a server that has imported them, and returns the path of a
program that stands for Python: it hands its arguments and all that a process inherits to the
server, which forks a process of them, and ends as that does. The processes are as real as others;
that imports work in new ones is seen by the tests whose commands and clusters are plain.
"""

import gc
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

MODULES = (
    "numpy", "pandas", "pyarrow.parquet", "pyarrow.dataset", "torch", "torch._dynamo",
    "torch.distributed", "torch.utils.tensorboard", "torch.nn.parallel", "torchvision.models",
    "fsspec", "jsonschema", "pydantic.main", "pydantic.networks", "requests", "rich.console",
    "aiohttp.web", "click", "colorful", "filelock", "einops", "safetensors.torch", "tqdm", "yaml",
    "PIL.Image", "av", "h5py",
)  # fmt: skip
"""Not Ray, whose C++ part reads the environment when it is imported; and not decord, whose symbols
are global: beside them, what Ray takes from the library of C++ does not fit together."""
STREAMS = (0, 1, 2)
# Its start is all that a process costs: no site, no environment, and no imports but these.
CLIENT = """#!{python} -IS
import array, json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
try:
    server.connect({address!r})
except OSError:  # of a session that is over
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
os.umask(umask := os.umask(0))
blocked = [*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))]
content = dict(words=sys.argv[1:], client=os.getpid(), environment=dict(os.environ),
               folder=os.getcwd(), umask=umask, blocked=blocked)
content = json.dumps(content).encode()
streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (0, 1, 2)))]
server.sendmsg([len(content).to_bytes(8, "big")], streams)
server.sendall(content)
child = int.from_bytes(server.recv(8), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(child, number))
status = server.recv(8)
code = os.waitstatus_to_exitcode(int.from_bytes(status, "big")) if status else 1
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@cache
def program() -> str:
    """Return the path of what stands for Python until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="py-", dir="/tmp"))
    found, address = folder / "python", f"{folder}/socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        found.write_text(CLIENT.format(python=sys.executable, address=address))
        found.chmod(0o755)
        number = listening.fileno()
        # Its end of this pipe tells it that this process is over, however that came.
        program.server = subprocess.Popen(
            [sys.executable, __file__, str(number), str(folder)],
            stdin=subprocess.PIPE, pass_fds=[number], start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    return str(found)


@contextmanager
def standing_for_python(path: str) -> Iterator[None]:
    """Let the Ray that is started in the block start its processes by this program."""
    real, sys.executable = sys.executable, path
    try:
        yield
    finally:
        sys.executable = real


def run_forked(words: Sequence[str]) -> None:
    """Become a process that is forked of a server of its own, whose end is that of this one."""
    path = program()
    os.set_inheritable(program.server.stdin.fileno(), True)
    os.execv(path, [path, *words])


def fork_ray(path: str) -> None:
    """Let the local Ray of this process, whenever it starts, start its own by this program."""
    from msvqa.engine import cluster

    start = cluster._start_once

    def start_forking(options: Mapping[str, Any]) -> None:
        with standing_for_python(path):
            start(options)

    cluster._start_once = start_forking


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return all that a process has started, also what is forked for it."""
    found, known = [process], Path(program()).parent
    for one in found:
        with suppress(psutil.NoSuchProcess):
            found += one.children()
        with suppress(OSError, psutil.NoSuchProcess):
            found.append(psutil.Process(int(str((known / str(one.pid)).readlink()))))
    return found[1:]


class Server:
    """Forks processes for all clients until standard input ends."""

    def __init__(self, listening: socket.socket, folder: Path) -> None:
        self._listening, self._folder = listening, folder
        self._clients: dict[int, socket.socket] = {}
        self._links: dict[int, Path] = {}
        self._waiting = selectors.DefaultSelector()
        self._ended, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Take clients, and tell them how their processes have ended."""
        for source in (0, self._ended, self._listening):
            self._waiting.register(source, selectors.EVENT_READ)
        while 0 not in (ready := [key.fileobj for key, _ in self._waiting.select()]):
            for source in ready:
                if source == self._ended:
                    os.read(self._ended, 4096)
                elif source is self._listening:
                    self._fork(self._listening.accept()[0])
                else:
                    self._lose(source)
            self._reap()
        for child in self._clients:
            os.kill(child, signal.SIGKILL)

    def _fork(self, client: socket.socket) -> None:
        content, streams = _receive(client)
        child = os.fork()
        if not child:
            for file in (client, self._listening, self._waiting, *self._clients.values()):
                file.close()
            _enter(content, streams, str(self._folder / "python"))
        for stream in streams:
            os.close(stream)
        # The descendants of a client are looked for by way of this.
        self._links[child] = self._folder / str(content["client"])
        self._links[child].symlink_to(str(child))
        self._clients[child] = client
        self._waiting.register(client, selectors.EVENT_READ)
        with suppress(OSError):
            client.sendall(child.to_bytes(8, "big"))

    def _lose(self, client: object) -> None:
        """End the process of a client that was killed, since a plain one would have been."""
        self._waiting.unregister(client)
        for child, own in self._clients.items():
            if own is client:
                os.kill(child, signal.SIGKILL)

    def _reap(self) -> None:
        while self._clients and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            child, status = ended
            self._links.pop(child).unlink()
            client = self._clients.pop(child)
            with suppress(KeyError):
                self._waiting.unregister(client)
            with suppress(OSError):
                client.sendall(status.to_bytes(8, "big"))
            client.close()


def _receive(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    header, streams, _, _ = socket.recv_fds(client, 8, len(STREAMS))
    content = bytearray()
    while len(content) < int.from_bytes(header, "big"):
        content += client.recv(2**16)
    return json.loads(content), streams


def _enter(content: Mapping[str, Any], streams: Sequence[int], path: str) -> None:
    """Be the process of a client to its end."""
    code = 1
    try:
        _inherit(content, streams)
        _run(content["words"], path)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _inherit(content: Mapping[str, Any], streams: Sequence[int]) -> None:
    """Take from the client what a process has from the one that starts it."""
    os.setsid()
    for source, stream in zip(streams, STREAMS, strict=True):
        os.dup2(source, stream)
        os.close(source)
    os.environ.clear()
    os.environ.update(content["environment"])
    os.chdir(content["folder"])
    os.umask(content["umask"])
    sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    with suppress(ImportError):
        import_module("sitecustomize")
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, content["blocked"])
    import numpy as np

    np.random.seed()  # noqa: NPY002 - other processes draw from the one of the server


class _Instead(BaseException):
    """What a process would go on as by `exec`."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = words


def _run(words: Sequence[str], path: str) -> None:
    """Do what Python does with such arguments, in this process."""
    real, left = sys.executable, [*words]
    while True:
        while left[0].startswith("-") and left[0] not in ("-c", "-m"):
            left.pop(0)
        # Ray's own scripts start workers by the program; what commands and workers start is plain.
        starts = left[0] not in ("-c", "-m") and Path(left[0]).name != "default_worker.py"
        sys.executable = path if starts else real
        try:
            _run_as_main(left)
            return
        except _Instead as instead:
            left = instead.words


def _run_as_main(words: list[str]) -> None:
    execute = os.execvp

    def go_on(file: str, args: Sequence[str]) -> None:
        # The script of Ray that sets up a worker goes on as it by way of a shell.
        found = shlex.split(args[-1]) if file == "bash" else []
        if found[:2] == ["exec", sys.executable]:
            raise _Instead(found[2:])
        execute(file, args)

    os.execvp = go_on
    try:
        if words[0] in ("-c", "-m"):
            sys.path.insert(0, "")
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        os.execvp = execute


def main() -> None:
    """Be the server of a session."""
    for name in MODULES:
        import_module(name)
    del sys.path[0]  # of this file
    sys.modules.pop("sitecustomize", None)
    gc.collect()
    gc.freeze()
    number, folder = int(sys.argv[1]), Path(sys.argv[2])
    try:
        Server(socket.socket(fileno=number), folder).serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run_forked(sys.argv[2:])
    main()
