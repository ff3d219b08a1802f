"""Tracking: rows of numbers go to metrics.jsonl, then to TensorBoard; the driver follows them."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any

from msvqa.errors import StorageError
from msvqa.files import json_text
from msvqa.recipe import Recipe
from msvqa.run import Run
from msvqa.storage import Folder

logger = logging.getLogger(__name__)

Row = dict[str, Any]
LIVING = ("metrics.jsonl", "tensorboard", "logs")
"""What grows while a run is trained."""
SEND_EVERY_S = 10.0
EVENTS_WAITING = 1000
"""More than there are numbers in a row."""
ROW_KEYS = ("stage", "kind", "step", "epoch", "time_s")
"""Keys of a row that say where it belongs; all others are numbers."""
OF_THE_MACHINE = ("questions_per_s", "waiting", "memory_gb", "tflops", "share_of_peak")
"""Numbers that TensorBoard shows apart from those of learning, and below them: by the alphabet."""
NOT_SHOWN = ("steps", "eta_s", "workers")
"""Numbers that say how far the stage is and with how many, which are no curves."""


class Tracker:
    """Writes the rows of one stage. Only the first worker has one."""

    def __init__(self, run: Run, stage: str, *, step: int) -> None:
        """Continue after `step`: later rows of this stage were made by a run that was cut off."""
        self.run, self.stage = run, stage
        self._start = time.monotonic()
        self._unwritten: list[str] = []
        self._sent_at = float("-inf")
        # Before this process writes the file: what others have written of it must be here. A last
        # line that was cut off goes as well: the next row would join it.
        rows = run.metrics()
        try:
            run.write_metrics([r for r in rows if r["stage"] != stage or r["step"] <= step])
        except OSError as error:
            logger.warning("%s keeps rows that are made again: %s", run.metrics_file, error)
        self._before_s = max(
            (r["time_s"] for r in run.metrics() if r["stage"] == stage), default=0.0
        )
        self._writer = _tensorboard_writer(run.path / "tensorboard" / stage, step, run.recipe)

    def log(self, kind: str, step: int, epoch: int, numbers: Mapping[str, float]) -> None:
        """Append one row. Neither file stops training; what must be kept is in the checkpoint."""
        elapsed = self._before_s + time.monotonic() - self._start
        row = {"stage": self.stage, "kind": kind, "step": step, "epoch": epoch}
        row |= {"time_s": round(elapsed, 3), **numbers}
        self._unwritten.append(json_text(row) + "\n")
        try:
            append_whole(self.run.metrics_file, "".join(self._unwritten))
            self._unwritten.clear()
        except OSError as error:
            if len(self._unwritten) == 1:
                logger.warning(
                    "%s cannot be written, its rows wait: %s", self.run.metrics_file, error
                )
        self._show(kind, step, numbers)
        if time.monotonic() - self._sent_at >= SEND_EVERY_S:
            send_living(self.run)
            self._sent_at = time.monotonic()

    def _show(self, kind: str, step: int, numbers: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        try:
            _need_writing(self._writer)
            for name in (name for name in numbers if name not in NOT_SHOWN):
                group = "workers" if name in OF_THE_MACHINE else kind
                self._writer.add_scalar(f"{group}/{name}", numbers[name], step)
            self._writer.flush()
        except OSError as error:
            logger.warning("TensorBoard events cannot be written: %s", error)
            self._writer = None

    def close(self) -> None:
        """Finish the event file."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                logger.warning("TensorBoard events cannot be written: %s", error)
        send_living(self.run)


def send_living(run: Run, *names: str) -> None:
    """Send what has grown to the object store that the run is in, or only some of it."""
    try:
        run.folder.put(*(names or LIVING))
    except StorageError as error:
        logger.warning("%s", error)


def append_whole(path: Path, text: str) -> None:
    """Append to a file, all or nothing: a full disk may take a part of it."""
    size = path.stat().st_size if path.is_file() else 0
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        if path.is_file():
            os.truncate(path, size)
        raise


@contextmanager
def following(run: Run, on_row: Callable[[Row], None] | None) -> Iterator[None]:
    """Call `on_row` for every row that is appended to metrics.jsonl while the block runs."""
    if on_row is None:
        yield
        return
    with following_lines(run.folder, run.metrics_file.name, partial(_hand_over, on_row)):
        yield


@contextmanager
def following_lines(folder: Folder, name: str, on_line: Callable[[str], None]) -> Iterator[None]:
    """Call `on_line` for every line that is appended to a file while the block runs."""
    stopped = threading.Event()
    try:
        path = folder.get(name)
        position = path.stat().st_size if path.is_file() else 0
    except StorageError:
        position = 0
    follow = partial(_follow, folder, name, position, on_line, stopped)
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _follow(
    folder: Folder,
    name: str,
    position: int,
    on_line: Callable[[str], None],
    stopped: threading.Event,
) -> None:
    path = folder.path / name
    rest = ""
    while True:
        last_look = stopped.wait(folder.look_every_s)
        if _is_there(folder, name):
            text, position = _read_on(path, position)
            *lines, rest = (rest + text).split("\n")
            for line in filter(None, lines):
                on_line(line)
        if last_look:
            return


def _read_on(path: Path, position: int) -> tuple[str, int]:
    """Return what a file has from a position on, and its new end."""
    try:
        # A resumed stage first forgets rows: the file may have become shorter.
        position = min(position, path.stat().st_size)
        with path.open(encoding="utf-8") as file:
            file.seek(position)
            return file.read(), file.tell()
    except OSError as error:
        logger.warning("%s", error)
        return "", position


def _is_there(folder: Folder, name: str) -> bool:
    try:
        return folder.get(name).is_file()
    except StorageError as error:
        logger.warning("%s", error)
        return False


def _hand_over(on_row: Callable[[Row], None], line: str) -> None:
    try:
        on_row(json.loads(line))
    except json.JSONDecodeError:
        logger.warning("a row of metrics.jsonl cannot be read: %.80s", line)
    except Exception as error:  # of the caller's own: the rows that follow are for others too
        logger.warning("a row could not be shown: %r", error)


def _need_writing(writer: Any) -> None:
    """Refuse a writer whose thread a full disk has ended: once its queue is full, it waits forever.

    Raises:
        OSError: it has.
    """
    thread = getattr(getattr(writer.file_writer, "event_writer", None), "_worker", None)
    if thread is not None and not thread.is_alive():
        raise OSError("the disk was full, or could not be written")


def _tensorboard_writer(folder: Path, step: int, recipe: Recipe) -> Any:
    from tensorboardX import SummaryWriter

    try:
        # Of a start that ended before its first checkpoint the rows are written again.
        purge_step = step + 1
        # Files are named by the second: one that a resume writes may not replace the one before.
        suffix = f".{max(step, 0):08d}.{os.getpid()}"
        writer = SummaryWriter(
            str(folder),
            purge_step=purge_step,
            filename_suffix=suffix,
            max_queue=EVENTS_WAITING,
        )
        # Indented text is shown as it is.
        writer.add_text("recipe", indent(recipe.to_yaml(), "    "), max(step, 0))
        return writer
    except OSError as error:
        logger.warning("TensorBoard events cannot be written: %s", error)
        return None
