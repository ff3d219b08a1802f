"""Whole jobs by real commands on a cluster of two nodes that share the given storage alone."""

import stat
from pathlib import Path

import pytest
import yaml

from msvqa.data.datasets.synthetic import generate
from msvqa.data.processors.processor import store_location
from msvqa.data.store import Store
from msvqa.recipe import parse
from msvqa.run import Run
from tests.faults.bench import SMALL_SHARDS, Command
from tests.object_store import BUCKET, object_store, requests
from tests.ray_nodes import own_namespace, running_nodes
from tests.tiny import VIDEOS, raw_recipe

UMASKS = (0o022, 0o077)
WRITTEN_BY_BOTH = {0o666 & ~umask for umask in UMASKS}
"""Modes of files: each node has its own, which tells who has written what."""
SPACE = {
    "name": "lr",
    "fields": {"stages.answer.optimizer.lr": {"choice": [1e-3, 2e-3]}},
    "search": "grid",
    "concurrent": 2,
}


def modes(files):
    return {stat.S_IMODE(file.stat().st_mode) for file in files}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all nodes see: the videos, what is prepared, and the runs."""
    folder = tmp_path_factory.mktemp("storage")
    generate(folder / "data", videos=VIDEOS)
    return folder


@pytest.fixture(scope="module")
def recipe(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipe of one stage, in a folder that no other node sees; its log is beside it."""
    raw = raw_recipe(storage)
    answer = raw["stages"][1] | {"init_from": None, "epochs": 1}
    raw |= {"stages": [answer], "scaling": {"workers": {"min": 1, "max": 2}}}
    folder = tmp_path_factory.mktemp("driver")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


@pytest.fixture(scope="module")
def seen_by_both() -> dict[str, list[bool]]:
    """What the nodes of the whole job saw of some folders; filled by that job."""
    return {}


@pytest.mark.ray
@pytest.mark.slow
def test_the_whole_job_on_two_nodes(storage, recipe, seen_by_both):
    parsed, log = parse(yaml.safe_load(recipe.read_text())), recipe.with_suffix(".log")
    run = Run(parsed.run_location, parsed)

    def msvqa(*words: object) -> None:
        Command(*map(str, words), log=log, before=SMALL_SHARDS).ends_well()

    with running_nodes(shared=[storage]) as nodes:
        one, other = [nodes.add(umask=umask) for umask in UMASKS]
        seen_by_both |= {
            "storage": [node.sees(storage) for node in (one, other)],
            "own folder": [one.sees(one.folder), other.sees(other.folder)],
            "the other's folder": [one.sees(other.folder), other.sees(one.folder)],
            "the driver's folder": [node.sees(recipe.parent) for node in (one, other)],
        }
        with nodes.joined():
            msvqa("prepare", "msvd_qa", "--root", parsed.data.root, "--out", parsed.data.prepared)
            msvqa("extract", recipe)
            msvqa("train", recipe)
            msvqa("evaluate", run.path, "--split", "test")
            search = ("tune", str(recipe), str(recipe.with_name("space.yaml")), "scaling.workers=1")
            large = Command(*search, "name=large", "scaling.cpus_per_worker=2", log=log)
            assert large.ends() == 2, large.said()
            msvqa(*search)
    assert "each needs 2 CPUs and 0 GPUs on one node" in large.said()
    assert "the largest of 3 nodes has 1 CPUs" in large.said()
    assert not Path(parsed.runs, "large-lr", "space.yaml").exists()
    store = Store.open(store_location(parsed))
    assert len(store) == sum(VIDEOS.values())
    assert modes(store.path.glob("shards/*/*")) == WRITTEN_BY_BOTH
    assert run.is_finished("answer")
    assert modes((run.path / "logs").glob("answer-worker?.log")) == WRITTEN_BY_BOTH
    metrics, _ = run.evaluation("test")
    assert metrics["n"] == metrics["n_expected"] == 7 * VIDEOS["test"]
    trials = [Run.open(Path(parsed.runs) / "tiny-lr" / f"trial-000{n}") for n in range(2)]
    assert all(trial.is_finished("answer") for trial in trials)
    logs = [(trial.path / "logs") / "answer-worker0.log" for trial in trials]
    assert modes(logs) == WRITTEN_BY_BOTH


@pytest.mark.ray
@pytest.mark.slow
def test_the_nodes_of_that_job_have_no_local_disk_in_common(seen_by_both, storage):
    if not seen_by_both:
        pytest.skip("the whole job on two nodes did not come as far as two nodes")
    if own_namespace() is None:
        pytest.skip("nobody lets us mount, as root may: the nodes had one /tmp")
    if not storage.is_relative_to("/tmp"):
        pytest.skip(f"of a node's files only /tmp is its own, and this test works in {storage}")
    yes, no = [True, True], [False, False]
    assert seen_by_both == {
        "storage": yes, "own folder": yes, "the other's folder": no, "the driver's folder": no,
    }  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
def test_each_node_fetches_from_an_object_store_what_it_reads(storage, recipe, monkeypatch):
    place, log = f"s3://{BUCKET}/nodes", recipe.with_suffix(".remote.log")
    words = (f"runs={place}/runs", f"data.prepared={place}/prepared", "scaling.workers=2")
    monkeypatch.setenv("HOME", str(recipe.parent))
    with object_store(), requests() as watched:
        with running_nodes(shared=[storage]) as nodes:
            for _ in range(2):
                nodes.add()
            with nodes.joined():
                Command("train", str(recipe), *words, log=log, before=SMALL_SHARDS).ends_well()
            kept = [
                list(node.folder.glob(".cache/msvqa/*/fetched/*/clips.npy")) for node in nodes.nodes
            ]
        assert Run.open(f"{place}/runs/tiny").is_finished("answer")
    head, *workers = kept
    assert not head, "it trains nothing"
    assert all(workers), "both have trained"
    assert watched.downloads("clips.npy") == sum(map(len, workers)), "each shard once for a node"
