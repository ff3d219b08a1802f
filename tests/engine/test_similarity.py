"""The shipped recipes of video similarity, small: both stages train, resume exactly, are scored."""

from pathlib import Path

import pytest

from msvqa.checks.coverage import check_validation
from msvqa.engine.loop import train_stage
from msvqa.engine.trainer import stage_job
from msvqa.errors import RecipeError
from msvqa.prepare import check_places, prepare_stages, prepare_validations
from msvqa.recipe import Recipe
from msvqa.run import Run
from tests.engine.test_loop import assert_equal, final_weights
from tests.local_host import LocalHost, StoppingHost
from tests.similar_videos import small_recipe, write_similar

MODELS = ("quickstart", "quickstart_mix")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("similar") / "set"
    write_similar(folder)
    return folder


def train(recipe: Recipe, stage: int, reports: int | None = None) -> None:
    """Train a stage without Ray; die after so many checkpoints."""
    run = Run.create(recipe)
    folder = run.stage_dir(recipe.stages[stage].name)
    host = LocalHost(folder) if reports is None else StoppingHost(folder, reports)
    train_stage(stage_job(run, stage), host)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_both_stages_resume_exactly_and_are_validated_on_pairs(root, tmp_path, model):
    whole, cut = (small_recipe(root, tmp_path, model, f"name={name}") for name in ("whole", "cut"))
    check_places(whole)
    prepare_stages(whole)
    prepare_validations(whole)
    for number, stage in enumerate(whole.stages):
        train(whole, number)
        with pytest.raises(KeyboardInterrupt):
            train(cut, number, reports=2)
        train(cut, number)
        assert Run.open(cut.run_location).is_finished(stage.name)
        assert_equal(final_weights(whole, stage.name), final_weights(cut, stage.name))
    rows = [row for row in Run.open(whole.run_location).metrics() if row["kind"] == "validation"]
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("pretrain", 4), ("pretrain", 6), ("finetune", 0), ("finetune", 4), ("finetune", 6),
    ]  # fmt: skip
    assert all(-1 <= row["spearman"] <= 1 for row in rows)


def test_a_fold_that_validates_nothing_is_refused(root, tmp_path):
    recipe = small_recipe(root, tmp_path, "quickstart", "stages.finetune.folds.by=video")
    with pytest.raises(RecipeError, match="no example is only about videos of fold 0 of 11"):
        check_validation(recipe, prepare_stages(recipe))
