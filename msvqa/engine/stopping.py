"""Stopping a run in an orderly way: signals of the driver reach the workers through a file.

The driver and the workers may be on different machines that share only the run's folder. The file
is there while a stage is trained, and a request is written into it: an open file's content is
current also on network shares, where news of a file's existence may come a minute late.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from msvqa.errors import StorageError
from msvqa.storage import open_folder

logger = logging.getLogger(__name__)

STOP_FILE = "stop"
ASK_AGAIN_S = 2.0


class StopRequest:
    """The file through which a run is asked to stop."""

    def __init__(self, run: str | Path) -> None:
        self._run = open_folder(run)
        self._file = self._run.path / STOP_FILE
        self._looked_at = float("-inf")
        self._asked = False

    def ask(self, why: str) -> None:
        """Ask the workers to write a checkpoint and to end."""
        self._file.write_text(why + "\n", encoding="utf-8")
        self._run.put(STOP_FILE)

    def is_asked(self) -> bool:
        """Whether the run was asked to stop; looks at the file now and then."""
        now = time.monotonic()
        if not self._asked and now - self._looked_at >= self._run.look_every_s:
            self._looked_at = now
            try:
                self._asked = bool(self._run.get(STOP_FILE).read_bytes().strip())
            except (OSError, StorageError):
                self._asked = False
        return self._asked

    @contextmanager
    def on_signals(self) -> Iterator[list[int]]:
        """Turn the first SIGINT or SIGTERM inside the block into a request, the second into an end.

        Yields:
            The signals that came.
        """
        came: list[int] = []

        def answer(number: int, frame: FrameType | None) -> None:
            came.append(number)
            if len(came) > 1:
                previous = before[signal.Signals(number)]
                if not callable(previous):
                    raise KeyboardInterrupt
                previous(number, frame)
                return
            self._ask_patiently(signal.Signals(number).name)

        self._file.write_text("", encoding="utf-8")
        self._run.put(STOP_FILE)
        # Python lets only the main thread answer signals; elsewhere the file alone stops a run.
        signals = (signal.SIGINT, signal.SIGTERM) if _in_main_thread() else ()
        before = {number: signal.signal(number, answer) for number in signals}
        try:
            yield came
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            try:
                self._run.remove(STOP_FILE)
            except StorageError as error:
                # The next start empties it.
                logger.warning("%s", error)

    def _ask_patiently(self, why: str) -> None:
        try:
            self.ask(why)
        except (OSError, StorageError) as error:
            logger.warning("the request to stop is sent again in %g s: %s", ASK_AGAIN_S, error)
            again = threading.Timer(ASK_AGAIN_S, self._ask_patiently, (why,))
            again.daemon = True
            again.start()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
