"""Train, evaluate and predict on a real Ray cluster, with two workers."""

import json
import re
import shutil
import socket
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import msvqa
from msvqa.checks.recipe import check
from msvqa.data.datasets.synthetic import generate
from msvqa.data.processors.processor import store_location
from msvqa.engine.checkpoint import read_weights
from msvqa.engine.cluster import Resources, place
from msvqa.engine.loop import StageJob
from msvqa.engine.stopping import StopRequest
from msvqa.engine.trainer import train_stage_on_ray
from msvqa.errors import (
    CheckpointError,
    ClusterError,
    DataError,
    RecipeError,
    RunError,
    StoppedError,
)
from msvqa.evaluate import evaluate, rescore
from msvqa.extract import extract
from msvqa.recipe import Recipe, parse
from msvqa.run import Run
from msvqa.space import parse_space
from msvqa.train import Progress, dry_run, train
from msvqa.tune import tune
from tests.faults.bench import Bench
from tests.said import when_said
from tests.tiny import VIDEOS, make_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    generate(folder / "data", videos=VIDEOS)
    return folder


@pytest.fixture(scope="module")
def speeds() -> list[str]:
    """What training has said of its speed."""
    return []


@pytest.fixture(scope="module")
def run(folder: Path, ray_local: object, speeds: list[str]) -> Run:
    """The tiny recipe, trained by two workers."""
    return train(two_workers(folder, "name=two"), Progress(on_speed=speeds.append))


def two_workers(folder: Path, *overrides: str) -> Recipe:
    # Half a CPU each leaves one for decoding.
    return make_recipe(folder, "scaling.workers=2", "scaling.cpus_per_worker=0.5", *overrides)


@pytest.mark.ray
def test_a_run_is_readable_without_this_package(run):
    names = {path.name for path in run.path.iterdir()}
    assert {"recipe.yaml", "environment.json", "metrics.jsonl", "tensorboard", "logs"} <= names
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert {(r["stage"], r["kind"]) for r in rows} == {
        (stage, kind) for stage in ("reconstruct", "answer") for kind in ("train", "validation")
    }
    assert [r["step"] for r in rows if r["stage"] == "answer"] == sorted(
        r["step"] for r in rows if r["stage"] == "answer"
    )
    assert all(run.is_finished(stage.name) for stage in run.recipe.stages)
    assert list((run.path / "logs").glob("answer-worker1.log"))
    assert list((run.path / "tensorboard" / "answer").glob("events.*"))


@pytest.mark.ray
def test_extraction_and_each_stage_end_with_a_line_of_their_speed(run, speeds):
    extraction, *stages = speeds
    assert re.match(
        r"speed of extraction: \S+ media/s on 1 worker \(.*decoding \d+%.*\); `msvqa doctor "
        r"--speed RECIPE` measures .*; (reading|decoding|computing|writing) limits$",
        extraction,
    )
    assert len(stages) == 2
    for line, stage in zip(stages, ("reconstruct", "answer"), strict=True):
        assert re.match(
            rf"speed of stage {stage}: \S+ examples/s on 2 workers; waiting for data \d+% of the "
            r"time; \S+ TFLOP/s a worker, \d+% of its best fp32 matrix product; "
            r"(data|computing) limits$",
            line,
        )
    for row in (row for row in run.metrics() if row["kind"] == "train"):
        assert row["workers"] == 2


@pytest.mark.ray
def test_the_same_command_again_has_nothing_to_do(run, folder):
    before = run.metrics_file.read_bytes()
    said, speeds = [], []
    progress = Progress(on_stage=lambda *words: said.append(words), on_speed=speeds.append)
    train(two_workers(folder, "name=two"), progress)
    assert run.metrics_file.read_bytes() == before
    assert not speeds


@pytest.mark.ray
def test_a_changed_recipe_is_refused_in_one_sentence(run, folder):
    with pytest.raises(
        RunError, match=r"recipe has changed \(stages\.1\.optimizer\.lr: 0\.001 -> 0\.1\)"
    ):
        train(two_workers(folder, "name=two", "stages.1.optimizer.lr=0.1"))


@pytest.mark.ray
def test_evaluation_and_prediction_agree(run, folder, caplog):
    metrics = evaluate(run.path, "test")
    assert metrics["n"] == metrics["n_expected"] == VIDEOS["test"] * 7
    table = pq.read_table(run.evaluation_dir("test") / "predictions.parquet").to_pylist()
    assert len({row["question_id"] for row in table}) == metrics["n"]
    assert sum(row["correct"] for row in table) == round(metrics["accuracy"] * metrics["n"])
    stems = dict(
        reversed(line.split(" vid"))
        for line in (folder / "data" / "youtube_mapping.txt").read_text().splitlines()
    )
    row = table[0]
    video = folder / "data" / "video" / f"{stems[row['video_id']]}.avi"
    answerer = msvqa.from_pretrained(run.path)
    answers = answerer.answer(video, row["question"])
    assert not caplog.text
    assert [answer.text for answer in answers] == row["top"]
    assert answers[0].probability == pytest.approx(row["probability"][0], abs=1e-5)
    answerer.answer(video, "what zorbles, or what blorps?")
    assert "not among the words of training: zorbles, or, blorps" in caplog.text


@pytest.mark.ray
def test_evaluation_where_the_data_is_elsewhere(run, folder, tmp_path):
    expected = evaluate(run.path, "test")
    elsewhere = shutil.copytree(folder / "data", tmp_path / "moved")
    overrides = [f"data.root={elsewhere}", f"data.prepared={tmp_path / 'p'}"]
    assert evaluate(run.path, "test", [*overrides, "scaling.data_workers=1"]) == expected
    assert (tmp_path / "p" / "prepare.json").is_file()
    assert "moved" not in (run.path / "recipe.yaml").read_text()


@pytest.mark.ray
def test_evaluation_on_other_data_that_the_recipe_names(run, folder, tmp_path):
    expected = evaluate(run.path, "test")
    before = (folder / "p" / "prepare.json").read_bytes()
    other = shutil.copytree(folder / "data", tmp_path / "other")
    for split in ("train", "val"):
        (other / f"{split}_qa.json").write_text("[]")
    data = f"{{name: msvd_qa, root: {other}, prepared: {tmp_path / 'p'}, allow_missing: true}}"
    overrides = [f"evaluations.there.data={data}", "evaluations.there.evaluation.top_k=2"]
    metrics = evaluate(run.path, overrides=overrides, on="there")
    assert metrics["evaluation"] == "there" and metrics["split"] == "test"
    assert metrics["accuracy"] == expected["accuracy"], "read in the words of the model"
    known = expected["baselines"]["question_only"]
    assert metrics["baselines"]["question_only"] == known > 0, "of what the model was trained on"
    assert (run.path / "evaluate" / "there" / "predictions.parquet").is_file()
    assert {"test", "there"} <= set(run.evaluated())
    assert rescore(run.path, overrides=overrides, on="there") == metrics
    with pytest.raises(RecipeError, match=r"there is no 'thre'.*did you mean 'there'"):
        evaluate(run.path, overrides=overrides, on="thre")
    assert (folder / "p" / "prepare.json").read_bytes() == before
    train(two_workers(folder, "name=two", *overrides))


@pytest.mark.ray
def test_evaluation_touches_nothing_that_belongs_to_other_data(run, folder, tmp_path):
    other = shutil.copytree(folder / "data", tmp_path / "other")
    before = (folder / "p" / "prepare.json").read_bytes()
    with pytest.raises(RecipeError, match=r"data\.prepared: belongs to .*; name another"):
        evaluate(run.path, "test", [f"data.root={other}"])
    questions = other / "train_qa.json"
    questions.write_text(questions.read_text().replace("what", "which"))
    overrides = [f"data.root={other}", f"data.prepared={tmp_path / 'p'}"]
    with pytest.raises(CheckpointError, match="was trained with other vocabulary than"):
        evaluate(run.path, "test", overrides)
    assert (folder / "p" / "prepare.json").read_bytes() == before
    assert not list(tmp_path.glob("p/clips*")), "nothing was extracted for it"


@pytest.mark.ray
def test_evaluation_of_a_damaged_checkpoint_is_refused_at_once(run, tmp_path):
    damaged = Run(shutil.copytree(run.path, tmp_path / "two"), run.recipe)
    weights = damaged.checkpoint() / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged"):
        evaluate(damaged.path, "test")


def test_evaluation_does_not_change_what_was_trained(tmp_path):
    run = Run.create(make_recipe(tmp_path))
    with pytest.raises(RecipeError, match=r"clips\.size_px: 32 -> 64: was trained so; may change"):
        evaluate(run.path, "test", ["clips.size_px=64"])


@pytest.mark.ray
def test_decoding_while_training_gives_the_same_weights(folder, ray_local):
    weights = {}
    for cache in ("store", "none"):
        raw = make_recipe(folder, f"name={cache}", f"clips.cache={cache}").to_dict()
        run = train(parse(raw | {"stages": raw["stages"][:1]}))
        weights[cache] = read_weights(run.checkpoint("reconstruct", "last"))
    for name, value in weights["store"].items():
        assert torch.equal(weights["none"][name], value), name


@pytest.mark.ray
def test_a_stage_without_room_says_so_can_be_stopped_and_goes_on(folder, ray_local, caplog):
    raw = make_recipe(folder, "name=waits", "scaling.workers=2").to_dict()
    recipe = parse(raw | {"stages": raw["stages"][:1]})
    # A placement group holds a CPU until it is removed.
    taken = ray_local.util.placement_group([{"CPU": 1}])
    ray_local.get(taken.ready(), timeout=60)
    waits = "stage reconstruct waits for 2 workers x (1 CPUs, 0 GPUs): the cluster has 2 CPUs"
    with (
        when_said(waits, caplog, lambda: StopRequest(recipe.run_location).ask("test")),
        pytest.raises(StoppedError, match="before its workers had started"),
    ):
        train(recipe)
    caplog.clear()
    with when_said(waits, caplog, lambda: ray_local.util.remove_placement_group(taken)):
        run = train(recipe)
    assert "stage reconstruct goes on with 2 workers" in caplog.text
    assert waits in ((run.path / "logs") / "reconstruct-driver.log").read_text()
    assert run.is_finished("reconstruct")


def test_what_is_wrong_with_the_data_leaves_no_run(folder):
    """A run's recipe could not be put right any more."""
    recipe = make_recipe(folder, "name=typo", f"data.root={folder}/typo")
    with pytest.raises(DataError, match="typo"):
        train(recipe)
    assert not Path(recipe.run_location).exists()


def test_batches_by_length_of_what_has_no_length_are_refused_before_ray_starts(folder):
    recipe = make_recipe(folder, "name=by_length", "stages.1.batch.by_length=true")
    with pytest.raises(RecipeError, match=r"stages\.1\.batch\.by_length: questions have no len"):
        train(recipe)
    assert not Path(recipe.run_location).exists()


@pytest.mark.long
def test_a_dry_run_estimates_every_stage(folder):
    estimates = dry_run(make_recipe(folder))
    assert [e.stage for e in estimates] == ["reconstruct", "answer"]
    for estimate in estimates:
        assert 0 < estimate.trained_parameters < estimate.parameters
        assert estimate.steps and estimate.step_s > 0 and estimate.peak_memory_bytes > 1e6


def test_more_workers_than_cpus_are_refused_with_both_numbers(folder):
    recipe = make_recipe(
        folder, "scaling.workers=64", "stages.0.batch.videos=64", "stages.1.batch.videos=64"
    )
    with pytest.raises(ClusterError, match=r"asks for 64 workers .* but there are \d+ CPUs"):
        check(recipe)
    recipe = make_recipe(folder, "scaling.gpus_per_worker=99")
    with pytest.raises(ClusterError, match=r"99 GPUs"):
        check(recipe)


def test_all_problems_of_a_recipe_come_together(folder):
    recipe = make_recipe(
        folder,
        "scaling.workers=2",
        "stages.0.batch.videos=3",
        "stages.1.optimizer.lr_of={backbon: 0.1}",
        "model.appearance.weights=nowhere.pth",
    )
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    text = str(caught.value)
    assert "3 problems" in text
    assert "stages.0.batch.videos: 3 is not a multiple" in text
    assert "did you mean 'backbone'?" in text
    assert "model.appearance.weights: there is no file" in text


@pytest.mark.long
def test_the_batch_must_fit_every_number_of_workers(folder):
    batches = [f"stages.{stage}.batch.videos=4" for stage in (0, 1)]
    check(make_recipe(folder, "scaling.workers={min: 1, max: 2}", *batches))
    with pytest.raises(RecipeError, match=r"= 3 x 1; multiples of 6 serve all counts"):
        check(make_recipe(folder, "scaling.workers={min: 2, max: 3}", *batches))
    with pytest.raises(RecipeError, match=r"scaling.workers: a range .* clips.cache=store"):
        overrides = ("scaling.workers={min: 1, max: 2}", "clips.cache=none")
        check(make_recipe(folder, *overrides, *batches))


@pytest.mark.ray
def test_what_would_happen_again_is_not_tried_again(folder, run, ray_local, tmp_path):
    other = make_recipe(folder, "name=again", f"runs={tmp_path}", "faults.max_failures=-1")
    job = StageJob(
        recipe=other.to_dict(),
        stage=1,
        run=other.run_location,
        prepared=str(tmp_path / "nothing"),
        store=store_location(other),
    )
    with pytest.raises(DataError, match="nothing"):
        train_stage_on_ray(job, Run.create(other), place(other.scaling, Resources(2, 0)))


@pytest.mark.ray
@pytest.mark.slow
def test_workers_that_die_too_often_are_an_error(tmp_path):
    bench = Bench(tmp_path)
    recipe = bench.recipe_file("deadly", faults={"max_failures": 0})
    command = bench.train(recipe)
    command.until(bench.reached(recipe), "step 8")
    command.training_workers()[-1].kill()
    assert command.ends() == 2, command.said()
    said = command.said()
    assert "error: workers died more often than faults.max_failures=0 allows" in said
    assert "Traceback" not in said


def search(recipe: Recipe) -> None:
    fields = {"stages.0.optimizer.lr": {"choice": [1e-3, 1e-2]}}
    tune(recipe, parse_space({"name": "rates", "fields": fields, "samples": 2}))


@pytest.mark.parametrize("verb", [train, extract, search])
def test_an_absent_cluster_is_named_before_data_is_read(tmp_path, monkeypatch, verb):
    generate(tmp_path / "data", videos=VIDEOS)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=f"reached at RAY_ADDRESS={address}"):
            verb(make_recipe(tmp_path))
    assert not (tmp_path / "p" / "prepare.json").exists()


@pytest.mark.long
def test_no_videos_is_an_error_before_ray_starts(tmp_path, folder):
    for file in (folder / "data").glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    overrides = (f"data.root={tmp_path}", f"data.prepared={tmp_path / 'p'}", f"runs={tmp_path}")
    with pytest.raises(DataError, match=r"allow.missing"):
        train(make_recipe(folder, *overrides))
    with pytest.raises(DataError, match="none of the 6 training videos is present"):
        train(make_recipe(folder, *overrides, "data.allow_missing=true"))
