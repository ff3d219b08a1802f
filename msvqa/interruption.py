"""Ending a command by SIGINT or SIGTERM, for certain.

Python turns a signal into a KeyboardInterrupt wherever its main thread is, and drops it in a
destructor or in the callback of a weak reference. Between taking a lock and the `with` that would
give it back, it leaves a lock that nobody opens again; in the initialisation of a C++ module it
aborts the process. The loops of Ray's driver are full of such places. So the exception is only the
polite way: a command that has not ended a while after a signal is ended outright. Everything on
disk is made for that, and the processes that Ray has started for the command end with it, the last
of them within about a minute.
"""

import atexit
import os
import select
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_BY_SIGNAL = 128
"""Plus the number of the signal, as shells have it."""
INTERRUPTED = "Interrupted; the same command again continues where it can."
GRACE_S = 20.0
"""Ray takes some seconds to shut down."""
ASK_AGAIN_S = 0.1


class Interruption:
    """Answers SIGINT and SIGTERM inside the block, and does nothing outside of the main thread."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.came: signal.Signals | None = None
        """The last signal."""
        self._grace_s = grace_s
        self._postponed = False

    @property
    def exit_code(self) -> int:
        """What the command ends with when it was interrupted."""
        return EXIT_BY_SIGNAL + (self.came or signal.SIGINT)

    def __enter__(self) -> "Interruption":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            # A thread that waits already: a handler cannot start one without taking locks.
            self._read, self._write = os.pipe()
            self._stderr = os.dup(2)
            threading.Thread(target=self._end_in_time, name="interruption", daemon=True).start()
            self._before = {number: signal.signal(number, self._answer) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            os.close(self._write)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        self.came = signal.Signals(number)
        os.write(self._write, b"!")
        self._postponed = _imports(frame)
        if not self._postponed:
            # Ray hands no other exception on while it waits.
            raise KeyboardInterrupt

    def _end_in_time(self) -> None:
        if not self._ends_in_time():
            os.write(self._stderr, f"{INTERRUPTED}\n".encode())
            os._exit(self.exit_code)
        os.close(self._read)
        os.close(self._stderr)

    def _ends_in_time(self) -> bool:
        """Wait for a signal; then for the end of the block, but not for ever."""
        if not os.read(self._read, 1):
            return True
        deadline = time.monotonic() + self._grace_s
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._read], [], [], ASK_AGAIN_S)
            if ready and not os.read(self._read, 1):
                return True
            if self._postponed and self.came:
                self._postponed = False
                os.kill(os.getpid(), self.came)
        return False


def end_process(code: int) -> NoReturn:
    """End this process as `sys.exit` does; after a signal without the destructors of C++ parts.

    Ray's, whose loop the signal has left in its middle, crash one time in ten.
    """
    if code not in {EXIT_BY_SIGNAL + number for number in SIGNALS}:
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported, here or in one of the callers."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
