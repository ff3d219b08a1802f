"""Ratios of times measured in one run: methods shuffled in every round, paired with a yardstick."""

import datetime
import json
import operator
import os
import platform
import random
import statistics
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.watch import Watch
from msvqa.engine.operations import product_flops
from msvqa.machine import processor_name

RESULTS = Path(__file__).parent / "results"
ROUNDS = 7
UNSTABLE_SPREAD = 0.3
COMPARISONS = {">=": operator.ge, "<=": operator.le, "==": operator.eq}
LOOK_EVERY_S = 0.1


def is_met(value: float, target: str) -> bool:
    """Return whether a value is as a target such as `>= 3.0` asks."""
    sign, _, number = target.partition(" ")
    return bool(COMPARISONS[sign](value, float(number)))


@dataclass(frozen=True)
class Count:
    """A number that is the same in every run; another than the target asks for is an error."""

    name: str
    value: float
    target: str

    @property
    def verdict(self) -> str:
        """`exact`, or `WRONG`."""
        return "exact" if is_met(self.value, self.target) else "WRONG"


@dataclass(frozen=True)
class Fact:
    """What belongs beside a ratio, without a target."""

    name: str
    value: str


@dataclass(frozen=True)
class Ratio:
    """Cost of one method over the cost of another, over paired rounds."""

    name: str
    median: float
    low: float
    """First quartile"""
    high: float
    """Third quartile"""
    target: str = ""

    @property
    def is_stable(self) -> bool:
        """Whether the quartiles are close enough for a verdict."""
        return self.high - self.low <= UNSTABLE_SPREAD * self.median

    @property
    def verdict(self) -> str:
        """`met` or `missed`, `unstable` in place of both, and nothing without a target."""
        if not self.is_stable:
            return "unstable"
        if not self.target:
            return ""
        return "met" if is_met(self.median, self.target) else "missed"

    def row(self) -> str:
        """Return a row of a Markdown table."""
        note = self.target if self.is_stable else f"{self.target} (unstable, no verdict)"
        return f"| {self.name} | {self.median:.3g} | {self.low:.3g} to {self.high:.3g} | {note} |"


def cpu_seconds() -> float:
    """Return the processor time of this process and of its living children."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        used = child.cpu_times()
        total += used.user + used.system
    return total


class Family(Watch):
    """Adds up the processor time of this process's children, also of those that end in the block.

    What looking at them takes is not counted.
    """

    def __init__(self) -> None:
        super().__init__(LOOK_EVERY_S)
        self._used: dict[psutil.Process, float] = {}
        self._child: dict[psutil.Process, psutil.Process] = {}
        """Which child of this process has started each, if only by others"""
        self._looking_s = 0.0
        self._lock = threading.Lock()

    def seconds(self, without: Collection[psutil.Process] = ()) -> float:
        """Return what they have used so far.

        Args:
            without: children that are left out, with all that they have started.
        """
        self._look()
        used = self._used.copy()
        return sum(used[process] for process in used if self._child[process] not in without)

    def seconds_with_own(self) -> float:
        """Return the same with what this process has used, but for looking."""
        return self.seconds() + time.process_time() - self._looking_s

    def _look(self) -> None:
        with self._lock:
            start = time.thread_time()
            child_of: dict[int, psutil.Process] = {}
            # Parents come before what they have started.
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child = child_of.get(process.ppid(), process)
                    used = process.cpu_times()
                    child_of[process.pid] = self._child.setdefault(process, child)
                    self._used[process] = used.user + used.system
            self._looking_s += time.thread_time() - start


def peak_gb() -> float:
    """Return the largest memory of this process so far, without that of the one that started it."""
    # Not `getrusage`, whose peak a process takes over from the one that it was forked from.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


class OwnMemory(Watch):
    """The largest memory that a block has kept to itself, looked at every few milliseconds.

    Pages of files that are mapped, such as the arrays of stores, are not counted: the system takes
    them back whenever somebody needs the memory, and all processes share them.
    """

    EVERY_S = 0.005

    def __init__(self) -> None:
        super().__init__(self.EVERY_S)
        self.gb = 0.0

    def _look(self) -> None:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        self.gb = max(self.gb, int(status.partition("RssAnon:")[2].split()[0]) / 1e6)


def measure(
    methods: Mapping[str, Callable[[], object]],
    clock: Callable[[], float] = cpu_seconds,
    rounds: int = ROUNDS,
) -> dict[str, list[float]]:
    """Return the cost of every method in every round, after one warm-up."""
    for method in methods.values():
        method()
    costs: dict[str, list[float]] = {name: [] for name in methods}
    order = list(methods)
    shuffler = random.Random(0)
    for _ in range(rounds):
        shuffler.shuffle(order)
        for name in order:
            start = clock()
            methods[name]()
            costs[name].append(clock() - start)
    return costs


def ratio(
    name: str, costs: Mapping[str, list[float]], over: str, under: str, target: str = ""
) -> Ratio:
    """Return the cost of `over` as a multiple of that of `under`, paired by round."""
    pairs = [a / b for a, b in zip(costs[over], costs[under], strict=True)]
    low, median, high = statistics.quantiles(pairs, n=4)
    return Ratio(name, median, low, high, target)


def pin_to_one_core() -> None:
    """Keep this process, and the children it starts, on one core with one thread."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    names = ("av", "decord", "torch", "numpy", "pillow", "h5py")
    return {
        "versions": {name: _version(name) for name in names},
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "load": round(os.getloadavg()[0], 1),
        "gemm_gflops": {name: round(flops / 1e9) for name, flops in gemm_flops().items()},
        "memcpy_gb_per_s": round(_memcpy_bytes_per_s() / 1e9, 1),
    }


def write(name: str, ratios: list[Ratio], facts: Mapping[str, Any]) -> Path:
    """Write results as JSON and as a table, named by date; return the path of the table."""
    header = machine()
    table = "\n".join(
        [
            f"# {name}", "",
            f"`python -m benchmarks.{name}` with " + json.dumps(header), "",
            "| ratio | median | quartiles | target |", "|---|---|---|---|",
            *(r.row() for r in ratios), "",
            "| fact | value |", "|---|---|",
            *(f"| {key} | {value} |" for key, value in facts.items()), "",
        ]
    )  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{datetime.date.today().isoformat()}-{name}.md"
    file.write_text(table, encoding="utf-8")
    data = {"machine": header, "ratios": [asdict(r) for r in ratios], "facts": dict(facts)}
    file.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return file


def has_fast_bf16() -> bool:
    """Return whether the processor multiplies bf16 itself."""
    return "bf16" in _cpu_name()


def has_amx() -> bool:
    """Return whether the processor multiplies tiles of bf16 at once."""
    return "amx_bf16" in _cpu_name()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    shown = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{processor_name()} ({', '.join(shown)})"


def gemm_flops(device: torch.device | None = None) -> dict[str, float]:
    """Return the operations per second of a matrix product by type, on the processor by default."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    place = device or torch.device("cpu")
    return {name: product_flops(place, kind) for name, kind in kinds.items()}


def _memcpy_bytes_per_s(size: int = 1 << 28) -> float:
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    return size / _best_of(lambda: np.copyto(target, source))


def _best_of(function: Callable[[], object], times: int = 5) -> float:
    costs = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        costs.append(time.perf_counter() - start)
    return min(costs)
