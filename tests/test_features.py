"""DualVGR from feature files, without videos: prepare, extract, train, evaluate."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import ray
import torch

from benchmarks.synthetic_features import Synthesis, answers_of_videos
from msvqa.checks.features import survey_features
from msvqa.checks.recipe import check
from msvqa.data.loader import evaluation_batches, training_batches
from msvqa.data.medium import Medium
from msvqa.data.order import count_visits, plan_epoch
from msvqa.data.processors.processor import processor_of, store_location, store_spec
from msvqa.data.store import write_index, write_shard
from msvqa.doctor import doctor
from msvqa.engine.asking import Question
from msvqa.engine.checkpoint import read_weights
from msvqa.engine.inputs import make_resident, model_sizes, open_inputs
from msvqa.engine.loop import StageJob, StageLoop, train_stage
from msvqa.engine.prediction import Part, PredictionJob, Predictor
from msvqa.errors import CheckpointError, DataError, NonFiniteLossError, RunError
from msvqa.evaluate import Asked, evaluate, record
from msvqa.extract import extract
from msvqa.models.layers.network import ClipEncoder
from msvqa.models.model import build_model
from msvqa.objectives.answering import Answering
from msvqa.predict import predict
from msvqa.prepare import prepare
from msvqa.recipe import BatchConfig
from msvqa.report import report
from msvqa.run import Run
from msvqa.train import dry_run, train
from tests.featured import SYNTHESIS, VIDEOS, make_recipe, make_store, write_data
from tests.local_host import LocalHost

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("featured"))


@pytest.fixture(scope="module")
def stored(folder):
    """Recipe, prepared folder and store."""
    recipe = make_recipe(folder)
    return recipe, *make_store(recipe)


def copy_files(folder: Path, target: Path, keep: int) -> dict[str, str]:
    """Copy the feature files with the first rows only; return the overrides that name them."""
    overrides = []
    for part, name in (("appearance", "resnet_features"), ("motion", "resnext_features")):
        with (
            h5py.File(folder / f"f_{part}_feat.h5") as old,
            h5py.File(target / f"{part}.h5", "w") as new,
        ):
            chosen = np.flatnonzero(old["ids"][:] <= keep)
            new["ids"], new[name] = old["ids"][chosen], old[name][chosen]
        overrides.append(f"features.{part}_hdf5={target / f'{part}.h5'}")
    return overrides


def test_features_depend_on_the_answers_alone(folder):
    answers = answers_of_videos(make_recipe(folder).data)
    one, other = SYNTHESIS.video("1", answers["1"]), SYNTHESIS.video("1", answers["1"])
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    quiet = Synthesis(num_clips=2, appearance_width=512, motion_width=8, noise=0.0, visible=1.0)
    appearance, _ = quiet.video("9", {"cat": 1, "man": 4})
    cat, man = quiet.codes(["cat", "man"])[0]
    np.testing.assert_allclose(appearance[0, 0], cat + 2 * man, rtol=1e-5, atol=1e-5)
    assert abs(np.corrcoef(cat, man)[0, 1]) < 0.2


def test_missing_videos_are_no_problem_where_features_come_from_files(folder):
    recipe = make_recipe(folder)
    assert not processor_of(recipe).reads_files
    with pytest.raises(DataError, match="84 of 84 videos are missing"):
        prepare(recipe.data)
    prepared = prepare(recipe.data, need_videos=False)
    assert len(prepared.split("train")) == 0
    assert len(prepared.split("train", present_only=False)) == 3 * VIDEOS["train"]


def test_videos_without_a_row_are_refused_by_name(folder, tmp_path):
    overrides = copy_files(folder, tmp_path, keep=80)
    with pytest.raises(DataError, match=r"4 of 84 videos have no row in (.|\n)*- 81\n(.|\n)*- 84"):
        extract(make_recipe(folder, *overrides))
    nothing = copy_files(folder, tmp_path, keep=0)
    with pytest.raises(DataError, match="are these the features of"):
        extract(make_recipe(folder, *nothing, "data.allow_missing=true"))
    with pytest.raises(DataError, match="none of the training videos"):
        train(make_recipe(folder, *nothing, "name=nothing", "data.allow_missing=true"))


def test_an_unpooled_file_is_explained_before_anything_starts(folder):
    recipe = make_recipe(folder, "features.motion_width=4")
    with pytest.raises(DataError, match=r"4 times what is wanted.*set features\.pool_motion=true"):
        check(recipe)


def test_a_dry_run_needs_no_store(folder, tmp_path):
    (estimate,) = dry_run(make_recipe(folder, f"data.prepared={tmp_path / 'p'}"))
    assert estimate.steps == 6 and estimate.step_s > 0


def test_resident_features_give_the_same_batches(stored):
    recipe, prepared, store = stored
    host = open_inputs(recipe, prepared, str(store.path), "train", CPU)
    resident = make_resident(host.source, CPU)
    assert resident.resident["appearance"].shape == (VIDEOS["train"], 3, 4, 24)
    assert resident.resident["appearance"].dtype == torch.float16
    split = host.split
    plan = plan_epoch(split, BatchConfig(videos=4, questions_per_video=2), seed=0, epoch=0)
    ways = [
        lambda inputs: training_batches(split, inputs.source, plan),
        lambda inputs: evaluation_batches(split, inputs.source, [5, 0, 7], 2),
    ]
    for way in ways:
        for one, other in zip(way(host), way(resident), strict=True):
            assert "appearance" not in other
            one, other = host.to_device(one, CPU), resident.to_device(other, CPU)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)


def job_of(recipe, prepared, store) -> StageJob:
    run = Run.create(recipe)
    return StageJob(
        recipe=recipe.to_dict(), stage=0, run=str(run.path), prepared=str(prepared.path),
        store=str(store.path),
    )  # fmt: skip


class ResidentLoop(StageLoop):
    """The loop as on a GPU with `features.resident: device`."""

    def __init__(self, job, host):
        super().__init__(job, host)
        self.training = make_resident(self.training.source, self.device)
        self.validation = make_resident(self.validation.source, self.device)


@pytest.mark.long
def test_resident_features_train_the_same_weights(stored, tmp_path):
    _, prepared, store = stored
    weights = []
    for name, loop in (("host", StageLoop), ("resident", ResidentLoop)):
        recipe = make_recipe(store.path.parents[1], f"runs={tmp_path}", f"name={name}")
        loop(job_of(recipe, prepared, store), LocalHost(Path(recipe.run_location) / "answer")).run()
        weights.append(read_weights(Run.open(recipe.run_location).checkpoint("answer", "last")))
    for name, value in weights[0].items():
        assert torch.equal(weights[1][name], value), name


def test_what_depends_on_the_video_is_computed_once_per_visit(stored, monkeypatch):
    recipe, prepared, store = stored
    inputs = open_inputs(recipe, prepared, str(store.path), "train")
    objective = Answering(Answering.Config(), build_model(recipe, model_sizes(recipe, prepared)))
    seen = []
    encode = ClipEncoder.forward

    def counting(self, frames):
        seen.append(len(frames))
        return encode(self, frames)

    monkeypatch.setattr(ClipEncoder, "forward", counting)
    rows = inputs.split.examples.medium
    plan = plan_epoch(inputs.split, BatchConfig(videos=8, questions_per_video=2), seed=0, epoch=0)
    for batch in training_batches(inputs.split, inputs.source, plan):
        objective.loss(batch)
    visits = count_visits(rows, 2)
    assert plan.weight.any(axis=2).sum() == visits == 2 * VIDEOS["train"]
    assert sum(seen) == plan.media.size == visits, "96 visits fill 8 lanes evenly"
    seen.clear()
    objective.eval()
    every = list(range(VIDEOS["train"]))
    for batch in evaluation_batches(inputs.split, inputs.source, every, 5):
        objective.predict(batch)
    assert sum(seen) == VIDEOS["train"], "evaluation encodes every video once"


def test_rows_say_how_much_memory_was_used(stored, tmp_path):
    _, prepared, store = stored
    recipe = make_recipe(store.path.parents[1], f"runs={tmp_path}")
    train_stage(job_of(recipe, prepared, store), LocalHost(Path(recipe.run_location) / "answer"))
    rows = [row for row in Run.open(recipe.run_location).metrics() if row["kind"] == "train"]
    assert all(0.05 < row["memory_gb"] < 50 for row in rows)


def spoil(file: Path, video: int, value: float) -> str:
    """Set numbers of a video's row; return the row's number."""
    with h5py.File(file, "r+") as data:
        row = data["ids"][:].tolist().index(video)
        data["resnet_features"][row, 1] = value
    return f"row {row}"


@pytest.mark.long
@pytest.mark.parametrize("video", [5, 50, 80], ids=["train", "val", "test"])
def test_rows_that_are_not_finite_are_named_before_ray_starts(folder, tmp_path, video):
    files = copy_files(folder, tmp_path, keep=84)
    row = spoil(tmp_path / "appearance.h5", video, np.nan)
    recipe = make_recipe(folder, *files, f"runs={tmp_path}", f"features.store={tmp_path / 's'}")
    said = (
        rf"1 of 84 videos have features that cannot be used:\n"
        rf"  - video {video}: {tmp_path}/appearance\.h5: resnet_features, {row}: "
        rf"96 of 288 numbers are not finite\n.*data\.allow_missing=true"
    )
    for verb in (train, dry_run, extract):
        with pytest.raises(DataError, match=said):
            verb(recipe)
    assert not ray.is_initialized()
    assert not (tmp_path / "featured").exists()
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    (found,) = [one for one in doctor(tmp_path / "recipe.yaml").checks if one.name == "features"]
    assert found.status == "fail"
    assert f"video {video}: {tmp_path}/appearance.h5: resnet_features, {row}: " in found.detail


def test_a_dry_run_goes_on_without_rows_that_are_not_finite(folder, tmp_path, caplog):
    files = copy_files(folder, tmp_path, keep=84)
    spoil(tmp_path / "appearance.h5", 5, np.inf)
    spoil(tmp_path / "appearance.h5", 6, 0)
    store, allowed = f"features.store={tmp_path / 's'}", "data.allow_missing=true"
    (estimate,) = dry_run(make_recipe(folder, *files, store, allowed))
    assert np.isfinite(estimate.loss)
    assert "1 of 84 videos have features that cannot be used" in caplog.text
    assert "  - video 5: " in caplog.text
    assert "nothing but zeros" not in caplog.text, "one clip of three is"
    with h5py.File(tmp_path / "appearance.h5", "r+") as data:
        values = data["resnet_features"][:]
        values[data["ids"][:] <= VIDEOS["train"]] = np.nan
        data["resnet_features"][...] = values
    with pytest.raises(DataError, match=r"48 of 84 videos have .*(.|\n)*no training video is left"):
        dry_run(make_recipe(folder, *files, store, allowed))


def test_what_a_store_has_refused_is_looked_at_again(folder, tmp_path):
    files = copy_files(folder, tmp_path, keep=84)
    row = spoil(tmp_path / "appearance.h5", 5, np.nan)
    recipe = make_recipe(folder, *files, f"features.store={tmp_path / 's'}")
    video_ids = [str(video) for video in range(1, 85)]
    extractor = processor_of(recipe).extractor()
    entries = [extractor.extract(Medium(video)) for video in video_ids]
    assert [entry.video_id for entry in entries if entry.outcome != "ok"] == ["5"]
    assert entries[4].outcome == "not_finite"
    size, spec = store_spec(recipe).videos_per_shard, store_spec(recipe)
    shards = [
        write_shard(tmp_path / "s", number, spec, entries[start : start + size], {})
        for number, start in enumerate(range(0, len(entries), size))
    ]
    write_index(tmp_path / "s", spec, shards, {})
    found = survey_features(recipe, processor_of(recipe).files(), video_ids)
    assert set(found.unusable) == {"5"}
    assert row in found.unusable["5"]
    del extractor  # It has the file open.
    spoil(tmp_path / "appearance.h5", 5, 1.0)
    assert not survey_features(recipe, processor_of(recipe).files(), video_ids).unusable


@pytest.fixture
def broken(monkeypatch) -> set[int]:
    """Videos, as rows of whatever split, that the model answers with what is no number."""
    rows: set[int] = set()
    answer = Answering.predict

    def predict(self, batch):
        found = answer(self, batch)
        videos = batch["video"][batch["video_index"]]
        found["probability"][torch.isin(videos, torch.tensor([*rows]))] = float("nan")
        return found

    monkeypatch.setattr(Answering, "predict", predict)
    return rows


def trained(stored, target: Path) -> Run:
    """Train a run of its own for one epoch in this process."""
    recipe, prepared, store = stored
    recipe = make_recipe(store.path.parents[1], f"runs={target}")
    train_stage(job_of(recipe, prepared, store), LocalHost(Path(recipe.run_location) / "answer"))
    return Run.open(recipe.run_location)


def count(run: Run) -> dict:
    """Evaluate the test split of a run in this process."""
    prepared = prepare(run.recipe.data, need_videos=False)
    checkpoint, questions = run.checkpoint(), prepared.split("test", False)
    job = PredictionJob(
        checkpoint=run.locate(checkpoint), prepared=prepared.location,
        store=store_location(run.recipe), split="test", recipe=run.recipe.to_dict(),
    )  # fmt: skip
    rows = Predictor(job, "cpu")(Part(Question("predict", "both"), range(len(questions.media))))
    order = np.argsort(rows["row"])
    predictions = {key: value[order] for key, value in rows.items()}
    return record(
        Asked.of(run, [], questions.name, None), checkpoint, prepared, questions, predictions
    )


@pytest.mark.long
def test_answers_that_are_not_finite_are_named_counted_and_wrong(stored, tmp_path, caplog, broken):
    broken.add(3)
    run = trained(stored, tmp_path)
    (row,) = [row for row in run.metrics() if row["kind"] == "validation"]
    assert row["not_finite"] == 3
    assert 0 <= row["accuracy"] <= 33 / 36
    metrics = count(run)
    assert (metrics["n"], metrics["n_not_finite"]) == (72, 3)
    assert "for 3 of 72 questions of split 'test' the predictions are not finite" in caplog.text
    written, table = run.evaluation("test")
    rows = table.to_pylist()
    assert written["accuracy"] == sum(row["correct"] for row in rows) / 72
    bad = [row for row in rows if row["predicted"] is None]
    assert len(bad) == 3
    (video,) = {row["video_id"] for row in bad}
    assert f"videos:\n  - {video}" in caplog.text
    assert all((row["correct"], row["top"], row["probability"]) == (False, [], []) for row in bad)
    assert all(len(row["probability"]) == 5 for row in rows if row["predicted"] is not None)
    report(run.path)
    assert "3 of 72 questions were answered with numbers that are not finite" in (
        " ".join((run.path / "report.html").read_text(encoding="utf-8").split())
    )
    broken.update(range(24))
    with pytest.raises(CheckpointError, match=r"step-\d+: for 72 of 72 questions of split 'test'"):
        count(run)


def test_a_validation_without_any_number_ends_the_stage(stored, tmp_path, broken):
    broken.update(range(12))
    with pytest.raises(NonFiniteLossError, match="36 of 36 predictions of validation are not fin"):
        trained(stored, tmp_path)


def test_a_dry_run_whose_loss_is_not_finite_names_the_videos(folder, tmp_path, monkeypatch):
    loss = Answering.loss
    monkeypatch.setattr(
        Answering, "loss", lambda self, batch: {"loss": loss(self, batch)["loss"] * float("nan")}
    )
    with pytest.raises(NonFiniteLossError, match=r"first batch is not finite; its videos: \d+, "):
        dry_run(make_recipe(folder, f"data.prepared={tmp_path / 'p'}"))


@pytest.mark.ray
def test_the_whole_job_beats_the_text_without_videos(folder, tmp_path, ray_local):
    # Videos 81 to 84, of the test split, have no features, and those of 80 are not finite; the
    # motion file has 4 positions each.
    overrides = copy_files(folder, tmp_path, keep=80)
    spoil(tmp_path / "appearance.h5", 80, np.nan)
    with h5py.File(tmp_path / "motion.h5", "r+") as data:
        pooled = data["resnext_features"][:]
        spread = np.array([-0.5, 0.5, 1.0, -1.0], np.float32)
        unpooled = (pooled[..., None] + spread).reshape(*pooled.shape[:2], -1)
        del data["resnext_features"]
        data["resnext_features"] = unpooled
    recipe = make_recipe(
        folder, *overrides, f"runs={tmp_path}", "features.pool_motion=true",
        "features.dtype=float32", "data.allow_missing=true", "stages.0.epochs=8",
        "stages.0.batch.questions_per_video=1",
    )  # fmt: skip
    run = train(recipe)
    store = extract(recipe)
    assert sorted(store.rejected) == ["80", "81", "82", "83", "84"]
    assert store.rejected["81"][0] == "no_features"
    assert store.rejected["80"][0] == "not_finite"
    with h5py.File(tmp_path / "motion.h5") as data:
        row = data["ids"][:].tolist().index(5)
        expected = data["resnext_features"][row].reshape(3, 16, 4).mean(-1)
    np.testing.assert_allclose(store.read("5")["motion"], expected, atol=1e-5)

    metrics = evaluate(run.path, "test")
    assert (metrics["n"], metrics["n_expected"]) == (57, 72)
    assert list(metrics["per_type"]) == ["what", "who", "where"]
    assert metrics["accuracy_interval"][0] > metrics["question_only_accuracy"] + 0.1
    with pytest.raises(RunError, match="trained on extracted features"):
        predict(run.path, "any.avi", "what is it?")
    assert store_location(recipe) == store.location

    before = store.read("5")["motion"].copy()
    # As an earlier version left it, which looked at no number; and the row is mended in its place.
    for marker in (*store.path.glob("shards/*/shard.json"), store.path / "store.json"):
        content = json.loads(marker.read_text())
        del content["finite"]
        marker.write_text(json.dumps(content))
    shard = next(n for n, videos in enumerate(store._shards) if "5" in videos)
    array = np.load(store.path / f"shards/{shard:05d}/motion.npy")
    array[store._shards[shard].index("5")] = np.inf
    np.save(store.path / f"shards/{shard:05d}/motion.npy", array)
    spoil(tmp_path / "appearance.h5", 80, 1.0)
    again = extract(recipe)
    assert again.is_finite and sorted(again.rejected) == ["81", "82", "83", "84"]
    np.testing.assert_array_equal(again.read("5")["motion"], before)
