"""A log in a file, which the work goes on without where it cannot be written."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogFile(logging.FileHandler):
    """Appends to a file that is there when needed; says once that it cannot be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)
        self.setFormatter(logging.Formatter(LOG_FORMAT))
        self._has_failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, or try."""
        try:
            if self.stream is None:
                Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
            super().emit(record)
        except OSError as error:
            self._say(error)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that a message could not be written, instead of where in this program."""
        self._say("a message could not be written")

    def close(self) -> None:
        """Close the file; what it holds back on a full disk is lost."""
        try:
            super().close()
        except OSError as error:
            self._say(error)

    def _say(self, why: object) -> None:
        if not self._has_failed:
            # First, since this handler gets the message too.
            self._has_failed = True
            logger.warning("%s cannot be written, the work goes on: %s", self.baseFilename, why)
