"""Folders of this machine: those that its processes share, and those that one has for itself."""

import atexit
import fcntl
import os
import platform
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from msvqa.files import turn

CACHE_FOLDER = "MSVQA_CACHE"
IN_USE, ONE_AT_A_TIME = ".in-use", ".one-at-a-time"
"""Locked by every process that uses a folder; not `.lock`, which those who write in it take."""

_held: dict[Path, IO[str]] = {}


def name_user() -> None:
    """Give a user without an entry in the list of users a name and a home; libraries ask for both.

    In a container any number may be the user's.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            os.environ["USER"] = f"user{os.getuid()}"
        os.environ.setdefault("HOME", tempfile.gettempdir())


def processor_name() -> str:
    """Return the model of the processor as the system calls it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine_folder() -> Path:
    """Return the folder for all that this program keeps on this machine."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "msvqa"
    folder = Path(os.environ.get(CACHE_FOLDER, default)).expanduser().absolute()
    # Machines may share it, but locks are not always seen by all.
    return folder / socket.gethostname()


def working_folder() -> Path:
    """Return a folder that lives as long as this process; sweep out those of dead ones."""
    parent = machine_folder() / "working"
    with alone(parent):
        for other in parent.iterdir():
            _sweep(other)
        folder = Path(tempfile.mkdtemp(dir=parent))
        hold(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _sweep(folder: Path) -> None:
    # A process that ends removes its own meanwhile.
    with suppress(FileNotFoundError):
        if (folder / IN_USE).is_file() and is_unused(folder):
            shutil.rmtree(folder, ignore_errors=True)


def hold(folder: Path) -> None:
    """Mark a folder as used until this process ends."""
    if folder in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / IN_USE).open("a+")  # network shares lock only what may be read and written
    fcntl.flock(file, fcntl.LOCK_SH)
    _held[folder] = file


def release(folder: Path) -> None:
    """Undo `hold`."""
    _held.pop(folder).close()


def is_unused(folder: Path) -> bool:
    """Whether no process holds a folder."""
    with (folder / IN_USE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return folder not in _held


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process of the machine at a time change a folder; others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with turn(folder / ONE_AT_A_TIME, f"works in {folder}"):
        yield
