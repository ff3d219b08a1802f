"""Every file that a recipe names is read, and compared with the recipe, before Ray starts."""

import pytest
import torch

from msvqa.checks.recipe import check
from msvqa.checks.sources import check_pretrained, source_problems, sources
from msvqa.data.datasets.synthetic import generate
from msvqa.doctor import doctor
from msvqa.engine import cluster
from msvqa.engine.inputs import model_sizes
from msvqa.errors import MSVQAError, RecipeError
from msvqa.extract import extract
from msvqa.models.encoders.resnet import ResNet
from msvqa.models.model import build_model
from msvqa.models.reference import to_reference
from msvqa.prepare import prepare
from msvqa.recipe import parse
from msvqa.sections import Config
from msvqa.space import parse_space
from msvqa.storage import DiskPath, WeightsFile
from msvqa.train import dry_run, train
from msvqa.tune import tune
from tests import featured
from tests.tiny import make_recipe, raw_recipe

SMALL = {"depth": 10, "base_width": 8, "stem": "small", "scale": "unit", "batch_norm": "train"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    generate(folder / "data", videos={"train": 2, "val": 1, "test": 1})
    return folder


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    def start(**_):
        raise AssertionError("Ray starts")

    monkeypatch.setattr(cluster, "connected", start)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    torch.save(ResNet(ResNet.Config(**SMALL)).state_dict(), tmp_path / "resnet.pth")
    return tmp_path / "resnet.pth"


def with_features(folder, *overrides):
    """Return a recipe that extracts features with encoders of its own."""
    raw = raw_recipe(folder)
    encoders = {part: raw["model"].pop(part) for part in ("appearance", "motion")}
    sizes = {"appearance_px": 32, "motion_px": 32, "appearance_width": 64, "motion_width": 128}
    raw["features"] = encoders | sizes
    raw["model"] = {"name": "dualvgr", "hidden_size": 16, "heads": 2, "units": 1}
    raw["stages"] = [raw["stages"][1] | {"init_from": None}]
    return parse(raw, overrides)


class Inner(Config):
    weights: WeightsFile | None = None
    folder: DiskPath | None = None


class Outer(Config):
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    name: str = "/no/file"


def test_files_are_found_by_the_types_of_the_fields_that_name_them(folder, tmp_path):
    section = Outer(inner=Inner(weights="a.pth"), several=(Inner(), Inner(folder="/b")))
    found = {source.key: source.what for source in sources(section)}
    assert found == {"inner.weights": "weights", "several.1.folder": "a file or folder"}
    recipe = make_recipe(folder, "model.motion.weights=m.pth", "data.word_vectors=v.txt")
    assert [source.key for source in sources(recipe)] == [
        "data.word_vectors",
        "model.motion.weights",
    ]


@pytest.mark.long
def test_sound_files_are_read_and_said(folder, weights):
    recipe = make_recipe(folder, f"model.appearance.weights={weights}")
    assert source_problems(recipe) == []
    check(recipe)
    file = weights.parent / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    checks = {one.name: one for one in doctor(file).checks}
    assert checks["files"].status == "ok"
    assert "model.appearance.weights" in checks["files"].detail


def damage(path, kind):
    state = torch.load(path)
    if kind == "empty":
        return path.write_bytes(b"")
    if kind == "cut":
        return path.write_bytes(path.read_bytes()[:-3000])
    if kind == "other":
        state = ResNet(ResNet.Config(**SMALL | {"base_width": 4})).state_dict()
    if kind == "nan":
        state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    return torch.save(state, path)


DAMAGE = {
    "empty": "is empty",
    "cut": "is cut short",
    "other": r"of another shape: conv1\.weight \(4, 3, 3, 3\) instead of \(8, 3, 3, 3\)",
    "nan": r"no finite numbers: layer1\.0\.conv1\.weight",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", DAMAGE)
def test_weights_that_cannot_be_used_stop_every_verb(kind, folder, weights):
    damage(weights, kind)
    recipe = make_recipe(folder, f"model.appearance.weights={weights}", "name=stopped")
    for verb in (check, dry_run, train):
        with pytest.raises(RecipeError, match=DAMAGE[kind]) as error:
            verb(recipe)
        assert f"model.appearance.weights: {weights} " in str(error.value)
    file = weights.parent / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    report = doctor(file)
    assert {one.name: one.status for one in report.checks}["files"] == "fail"
    extracting = with_features(folder, f"features.appearance.weights={weights}")
    for verb in (check, extract):
        with pytest.raises(RecipeError, match=rf"features.appearance.weights: .*{DAMAGE[kind]}"):
            verb(extracting)


def test_a_file_that_was_put_right_is_read_again(folder, weights):
    content = weights.read_bytes()
    recipe = make_recipe(folder, f"model.appearance.weights={weights}")
    weights.write_bytes(b"")
    assert len(source_problems(recipe)) == 1
    weights.write_bytes(content)
    assert source_problems(recipe) == []


def test_a_width_that_the_encoder_has_not_is_known_before_training(folder):
    with pytest.raises(RecipeError, match=r"features.motion_width: is 64, resnext3d gives 128"):
        check(with_features(folder, "features.motion_width=64"))


def test_word_vectors_of_another_width_are_refused(folder, tmp_path):
    (tmp_path / "glove.txt").write_text("the 1 2 3\ncat 4 5 6\n", encoding="utf-8")
    recipe = make_recipe(folder, f"data.word_vectors={tmp_path}/glove.txt", "data.word_size=4")
    with pytest.raises(RecipeError, match=r"data.word_vectors: .*3 numbers, data.word_size is 4"):
        check(recipe)


@pytest.mark.long
def test_weights_of_a_whole_model_are_compared_with_the_words_of_the_data(tmp_path):
    folder = featured.write_data(tmp_path)
    recipe = featured.make_recipe(folder, f"model.weights={tmp_path}/whole.pth")
    prepared = prepare(recipe.data, need_videos=False)
    model = build_model(recipe, model_sizes(recipe, prepared))
    heads = recipe.model.heads
    torch.save(to_reference(model.network.state_dict(), heads), tmp_path / "whole.pth")
    check(recipe)
    check_pretrained(recipe, prepared)
    model = build_model(recipe, model_sizes(recipe, None))
    torch.save(to_reference(model.network.state_dict(), heads), tmp_path / "whole.pth")
    # Without data nobody knows how many words there are.
    check(recipe)
    for verb in (dry_run, train):
        with pytest.raises(RecipeError, match=r"model.weights: .*encoder_embed.weight \(2, "):
            verb(recipe)


def test_what_lies_in_the_place_of_feature_files_is_named(tmp_path):
    folder = featured.write_data(tmp_path)
    (folder / "page.h5").write_text("<!doctype html><title>Quota exceeded</title>")
    recipe = featured.make_recipe(folder, f"features.motion_hdf5={folder}/page.h5")
    with pytest.raises(RecipeError, match=r"features.motion_hdf5: .*page.h5 is a web page"):
        check(recipe)


@pytest.mark.long
def test_a_dry_run_looks_at_what_training_starts_from(folder, tmp_path):
    recipe = make_recipe(folder, f"stages.0.init_from={tmp_path}/nowhere")
    with pytest.raises(MSVQAError, match="nowhere"):
        dry_run(recipe)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    checks = {one.name: one for one in doctor(file).checks}
    assert checks["files"].status == "fail"
    assert "nowhere" in checks["files"].detail


@pytest.mark.long
def test_a_search_looks_at_the_files_of_its_trials(folder, weights):
    damage(weights, "empty")
    recipe = make_recipe(folder, f"model.appearance.weights={weights}")
    space = parse_space({"name": "s", "fields": {"seed": {"choice": [1, 2]}}, "samples": 2})
    with pytest.raises(RecipeError, match=r"model.appearance.weights: .* is empty"):
        tune(recipe, space)


class Unusual(ResNet):
    """An encoder of somebody else, with settings that cannot be hashed."""

    class Config(ResNet.Config):
        name: str = "tests.checks.test_sources:Unusual"
        extra: dict[str, int] = {}


def test_an_encoder_with_settings_of_any_kind_is_checked(folder, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    raw = raw_recipe(folder)
    encoder = {"name": "tests.checks.test_sources:Unusual", "extra": {"a": 1}, **SMALL}
    raw["features"] = {
        "appearance": {**encoder, "weights": str(tmp_path / "w.pth")},
        "motion": {
            "name": "resnext3d",
            "depth": 14,
            "groups": 2,
            **{k: v for k, v in SMALL.items() if k != "depth"},
        },
    }
    raw["model"] = {"name": "dualvgr", "hidden_size": 16, "heads": 2}
    raw["stages"] = raw["stages"][1:]
    raw["stages"][0].pop("init_from")
    (problem,) = source_problems(parse(raw))
    assert problem.startswith("features.appearance.weights: ")
