"""The training loop without Ray: resume, frozen parts, accumulation, non-finite losses."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.loader import MediaSource, Prefetched, evaluation_batches, training_batches
from msvqa.data.order import Share, plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import store_location
from msvqa.engine.checkpoint import Position, load_checkpoint, read_weights
from msvqa.engine.distributed import gather_objects
from msvqa.engine.inputs import open_inputs
from msvqa.engine.loop import Saver, StageLoop, train_stage
from msvqa.engine.prediction import objective_of, predict_split
from msvqa.engine.stopping import StopRequest
from msvqa.errors import CheckpointError, NonFiniteLossError, RunError, StoppedError
from msvqa.evaluate import evaluate
from msvqa.objectives import reconstruction
from msvqa.predict import from_pretrained
from msvqa.recipe import BatchConfig, Recipe, parse
from msvqa.run import Run
from tests.engine.gloo import run_in_processes
from tests.local_host import LocalHost, StoppingHost
from tests.tiny import make_job, make_recipe


class GroupHost(StoppingHost):
    """One of several workers; all of them die after a number of checkpoints."""

    def __init__(self, folder: Path, reports: int, rank: int) -> None:
        super().__init__(folder, reports)
        self.rank = rank

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        try:
            if self.rank == 0:
                LocalHost.report(self, numbers, save)
        finally:
            gather_objects(None)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def train(
    recipe: Recipe, stage: int, host: LocalHost | None = None, start: Path | None = None
) -> Position:
    run, job = make_job(recipe, stage, start)
    return train_stage(job, host or LocalHost(run.stage_dir(recipe.stages[stage].name)))


def final_weights(recipe: Recipe, stage: str) -> dict[str, torch.Tensor]:
    return read_weights(Run.open(recipe.run_location).checkpoint(stage, "last"))


def assert_equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


class Counted:
    """A source of media that notes how many of its streams are open."""

    def __init__(self, source: MediaSource) -> None:
        self.source, self.open = source, 0

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        self.open += 1
        try:
            yield from self.source.batches(groups, chance)
        finally:
            self.open -= 1


class Waiting(Counted):
    """A source that needs what the streams of another one hold, as decoding needs processors."""

    def __init__(self, source: MediaSource, other: Counted) -> None:
        super().__init__(source)
        self.other = other

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        deadline = time.monotonic() + 5
        while self.other.open:
            assert time.monotonic() < deadline, "training holds its stream"
            time.sleep(0.01)
        return super().batches(groups, chance)


@pytest.mark.parametrize(
    ("every", "options"),
    [
        (1, ("stages.1.epochs=null", "stages.1.steps=1")),
        (1, ("stages.1.validate.every_steps=1",)),
        (2, ("stages.1.validate.every_steps=2", "stages.1.batch.accumulate=2")),
    ],
)
def test_a_stream_of_training_ends_before_a_validation_needs_its_processors(
    tiny, tmp_path, every, options
):
    recipe = make_recipe(tiny, f"runs={tmp_path}", "stages.1.init_from=null", *options)
    run, job = make_job(recipe, 1)
    loop = StageLoop(job, LocalHost(run.stage_dir("answer")))
    training = Counted(loop.training.source)
    loop.training = replace(loop.training, source=training)
    loop.validation = replace(loop.validation, source=Waiting(loop.validation.source, training))
    loop.run()
    steps = [row["step"] for row in run.metrics() if row["kind"] == "validation"]
    assert steps == sorted({*range(every, loop.total_steps + 1, every), loop.total_steps})
    assert run.is_finished("answer")


def test_validations_within_epochs_change_no_weights(tiny, tmp_path):
    options = (f"runs={tmp_path}", "stages.1.init_from=null")
    whole = make_recipe(tiny, *options, "name=whole")
    often = make_recipe(tiny, *options, "name=often", "stages.1.validate.every_steps=1")
    for recipe in (whole, often):
        train(recipe, 1)
    assert_equal(final_weights(whole, "answer"), final_weights(often, "answer"))


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("reports", [1, 2])
def test_resume_in_the_middle_of_an_epoch_equals_uninterrupted(tiny, tmp_path, stage, reports):
    name = ("reconstruct", "answer")[stage]
    options = (
        f"runs={tmp_path}",
        f"stages.{stage}.checkpoint.every_steps=2",
        f"stages.{stage}.epochs=2",
    )
    whole = make_recipe(tiny, *options, "name=whole")
    cut = make_recipe(tiny, *options, "name=cut")
    train(whole, stage)
    with pytest.raises(KeyboardInterrupt):
        train(cut, stage, StoppingHost(Path(cut.run_location) / name, reports))
    assert not Run.open(cut.run_location).is_finished(name)
    train(cut, stage)
    assert Run.open(cut.run_location).is_finished(name)
    assert_equal(final_weights(whole, name), final_weights(cut, name))
    logged = [
        [
            (r["kind"], r["step"], r.get("loss"))
            for r in Run.open(recipe.run_location).metrics()
            if r["kind"] == "validation"
        ]
        for recipe in (whole, cut)
    ]
    assert logged[0] == logged[1]


ONE_STEP = "stages.1.batch={videos: 6, questions_per_video: 7}"


class CountingHost(LocalHost):
    """Remembers after which steps there were a validation and a checkpoint."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reports: list[tuple[int, bool]] = []

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        super().report(numbers, save)
        self.reports.append((save.step, "accuracy" in numbers))


@pytest.mark.long
@pytest.mark.parametrize(
    ("least", "steps"),
    [
        ("null", [*range(2, 41, 2), 41]),
        ("12", [12, 24, 36, 41]),
        ("1000", [41]),
    ],
)
def test_short_epochs_are_validated_and_saved_at_a_distance_and_at_the_end(
    tiny, tmp_path, least, steps
):
    recipe = make_recipe(
        tiny, f"runs={tmp_path}", ONE_STEP, "stages.1.epochs=41",
        f"stages.1.least_steps_between_validations={least}",
    )  # fmt: skip
    run, job = make_job(recipe, 1)
    host = CountingHost(run.stage_dir("answer"))
    train_stage(job, host)
    assert host.reports == [(step, True) for step in steps]


@pytest.mark.long
def test_long_epochs_end_with_a_validation_and_a_checkpoint_each(tiny, tmp_path):
    recipe = make_recipe(
        tiny, f"runs={tmp_path}", "stages.1.batch={videos: 2, questions_per_video: 7}",
        "stages.1.epochs=4", "stages.1.validate_every_epochs=2",
        "stages.1.least_steps_between_validations=3",
    )  # fmt: skip
    run, job = make_job(recipe, 1)
    host = CountingHost(run.stage_dir("answer"))
    train_stage(job, host)
    assert host.reports == [(3, False), (6, True), (9, False), (12, True)]


@pytest.mark.long
@pytest.mark.parametrize("reports", [1, 2])
def test_resume_between_distant_validations_equals_uninterrupted(tiny, tmp_path, reports):
    options = (
        f"runs={tmp_path}", "stages.1.batch={videos: 4, questions_per_video: 7}",
        "stages.1.epochs=7", "stages.1.least_steps_between_validations=5",
        "stages.1.checkpoint.every_steps=3", "stages.1.augmentation={shift: 0.2, zoom: 0.2}",
    )  # fmt: skip
    whole = make_recipe(tiny, *options, "name=whole")
    cut = make_recipe(tiny, *options, "name=cut")
    train(whole, 1)
    folder = Path(cut.run_location) / "answer"
    with pytest.raises(KeyboardInterrupt):
        train(cut, 1, StoppingHost(folder, reports))
    host = CountingHost(folder)
    train(cut, 1, host)
    assert_equal(final_weights(whole, "answer"), final_weights(cut, "answer"))
    runs = (Run.open(recipe.run_location).metrics() for recipe in (whole, cut))
    validated = [[row["step"] for row in rows if row["kind"] == "validation"] for rows in runs]
    assert validated == [[6, 10, 14]] * 2


def test_a_run_of_one_step_epochs_stops_where_it_is_asked(tiny, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}", ONE_STEP, "stages.1.epochs=60")
    run, job = make_job(recipe, 1)
    StopRequest(run.path).ask("the test")
    with pytest.raises(StoppedError, match="after step 1:"):
        train_stage(job, LocalHost(run.stage_dir("answer")))


@pytest.mark.long
def test_the_second_stage_starts_from_the_first_and_leaves_the_decoders_alone(tiny, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    train(recipe, 0)
    first = Run.open(recipe.run_location).checkpoint("reconstruct")
    train(recipe, 1, start=first)
    before, after = read_weights(first), final_weights(recipe, "answer")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed, "the second stage trains"
    assert not {name for name in changed if "_decoder." in name}, "decoders are frozen"
    state = torch.load(
        Run.open(recipe.run_location).checkpoint("answer", "last") / "training_state.pt",
        weights_only=True,
    )
    trained = sum(len(group["params"]) for group in state["optimizer"]["param_groups"])
    decoders = sum(
        "_decoder." in name for name, _ in load_checkpoint(first).model.named_parameters()
    )
    assert decoders and trained <= len(list(load_checkpoint(first).model.parameters())) - decoders


@pytest.mark.long
def test_accumulated_micro_batches_take_the_same_step(tiny, tmp_path):
    # Without dropout and with frozen statistics nothing depends on how the batch is cut.
    options = (
        f"runs={tmp_path}", "stages.0.steps=2", "stages.0.epochs=null", "stages.0.batch.videos=4",
        "model.appearance.batch_norm=frozen", "model.motion.batch_norm=frozen",
        "model.dropout=0.0", "model.state_dropout=0.0", "model.decoder.dropout=0.0",
    )  # fmt: skip
    weights = []
    for accumulate in (1, 2):
        recipe = make_recipe(
            tiny, *options, f"name=a{accumulate}", f"stages.0.batch.accumulate={accumulate}"
        )
        train(recipe, 0)
        weights.append(final_weights(recipe, "reconstruct"))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def train_in_a_group(rank: int, raw: dict[str, Any], reports: int) -> torch.Tensor:
    recipe = parse(raw)
    with suppress(KeyboardInterrupt):
        train(
            recipe, 0, GroupHost(Path(recipe.run_location) / recipe.stages[0].name, reports, rank)
        )
    end_loading()
    return torch.tensor(0)


def end_loading() -> None:
    """Wait for the thread that loads batches ahead: cut off in the middle it ends in an abort."""
    for thread in threading.enumerate():
        if thread.name == "batches":
            thread.join()


@pytest.mark.slow
def test_a_stage_goes_on_with_another_number_of_workers(tiny, tmp_path):
    # Without dropout and with frozen statistics nothing depends on how the batch is shared.
    options = (
        f"runs={tmp_path}", "stages.0.epochs=2", "stages.0.checkpoint.every_steps=2",
        "model.appearance.batch_norm=frozen", "model.motion.batch_norm=frozen",
        "model.dropout=0.0", "model.state_dropout=0.0", "model.decoder.dropout=0.0",
        "stages.0.optimizer.eps=1e-3",
    )  # fmt: skip
    whole = make_recipe(tiny, *options, "name=whole")
    train(whole, 0)
    changing = make_recipe(tiny, *options, "name=changing")
    folder = Path(changing.run_location) / "reconstruct"
    run_in_processes(2, train_in_a_group, tmp_path, changing.to_dict(), 1)
    assert [step.name for step in folder.iterdir()] == ["step-00000002"]
    train(changing, 0)
    weights = final_weights(changing, "reconstruct")
    for name, value in final_weights(whole, "reconstruct").items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_non_finite_loss_names_step_and_videos(tiny, tmp_path):
    recipe = make_recipe(
        tiny, f"runs={tmp_path}", "stages.0.optimizer.lr=1e30", "stages.0.optimizer.clip_norm=null",
        "stages.0.log_every_steps=1",
    )  # fmt: skip
    with pytest.raises(
        NonFiniteLossError, match=r"not finite at step \d+; videos of that batch: \d+"
    ):
        train(recipe, 0)


def test_no_checkpoint_is_written_of_weights_that_are_not_finite(tiny, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    run, job = make_job(recipe, 1)
    loop = StageLoop(job, LocalHost(run.stage_dir("answer")))
    name, weight = next(iter(loop.model.named_parameters()))
    weight.data.fill_(float("inf"))
    with pytest.raises(NonFiniteLossError, match=f"weights are not finite after step 0: {name}"):
        loop._report({}, score=None, finished=False)
    assert not run.checkpoints("answer")


@pytest.mark.long
def test_a_damaged_checkpoint_is_refused_by_name(tiny, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    train(recipe, 0)
    weights = Run.open(recipe.run_location).checkpoint("reconstruct") / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged"):
        load_checkpoint(weights.parent)
    weights.write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(weights.parent)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged.*remove"):
        Run.open(recipe.run_location).checkpoint("reconstruct")


@pytest.mark.long
def test_a_newer_checkpoint_format_is_refused(tiny, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    train(recipe, 0)
    file = Run.open(recipe.run_location).checkpoint("reconstruct") / "checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(CheckpointError, match="update msvqa"):
        load_checkpoint(file.parent)


@pytest.mark.long
@pytest.mark.parametrize(("workers", "videos_per_batch"), [(1, 1), (1, 8), (2, 2), (3, 1), (5, 3)])
def test_any_split_of_the_work_predicts_every_row_once_and_alike(
    tiny, tmp_path, workers, videos_per_batch
):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    train(recipe, 1)
    objective = objective_of(load_checkpoint(Run.open(recipe.run_location).checkpoint("answer")))
    inputs = open_inputs(
        recipe, Prepared.open(recipe.data.prepared), str(store_location(recipe)), "test"
    )

    def predict(workers: int, videos_per_batch: int) -> dict[str, np.ndarray]:
        shares = [
            predict_split(objective, inputs, videos_per_batch, Share(worker, workers))
            for worker in range(workers)
        ]
        shares = [share for share in shares if share]
        rows = {key: np.concatenate([share[key] for share in shares]) for key in shares[0]}
        assert sorted(rows["row"]) == list(range(len(inputs.split)))
        return {key: value[np.argsort(rows["row"])] for key, value in rows.items()}

    expected, found = predict(1, 2), predict(workers, videos_per_batch)
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-5)
    np.testing.assert_array_equal(found["top"][:, 0], expected["top"][:, 0])


def test_batches_hold_what_the_plan_says(tiny):
    recipe = make_recipe(tiny)
    inputs = open_inputs(
        recipe, Prepared.open(recipe.data.prepared), str(store_location(recipe)), "train"
    )
    split = inputs.split
    plan = plan_epoch(split, BatchConfig(videos=2, questions_per_video=3), seed=0, epoch=0)
    whole = list(training_batches(split, inputs.source, plan))
    shares = [list(training_batches(split, inputs.source, plan, Share(w, 2))) for w in range(2)]
    assert len(whole) == plan.steps
    for step, batch in enumerate(whole):
        assert (
            split.examples.medium[batch["row"]] == batch["video"][batch["video_index"]].numpy()
        ).all()
        assert float(batch["normalizer"]) == plan.weight[step].sum()
        together = torch.cat([shares[w][step]["row"] for w in range(2)])
        assert torch.equal(together, batch["row"]), "workers share the same global batch"
        clip = inputs.source.store.read(split.media.id[int(batch["video"][0])])["clips"]
        np.testing.assert_array_equal(batch["clips"][0].numpy(), clip)
    evaluated = list(evaluation_batches(split, inputs.source, [1, 4], 2))
    assert {int(split.examples.medium[row]) for row in evaluated[0]["row"]} == {1, 4}


def test_an_error_while_loading_reaches_the_loop():
    def broken():
        yield {"a": torch.zeros(1)}
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(Prefetched(broken))


@pytest.mark.long
def test_a_run_that_ends_with_reconstruction_answers_no_questions(tiny, tmp_path):
    raw = make_recipe(tiny, f"runs={tmp_path}").to_dict()
    recipe = parse(raw | {"stages": raw["stages"][:1]})
    train(recipe, 0)
    with pytest.raises(RunError, match=r"'reconstruct' \(reconstruction\), answers no questions"):
        evaluate(recipe.run_location, "test")
    with pytest.raises(RunError, match="answers no questions"):
        from_pretrained(recipe.run_location)


@pytest.mark.long
def test_validation_of_reconstruction_does_not_depend_on_its_portions(tiny, tmp_path, monkeypatch):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    train(recipe, 0)
    objective = objective_of(
        load_checkpoint(Run.open(recipe.run_location).checkpoint("reconstruct"))
    )
    prepared = Prepared.open(recipe.data.prepared)
    inputs = open_inputs(recipe, prepared, str(store_location(recipe)), "val")
    whole = predict_split(objective, inputs, 3)
    monkeypatch.setattr(reconstruction, "QUESTIONS_PER_PASS", 2)
    portions = predict_split(objective, inputs, 3)
    for key, value in whole.items():
        np.testing.assert_allclose(portions[key], value, rtol=1e-5, err_msg=key)
