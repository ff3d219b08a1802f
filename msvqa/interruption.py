"""Ending a command by SIGINT or SIGTERM, for certain.

Python turns a signal into a KeyboardInterrupt wherever its main thread is. In a destructor or the
callback of a weak reference the exception is dropped; between taking a lock and the `with` that
would give it back, it leaves a lock that nobody opens again; in the initialisation of a C++ module
it aborts the process; and a main thread that waits in C does not see it. The loops of Ray's driver
are full of such places. So the exception is only the polite way: a command that has not ended a
while after a signal is ended outright. Everything on disk is made for that, and the processes that
Ray has started for the command end with it, the last of them within about a minute.
"""

import atexit
import math
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_BY_SIGNAL = 128
"""Plus the number of the signal, as shells have it."""
INTERRUPTED = "Interrupted; the same command again continues where it can."
GRACE_S = 20.0
"""Ray takes some seconds to shut down."""
ASK_AGAIN_S = 0.1
ANSWERED = b"\0"
"""Sent to the watching thread beside the numbers of signals, which Python sends."""


class Interruption:
    """Answers SIGINT and SIGTERM inside the block, and does nothing outside of the main thread."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.came: signal.Signals | None = None
        """The last signal."""
        self._grace_s = grace_s
        self._postponed = self._over = False
        self._sending = threading.Lock()

    @property
    def exit_code(self) -> int:
        """What the command ends with when it was interrupted."""
        return EXIT_BY_SIGNAL + (self.came or signal.SIGINT)

    def settle(self) -> None:
        """From here on signals are only noted: the command is about to end."""
        self._over = True
        with self._sending:
            self._postponed = False

    def __enter__(self) -> "Interruption":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            # A thread that waits already: a handler cannot start one without taking locks.
            self._read, self._write = os.pipe()
            self._stderr = os.dup(2)
            threading.Thread(target=self._watch, name="interruption", daemon=True).start()
            # What a shell starts in the background is to ignore SIGINT.
            answered = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._answer) for number in answered}
            os.set_blocking(self._write, False)
            self._woken = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.settle()
        if self._before:
            signal.set_wakeup_fd(self._woken)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            os.close(self._write)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        self.came = signal.Signals(number)
        self._postponed = _imports(frame)
        with suppress(BlockingIOError):
            os.write(self._write, ANSWERED)
        if not self._postponed:
            # Ray hands no other exception on while it waits.
            raise KeyboardInterrupt

    def _is_ours(self, number: int) -> bool:
        """Whether the handler of a signal is ours; a training stage has one of its own."""
        return signal.getsignal(number) == self._answer

    def _watch(self) -> None:
        if not self._ends_in_time():
            _end_outright(self.exit_code, self._stderr)
        os.close(self._read)
        os.close(self._stderr)

    def _ends_in_time(self) -> bool:
        """Wait for a signal; then for the end of the block, but not for ever."""
        deadline = math.inf
        while time.monotonic() < deadline:
            waits = self._postponed or deadline < math.inf
            ready, _, _ = select.select([self._read], [], [], ASK_AGAIN_S if waits else None)
            if not ready:
                deadline = self._send_again(deadline)
                continue
            sent = os.read(self._read, 1)
            if not sent:
                return True
            if sent == ANSWERED or self._is_ours(sent[0]):
                deadline = min(deadline, time.monotonic() + self._grace_s)
                self.came = self.came or signal.Signals(sent[0])
        return False

    def _send_again(self, deadline: float) -> float:
        """Send a signal that came while a module was imported; return the deadline from now on."""
        with self._sending:
            if self._postponed and self.came:
                self._postponed = False
                if not self._is_ours(self.came):
                    # The stage that has begun in the meantime may take its time.
                    deadline = math.inf
                os.kill(os.getpid(), self.came)
        return deadline


def end_process(code: int) -> NoReturn:
    """End this process as `sys.exit` does; after a signal without the destructors of C++ parts.

    Ray's, whose loop the signal has left in its middle, now and then crash.
    """
    if code not in {EXIT_BY_SIGNAL + number for number in SIGNALS}:
        sys.exit(code)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    late = threading.Timer(GRACE_S, os._exit, [code])
    late.daemon = True
    late.start()
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


def _end_outright(code: int, stderr: int) -> NoReturn:
    try:
        # A pipe that nobody reads may be full or closed.
        if select.select([], [stderr], [], 0)[1]:
            os.write(stderr, f"{INTERRUPTED}\n".encode())
    finally:
        os._exit(code)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported, here or in one of the callers."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
