"""Other data that a recipe names to evaluate on, and to validate on."""

import json
import shutil

import pytest

from msvqa.checks.coverage import check_validation
from msvqa.data.examples.questions import Questions
from msvqa.data.processors.processor import store_location
from msvqa.engine.loop import StageLoop
from msvqa.engine.trainer import stage_job
from msvqa.errors import DataError, RecipeError, RunError
from msvqa.evaluators.evaluator import evaluator_of_stage
from msvqa.prepare import check_places, prepare, prepare_stages, prepare_validations
from msvqa.recipe import load, parse
from msvqa.run import Run
from tests.local_host import LocalHost
from tests.tiny import make_recipe, make_store

ON = "stages.1.validate.on=there"


@pytest.fixture(scope="module")
def there(tiny, tmp_path_factory):
    """The data without its training and validation questions, and fewer words in the others."""
    root = shutil.copytree(tiny / "data", tmp_path_factory.mktemp("there") / "data")
    for split in ("train", "val"):
        (root / f"{split}_qa.json").write_text("[]")
    return root


def section(root, *more):
    data = {"name": "msvd_qa", "root": str(root), "prepared": str(root.parent / "p")}
    return f"evaluations.there.data={json.dumps(data | {'allow_missing': True})}"


def test_an_evaluation_is_the_last_stage_on_other_data(tiny, there):
    recipe = make_recipe(
        tiny, section(there), "clips.store=mine", "folds={count: 3, index: 0}",
        "evaluations.there.evaluation={name: losses, videos_per_batch: 2}",
        "evaluations.there.split=val", "evaluations.frames.processor={name: frames, frames: 2}",
    )  # fmt: skip
    view = recipe.of_evaluation("there")
    assert [stage.name for stage in view.stages] == ["answer"]
    assert view.data.root == str(there) and view.evaluation.videos_per_batch == 2
    assert view.folds is None and view.clips.store is None and view.clips.size_px == 32
    assert evaluator_of_stage(view).__name__ == "Losses"
    other = recipe.of_evaluation("frames")
    assert other.data == recipe.data and other.processor.frames == 2 and other.folds
    assert evaluator_of_stage(other).__name__ == "QuestionAnswering"
    assert parse(recipe.to_dict()) == recipe


def test_sections_by_name_are_checked_like_all_others(tiny):
    with pytest.raises(RecipeError) as caught:
        make_recipe(
            tiny, "evaluations.a.data={name: msvd}", "evaluations.b.splits=val",
            "evaluations.c.evaluation.name=retrieva", "evaluations.a.processor.name=frame",
        )  # fmt: skip
    text = str(caught.value)
    assert "evaluations.a.data.name: unknown data set 'msvd' (did you mean 'msvd_qa'?)" in text
    assert "evaluations.b.splits: unknown key (did you mean 'split'?)" in text
    assert "unknown evaluator 'retrieva' (did you mean 'retrieval'?)" in text
    assert "evaluations.a.processor.name: unknown processor 'frame'" in text


@pytest.mark.parametrize("name", ["val", "..", "a/b"])
def test_names_are_those_of_folders_beside_the_splits(tiny, name):
    raw = make_recipe(tiny).to_dict()
    with pytest.raises(RecipeError, match="evaluations"):
        parse(raw | {"evaluations": {name: {}}})


def test_data_that_is_evaluated_on_needs_nothing_to_train_on(there):
    config = make_recipe(there.parent, section(there)).of_evaluation("there").data
    with pytest.raises(DataError, match="nothing to learn from"):
        prepare(config)
    prepared = prepare(config, trains=False)
    assert len(prepared.split("test")) and not len(prepared.split("train"))


@pytest.mark.long
def test_a_stage_is_validated_on_an_evaluation(tiny, there, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}", section(there), ON, "stages.1.init_from=null")
    prepared = prepare_stages(recipe)
    check_validation(recipe, prepared)
    (view,), (other,) = recipe.validations(), prepare_validations(recipe)
    assert view.data.root == str(there) and other.root == str(there)
    make_store(view, other)
    run = Run.create(recipe)
    job = stage_job(run, 1)
    assert (job.validated_on, job.validation_store) == (other.location, store_location(view))
    loop = StageLoop(job, LocalHost(run.stage_dir("answer")))
    expected = prepared[1].split("test").of(Questions)
    assert loop.validation.split.of(Questions).answer_id.tolist() == expected.answer_id.tolist()
    loop.run()
    rows = [row for row in run.metrics() if row["kind"] == "validation"]
    assert rows and all(0 <= row["accuracy"] <= 1 for row in rows)


def test_what_a_stage_is_validated_on_must_be_there(tiny, there):
    recipe = make_recipe(tiny, section(there), "stages.1.validate.on=ther")
    with pytest.raises(RecipeError, match=r"no split 'ther' \(did you mean 'there'\?\)"):
        check_validation(recipe, prepare_stages(recipe))
    recipe = make_recipe(tiny, section(there), ON, "evaluations.there.split=dev")
    with pytest.raises(RecipeError, match=r"evaluations\.there\.split: .* no split 'dev', but"):
        prepare_validations(recipe)


def test_evaluations_may_change_but_for_those_that_choose_checkpoints(tiny, there, tmp_path):
    raw = make_recipe(tiny, f"runs={tmp_path}", section(there)).to_dict()
    run = Run.create(parse(raw))
    for change in ({}, {"other": {"split": "val"}}):
        Run(run.location, parse(raw | {"evaluations": change})).refuse_changes()
    chosen = parse(raw, [ON, "name=chosen"])
    run = Run.create(chosen)
    changed = parse(chosen.to_dict(), ["evaluations.there.split=val"])
    with pytest.raises(RunError, match=r"evaluations\.there\.split: test -> val"):
        Run(run.location, changed).refuse_changes()
    assert load(run.path / "recipe.yaml") == chosen


def test_two_data_sets_are_not_prepared_in_one_folder(tiny, there):
    same = f"evaluations.there.data={{name: msvd_qa, root: {tiny / 'data'}, answer_top: 3}}"
    recipe = make_recipe(tiny, "data.prepared=null", same)
    with pytest.raises(RecipeError, match=r"would both be in .*: give one of them"):
        check_places(recipe)
    check_places(make_recipe(tiny, section(there)))
