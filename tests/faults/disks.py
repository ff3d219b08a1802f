"""Disks that are full when a test wants it: a small file system, or a limit on file sizes."""

import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil


class Disk(Protocol):
    """A folder on a disk that can be filled and emptied."""

    folder: Path

    def fill(self, writers: Sequence[psutil.Process]) -> None:
        """Leave no room for what these processes write."""

    def empty(self, writers: Sequence[psutil.Process]) -> None:
        """Make room again."""


class SmallDisk:
    """A file system of its own: full is full for everybody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, writers: Sequence[psutil.Process]) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while file.write(b"x" * size):
                        pass

    def empty(self, writers: Sequence[psutil.Process]) -> None:
        (self.folder / "ballast").unlink()


class LimitedWriters:
    """Where nothing can be mounted: the processes themselves may write small files only.

    The kernel refuses them in the middle of a file, as on a full disk, though with another number.
    """

    LIMIT_BYTES = 100_000

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, writers: Sequence[psutil.Process]) -> None:
        self._limit(writers, self.LIMIT_BYTES)

    def empty(self, writers: Sequence[psutil.Process]) -> None:
        self._limit(writers, resource.RLIM_INFINITY)

    def _limit(self, writers: Sequence[psutil.Process], size: int) -> None:
        for process in writers:
            if process.is_running():
                _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
                process.rlimit(psutil.RLIMIT_FSIZE, (hard if size < 0 else size, hard))


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a small file system for the block; where that is not allowed, limit the writers."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        yield LimitedWriters(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
