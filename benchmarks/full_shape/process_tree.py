"""A command with all that it starts: time, memory, and what Ray's object store has held."""

import resource
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LOOK_EVERY_S = 1.0
END_WITHIN_S = 5.0
OWN_PAGES = ("Pss_Anon:", "Pss_Shmem:")
"""Of mapped files the system takes the pages back whenever somebody needs the memory."""
BLOCK_BYTES = 512
Condition = Callable[[], bool]


@dataclass(frozen=True)
class Took:
    """What a command took."""

    code: int
    s: float
    cpu_s: float
    gb: float
    """Largest sum over all processes at a time; pages that several share count once."""
    object_store_bytes: int
    """The most that Ray's object store has held since it was started"""
    left: int
    """Processes that were still there after the end; they are ended."""


@dataclass
class _Tree:
    """A process and those below it, also those that have lost their parents."""

    top: psutil.Process
    cpu_s: dict[psutil.Process, float] = field(default_factory=dict)
    gb: float = 0.0
    object_store_bytes: int = 0

    def look(self) -> None:
        """Take up what is there now."""
        with suppress(psutil.NoSuchProcess):
            for process in (self.top, *self.top.children(recursive=True)):
                self.cpu_s.setdefault(process, 0.0)
        kilobytes = 0
        for process in self.cpu_s:
            # It may end at any moment.
            with suppress(psutil.NoSuchProcess, OSError):
                used = process.cpu_times()
                self.cpu_s[process] = used.user + used.system
                kilobytes += _own_kilobytes(process.pid)
                if process.name() == "raylet":
                    held = object_store_bytes(process.pid)
                    self.object_store_bytes = max(self.object_store_bytes, held)
        self.gb = max(self.gb, kilobytes * 1024 / 1e9)

    def end(self) -> int:
        """End what is still there some seconds after the top; return how many those were."""
        below = [process for process in self.cpu_s if process != self.top]
        _, left = psutil.wait_procs(below, timeout=END_WITHIN_S)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return len(left)


def follow(command: Sequence[str], log: Path, interrupt_when: Condition | None = None) -> Took:
    """Run a command to its end and look at its processes every second.

    Args:
        command: its words.
        log: file that gets what it prints.
        interrupt_when: as soon as this holds the command gets SIGINT, as by Ctrl-C.
    """
    before, start = _children_cpu_s(), time.perf_counter()
    with log.open("ab") as file:
        process = psutil.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    tree = _Tree(psutil.Process(process.pid))
    while True:
        tree.look()
        if interrupt_when is not None and interrupt_when():
            process.send_signal(signal.SIGINT)
            interrupt_when = None
        with suppress(psutil.TimeoutExpired):
            code = process.wait(timeout=LOOK_EVERY_S)
            break
    seconds, left = time.perf_counter() - start, tree.end()
    # Either lacks some: what was used since the last look, or by those nobody has waited for.
    cpu_s = max(sum(tree.cpu_s.values()), _children_cpu_s() - before)
    return Took(code, seconds, cpu_s, tree.gb, tree.object_store_bytes, left)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _own_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(OWN_PAGES))


def object_store_bytes(raylet: int) -> int:
    """Return how much of its file the object store has filled, which it never gives back.

    The file has no name any more, but the raylet holds it open.
    """
    held = 0
    for opened in Path(f"/proc/{raylet}/fd").iterdir():
        # It may be closed at any moment.
        with suppress(FileNotFoundError):
            if "plasma" in str(opened.readlink()):
                held = max(held, opened.stat().st_blocks * BLOCK_BYTES)
    return held
