"""Calls in a child process that may hang or die without harm to the caller."""

import itertools
import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

from msvqa.errors import VideoError

PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({control}, {modules!r})"
)
"""What the server runs: nothing is imported from the working folder, and no main module again."""
TAKES_UP_WITHIN_S = 120.0
"""What a function is imported with may take long, and is no part of the time of its call."""


class Isolated:
    """One reusable child process; a call that takes too long is ended by killing the child.

    The time limit is enforced from outside, because native code may hang without ever releasing
    the interpreter lock. The child is forked by a server: it inherits neither the threads nor
    the open files of the caller.
    """

    def __init__(self, timeout_s: float, modules: Sequence[str] = ()) -> None:
        """Prepare a child.

        Args:
            timeout_s: longest time of one call.
            modules: imported before the first call, so that imports do not count as its time.
        """
        self.timeout_s = timeout_s
        self._modules = tuple(modules)
        self._child: _Child | None = None
        self._one_call = threading.Lock()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function` returns in the child; it must be importable by name.

        Raises:
            VideoError: outcome `timeout` or, when the child died, `unreadable`.
            Exception: what `function` raised.
        """
        # Arrays come back in memory that both processes map: no copies through a pipe.
        memory = os.memfd_create("result") if hasattr(os, "memfd_create") else -1
        place = f"/proc/{os.getpid()}/fd/{memory}"
        try:
            with self._one_call:
                succeeded, *found = self._ask(_pickled(place, function, arguments))
            if not succeeded:
                raise found[0]
            content, sizes = found
            return pickle.loads(content, buffers=_map(memory, sizes))
        finally:
            if memory >= 0:
                os.close(memory)

    def _ask(self, call: bytes) -> Any:
        """Return the answer of the child; one that gives none is ended."""
        if self._child is None or self._child.owner != os.getpid():
            self._child = _start_child(self._modules)
        child, answer = self._child, None
        try:
            with suppress(EOFError, OSError):
                child.calls.send_bytes(call)
                child.answer_within(TAKES_UP_WITHIN_S)
                answer = child.answer_within(self.timeout_s)
        finally:
            if answer is None:
                self._child, exit_code = None, child.end(at_once=sys.exc_info()[0] is not None)
        if answer is None:
            how = _cause_of_death(exit_code)
            raise VideoError("unreadable", f"the decoding process died ({how})")
        return pickle.loads(answer)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None and child.owner == os.getpid():
            child.end(at_once=True)

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Server:
    """The process that forks children. Threads share it; a forked process starts one of its own."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.owner, self._modules = os.getpid(), modules
        self._control, theirs = Pipe()
        program = PROGRAM.format(
            path=_import_path(),
            module=f"{__name__}_server",
            control=theirs.fileno(),
            modules=list(modules),
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Ctrl-C is for the caller, with whom it ends.
                start_new_session=True,
            )
        self._one_request = threading.Lock()
        self._is_ready = False

    def is_there(self) -> bool:
        """Whether it can be asked."""
        return self.owner == os.getpid() and self._process.poll() is None

    def start(self) -> tuple[int, Connection]:
        """Return a new child with the connection for its calls."""
        ours, theirs = Pipe()
        with self._one_request, theirs:
            self._wait_for_imports()
            self._control.send(("start", _import_path(), _working_folder()))
            send_handle(self._control, theirs.fileno(), self._process.pid)
            child = self._control.recv()
        if isinstance(child, OSError):
            raise VideoError("unreadable", f"no decoding process can be started: {child.strerror}")
        return child, ours

    def end(self, child: int, *, at_once: bool) -> int | None:
        """Return the exit code of a child; None where nobody knows."""
        with self._one_request, suppress(EOFError, OSError):
            self._control.send(("end", child, at_once))
            exit_code: int | None = self._control.recv()
            return exit_code
        return None

    def _wait_for_imports(self) -> None:
        if not self._is_ready:
            if not self._control.poll(TAKES_UP_WITHIN_S):
                self._process.kill()
                raise ImportError(
                    f"the decoding process has not imported {', '.join(self._modules)} within "
                    f"{TAKES_UP_WITHIN_S:g} s: do the folders of its packages answer?"
                )
            if problem := self._control.recv():
                raise ImportError(f"in the decoding process: {problem}")
            self._is_ready = True


class _Child:
    """A process of its own that answers calls one after another."""

    def __init__(self, server: _Server) -> None:
        self.owner = os.getpid()
        self._server = server
        self._process, self.calls = server.start()

    def answer_within(self, limit_s: float) -> bytes:
        """Return the next thing that the child says.

        Raises:
            VideoError: it says nothing for so long.
            EOFError, OSError: it is dead.
        """
        if not self.calls.poll(limit_s):
            raise VideoError("timeout", f"no result after {limit_s:g} s")
        return self.calls.recv_bytes()

    def end(self, *, at_once: bool) -> int | None:
        """Hang up, and return the exit code; None where nobody knows."""
        self.calls.close()
        return self._server.end(self._process, at_once=at_once)


_servers: dict[tuple[str, ...], _Server] = {}
_one_start = threading.Lock()


def _start_child(modules: tuple[str, ...]) -> _Child:
    try:
        return _Child(_server(modules))
    except (EOFError, OSError):
        # Somebody has killed the server; it has not yet been seen to be dead.
        with _one_start:
            _servers.pop(modules, None)
        try:
            return _Child(_server(modules))
        except (EOFError, OSError) as error:
            reason = str(error) or "it ended while it started"
            raise VideoError(
                "unreadable", f"no decoding process can be started: {reason}"
            ) from None


def _server(modules: tuple[str, ...]) -> _Server:
    """Return the server of this process that has imported some modules."""
    with _one_start:
        if modules not in _servers or not _servers[modules].is_there():
            _servers[modules] = _Server(modules)
        return _servers[modules]


def _import_path() -> list[str]:
    """Return where modules are imported from; Python passes over what is no text."""
    return [entry for entry in sys.path if isinstance(entry, str)]


def _pickled(place: str, function: Callable[..., Any], arguments: Sequence[Any]) -> bytes:
    try:
        return pickle.dumps((place, function, arguments))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"cannot be sent to the decoding process: {error}") from error


def _working_folder() -> str | None:
    """Return the folder that relative paths start at now, which need not be there any more."""
    with suppress(OSError):
        return str(os.getcwd())  # noqa: PTH109 - no path is made of it here
    return None


def _map(memory: int, sizes: Sequence[int]) -> list[memoryview]:
    total = sum(sizes)
    if not total:
        return [memoryview(b"") for _ in sizes]
    content = memoryview(mmap.mmap(memory, total, access=mmap.ACCESS_COPY))
    ends = list(itertools.accumulate(sizes))
    return [content[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _cause_of_death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
