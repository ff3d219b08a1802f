"""Stages with data, folds and evaluation of their own."""

import numpy as np
import pytest

from msvqa.checks.recipe import check
from msvqa.data.examples.questions import Questions
from msvqa.data.folds import read_split
from msvqa.data.lexicon import Lexicon
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import store_location
from msvqa.data.store import Store
from msvqa.data.text import AnswerList, Vocabulary
from msvqa.engine.checkpoint import read_lexicon
from msvqa.engine.loop import StageLoop
from msvqa.engine.prediction import PredictionJob, Predictor
from msvqa.engine.rehearsal import rehearse
from msvqa.engine.trainer import stage_job
from msvqa.errors import DataError, RecipeError
from msvqa.evaluate import Asked, _changed, _with_words
from msvqa.prepare import prepare_stages
from msvqa.recipe import parse, readers
from msvqa.run import Run
from msvqa.train import check_initial_fit, check_own
from tests.local_host import LocalHost
from tests.tiny import make_recipe


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory):
    """A recipe whose second stage has data of two answers only, over the same videos."""
    folder = tmp_path_factory.mktemp("own")
    raw = make_recipe(tiny, f"runs={folder}").to_dict()
    raw["clips"]["store"] = store_location(make_recipe(tiny))
    own = raw["data"] | {"answer_top": 2, "prepared": str(folder / "p2")}
    raw["stages"][1] |= {"data": own, "steps": 2, "epochs": None}
    return parse(raw)


@pytest.fixture(scope="module")
def prepared(recipe):
    return prepare_stages(recipe)


@pytest.fixture(scope="module")
def run(recipe, prepared):
    """The run with both stages trained."""
    run = Run.create(recipe)
    for number, stage in enumerate(recipe.stages):
        job = stage_job(run, number)
        StageLoop(job, LocalHost(run.stage_dir(stage.name))).run()
    return run


def test_each_data_set_is_prepared_once_and_where_it_belongs(recipe, prepared):
    assert readers(recipe.views()) == [0, 1]
    assert [folder.location for folder in prepared] == [
        recipe.data.prepared, recipe.stages[1].data.prepared,
    ]  # fmt: skip
    same = parse(recipe.to_dict(), ["stages.1.data=null"])
    first, second = prepare_stages(same)
    assert first is second and readers(same.views()) == [0]


def test_the_view_of_a_stage_is_a_recipe_of_its_own(recipe):
    whole, own = recipe.views()
    assert whole.data.answer_top == 4000 and own.data.answer_top == 2
    assert own.stages[0].name == "answer" and own.stages[0].data is None
    assert parse(own.to_dict()) == own
    vectors = parse(recipe.to_dict(), ["stages.1.processor={name: none}"])
    assert vectors.of_stage(0).processor is None
    assert vectors.of_stage(1).processor.name == "none"


def test_a_stage_with_other_data_keeps_the_words_of_its_checkpoint(run, prepared):
    first, second = (
        read_lexicon(run.checkpoint(name, "last")) for name in ("reconstruct", "answer")
    )
    assert not first.differing(second)
    assert len(prepared[1].lexicon.of(AnswerList)) == 4
    assert len(second.of(AnswerList)) > 4
    own = prepared[1].reading(second)
    for name in ("train", "val"):
        found, expected = own.split(name).of(Questions), prepared[0].split(name).of(Questions)
        np.testing.assert_array_equal(found.answer_id, expected.answer_id)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert own.word_vectors() is None


@pytest.mark.long
def test_what_was_trained_on_data_of_its_own_is_sound_for_all_checks(run, prepared):
    check(run.recipe)
    check_own(run, prepared)
    check_initial_fit(run.recipe, prepared)
    assert [estimate.stage for estimate in rehearse(run.recipe, prepared)] == [
        "reconstruct", "answer",
    ]  # fmt: skip


@pytest.mark.long
def test_a_stage_with_data_of_its_own_takes_a_checkpoint_of_other_words(run, prepared, tmp_path):
    start = run.locate(run.checkpoint("reconstruct"))
    raw = run.recipe.to_dict()
    stages = [raw["stages"][1] | {"init_from": start}]
    alone = parse(raw | {"name": "alone", "runs": str(tmp_path), "stages": stages})
    check_initial_fit(alone, [prepared[1]])
    train_alone = Run.create(alone)
    loop = StageLoop(stage_job(train_alone, 0), LocalHost(train_alone.stage_dir("answer")))
    assert not loop.prepared.lexicon.differing(read_lexicon(start))


def test_evaluation_uses_the_data_of_the_last_stage_in_the_words_of_its_model(run, prepared):
    view = run.recipe.of_stage(-1)
    checkpoint = run.locate(run.checkpoint())
    assert view.data.answer_top == 2
    read = _with_words(Asked.of(run, [], "test", None), prepared[1], checkpoint)
    assert not read.lexicon.differing(read_lexicon(checkpoint))
    job = PredictionJob(
        checkpoint=checkpoint, prepared=prepared[1].location, store=view.clips.store,
        split="test", recipe=view.to_dict(),
    )  # fmt: skip
    predictor = Predictor(job, "cpu")
    asked, known = predictor.inputs.split.of(Questions), read.split("test").of(Questions)
    np.testing.assert_array_equal(asked.answer_id, known.answer_id)


def test_overrides_of_an_evaluation_may_move_the_data_of_a_stage(recipe, tmp_path):
    moved = _changed(recipe, [f"stages.answer.data.root={tmp_path}",
                              f"stages.answer.data.prepared={tmp_path}/p",
                              f"clips.store={tmp_path}/s"])  # fmt: skip
    assert moved.of_stage(-1).data.root == str(tmp_path)
    with pytest.raises(RecipeError, match=r"stages\.1\.data\.answer_top: 2 -> 3: was trained so"):
        _changed(recipe, ["stages.answer.data.answer_top=3"])


def test_folds_of_a_stage_are_of_that_stage_alone(tiny, tmp_path):
    folds = "stages.1.folds={count: 3, index: 1}"
    recipe = make_recipe(tiny, f"runs={tmp_path}", folds, "stages.1.init_from=null")
    run, data = Run.create(recipe), Prepared.open(recipe.data.prepared)
    loops = [StageLoop(stage_job(run, n), LocalHost(tmp_path / str(n))) for n in (0, 1)]
    published = [data.split(name).media.id for name in ("train", "val")]
    assert [loops[0].training.split.media.id, loops[0].validation.split.media.id] == published
    store = Store.open(stage_job(run, 1).store)
    dealt = data.knowing(store.copies)
    expected = [read_split(dealt, n, recipe.stages[1].folds).media.id for n in ("train", "val")]
    assert [loops[1].training.split.media.id, loops[1].validation.split.media.id] == expected
    assert expected != published


def test_the_evaluation_section_of_a_stage_is_its_own(tiny, tmp_path):
    recipe = make_recipe(
        tiny,
        f"runs={tmp_path}",
        "stages.1.evaluation={videos_per_batch: 3, top_k: 2}",
        "stages.1.init_from=null",
    )
    run = Run.create(recipe)
    loops = [StageLoop(stage_job(run, n), LocalHost(tmp_path / str(n))) for n in (0, 1)]
    assert [loop.evaluator.config.videos_per_batch for loop in loops] == [8, 3]


def test_a_recipe_needs_no_data_where_every_stage_has_its_own(recipe):
    raw = recipe.to_dict()
    first, last = raw.pop("data"), raw["stages"][1]["data"]
    with pytest.raises(RecipeError, match="data: is missing"):
        parse(raw)
    raw["stages"][0]["data"] = first
    assert parse(raw).data == parse(raw).stages[1].data
    assert parse(raw).of_stage(0).data.answer_top != last["answer_top"]


def test_data_of_a_stage_is_checked_like_that_of_a_recipe(recipe):
    with pytest.raises(RecipeError) as caught:
        parse(recipe.to_dict(), ["stages.1.data.answer_tops=3", "stages.0.data={name: msvd}"])
    text = str(caught.value)
    assert "stages.1.data.answer_tops: unknown key (did you mean 'answer_top'" in text
    assert "stages.0.data.name: unknown data set 'msvd'" in text


def test_words_that_lack_a_list_are_refused(prepared):
    words = Lexicon([prepared[0].lexicon.of(Vocabulary)])
    with pytest.raises(DataError, match="it has no answers"):
        prepared[1].reading(words)
