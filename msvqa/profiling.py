"""Where the time of a command goes: traces of PyTorch's operators, and flame graphs of Python.

DIR/COMMAND.trace.json.gz  COMMAND.flame.html  the command's own process, its first 30 s
DIR/STAGE-worker0.…                            the first worker of a training stage
DIR/CLASS-worker0.…  CLASS-2-worker0.…         the first part of each work dealt to actors

What is recorded has bounds, so a command may last for days. Nothing here changes what is computed.
"""

import gzip
import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from msvqa.errors import PackageError, StorageError
from msvqa.files import written_aside
from msvqa.job import refuse_lost

logger = logging.getLogger(__name__)

LONGEST_S = 30.0
"""So much of a command or a worker is recorded, but for the steps that are traced."""
INTERVAL_S = 0.002
"""Between two looks at what a thread does."""
WARM_STEPS, TRACED_STEPS = 5, 5
"""Steps of a stage before its trace begins, and those in it."""
TRACE, FLAME = ".trace.json.gz", ".flame.html"

_folder: ContextVar[str | None] = ContextVar("_folder", default=None)
_dealt: ContextVar[Counter[str]] = ContextVar("_dealt")
"""How often the running command has dealt work of a name."""
_stage: ContextVar["_StageRecording | None"] = ContextVar("_stage", default=None)


def folder() -> str | None:
    """Return where profiles of the running command go; None: none are asked for."""
    return _folder.get()


@contextmanager
def into(wanted: str | None) -> Iterator[None]:
    """Have what is begun in the block write its profiles to a folder; None: to none."""
    token, dealt = _folder.set(wanted), _dealt.set(Counter())
    try:
        yield
    finally:
        _folder.reset(token)
        _dealt.reset(dealt)


def place_of_part(name: str) -> str | None:
    """Return where an actor records work that is dealt now; None: no profiles are asked for.

    Args:
        name: of the work; a command may deal it several times, and no file replaces another.
    """
    wanted = folder()
    if wanted is None:
        return None
    dealt = _dealt.get()
    dealt[name] += 1
    number = f"-{dealt[name]}" if dealt[name] > 1 else ""
    return str(Path(wanted, f"{name}{number}-worker0"))


@contextmanager
def of_command(wanted: str | None, name: str) -> Iterator[None]:
    """Record the command that runs in the block, and have its workers do the same.

    Args:
        wanted: folder on a disk, of all nodes of a cluster; None: nothing is recorded.
        name: of the files.

    Raises:
        PackageError: what draws flame graphs is not installed.
        StorageError: the folder cannot be written.
        ClusterError: it does not outlive the job.
    """
    if wanted is None:
        yield
        return
    location = _ready(wanted)
    with into(location), _recorded(Path(location, name)):
        yield


@contextmanager
def of_part(wanted: str | None) -> Iterator[None]:
    """Record what an actor does in the block.

    Args:
        wanted: as `place_of_part` has said in the command that the actor works for.
    """
    if wanted is None or not _is_installed():
        yield
        return
    with _recorded(Path(wanted)):
        yield


@contextmanager
def of_stage(wanted: str | None, name: str) -> Iterator[None]:
    """Record a training stage in the block, and of its steps, see `step`, a trace.

    Args:
        wanted: `folder()` of the command.
        name: of the files.
    """
    if wanted is None or not _is_installed():
        yield
        return
    recording = _StageRecording(Path(wanted, name))
    token = _stage.set(recording)
    try:
        yield
    finally:
        _stage.reset(token)
        recording.close()


@contextmanager
def step(left: int) -> Iterator[None]:
    """Do a step of a stage in the block, of which `left` are to come, with this one."""
    recording = _stage.get()
    if recording is None:
        yield
        return
    with recording.step(left):
        yield


def interrupt() -> None:
    """Have no trace of steps of a stage go on into what follows, such as a validation."""
    if recording := _stage.get():
        recording.interrupt()


def _is_installed() -> bool:
    """Whether a worker can record; of the command's own process `_ready` has asked."""
    if importlib.util.find_spec("pyinstrument") is None:
        logger.warning("no profile is recorded here: pyinstrument is not installed on this node")
        return False
    return True


def _ready(wanted: str) -> str:
    """Return the absolute folder, which can be written, before anything else begins."""
    if importlib.util.find_spec("pyinstrument") is None:
        raise PackageError(
            "--profile draws flame graphs with pyinstrument, which is not installed: "
            "pip install 'msvqa[profile]', or pip install pyinstrument"
        )
    if "://" in wanted:
        raise StorageError(f"--profile {wanted}: name a folder on a disk, not in an object store")
    location = Path(wanted).absolute()
    refuse_lost({"--profile": location})
    try:
        location.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=location):
            pass
    except OSError as error:
        raise StorageError(f"--profile {wanted} cannot be written: {error}") from error
    return str(location)


@contextmanager
def _recorded(target: Path) -> Iterator[None]:
    """Draw a flame graph of the block and trace its operators, without Python's functions.

    Args:
        target: the files, without their ends.
    """
    from torch.profiler import record_function

    trace = _Trace(target)
    flame = _Flame(target, trace.stop)
    trace.start()
    flame.start()
    try:
        with record_function(target.name):
            yield
    finally:
        flame.close()
        trace.close()


class _StageRecording:
    """A flame graph of a stage from its start on, and a trace of a few warm steps in its middle.

    Both ask Python to be told of calls, which only one of them can be at a time.
    """

    def __init__(self, target: Path) -> None:
        self._flame, self._trace = _Flame(target), _Trace(target, functions=True)
        self._done = self._traced = self._left = 0
        self._is_first = True
        self._flame.start()

    @contextmanager
    def step(self, left: int) -> Iterator[None]:
        """Do a step in the block, of which `left` are to come, with this one."""
        from torch.profiler import record_function

        is_warm = self._done >= WARM_STEPS or left <= TRACED_STEPS
        if is_warm and not self._traced:
            self._flame.stop()
            self._trace.start()
        with record_function(f"step {self._done + 1}"):
            yield
        self._done += 1
        self._left = left - 1
        self._traced += is_warm
        if self._traced == TRACED_STEPS or left == 1:
            self._trace.stop()
            self._flame.start()

    def interrupt(self) -> None:
        """End a trace before something that is no step; a short one is taken anew, once."""
        if not 0 < self._traced < TRACED_STEPS:
            return
        self._trace.stop()
        self._flame.start()
        again = self._is_first and self._left > self._traced
        self._is_first, self._traced = False, 0 if again else TRACED_STEPS

    def close(self) -> None:
        """Write both."""
        self._trace.close()
        self._flame.close()


class _Trace:
    """What PyTorch does, for chrome://tracing and https://ui.perfetto.dev."""

    def __init__(self, target: Path, *, functions: bool = False) -> None:
        self._file, self._functions = target.with_name(target.name + TRACE), functions
        self._profiler: Any = None
        self._runs = False

    def start(self) -> None:
        """Begin."""
        # Its C++ part writes to stderr what it does, and an error where there is no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        import torch
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_initialized():
            # Not in a process that computes nothing there: it would take memory of the device.
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(
            activities=activities, record_shapes=True, with_stack=self._functions
        )
        self._profiler.start()
        self._runs = True

    def stop(self) -> None:
        """Record no more."""
        if self._runs:
            self._runs = False
            self._profiler.stop()

    def close(self) -> None:
        """Write what was recorded."""
        self.stop()
        if self._profiler is not None:
            _write(self._file, self._export)

    def _export(self, file: Path) -> None:
        """Write JSON that is packed, to a twentieth."""
        plain = file.with_name(f"{file.name}.json")
        try:
            self._profiler.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(file, "wb", compresslevel=1) as packed:
                shutil.copyfileobj(source, packed)
        finally:
            plain.unlink(missing_ok=True)


class _Flame:
    """What a thread does, by looks at it: a page with a flame graph that needs no network."""

    def __init__(self, target: Path, then: Callable[[], None] | None = None) -> None:
        """Take what is drawn.

        Args:
            target: the file, without its end.
            then: called in the same thread when the longest time is over.
        """
        from pyinstrument import Profiler

        self._deadline = deadline = time.monotonic() + LONGEST_S

        class Bounded(Profiler):
            def _sampler_saw_call_stack(self, *look: Any) -> None:
                if time.monotonic() < deadline:
                    super()._sampler_saw_call_stack(*look)
                elif then is not None:
                    then()

        self._file = target.with_name(target.name + FLAME)
        # Of coroutines there are none, and to follow them costs time.
        self._profiler = Bounded(INTERVAL_S, async_mode="disabled")

    def start(self) -> None:
        """Look, also again after a pause."""
        if not self._profiler.is_running and time.monotonic() < self._deadline:
            self._profiler.start()

    def stop(self) -> None:
        """Look no more."""
        if self._profiler.is_running:
            self._profiler.stop()

    def close(self) -> None:
        """Draw what was seen."""
        self.stop()
        _write(self._file, self._profiler.write_html)


def _write(file: Path, write: Callable[[Path], Any]) -> None:
    try:
        with written_aside(file) as aside:
            write(aside)
    except (OSError, RuntimeError) as error:
        # What was to be measured is done, and is worth more.
        logger.warning("%s cannot be written: %s", file, error)
