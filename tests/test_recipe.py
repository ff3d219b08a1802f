"""Recipes are read strictly, completely and without surprises."""

from pathlib import Path

import pytest

from msvqa.errors import RecipeError
from msvqa.recipe import DataConfig, differences, load, parse, parse_data
from msvqa.sections import NamedConfig, resolve
from msvqa.strict_yaml import read_yaml
from tests.tiny import make_recipe


class Films:
    class Config(DataConfig):
        language: str = "en"


class Net:
    class Config(NamedConfig):
        width: int = 8
        depths: tuple[int, ...] = (1, 2)
        backbone: NamedConfig | None = None


class Guess:
    class Config(NamedConfig):
        weight: float = 1.0


class Encoder:
    class Config(NamedConfig):
        depth: int = 18


DATA, MODEL, OBJECTIVE = f"{__name__}:Films", f"{__name__}:Net", f"{__name__}:Guess"
ENCODER = f"{__name__}:Encoder"


def raw_recipe(**changes):
    recipe = {
        "name": "small",
        "data": {"name": DATA, "root": "films"},
        "model": {"name": MODEL},
        "stages": [
            {"name": "first", "objective": {"name": OBJECTIVE}, "steps": 3},
            {"name": "second", "objective": {"name": OBJECTIVE}, "epochs": 1, "init_from": "first"},
        ],
    }
    return {**recipe, **changes}


def problems_of(raw, overrides=()):
    with pytest.raises(RecipeError) as caught:
        parse(raw, overrides)
    return caught.value.problems


def only_problem(raw, overrides=()):
    problems = problems_of(raw, overrides)
    assert len(problems) == 1, problems
    return problems[0]


def test_sections_without_a_name_are_those_of_the_recipe_with_changes():
    raw = raw_recipe(evaluations={"other": {"data": {"language": "zh"}}})
    raw["stages"][0]["data"] = {"language": "fr"}
    raw["stages"][1]["data"] = {"name": DATA, "root": "elsewhere"}
    recipe = parse(raw, ["data.root=moved"])
    moved = recipe.data.root
    assert moved.endswith("moved")
    assert [stage.data.root for stage in recipe.stages] == [moved, f"{moved[:-5]}elsewhere"]
    assert recipe.stages[0].data.language == "fr"
    assert recipe.evaluations["other"].data.root == moved
    assert recipe.evaluations["other"].data.language == "zh"
    assert parse(recipe.to_dict()) == recipe


def test_what_is_made_of_a_changed_section_has_a_place_of_its_own():
    raw = raw_recipe(data={"name": DATA, "root": "films", "prepared": "/shared/made"})
    raw["stages"][0]["data"] = {"language": "fr"}
    raw["stages"][1]["data"] = {"language": "fr"}
    recipe = parse(raw | {"evaluations": {"o": {"data": {"language": "zh", "prepared": "/o"}}}})
    first, second = (stage.data.prepared for stage in recipe.stages)
    assert first == second and first.startswith("/shared/made-")
    assert (recipe.data.prepared, recipe.evaluations["o"].data.prepared) == ("/shared/made", "/o")


def test_named_sections_get_the_types_of_their_classes():
    recipe = parse(raw_recipe())
    assert (recipe.data.language, recipe.model.width) == ("en", 8)
    assert recipe.stages[1].objective.weight == 1.0


def test_all_mistakes_are_reported_together_with_their_path():
    raw = raw_recipe(clips={"num_clip": 3, "decoder": "pyaf", "size_px": "9"}, seed=-1)
    raw["stages"][1]["optimiser"] = {}
    raw["model"]["widht"] = 9
    del raw["data"]["root"]
    places = [problem.split(":")[0] for problem in problems_of(raw, ["nonsense"])]
    assert sorted(places) == sorted(
        [
            "override 'nonsense' is not of the form key=value",
            "seed",
            "data.root",
            "clips.num_clip",
            "clips.size_px",
            "clips.decoder",
            "model.widht",
            "stages.1.optimiser",
        ]
    )


def test_the_message_names_the_file_and_counts_the_problems(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("name: a\nseed: x\n")
    with pytest.raises(RecipeError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: 4 problems\n  - ")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("clips.num_clip=3", ["did you mean 'num_clips'?", "allowed here: cache, decoder"]),
        ("clips.decoder=decort", ["'decord' or 'nvdec'", "did you mean 'decord'?", "got 'decort'"]),
        ("clips.frames_per_clip=7", ["multiple of 2", "got 7"]),
        ("stages.0.optimizer.lr=fast", ["stages.0.optimizer.lr", "valid number", "got 'fast'"]),
        ("stages.1.optimizer.lrr=1", ["stages.1.optimizer.lrr", "did you mean 'lr'?"]),
        ("stages.0.objective.weihgt=1", ["did you mean 'weight'?"]),
        ("stages.0.epochs=3", ["stages.0: give either epochs or steps"]),
        ("stages.0.init_from=second", ["'second' is not before 'first'"]),
        ("stages.1.name=first", ["two stages have the same name"]),
        ("data.root=null", ["data.root", "valid string"]),
        ("clips=3", ["clips", "object"]),
        ("name=../outside", ["name", "pattern"]),
        ("stages.0.optimizer.lr=.inf", ["stages.0.optimizer.lr", "finite"]),
        ("stages.0.optimizer.lr=.nan", ["stages.0.optimizer.lr", "finite"]),
        ("stages=[]", ["at least one stage"]),
    ],
)
def test_a_mistake_is_explained(override, words):
    problem = only_problem(raw_recipe(), [override])
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize(
    ("place", "kind"),
    [("data", "data set"), ("model", "model"), ("stages.0.objective", "objective")],
)
def test_an_unknown_name_is_one_problem_with_the_known_names(place, kind):
    problem = only_problem(raw_recipe(), [f"{place}.name=msvd_qq", f"{place}.other=1"])
    assert problem.startswith(f"{place}.name: unknown {kind} 'msvd_qq'")
    assert "known: " in problem


def test_a_near_name_is_suggested():
    assert "did you mean 'msvd_qa'?" in only_problem(raw_recipe(), ["data.name=msvd_aq"])


@pytest.mark.parametrize("name", ["no.such.module:X", f"{__name__}:Nothing", "os:path"])
def test_a_dotted_path_that_leads_nowhere_is_a_problem(name):
    assert only_problem(raw_recipe(), [f"model.name={name}"]).startswith("model.name: ")


def test_resolve_takes_names_of_the_table_and_dotted_paths():
    assert resolve("net", {"net": MODEL}, "model") is resolve(MODEL, {}, "model")


def test_overrides_reach_stages_by_number_and_by_name():
    recipe = parse(
        raw_recipe(), ["stages.0.optimizer.lr=3e-4", "stages.second.optimizer.lr=2e-4", "seed=7"]
    )
    assert [stage.optimizer.lr for stage in recipe.stages] == [3e-4, 2e-4]
    assert recipe.seed == 7


def test_a_later_override_wins_and_text_may_hold_equals_signs():
    recipe = parse(raw_recipe(), ["seed=1", "seed=2", "data.language=a=b"])
    assert (recipe.seed, recipe.data.language) == (2, "a=b")


def test_overrides_read_lists_and_sections():
    recipe = parse(raw_recipe(), ["model.depths=[3, 4]", "clips={num_clips: 4}"])
    assert (recipe.model.depths, recipe.clips.num_clips) == ((3, 4), 4)


def test_workers_are_a_number_or_a_range():
    one = parse(raw_recipe(), ["scaling.workers=3"])
    assert one.scaling.worker_counts == range(3, 4)
    more = parse(raw_recipe(), ["scaling.workers.min=1", "scaling.workers.max=3"])
    assert list(more.scaling.worker_counts) == [1, 2, 3]
    assert parse(more.to_dict()).to_dict() == more.to_dict()
    assert "scaling.workers.max: 3 -> (absent)" in differences(more, one)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("scaling.workers={min: 3, max: 2}", ["scaling.workers: ", "min 3 is above max 2"]),
        ("scaling.workers.min=1", ["scaling.workers.max: is missing"]),
        ("scaling.workers={min: 0, max: 2}", ["scaling.workers.min: ", "greater than or equal"]),
        ("scaling.workers={min: 1, maxx: 2, max: 2}", ["workers.maxx", "did you mean 'max'?"]),
        ("scaling.workers=0", ["scaling.workers: ", "greater than or equal to 1 (got 0)"]),
        ("scaling.workers=two", ["scaling.workers: ", "valid integer (got 'two')"]),
    ],
)
def test_a_mistake_in_the_number_of_workers_is_explained(override, words):
    problem = only_problem(raw_recipe(), [override])
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize("stage", ["2", "third"])
def test_an_override_of_a_stage_that_is_not_there_lists_the_stages(stage):
    problem = only_problem(raw_recipe(), [f"stages.{stage}.epochs=1"])
    assert f"there is no stages.{stage}; there are 0 or first, 1 or second" in problem


def test_an_override_below_a_plain_value_is_a_problem():
    assert "seed" in only_problem(raw_recipe(), ["seed.more=1"])


def test_overrides_leave_the_given_data_alone():
    raw = raw_recipe()
    parse(raw, ["stages.0.steps=9"])
    assert raw["stages"][0]["steps"] == 3


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "+1.0e-4", ".1e-3"])
def test_exponents_are_numbers(text):
    assert read_yaml(f"lr: {text}", "text") == {"lr": 1e-4}


@pytest.mark.parametrize("text", ["e-4", "1e", "v1e3", "1e-4s", "'1e-4'"])
def test_what_only_looks_like_an_exponent_stays_text(text):
    assert isinstance(read_yaml(f"word: {text}", "text")["word"], str)


def test_a_key_given_twice_is_refused_with_its_line():
    with pytest.raises(RecipeError, match=r"clips: .*key given twice: size_px \(line 4\)"):
        read_yaml("name: a\nclips:\n  size_px: 64\n  size_px: 32\n", "text")


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx: 1", "a: !!python/object:os.system {}"])
def test_text_that_is_not_plain_yaml_is_refused(text):
    with pytest.raises(RecipeError, match="not valid YAML"):
        read_yaml(text, "text")


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_a_recipe_has_to_be_a_mapping(raw):
    assert "a recipe is a mapping" in only_problem(raw)


def test_to_yaml_reads_back_equal(tmp_path):
    changes = {"features": {"appearance": {"name": ENCODER}, "motion": {"name": ENCODER}}}
    recipe = parse(raw_recipe(**changes), ["stages.0.optimizer.lr_of={backbone: 1e-5}"])
    again = parse(read_yaml(recipe.to_yaml(), "text"))
    assert again.to_dict() == recipe.to_dict()
    assert differences(recipe, again) == []
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    assert load(file).to_yaml() == recipe.to_yaml()


def test_encoders_of_features_get_their_types():
    sections = {"appearance": {"name": ENCODER, "depth": 50}, "motion": {"name": ENCODER}}
    recipe = parse(raw_recipe(features=sections))
    assert (recipe.features.appearance.depth, recipe.features.motion.depth) == (50, 18)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({}, "name either encoders"),
        ({"appearance_hdf5": "a.h5"}, "appearance and motion go together"),
        (
            {"appearance": {"name": ENCODER, "dept": 1}, "motion": {"name": ENCODER}},
            "did you mean 'depth'?",
        ),
        (
            {"appearance_hdf5": "a.h5", "motion_hdf5": "m.h5", "precision": "bf16"},
            "precision: bf16 is for encoders",
        ),
    ],
)
def test_features_come_whole_and_from_one_source(features, words):
    assert words in only_problem(raw_recipe(features=features))


def test_differences_name_the_fields_with_both_values():
    old = parse(raw_recipe())
    new = parse(raw_recipe(), ["stages.second.optimizer.lr=1e-3", "model.depths=[1, 2, 3]"])
    assert differences(old, new) == [
        "stages.1.optimizer.lr: 0.0001 -> 0.001",
        "model.depths.2: (absent) -> 3",
    ]


def test_relative_paths_become_absolute_and_urls_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = parse(raw_recipe(runs="s3://bucket/runs"))
    assert recipe.data.root == str(tmp_path / "films")
    assert recipe.runs == "s3://bucket/runs"
    assert parse(raw_recipe()).run_location == str(tmp_path / "runs" / "small")


def test_recipes_are_immutable():
    recipe = parse(raw_recipe())
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1


def test_a_missing_file_suggests_its_neighbours(tmp_path):
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(RecipeError, match=r"no such file.*did you mean '.*quickstart.yaml'"):
        load(tmp_path / "quickstrat.yaml")
    with pytest.raises(RecipeError, match=r"no such file \(there: .*quickstart.yaml\)"):
        load(tmp_path / ("z" * 200))


def test_a_folder_or_a_huge_file_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="no such file"):
        load(tmp_path)
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * 1_000_001)
    with pytest.raises(RecipeError, match="larger than"):
        load(huge)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RecipeError, match="is not UTF-16"):
        load(file)


def test_the_data_section_can_be_checked_alone():
    config = parse_data(DATA, ["answer_top=20"], root="films", allow_missing=True)
    assert isinstance(config, Films.Config)
    assert (config.answer_top, config.root) == (20, str(Path("films").absolute()))


def test_mistakes_in_a_data_section_alone_are_reported_together():
    with pytest.raises(RecipeError) as caught:
        parse_data(DATA, ["langage=de", "answer_top=0"])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "data.root", "data.answer_top", "data.langage",
    ]  # fmt: skip
    assert "did you mean 'language'?" in caught.value.problems[2]


def test_a_stage_is_not_called_like_another_folder_of_a_run(tmp_path):
    with pytest.raises(RecipeError, match=r"stages\.0\.name: a run has a folder 'logs'"):
        make_recipe(tmp_path, "stages.0.name=logs")
