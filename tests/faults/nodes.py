"""Faults of nodes: each is a whole process group that is killed, on a cluster of several nodes.

As in `faults`: what a function returns was lost, and must be nothing.
"""

import signal
from pathlib import Path

from msvqa.data.datasets.synthetic import generate
from msvqa.engine.checkpoint import newest_checkpoint
from msvqa.run import Run
from tests.faults.bench import STAGE, Bench, Command, content_of_store, validations
from tests.ray_nodes import Nodes, running_nodes
from tests.tiny import raw_recipe

EPOCH = 6
"""Steps of an epoch of the tiny experiment."""
VIDEOS = {"train": 40, "val": 4, "test": 4}


def node_lost_extracting(bench: Bench, name: str) -> list[str]:
    """A node is lost while videos are extracted: each exactly once, the same bytes."""
    generate(bench.folder / f"{name}-data", videos=VIDEOS)
    whole = _extraction(bench, name, "whole")
    bench.extract(whole).ends_well()
    recipe = _extraction(bench, name, "part")
    shards = bench.folder / f"{name}-part-store" / "shards"
    with running_nodes() as nodes:
        nodes.add()
        lost = nodes.add(umask=0o077)
        with nodes.joined():
            command = bench.extract(recipe)
        command.until(lambda: _private(shards), "a shard by the node that will be lost")
        nodes.lose(lost)
        count = len(list(shards.glob("0*")))
        assert count < sum(VIDEOS.values()) - 2, f"{count} shards: the node was lost too late"
        command.ends_well()
    expected, found = content_of_store(whole), content_of_store(recipe)
    return [file for file in {**expected, **found} if found.get(file) != expected.get(file)]


def _private(shards: Path) -> list[Path]:
    """Return the shards that were written by the node whose files nobody else may read."""
    return [file for file in shards.glob("0*/shard.json") if not file.stat().st_mode & 0o077]


def _extraction(bench: Bench, name: str, part: str) -> Path:
    data = {"name": "msvd_qa", "root": str(bench.folder / f"{name}-data")}
    data |= {"prepared": str(bench.folder / f"{name}-prepared")}
    clips = {"num_clips": 8, "frames_per_clip": 16, "size_px": 224}
    clips |= {"store": str(bench.folder / f"{name}-{part}-store")}
    return bench.recipe_file(f"{name}-{part}", data=data, clips=clips, scaling={})


def node_lost_with_a_range_of_workers(bench: Bench, name: str) -> list[str]:
    """A node is lost while one or two workers train: one goes on to the end, from a checkpoint."""
    recipe = bench.recipe_file(name, scaling={"workers": {"min": 1, "max": 2}})
    with running_nodes() as nodes:
        command = _train_until_a_node_is_lost(bench, recipe, nodes)
        command.ends_well()
    assert "goes on with 1 workers" in command.said(), command.said()
    run = bench.run(recipe)
    begun = _begun(run)
    assert begun[0].startswith("worker 0 of 2 ") and begun[-1].startswith("worker 0 of 1 "), begun
    resumed = int(begun[-1].rpartition("after step ")[2].split()[0])
    lost = [] if resumed >= 8 else [f"steps {resumed} to 8"]
    # Dropout differs with the number of workers, and with it the numbers; the steps must not.
    expected = [row[:4] for row in validations(bench.undisturbed)]
    return lost + [str(row) for row in expected if row not in [r[:4] for r in validations(run)]]


def node_lost_with_a_fixed_number_of_workers(bench: Bench, name: str) -> list[str]:
    """A node is lost while two workers train: it is said that they wait; a new node, and on."""
    recipe = bench.recipe_file(name, scaling={"workers": 2})
    with running_nodes() as nodes:
        command = _train_until_a_node_is_lost(bench, recipe, nodes)
        _waits(bench, command, recipe)
        nodes.add()
        command.ends_well()
        assert "goes on with 2 workers" in command.said(), command.said()
    return bench.lost(recipe)


def node_joins_with_a_range_of_workers(bench: Bench, name: str) -> list[str]:
    """A node joins while one of at most two workers trains: two go on, from a checkpoint."""
    stages = raw_recipe(bench.folder)["stages"][:1]
    # Every epoch is validated: a row that is lost can be told from one that was never due.
    stages[0] |= {"epochs": 1000, "checkpoint": {"every_steps": 50, "keep": 2}}
    stages[0] |= {"least_steps_between_validations": 1}
    scaling = {"workers": {"min": 1, "max": 2}, "look_for_nodes_s": 5.0}
    recipe = bench.recipe_file(name, stages=stages, scaling=scaling)
    run = bench.run(recipe)
    with running_nodes() as nodes:
        nodes.add()
        with nodes.joined():
            command = bench.train(recipe)
        command.until(bench.reached(recipe, 50), "step 50")
        nodes.add()
        command.until(lambda: "goes on with 2 workers" in command.said(), "more workers")
        command.until(lambda: len(_begun(run)) == 2, "the second start")
        command.kill(signal.SIGTERM)
        code = command.ends()
    assert code == 128 + signal.SIGTERM, f"exit code {code}:\n{command.said()}"
    alone, together = _begun(run)
    assert alone.startswith("worker 0 of 1 ") and together.startswith("worker 0 of 2 "), together
    resumed = int(together.rpartition("after step ")[2].split()[0])
    assert resumed >= 50, together
    steps = {row["step"] for row in run.metrics() if row["kind"] == "validation"}
    return [f"step {step}" for step in range(EPOCH, resumed + 1, EPOCH) if step not in steps]


def stopped_while_waiting_for_a_node(bench: Bench, name: str) -> list[str]:
    """SIGTERM while two workers wait for a node: exit code 143; with the node, the rest."""
    recipe = bench.recipe_file(name, scaling={"workers": 2})
    with running_nodes() as nodes:
        command = _train_until_a_node_is_lost(bench, recipe, nodes)
        _waits(bench, command, recipe)
        command.kill(signal.SIGTERM)
        code = command.ends()
        assert code == 128 + signal.SIGTERM, f"exit code {code}:\n{command.said()}"
        assert "continues from the last checkpoint" in command.said(), command.said()
        nodes.add()
        with nodes.joined():
            bench.train(recipe).ends_well()
    return bench.lost(recipe)


def _train_until_a_node_is_lost(bench: Bench, recipe: Path, nodes: Nodes) -> Command:
    nodes.add()
    lost = nodes.add()
    with nodes.joined():
        command = bench.train(recipe)
    command.until(bench.reached(recipe), "step 8")
    nodes.lose(lost)
    return command


def _waits(bench: Bench, command: Command, recipe: Path) -> None:
    run = bench.run(recipe)
    words = "waits for 2 workers x (1 CPUs, 0 GPUs): the cluster has 1 CPUs"
    command.until(lambda: words in command.said(), "it was said that training waits")
    assert words in ((run.path / "logs") / f"{STAGE}-driver.log").read_text()
    assert newest_checkpoint(run.stage_dir(STAGE)) is not None


def _begun(run: Run) -> list[str]:
    log = ((run.path / "logs") / f"{STAGE}-worker0.log").read_text()
    return [line.partition(": ")[2] for line in log.splitlines() if " trains stage " in line]


NODE_FAULTS = (
    node_lost_extracting,
    node_lost_with_a_range_of_workers,
    node_lost_with_a_fixed_number_of_workers,
    node_joins_with_a_range_of_workers,
    stopped_while_waiting_for_a_node,
)
