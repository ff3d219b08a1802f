"""What every fault needs: the tiny experiment, its commands as real processes, and a comparison."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import psutil
import torch
import yaml

from msvqa.data.processors.processor import store_location
from msvqa.data.store import Store
from msvqa.engine.checkpoint import read_info, read_weights
from msvqa.recipe import parse
from msvqa.run import Run
from tests.forked_python import descendants, program
from tests.hashes import content
from tests.tiny import make_data, raw_recipe

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600.0
STAGE = "reconstruct"
# In the background of a script SIGINT is ignored, also by all that is started there.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from msvqa.cli import run; run()"
)
SMALL_SHARDS = "from msvqa.data import store; store.SHARD_VIDEOS = dict(clips=1, features=1); "


class Command:
    """A `msvqa` command that runs as a process of its own.

    Args:
        words: what is typed.
        log: gets all that is printed.
        before: statements that the process begins with.
        path: a folder in which it looks for modules first.
        plain: not forked, nor what it starts, but as a user starts it.
    """

    def __init__(
        self, *words: str, log: Path, before: str = "", path: str = "", plain: bool = False
    ) -> None:
        self.log, python = log, sys.executable if plain else program()
        if not plain:
            before = f"from tests.forked_python import fork_ray; fork_ray({program()!r}); {before}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT))))}
        # A session of its own, so that a signal to its group reaches what a terminal would reach.
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [python, "-c", before + COMMAND, *words],
                env=environment, cwd=log.parent, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Wait until something happens; the command must still run then."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if self.process.poll() is not None:
                raise AssertionError(f"the command ended before {what}:\n{self.said()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {PATIENCE_S:g} s:\n{self.said()}")
            time.sleep(0.01)

    def ends(self) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill(group=True)
            raise AssertionError(f"no end within {PATIENCE_S:g} s:\n{self.said()}") from None

    def ends_well(self) -> None:
        """Wait for the end; it must be a good one."""
        code = self.ends()
        assert code == 0, f"exit code {code}:\n{self.said()}"

    def said(self) -> str:
        """Return everything printed so far."""
        return self.log.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL, *, group: bool = False) -> None:
        """Send a signal to the command, or to all processes of its group."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def descendants(self, name: str = "") -> list[psutil.Process]:
        """Return the processes that the command has started, by a part of their title."""
        found = []
        for process in descendants(psutil.Process(self.process.pid)):
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda process: process.pid)

    def answers_signals(self) -> bool:
        """Whether the command has a handler of SIGTERM, which is the last that it sets up."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def training_workers(self) -> list[psutil.Process]:
        """Return the workers of the stage that is being trained."""
        return self.descendants("RayTrainWorker")

    def extraction_workers(self) -> list[psutil.Process]:
        """Return the workers that write shards, once they are there."""
        self.until(lambda: self.descendants("MapWorker"), "the first worker")
        return self.descendants("MapWorker")


class Bench:
    """The tiny experiment in a folder, and a run of it that nothing disturbs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_data(folder)

    def recipe_file(self, name: str, **changes: object) -> Path:
        """Write the recipe of a run: one stage, two workers, a checkpoint every other step."""
        raw = raw_recipe(self.folder) | {
            "name": name,
            "stages": raw_recipe(self.folder)["stages"][:1],
        }
        raw["stages"][0] |= {"epochs": 8, "checkpoint": {"every_steps": 2, "keep": 3}}
        raw["scaling"] = {"workers": 2, "cpus_per_worker": 0.5}
        raw |= changes
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(raw))
        return file

    def train(self, recipe: Path, *overrides: str) -> Command:
        """Start `msvqa train`."""
        return Command("train", str(recipe), *overrides, log=recipe.with_suffix(".log"))

    def run(self, recipe: Path) -> Run:
        """Return the run of a recipe."""
        raw = yaml.safe_load(recipe.read_text())
        return Run(parse(raw).run_location, parse(raw))

    @cached_property
    def undisturbed(self) -> Run:
        """The run that every other is compared with."""
        recipe = self.recipe_file("undisturbed")
        self.train(recipe).ends_well()
        return self.run(recipe)

    def lost(self, recipe: Path, undisturbed: Run | None = None) -> list[str]:
        """Return in what a finished run differs from an undisturbed one, by default the usual."""
        run, whole = self.run(recipe), undisturbed or self.undisturbed
        expected, found = final_weights(whole), final_weights(run)
        lost = [name for name, value in expected.items() if not torch.equal(found[name], value)]
        if validations(run) != validations(whole):
            lost.append("validations")
        return lost

    def reached(self, recipe: Path, step: int = 8) -> Callable[[], object]:
        """Return a question: is a checkpoint of this step or a later one whole?

        That of the step itself is removed soon: it is in the middle of an epoch.
        """
        run = self.run(recipe)

        def found() -> bool:
            return any(info["position"]["step"] >= step for _, info in run.checkpoints(STAGE))

        return found

    def extraction(self, name: str, store: Path | None = None, **scaling: int) -> Path:
        """Write the recipe of an extraction whose shards take a moment each."""
        place = store or self.folder / f"{name}-store"
        clips = {"num_clips": 2, "frames_per_clip": 4, "size_px": 256, "store": str(place)}
        return self.recipe_file(name, clips=clips, scaling=scaling)

    def extract(self, recipe: Path, *overrides: str, path: str = "") -> Command:
        """Start `msvqa extract` with a shard for every video."""
        words = ("extract", str(recipe), *overrides)
        return Command(*words, log=recipe.with_suffix(".log"), before=SMALL_SHARDS, path=path)

    @cached_property
    def whole_store(self) -> Mapping[str, str]:
        """The files, by their hashes, of the extraction that every other is compared with."""
        recipe = self.extraction("undisturbed-extraction")
        self.extract(recipe).ends_well()
        store = Store.open(store_of(recipe))
        assert len({*store.video_ids}) == len(store.video_ids) == len(shards_of(recipe))
        return content_of_store(recipe)

    def lost_of_store(self, recipe: Path) -> list[str]:
        """Return the files in which a finished store differs from the undisturbed one."""
        expected, found = self.whole_store, content_of_store(recipe)
        return [f for f in {*expected, *found} if expected.get(f) != found.get(f)]


def final_weights(run: Run) -> Mapping[str, torch.Tensor]:
    """Return the weights at the end of the stage, from a checkpoint that is whole."""
    place = run.locate(run.checkpoint(STAGE, "last"))
    assert read_info(place)["finished"], f"{place} is not the end of the stage"
    return read_weights(place)


def validations(run: Run) -> list[tuple[object, ...]]:
    """Return the validation rows without their times."""
    rows = [row for row in run.metrics() if row["kind"] == "validation"]
    return [tuple(value for key, value in row.items() if key != "time_s") for row in rows]


def store_of(recipe: Path) -> Path:
    """Return the folder of a recipe's store."""
    return Path(store_location(parse(yaml.safe_load(recipe.read_text()))))


def shards_of(recipe: Path) -> dict[Path, int]:
    """Return the shards that are in their place, and when each was written."""
    found = store_of(recipe).glob("shards/0*/shard.json")
    return {file.parent: file.stat().st_mtime_ns for file in found}


def content_of_store(recipe: Path) -> dict[str, str]:
    """Return the hash of every file of a recipe's store."""
    return content(store_of(recipe))
