"""A training that says when each of its parts began, until the first step; for rows B2 to B4.

python -m benchmarks.first_step RECIPE            # as `msvqa train RECIPE` does it
python -m benchmarks.first_step --plain FOLDER    # a trainer of Ray alone that does nothing

Either prints JSON with seconds. Where RAY_ADDRESS names a cluster it is joined.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.watch import Watch

LOOK_EVERY_S = 0.01
Seconds = dict[str, float]
BEGUN = float(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
"""When this process was made, in ticks since the system was started"""


def since_the_command() -> float:
    """Return the seconds since this process was made."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - BEGUN / os.sysconf("SC_CLK_TCK")


class Rows(Watch):
    """When each row of a file of metrics came to be there."""

    def __init__(self, file: Path) -> None:
        super().__init__(LOOK_EVERY_S)
        self._file, self.seen = file, list[tuple[str, str, float]]()

    def first_step(self, stage: str) -> float:
        """Return when a stage had made its first step."""
        return next(at for of, kind, at in self.seen if (of, kind) == (stage, "train"))

    def last_of(self, stage: str) -> float:
        """Return when the last row of a stage was written."""
        return next(at for of, _, at in reversed(self.seen) if of == stage)

    def _look(self) -> None:
        now = since_the_command()
        with suppress(OSError):
            lines = self._file.read_text(encoding="utf-8").split("\n")[:-1]
            new = [json.loads(line) for line in lines[len(self.seen) :]]
            self.seen += [(row["stage"], row["kind"], now) for row in new]


def ours(file: str) -> Seconds:
    """Train a recipe of two stages; return the seconds of each part.

    The parts are done in the order in which `train` does them, each by the verb that it calls.
    """
    from msvqa.engine import cluster
    from msvqa.extract import extract
    from msvqa.prepare import prepare_stages
    from msvqa.run import load_recipe
    from msvqa.train import train

    ends = {"imports": since_the_command()}
    recipe = load_recipe(file, [])
    prepare_stages(recipe)
    ends["preparing"] = since_the_command()
    with cluster.connected():
        ends["connecting to Ray"] = since_the_command()
        extract(recipe)
        ends["extraction"] = since_the_command()
        metrics = Path(recipe.run_location) / "metrics.jsonl"
        with Rows(metrics) as rows:
            train(recipe)
    first, second = (stage.name for stage in recipe.stages)
    ends["first stage"] = rows.first_step(first)
    starts = [0.0, *ends.values()]
    found = {name: end - start for (name, end), start in zip(ends.items(), starts, strict=False)}
    between = rows.first_step(second) - rows.last_of(first)
    return {**found, "whole": ends["first stage"], "second stage": between}


def plain(folder: str) -> Seconds:
    """Start a trainer of Ray; return the seconds until its worker does what it is there for."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    mark = Path(folder, f"plain-{os.getpid()}.txt")
    ray.init(address=os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False)
    TorchTrainer(
        _leave,
        train_loop_config={"mark": str(mark)},
        torch_config=TorchConfig("gloo"),
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name=mark.stem, storage_path=folder),
    ).fit()
    ray.shutdown()
    begun = since_the_command() - time.time()
    return {"whole": begun + float(mark.read_text(encoding="ascii"))}


def _leave(config: dict[str, str]) -> None:
    Path(config["mark"]).write_text(str(time.time()), encoding="ascii")


def main() -> int:
    """Do what the command line says."""
    *option, place = sys.argv[1:]
    sys.stdout.write(json.dumps(plain(place) if option else ours(place)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
