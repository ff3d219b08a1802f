"""Search spaces: read strictly, drawn from the seed alone, checked before anything starts."""

from pathlib import Path

import pytest

from msvqa.errors import RecipeError
from msvqa.recipe import load, parse
from msvqa.space import (
    is_fold,
    load_space,
    parse_space,
    probe,
    untouched_stages,
    values_of,
    with_values,
)
from tests.tiny import raw_recipe

ROOT = Path(__file__).parents[1]
SPACES = sorted((ROOT / "configs" / "search").glob("*.yaml"))
LR = "stages.answer.optimizer.lr"


def space(fields, **changes):
    return parse_space({"name": "s", "fields": fields, "samples": 4, **changes})


def problems_of(call):
    with pytest.raises(RecipeError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def recipe(tmp_path):
    return parse(raw_recipe(tmp_path))


def test_draws_follow_from_the_seed_and_more_samples_only_add():
    fields = {
        LR: {"log_uniform": [1e-4, 1e-2]},
        "model.dropout": {"uniform": [0, 0.5]},
        "model.decoder.layer2": {"integer": [8, 9]},
        "model.heads": {"choice": [1, 2]},
    }
    few, many = space(fields).points(), space(fields, samples=50).points()
    assert many[:4] == few == space(fields).points()
    assert space(fields, seed=1).points() != few
    assert all(1e-4 <= point[LR] <= 1e-2 for point in many)
    assert {point["model.decoder.layer2"] for point in many} == {8, 9}
    # Half of the draws lie below the geometric mean.
    assert 15 < sum(point[LR] < 1e-3 for point in many) < 35


def test_every_draw_meets_every_combination_of_the_grid():
    fields = {LR: {"log_uniform": [1e-4, 1e-2]}, "folds.index": {"grid": [0, 1, 2]}}
    points = space(fields, samples=2).points()
    assert len(points) == space(fields, samples=2).trials == 6
    assert len({point[LR] for point in points}) == 2
    assert [point["folds.index"] for point in points] == [0, 1, 2, 0, 1, 2]


def test_a_grid_takes_every_combination_of_listed_values():
    fields = {LR: {"choice": [0.1, 0.2]}, "seed": {"grid": [0, 1, 2]}}
    grid = space(fields, search="grid", samples=None)
    assert len({tuple(point.values()) for point in grid.points()}) == grid.trials == 6


def test_all_problems_of_a_space_come_together():
    raw = {
        "name": "a space",
        "fields": {LR: {"uniform": [2, 1]}, "seed": {"choice": [], "grid": [1]}},
        "serch": "grid",
    }
    text = problems_of(lambda: parse_space(raw))
    assert "2 is not below 1" in text or "2.0 is not below 1.0" in text
    assert "did you mean 'search'?" in text
    assert "name: " in text
    assert "fields.seed.choice" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"search": "grid"}, f"search grid needs listed values: {LR}; samples"),
        ({"samples": None}, "samples: "),
        ({"metric": "mse"}, "metric and mode go together"),
        ({"scheduler": {"name": "pbt"}, "search": "optuna"}, "pbt needs search random"),
    ],
)
def test_contradictions_are_refused(changes, words):
    assert words in problems_of(lambda: space({LR: {"uniform": [1e-4, 1e-2]}}, **changes))


def test_every_value_must_make_a_recipe(recipe):
    fields = {
        "stages.answer.optimizer.lrr": {"choice": [1.0]},
        "model.dropout": {"uniform": [0.5, 1.5]},
        "stages.3.epochs": {"choice": [1, 2]},
        "data.answer_top": {"choice": [5, 6]},
    }
    text = "\n".join(probe(recipe, space(fields))[1])
    assert "did you mean 'lr'?" in text
    assert "model.dropout: Input should be less than" in text
    assert text.count("there is no stages.3") == 1
    assert "fields.data.answer_top: data is the same for all trials" in text


@pytest.mark.long
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (LR, "stages.1.optimizer.lr", "is the same field as"),
        ("stages.01.optimizer.lr", "stages.1.optimizer.lr", "is the same field as"),
        ("model", "model.dropout", "fields.model.dropout: is a part of model;"),
        ("stages.1.optimizer", LR, f"fields.{LR}: is a part of stages.1.optimizer;"),
    ],
)
def test_a_field_is_searched_under_one_key(recipe, first, second, words):
    content = recipe.to_dict()
    for keys in ((first, second), (second, first)):
        fields = {key: {"choice": [values_of(parse(content), [key])[key]]} for key in keys}
        assert any(words in problem for problem in probe(recipe, space(fields))[1])


def test_fields_with_a_common_beginning_are_two_fields(recipe):
    fields = {key: {"uniform": [0.1, 0.2]} for key in (LR, "stages.0.optimizer.lr")}
    assert probe(recipe, space(fields))[1] == []


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"integer": [0, 2**53 + 1]}, "less than or equal to 9007199254740992"),
        ({"integer": [-(2**63) - 1, 0]}, "greater than or equal to -9007199254740992"),
        ({"uniform": [0, float("inf")]}, "finite number"),
        ({"uniform": [-1e308, 1e308]}, "too far apart"),
    ],
)
def test_ranges_that_cannot_be_drawn_from_are_refused(field, words):
    assert words in problems_of(lambda: space({"seed": field}))


def test_the_widest_range_of_whole_numbers_can_be_drawn_from():
    widest = space({"seed": {"integer": [-(2**53), 2**53]}})
    assert len({point["seed"] for point in widest.points()}) == 4


@pytest.mark.parametrize("changes", [{"samples": 10_001}, {"samples": 5001}])
def test_there_is_a_limit_to_the_number_of_trials(changes):
    fields = {LR: {"uniform": [1e-4, 1e-2]}, "folds.index": {"grid": [0, 1]}}
    text = problems_of(lambda: space(fields, **changes))
    assert "10000" in text and len(text) < 200


def test_pbt_only_changes_what_may_change_while_a_stage_runs(recipe):
    fields = {LR: {"uniform": [1e-4, 1e-2]}, "model.dropout": {"uniform": [0, 0.5]}}
    _, [problem] = probe(recipe, space(fields, scheduler={"name": "pbt"}))
    assert "fields.model.dropout: pbt" in problem


def test_values_are_put_back_between_the_ends():
    both = space({LR: {"uniform": [0.1, 0.2]}, "seed": {"integer": [3, 5]}})
    assert both.clip({LR: 0.3, "seed": 1, "number": 7}) == {LR: 0.2, "seed": 3, "number": 7}


def test_the_stages_before_the_first_that_a_field_touches_stay_as_they_are(recipe):
    assert untouched_stages(recipe, [LR, "stages.1.objective.alpha"]) == 1
    assert untouched_stages(recipe, [LR, "stages.0.optimizer.lr"]) == 0
    assert untouched_stages(recipe, ["seed"]) == 0
    three = recipe.to_dict()
    three["stages"].append(three["stages"][-1] | {"name": "more", "init_from": "answer"})
    assert untouched_stages(parse(three), [LR, "stages.more.optimizer.lr"]) == 1
    assert untouched_stages(parse(three), ["stages.more.optimizer.lr"]) == 2


def test_folds_of_a_stage_touch_no_stage_before_it(recipe):
    assert untouched_stages(recipe, ["stages.answer.folds.index"]) == 1
    assert untouched_stages(recipe, ["folds.index"]) == 0
    first = with_values(recipe, {"stages.0.folds.index": 2})
    assert first.stages[0].folds.index == 2 and first.folds is None
    # The folds of the recipe are those of the stages that have none of their own.
    assert untouched_stages(first, ["folds.index"]) == 1
    assert is_fold("folds.index") and is_fold("stages.answer.folds.index")
    assert not is_fold("folds.count") and not is_fold("stages.answer.optimizer.lr")


def test_values_are_found_by_name_and_by_number(recipe):
    for key in (LR, "stages.1.optimizer.lr"):
        assert values_of(with_values(recipe, {key: 0.25}), [key]) == {key: 0.25}


def test_folds_are_added_to_a_recipe_that_has_none(recipe):
    assert with_values(recipe, {"folds.index": 3}).folds.count == 5
    with pytest.raises(RecipeError, match="index 5 is not below count 5"):
        with_values(recipe, {"folds.index": 5})


@pytest.mark.long
@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_every_shipped_space_fits_the_recipe_that_its_command_names(file):
    head = file.read_text(encoding="utf-8").split("name:")[0]
    words = next(line for line in head.splitlines() if "msvqa tune" in line).split()
    named = words[words.index("tune") + 1]
    assert str(file.relative_to(ROOT)) in words
    recipes, problems = probe(load(ROOT / named), load_space(file))
    assert recipes and not problems
