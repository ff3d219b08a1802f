"""Looking at something again and again while a block runs. Imports nothing that takes time."""

import threading
from abc import ABC, abstractmethod
from typing import TypeVar

Own = TypeVar("Own", bound="Watch")


class Watch(ABC):
    """Looks when a block begins, and every few moments in a thread until it ends."""

    def __init__(self, every_s: float) -> None:
        self._every_s, self._over = every_s, threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self: Own) -> Own:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()

    @abstractmethod
    def _look(self) -> None:
        """Take up what is there now."""
