"""What a training stage costs before and after its training: ours against Ray's own trainer.

python -m benchmarks.stage_start

One worker trains nothing on a cluster of this machine. Counted is the processor time of all
processes that are started for it, which other work on the machine hardly changes.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import psutil

from benchmarks.measure import Ratio, measure, ratio, write
from msvqa.engine import cluster

ROUNDS = 5
LOOK_EVERY_S = 0.1
ENDS_WITHIN_S = 60.0


class Family:
    """Adds up the processor time of this process's children, also of those that have ended."""

    def __init__(self) -> None:
        self._used: dict[psutil.Process, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def seconds(self) -> float:
        """Return what they have used so far."""
        self._look()
        return sum(self._used.copy().values())

    def _watch(self) -> None:
        while True:
            self._look()
            time.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        for child in psutil.Process().children(recursive=True):
            try:
                used = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._used[child] = used.user + used.system


def nothing() -> None:
    """A training of no steps."""


def by_ray(folder: str) -> None:
    """Train with Ray's own trainer."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    os.environ[cluster.WATCHER] = "1"
    TorchTrainer(
        nothing,
        torch_config=TorchConfig("gloo"),
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="ray", storage_path=folder),
    ).fit()
    _await_the_end()


def by_msvqa(folder: str) -> None:
    """Train as a stage does."""
    from ray.train import RunConfig, ScalingConfig

    from msvqa.engine.lean_trainer import LeanTrainer
    from msvqa.engine.process_group import group_config

    os.environ[cluster.WATCHER] = "0"
    LeanTrainer(
        nothing,
        backend_config=group_config("gloo"),
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="msvqa", storage_path=folder),
    ).fit()
    _await_the_end()


def _await_the_end() -> None:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while _helpers() and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)


def _helpers() -> list[str]:
    """Return the titles of the processes of actors; that of all stages stays."""
    titles = []
    for child in psutil.Process().children(recursive=True):
        try:
            titles += child.cmdline()[:1]
        except psutil.NoSuchProcess:
            continue
    ends = ("IDLE", "Agent", "_AutoscalingCoordinatorActor")
    return [title for title in titles if title.startswith("ray::") and not title.endswith(ends)]


def main() -> int:
    """Run and write the results."""
    with tempfile.TemporaryDirectory() as folder, cluster.connected():
        costs: dict[str, dict[str, list[float]]] = {}
        for unit, clock in {"CPU": Family().seconds, "wall": time.perf_counter}.items():
            costs[unit] = _costs(folder, clock)
    ratios: list[Ratio] = [
        ratio(f"{unit} of a stage of no steps: Ray's own trainer / ours", of, "ray", "msvqa")
        for unit, of in costs.items()
    ]
    facts = {
        f"{unit} s, {name}": f"{min(seconds):.1f} to {max(seconds):.1f}"
        for unit, of in costs.items()
        for name, seconds in of.items()
    }
    table = write("stage_start", ratios, facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return 0


def _costs(folder: str, clock: Callable[[], float]) -> dict[str, list[float]]:
    methods = {"ray": lambda: by_ray(folder), "msvqa": lambda: by_msvqa(folder)}
    return measure(methods, clock, ROUNDS)


if __name__ == "__main__":
    sys.exit(main())
