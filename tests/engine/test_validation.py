"""When a stage is validated, what a report says of it, and which checkpoint is its result."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from msvqa.checks.coverage import check_validation
from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import find_initial
from msvqa.engine.loop import VALIDATED, Saver, StageLoop, train_stage
from msvqa.errors import RecipeError
from msvqa.run import Run
from tests.engine.test_loop import StoppingHost, assert_equal, final_weights, train
from tests.local_host import LocalHost
from tests.tiny import make_job, make_recipe

# Six steps in an epoch.
EPOCHS = "stages.1.batch={videos: 2, questions_per_video: 4}", "stages.1.epochs=2"


class ListeningHost(LocalHost):
    """Remembers after which steps there was a report, and whether it was of a validation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reports: list[tuple[int, bool]] = []

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        super().report(numbers, save)
        self.reports.append((save.step, bool(numbers[VALIDATED])))


class DyingHost(LocalHost):
    """Dies before it has written its first checkpoint."""

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        raise KeyboardInterrupt


def recipe_of(tiny, tmp_path, *overrides, name="validation"):
    return make_recipe(tiny, f"runs={tmp_path}", f"name={name}", *EPOCHS, *overrides)


def reports_of(recipe):
    run, job = make_job(recipe, 1)
    host = ListeningHost(run.stage_dir("answer"))
    train_stage(job, host)
    return host.reports


def validated(recipe):
    rows = Run.open(recipe.run_location).metrics()
    return [(row["step"], row["epoch"]) for row in rows if row["kind"] == "validation"]


def steps_of_epoch(recipe):
    run, job = make_job(recipe, 1)
    return StageLoop(job, LocalHost(run.stage_dir("answer"))).total_steps // 2


@pytest.mark.long
def test_validation_every_n_steps_is_within_epochs_and_at_the_end(tiny, tmp_path):
    recipe = recipe_of(tiny, tmp_path, "stages.1.validate={every_steps: 4, at_start: true}")
    epoch = steps_of_epoch(recipe_of(tiny, tmp_path, name="count"))
    total = 2 * epoch
    reports = reports_of(recipe)
    expected = [0, *range(4, total, 4), total]
    assert [step for step, of_validation in reports if of_validation] == expected
    # An epoch that ends between has a checkpoint, and no validation.
    assert [step for step, of_validation in reports if not of_validation] == (
        [epoch] if epoch % 4 else []
    )
    assert [step for step, _ in validated(recipe)] == expected


@pytest.mark.long
def test_a_report_says_whether_it_is_of_a_validation(tiny, tmp_path):
    options = "stages.1.checkpoint.every_steps=4", "stages.1.validate_every_epochs=2"
    reports = reports_of(recipe_of(tiny, tmp_path, *options))
    assert [step for step, of_validation in reports if of_validation] == [reports[-1][0]]
    assert len(reports) > 2


@pytest.mark.long
@pytest.mark.parametrize("reports", [1, 2, 3])
def test_resume_between_validations_within_an_epoch_equals_uninterrupted(tiny, tmp_path, reports):
    options = (
        "stages.1.validate={every_steps: 4, at_start: true}", "stages.1.checkpoint.every_steps=3",
        "stages.1.schedule={name: linear, warmup_epochs: 0.5}",
    )  # fmt: skip
    whole, cut = (recipe_of(tiny, tmp_path, *options, name=name) for name in ("whole", "cut"))
    train(whole, 1)
    with pytest.raises(KeyboardInterrupt):
        train(cut, 1, StoppingHost(Path(cut.run_location) / "answer", reports))
    train(cut, 1)
    assert_equal(final_weights(whole, "answer"), final_weights(cut, "answer"))
    assert validated(whole) == validated(cut)


@pytest.mark.long
def test_a_start_that_left_no_checkpoint_is_validated_again_and_told_once(tiny, tmp_path):
    recipe = recipe_of(tiny, tmp_path, "stages.1.validate={at_start: true}")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, 1, DyingHost(Path(recipe.run_location) / "answer"))
    train(recipe, 1)
    assert [step for step, _ in validated(recipe)].count(0) == 1


@pytest.mark.long
def test_validations_do_not_change_what_is_trained(tiny, tmp_path):
    often = recipe_of(
        tiny, tmp_path, "stages.1.validate={every_steps: 1, at_start: true}", name="often"
    )
    seldom = recipe_of(tiny, tmp_path, name="seldom")
    for recipe in (often, seldom):
        train(recipe, 1)
    assert_equal(final_weights(often, "answer"), final_weights(seldom, "answer"))


@pytest.mark.long
def test_patience_ends_a_stage_within_an_epoch(tiny, tmp_path):
    recipe = recipe_of(
        tiny, tmp_path, "stages.1.validate.every_steps=1", "stages.1.patience_epochs=2",
        "stages.1.epochs=20", "stages.1.optimizer.lr=1e-12",
    )  # fmt: skip
    reports = reports_of(recipe)
    # The first is the best, as nothing changes; the third is the second that is not better.
    assert [step for step, _ in reports] == [1, 2, 3]
    assert Run.open(recipe.run_location).is_finished("answer")


def test_the_stage_is_validated_on_the_split_that_it_names(tiny, tmp_path):
    recipe = recipe_of(tiny, tmp_path, "stages.1.validate.on=test")
    run, job = make_job(recipe, 1)
    loop = StageLoop(job, LocalHost(run.stage_dir("answer")))
    prepared = Prepared.open(recipe.data.prepared)
    assert loop.validation.split.media.id == prepared.split("test").media.id


def test_a_split_that_is_not_there_is_refused_by_name(tiny, tmp_path):
    recipe = recipe_of(tiny, tmp_path, "stages.1.validate.on=tests")
    prepared = [Prepared.open(recipe.data.prepared)] * 2
    with pytest.raises(RecipeError, match=r"stages\.1\.validate\.on: .*did you mean 'test'"):
        check_validation(recipe, prepared)


def test_epochs_and_steps_between_validations_exclude_each_other(tiny, tmp_path):
    with pytest.raises(RecipeError, match=r"either validate\.every_steps or validate_every_epochs"):
        recipe_of(
            tiny, tmp_path, "stages.1.validate.every_steps=1", "stages.1.validate_every_epochs=2"
        )


@pytest.mark.long
@pytest.mark.parametrize("select", ["best", "last"])
def test_the_result_of_a_stage_is_its_best_checkpoint_or_its_last(tiny, tmp_path, select):
    # A first step of 1 is too long, so the start is the best of all.
    recipe = recipe_of(
        tiny, tmp_path, f"stages.0.select={select}", "stages.0.validate.at_start=true",
        "stages.0.optimizer.lr=1.0",
    )  # fmt: skip
    train(recipe, 0)
    run = Run.open(recipe.run_location)
    checkpoints = [path for path, _ in run.checkpoints("reconstruct")]
    assert len(checkpoints) > 1
    result = checkpoints[0 if select == "best" else -1]
    assert run.checkpoint("reconstruct") == result
    assert find_initial("reconstruct", run) == run.locate(result)
    assert run.checkpoint("reconstruct", "last") == checkpoints[-1]
