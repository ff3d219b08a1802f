"""Files on a disk: written whole or not at all, and known by their hashes."""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

SAY_AFTER_S, SAY_AGAIN_S = 1.0, 15.0
"""Of what is over sooner nothing is said."""
PAUSE_S = 0.1
PUT_ATTEMPTS = 5
MAX_HOLDER_CHARACTERS = 200
MAX_JSON_BYTES = 500_000_000
"""Larger files are taken for none."""


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` only when the block ends well.

    After a power cut there is the old file or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(root: Path, marker: str) -> Iterator[Path]:
    """Give a temporary folder beside `root`; it becomes `root` only when the block ends well.

    Args:
        root: folder that is absent or empty.
        marker: a file of every whole folder; where another process has finished the same first,
            its folder stays.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        yield aside
        aside.chmod(0o755)
        try:
            aside.replace(root)
        except OSError:
            if not (root / marker).is_file():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_json(file: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None where there is none to be read."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            return None
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write JSON so that no reader ever sees half a file; without indent several times faster."""
    with written_aside(path) as aside:
        aside.write_text(json_text(content, indent) + "\n", encoding="utf-8")


def json_text(content: Any, indent: int | None = None) -> str:
    """Return JSON; numbers that are not finite become null, for which JSON has no other word."""
    return json.dumps(_without_nan(content), indent=indent, allow_nan=False)


def _without_nan(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return content


def sync(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's names: what a power cut leaves."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(file: IO[Any], *, wait: bool = True) -> None:
    """Lock an open file until it is closed. Where a network share cannot lock, warn and go on.

    Raises:
        BlockingIOError: another process has it, and `wait` is false.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        logger.warning("%s cannot be locked (%s): use one command at a time", file.name, error)


@contextmanager
def turn(path: Path, what: str, progress: Callable[[], str] | None = None) -> Iterator[None]:
    """Let one process at a time do something; the others wait for it, and say so.

    A process that dies gives its turn away.

    Args:
        path: the file that is locked; it says who has it.
        what: is done in the block, for messages: "extracts to DIR".
        progress: returns how far the other is.
    """
    with path.open("a+", encoding="utf-8") as file:
        _wait(file, what, progress)
        sign(file)
        yield


def sign(file: IO[str]) -> None:
    """Write into a file that is locked who has it."""
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        file.flush()
    except OSError as error:
        # A full disk: it is locked all the same.
        logger.debug("%s: %s", file.name, error)


def holder_of(file: IO[str]) -> str:
    """Return who has locked a file, as far as it says so."""
    file.seek(0)
    said = file.read(MAX_HOLDER_CHARACTERS).strip()
    return said if said and said.isprintable() else "another process"


def _wait(file: IO[str], what: str, progress: Callable[[], str] | None) -> None:
    start, said_at, waited = time.monotonic(), float("-inf"), False
    while True:
        try:
            lock(file, wait=False)
            break
        except BlockingIOError:
            now = time.monotonic()
        if now - start > SAY_AFTER_S and now - said_at > SAY_AGAIN_S:
            far = f": {progress()}" if progress else ""
            logger.info("waiting for %s, which %s%s", holder_of(file), what, far)
            said_at, waited = now, True
        time.sleep(PAUSE_S)
    if waited:
        logger.info("the other has ended; going on")


def put_in_place(aside: Path, final: Path) -> None:
    """Rename a folder; one of that name from an earlier job is replaced."""
    for attempts_left in reversed(range(PUT_ATTEMPTS)):
        if final.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=final.parent))
            with suppress(FileNotFoundError):
                final.rename(old / final.name)
            shutil.rmtree(old)
        try:
            aside.rename(final)
        except OSError as error:
            # What a job that was killed has begun may get there a moment before.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not attempts_left:
                raise
        else:
            return
