"""What a training stage costs before and after its training: ours against Ray's own trainer.

python -m benchmarks.stage_start

One worker trains nothing on a cluster of this machine. Counted is the processor time of all
processes that are started for it, which other work on the machine hardly changes.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil

from benchmarks.measure import LOOK_EVERY_S, Family, measure, ratio, write
from msvqa.engine import cluster

ROUNDS = 5
ENDS_WITHIN_S = 20.0


def nothing() -> None:
    """A training of no steps."""


def in_thread(train: Callable[[], object]) -> None:
    """Train as a stage does; in the main thread Ray would keep the controller for Ctrl-C."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(train).result()


def by_ray(folder: str) -> None:
    """Train with Ray's own trainer."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    os.environ[cluster.WATCHER] = "1"
    trainer = TorchTrainer(
        nothing,
        torch_config=TorchConfig("gloo"),
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="ray", storage_path=folder),
    )
    in_thread(trainer.fit)


def by_msvqa(folder: str) -> None:
    """Train as a stage does."""
    from ray.train import RunConfig, ScalingConfig

    from msvqa.engine.lean_trainer import LeanTrainer
    from msvqa.engine.process_group import group_config

    os.environ[cluster.WATCHER] = "0"
    trainer = LeanTrainer(
        nothing,
        backend_config=group_config("gloo"),
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="msvqa", storage_path=folder),
    )
    in_thread(trainer.fit)


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
    walls: dict[str, list[float]] = {"ray": [], "msvqa": []}

    def timed(name: str, train: Callable[[str], None]) -> Callable[[], object]:
        def run() -> None:
            start = time.perf_counter()
            train(folder)
            walls[name].append(time.perf_counter() - start)
            _await_the_end()

        return run

    with tempfile.TemporaryDirectory() as folder, cluster.connected(), Family() as family:
        methods = {"ray": timed("ray", by_ray), "msvqa": timed("msvqa", by_msvqa)}
        cpu = measure(methods, family.seconds, ROUNDS)
    # The first is the warm-up.
    costs = {"CPU": cpu, "wall": {name: seconds[1:] for name, seconds in walls.items()}}
    ratios = [
        ratio(f"{unit}, a stage of no steps: Ray's own trainer / ours", of, "ray", "msvqa")
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


if __name__ == "__main__":
    sys.exit(main())
