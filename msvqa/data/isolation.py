"""Calls in a child process that may hang or die without harm to the caller."""

import ctypes
import importlib
import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from pebble import ProcessExpired, ProcessPool

from msvqa.errors import VideoError

PR_SET_PDEATHSIG = 1


class Isolated:
    """One reusable child process; a call that takes too long is ended by killing the child.

    The time limit is enforced from outside, because native code may hang without ever releasing
    the interpreter lock. The child starts from a fork server: it inherits neither the threads nor
    the open files of the caller.
    """

    def __init__(self, timeout_s: float, modules: Sequence[str] = ()) -> None:
        """Prepare a child.

        Args:
            timeout_s: longest time of one call.
            modules: imported before the first call, so that imports do not count as its time.
        """
        self.timeout_s = timeout_s
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(modules))
        self._pool = ProcessPool(
            max_workers=1, context=context, initializer=_start_child, initargs=(tuple(modules),)
        )

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function` returns in the child; it must be importable by name.

        Raises:
            VideoError: outcome `timeout` or, when the child died, `unreadable`.
            Exception: what `function` raised.
        """
        # Arrays come back in memory that both processes map: no copies through a pipe.
        memory = os.memfd_create("result") if hasattr(os, "memfd_create") else -1
        place = f"/proc/{os.getpid()}/fd/{memory}"
        future = self._pool.schedule(
            _answer, args=[place, function, arguments], timeout=self.timeout_s
        )
        try:
            content, sizes = future.result()
            return pickle.loads(content, buffers=_map(memory, sizes))
        except FutureTimeoutError:
            raise VideoError("timeout", f"no result after {self.timeout_s:g} s") from None
        except ProcessExpired as error:
            how = _cause_of_death(error.exitcode)
            raise VideoError("unreadable", f"the decoding process died ({how})") from None
        except pickle.PicklingError as error:
            raise TypeError(f"cannot be sent to the decoding process: {error}") from error
        finally:
            if memory >= 0:
                os.close(memory)

    def close(self) -> None:
        """End the child."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _start_child(modules: tuple[str, ...]) -> None:
    if sys.platform == "linux":
        # A child that hangs would otherwise outlive a caller that is killed.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for module in modules:
        importlib.import_module(module)


def _answer(
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
