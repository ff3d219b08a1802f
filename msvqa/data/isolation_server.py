"""The program that `isolation` starts: it imports modules once, and forks children that use them.

A program of its own, and no child of `multiprocessing`: that would import the caller's main module
again, which a script without a guard does not survive and standard input or a notebook do not have.
"""

import ctypes
import importlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
DIES_WITHIN_S = 5.0
"""A process that waits for a disk that does not answer may not even be killed."""
PAUSE_S = 0.01
TAKEN_UP = b"\0"


def serve(control: int, modules: Sequence[str]) -> None:
    """Start and end children as the caller asks, until it is gone.

    Args:
        control: descriptor of the connection to the caller.
        modules: imported before the first child is started.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(control)
    children: set[int] = set()
    try:
        connection.send(_import(modules))
        while True:
            request, *arguments = connection.recv()
            answer = _start if request == "start" else _end
            connection.send(answer(connection, children, *arguments))
    except (EOFError, OSError):
        return
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _import(modules: Sequence[str]) -> str:
    """Return why a module cannot be imported."""
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:  # told to the caller
        return f"{type(error).__name__}: {error}"
    return ""


def _start(
    connection: Connection, children: set[int], path: list[str], folder: str | None
) -> int | OSError:
    """Return the process id of a new child that answers calls on the connection that follows."""
    calls = recv_handle(connection)
    try:
        child = os.fork()
    except OSError as error:  # told to the caller: the other children go on
        os.close(calls)
        return error
    if not child:
        connection.close()
        sys.path[:] = path
        _answer_calls(Connection(calls), folder)
    os.close(calls)
    children.add(child)
    return child


def _end(connection: Connection, children: set[int], child: int, at_once: bool) -> int | None:
    """Return the exit code of a child, negative for a signal; None where it does not die."""
    if at_once:
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + DIES_WITHIN_S
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            children.discard(child)
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(PAUSE_S)


def _answer_calls(calls: Connection, folder: str | None) -> NoReturn:
    """Be the child: call what comes, until nobody calls any more."""
    try:
        if sys.platform == "linux":
            # A child that hangs would otherwise outlive a server that is killed.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)
        while True:
            calls.send_bytes(_answer(calls))
    except (EOFError, OSError):
        os._exit(0)
    finally:
        os._exit(1)


def _answer(calls: Connection) -> bytes:
    """Return the pickled outcome of the next call: whether it went well, its result or error."""
    place, function, arguments = _take_up(calls.recv_bytes())
    # The time of the call begins when what it needs is imported.
    calls.send_bytes(TAKEN_UP)
    try:
        return pickle.dumps((True, *_result(place, function, arguments)))
    except Exception as error:  # raised again where the call was made
        return _failure(error)


def _take_up(call: bytes) -> tuple[str, Callable[..., Any], Sequence[Any]]:
    try:
        place, function, arguments = pickle.loads(call)
    except Exception as error:  # raised when the call is made
        return "", _raise, [error]
    return place, function, arguments


def _raise(error: Exception) -> NoReturn:
    raise error


def _failure(error: Exception) -> bytes:
    try:
        content = pickle.dumps((False, error))
        pickle.loads(content)
    except Exception as problem:  # told instead
        told = RuntimeError(f"{type(error).__name__}: {error} ({problem})")
        return pickle.dumps((False, told))
    return content


def _result(
    place: str, function: Callable[..., Any], arguments: Sequence[Any]
) -> tuple[bytes, list[int]]:
    """Return the pickled result and the sizes of its arrays, which are left at `place`."""
    result = function(*arguments)
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    try:
        with open(place, "wb", buffering=0) as memory:  # noqa: PTH123 - no path but a descriptor
            for buffer in buffers:
                _write_all(memory, buffer.raw())
    except OSError:  # no such memory on this system: the arrays take the pipe
        return pickle.dumps(result, protocol=5), []
    return content, [buffer.raw().nbytes for buffer in buffers]


def _write_all(file: Any, data: memoryview) -> None:
    while data.nbytes:
        data = data[file.write(data) :]
