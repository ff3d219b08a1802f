"""Whole jobs whose results live in an object store: a real server, real commands, real Ray."""

import re
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pyarrow import fs

from msvqa.data.datasets.synthetic import generate
from msvqa.data.processors.processor import store_location
from msvqa.engine.checkpoint import read_weights
from msvqa.engine.loop import StageJob, train_stage
from msvqa.recipe import parse
from msvqa.run import Run
from msvqa.storage import filesystem, open_folder
from tests.faults.bench import Command
from tests.local_host import LocalHost
from tests.marks import again
from tests.object_store import BUCKET, STORES, requests
from tests.tiny import VIDEOS, raw_recipe


@pytest.fixture(params=["s3", *again(store for store in STORES if store != "s3")])
def place(request, tmp_path, monkeypatch):
    """A folder of an object store that is served by this process."""
    monkeypatch.setenv("MSVQA_CACHE", str(tmp_path / "cache"))
    with STORES[request.param]():
        yield f"{request.param}://{BUCKET}/msvqa"


def write_recipe(folder: Path, name: str, place: str) -> Path:
    """Write a recipe of one stage whose results go to a place; videos stay on the disk."""
    raw = raw_recipe(folder) | {"name": name, "runs": f"{place}/runs"}
    raw["data"]["prepared"] = f"{place}/prepared"
    raw["stages"] = [
        raw["stages"][1] | {"init_from": None, "epochs": 12, "checkpoint": {"every_steps": 4}}
    ]
    raw["scaling"] = {"workers": 2, "cpus_per_worker": 0.5}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def write_space(folder: Path) -> Path:
    file = folder / "space.yaml"
    fields = {"stages.answer.optimizer.lr": {"grid": [1e-3, 1e-2]}}
    file.write_text(yaml.safe_dump({"name": "lr", "fields": fields, "search": "grid"}))
    return file


def run_of(recipe: Path) -> Run:
    loaded = parse(yaml.safe_load(recipe.read_text()))
    return Run(loaded.run_location, loaded)


def command(verb: str, *words: str, recipe: Path) -> Command:
    return Command(verb, *words, log=recipe.with_suffix(f".{verb}.log"))


def checkpoints_of(run: Run) -> set[str]:
    """Look now and then: the server runs in this process."""
    time.sleep(0.3)
    return {name for name in run.folder.sizes("answer") if name.endswith("/checkpoint.json")}


def times_of(folder: str) -> dict[str, int]:
    """Return when the files of checkpoints were written."""
    store, path = filesystem(folder)
    infos = store.get_file_info(fs.FileSelector(path, recursive=True))
    return {info.path: info.mtime_ns for info in infos if "/step-" in info.path and info.size}


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_lives_in_an_object_store(tmp_path, place):
    generate(tmp_path / "data", videos=VIDEOS)
    there = write_recipe(tmp_path, "there", place)
    run = run_of(there)
    stopped = command("train", str(there), recipe=there)
    stopped.until(lambda: checkpoints_of(run), "a checkpoint")
    stopped.kill(signal.SIGTERM)
    assert stopped.ends() == 128 + signal.SIGTERM, stopped.said()
    assert not run.is_finished("answer")
    again = command("train", str(there), recipe=there)
    known = checkpoints_of(run)
    again.until(lambda: checkpoints_of(run) - known, "another checkpoint")
    again.training_workers()[-1].kill()
    again.ends_well()
    log = run.folder.get("logs/answer-worker0.log").read_text()
    first, *later = [int(step) for step in re.findall(r"trains stage answer after step (\d+)", log)]
    assert first == 0
    assert len(later) == 2, "once per fault"
    assert all(later)

    here = write_recipe(tmp_path, "here", str(tmp_path))
    command("train", str(here), recipe=here).ends_well()
    there_last, here_last = (one.checkpoint("answer", "last") for one in (run, run_of(here)))
    weights = read_weights(run.locate(there_last))
    for name, value in read_weights(here_last).items():
        assert torch.equal(weights[name], value), name
    rows = [row for row in run.metrics() if row["kind"] == "validation"]
    expected = [row for row in run_of(here).metrics() if row["kind"] == "validation"]
    assert [row["accuracy"] for row in rows] == [row["accuracy"] for row in expected]
    names = run.folder.sizes()
    assert any(name.startswith("tensorboard/") for name in names)
    assert "logs/answer-worker1.log" in names

    shutil.rmtree(tmp_path / "cache")
    with requests() as watched:
        command("evaluate", run.location, "--split", "test", recipe=there).ends_well()
    assert watched.downloads("clips.npy") == 1, "once, by all processes of the machine together"
    command("report", run.location, recipe=there).ends_well()
    command("evaluate", run_of(here).location, "--split", "test", recipe=here).ends_well()
    found = [one.evaluation("test") for one in (run, run_of(here))]
    assert found[0][1].equals(found[1][1]), "the same predictions"
    assert "report.html" in run.folder.sizes()
    assert not (tmp_path / "p").exists(), "nothing was prepared on the disk"


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_lives_in_an_object_store(tmp_path, place, monkeypatch):
    generate(tmp_path / "data", videos=VIDEOS)
    raw = raw_recipe(tmp_path) | {"runs": f"{place}/runs"}
    raw["data"]["prepared"] = f"{place}/prepared"
    recipe = tmp_path / "searched.yaml"
    recipe.write_text(yaml.safe_dump(raw))
    words = ("tune", str(recipe), str(write_space(tmp_path)))
    command(*words, recipe=recipe).ends_well()
    sweep = open_folder(f"{place}/runs/tiny-lr")
    assert {"trials.parquet", "search.html", "best.yaml"} <= {*sweep.sizes()}
    trials = pq.read_table(sweep.get("trials.parquet")).to_pylist()
    assert [trial["state"] for trial in trials] == ["finished", "finished"]
    before = times_of(f"{place}/runs/tiny-lr")
    command(*words, recipe=recipe).ends_well()
    after = times_of(f"{place}/runs/tiny-lr")
    assert before
    assert before.items() <= after.items(), "a second start trains nothing again"
    with monkeypatch.context() as small:
        small.setenv("MSVQA_CACHE_GB", "0.00001")
        refused = command(*words, "name=small", recipe=recipe)
        assert refused.ends() == 2, refused.said()
    assert "but a machine keeps at most" in refused.said()
    assert not open_folder(f"{place}/runs/small-lr").sizes()

    disk = tmp_path / "disk"
    shared = Run.open(f"{place}/runs/tiny-lr/shared")
    for trial in trials:
        run = Run.open(trial["path"])
        job = StageJob(
            recipe=run.recipe.to_dict(),
            stage=1,
            run=str(disk / trial["trial"]),
            prepared=run.recipe.data.prepared,
            store=store_location(run.recipe),
            init_from=shared.locate(shared.checkpoint("reconstruct")),
        )
        Path(job.run).mkdir(parents=True)
        train_stage(job, host := LocalHost(Path(job.run) / "answer"))
        alone = read_weights(host.latest_checkpoint())
        for name, value in read_weights(run.locate(run.checkpoint("answer", "last"))).items():
            assert torch.equal(alone[name], value), (trial["trial"], name)
