"""Profiles of commands and workers: their bounds, what they show, and that nothing else changes."""

import gzip
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from msvqa import cli, profiling
from msvqa.data.datasets.synthetic import generate
from msvqa.engine import search
from msvqa.engine.checkpoint import read_weights
from msvqa.engine.cluster import Placement
from msvqa.engine.loop import train_stage
from msvqa.profiling import FLAME, TRACE, TRACED_STEPS, WARM_STEPS
from msvqa.run import Run
from tests.local_host import LocalHost
from tests.test_cli import subcommands
from tests.tiny import VIDEOS, make_data, make_job, make_recipe, raw_recipe

LOADED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*\shref=|@import|url\(['\"]?http")
"""What a page fetches."""


def names(folder: Path, name: str) -> set[str]:
    """Return the names of what a trace has."""
    with gzip.open(folder / f"{name}{TRACE}") as file:
        content = json.load(file)
    return {str(event.get("name")) for event in content["traceEvents"]}


def flame(folder: Path, name: str) -> str:
    """Return a page, which must not need the network."""
    page = (folder / f"{name}{FLAME}").read_text(encoding="utf-8")
    assert not LOADED.findall(page)
    return page


def of_steps(found: set[str]) -> list[int]:
    return sorted(int(name.split()[1]) for name in found if re.fullmatch(r"step \d+", name))


def leaf_parsers(parser):
    inner = subcommands(parser)
    return [leaf for one in inner.values() for leaf in leaf_parsers(one)] or [parser]


def test_every_verb_takes_it():
    parsers = leaf_parsers(cli.build_parser())
    assert len(parsers) > 15
    assert [p.prog for p in parsers if "--profile" not in p._option_string_actions] == []
    commands = [parser.get_default("command") for parser in parsers]
    assert {"train", "recipe-show", "mvbench-run"} < set(commands)
    assert len(set(commands)) == len(commands)


@pytest.mark.parametrize("steps", [1, 3, WARM_STEPS + 2, WARM_STEPS + TRACED_STEPS + 7])
def test_a_trace_has_a_few_steps_warm_where_there_are_so_many(tmp_path, steps):
    with profiling.of_stage(str(tmp_path), "stage"):
        for number in range(steps):
            with profiling.step(steps - number):
                torch.ones(3).add(1)
    first = max(0, min(WARM_STEPS, steps - TRACED_STEPS))
    traced = names(tmp_path, "stage")
    assert of_steps(traced) == [*range(first + 1, min(steps, first + TRACED_STEPS) + 1)]
    assert "aten::add" in traced


def test_a_command_is_recorded_for_so_long_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "LONGEST_S", 0.3)

    def works(operator):
        for number in range(200_000):
            operator(number % 7)

    with profiling.of_command(str(tmp_path), "short"):
        torch.ones(3).add(1)
        works(float)
        profiling.time.sleep(0.4)
        works(float)
        torch.ones(3).mul(2)
    found = names(tmp_path, "short")
    assert "aten::add" in found
    assert "aten::mul" not in found
    assert "works" in flame(tmp_path, "short")


@pytest.mark.parametrize(
    ("steps", "validations", "traced"),
    [
        (20, [3, 12], [6, 7, 8, 9, 10]),
        (20, [7], [8, 9, 10, 11, 12]),
        (20, [6, 9, 12], [7, 8, 9]),
        (8, [4, 6], [5, 6]),
    ],
)
def test_a_validation_is_in_no_trace_of_steps(tmp_path, steps, validations, traced):
    with profiling.of_stage(str(tmp_path), "stage"):
        for number in range(1, steps + 1):
            with profiling.step(steps - number + 1):
                torch.ones(3).add(1)
            if number in validations:
                profiling.interrupt()
                torch.ones(3).mul(2)
    found = names(tmp_path, "stage")
    assert of_steps(found) == traced
    assert "aten::mul" not in found


def test_no_work_of_a_command_replaces_the_profile_of_another(tmp_path):
    assert profiling.place_of_part("ShardWriter") is None
    for _ in range(2):
        with profiling.of_command(str(tmp_path), "search"):
            dealt = [profiling.place_of_part(n) for n in ("ShardWriter", "Trial", "ShardWriter")]
        assert [Path(place).name for place in dealt] == [
            "ShardWriter-worker0", "Trial-worker0", "ShardWriter-2-worker0",
        ]  # fmt: skip


def test_without_it_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    with profiling.of_command(None, "x"), profiling.of_stage(None, "y"), profiling.step(1):
        assert profiling.folder() is None


def test_what_is_absent_is_said_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(profiling.importlib.util, "find_spec", lambda name: None)
    begun = ["prepare", "synthetic", "--root", str(tmp_path / "data")]
    assert cli.main([*begun, "--profile", str(tmp_path / "p")]) == 2
    assert "pip install 'msvqa[profile]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["s3://bucket/p", "file/p"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert cli.main(["recipe", "show", "r.yaml", "--profile", place]) == 2
    assert f"--profile {place}" in capsys.readouterr().err


def test_a_folder_that_ends_with_the_job_is_refused(tmp_path, monkeypatch, capsys):
    copy = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert cli.main(["recipe", "show", "r.yaml", "--profile", "profiles"]) == 2
    assert "thrown away with --profile=" in capsys.readouterr().err
    assert list(copy.iterdir()) == []


@pytest.mark.long
def test_prepare_is_recorded(tmp_path):
    generate(tmp_path / "data", videos=VIDEOS)
    words = ["prepare", "msvd_qa", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "p")]
    assert cli.main([*words, "--profile", str(tmp_path / "profiles")]) == 0
    assert "prepare" in names(tmp_path / "profiles", "prepare")
    page = flame(tmp_path / "profiles", "prepare")
    assert re.search(r'"prepare\\u0000[^"]*msvqa/prepare\.py', page)


@pytest.mark.long
def test_a_recorded_stage_has_the_same_weights(tmp_path):
    make_data(tmp_path)
    found = []
    for name, profile in (("plain", None), ("recorded", str(tmp_path / "profiles"))):
        recipe = make_recipe(tmp_path, f"name={name}", "stages.0.epochs=4")
        run, job = make_job(recipe, 0)
        with profiling.into(profile):
            job = type(job)(**{**job.to_dict(), "profile": profiling.folder()})
        train_stage(job, LocalHost(run.stage_dir("reconstruct")))
        last = sorted(run.stage_dir("reconstruct").glob("step-*"))[-1]
        found.append(read_weights(last))
    plain, recorded = found
    assert plain.keys() == recorded.keys()
    assert all(torch.equal(plain[name], recorded[name]) for name in plain)


def test_of_a_search_the_first_trial_is_recorded(tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr(search, "_run_trial", lambda *_: folders.append(profiling.folder()))
    job = search.SearchJob(
        recipe=raw_recipe(tmp_path), placement=Placement(1, 1.0, 0.0), profile="profiles",
        space={"name": "two", "fields": {"seed": {"grid": [1, 2]}}, "search": "grid"},
    )  # fmt: skip
    for name in ("trial-0000", "trial-0001"):
        search.run_trial(job, name, {})
    assert folders == ["profiles", None]
    assert profiling.folder() is None


@pytest.mark.ray
def test_training_and_evaluation_are_recorded_with_their_workers(tmp_path, ray_local, capsys):
    generate(tmp_path / "data", videos=VIDEOS)
    recipe, profiles = tmp_path / "recipe.yaml", tmp_path / "profiles"
    recipe.write_text(yaml.safe_dump(raw_recipe(tmp_path)), encoding="utf-8")
    assert cli.main(["train", str(recipe), "--profile", str(profiles)]) == 0
    run = Run.open(tmp_path / "runs" / "tiny")
    assert all(run.is_finished(stage.name) for stage in run.recipe.stages)
    for stage, loss in (("reconstruct", "reconstruction.py"), ("answer", "answering.py")):
        found = names(profiles, f"{stage}-worker0")
        assert any(re.fullmatch(r"msvqa/engine/loop\.py\(\d+\): _step", name) for name in found)
        assert any(loss in name for name in found)
        assert of_steps(found)
        page = flame(profiles, f"{stage}-worker0")
        assert "_build_model" in page
    assert "train_stage_on_ray" in flame(profiles, "train")
    assert "ShardWriter" in flame(profiles, "ShardWriter-worker0")
    words = ["evaluate", run.location, "--split", "test", "--profile", str(profiles)]
    assert cli.main(words) == 0
    assert "aten::convolution" in names(profiles, "Predictor-worker0")
    assert "predict" in flame(profiles, "Predictor-worker0")
    assert {file.name.partition(".")[0] for file in profiles.iterdir()} == {
        "train", "evaluate", "ShardWriter-worker0", "Predictor-worker0",
        "reconstruct-worker0", "answer-worker0",
    }  # fmt: skip
