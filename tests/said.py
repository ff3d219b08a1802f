"""Doing something as soon as something has been said."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def when_said(
    words: str, caplog: pytest.LogCaptureFixture, action: Callable[[], object]
) -> Iterator[None]:
    """Do something, in a thread, as soon as words have been logged."""
    ended = threading.Event()

    def wait() -> None:
        while words not in caplog.text and not ended.wait(0.1):
            pass
        if not ended.is_set():
            action()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
