"""Parts of a model in a stage: trained, frozen, absent, fresh, and where they came from."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from msvqa.checks.recipe import check
from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import CheckpointError, load_checkpoint, read_info, read_weights
from msvqa.engine.loop import StageLoop
from msvqa.engine.rehearsal import rehearse
from msvqa.errors import RecipeError
from msvqa.models.parts import parts_of_weights
from msvqa.recipe import parse
from msvqa.run import CHECKPOINT_INFO, Run
from msvqa.train import check_initial_fit, check_own
from tests.engine.test_loop import StoppingHost, assert_equal, final_weights, train
from tests.local_host import LocalHost
from tests.models.small import make_msvqa
from tests.tiny import make_job, make_recipe

ANSWERS = "stages.1.steps=2", "stages.1.epochs=null"
BORROWING = "model.name=tests.models.borrowing:Borrowing"


def recipe_of(tiny, tmp_path, *overrides, name="parts"):
    return make_recipe(tiny, f"runs={tmp_path}", f"name={name}", *ANSWERS, *overrides)


def last(recipe, stage="answer"):
    return Run.open(recipe.run_location).checkpoint(stage, "last")


def manifest(recipe, stage="answer"):
    return read_info(last(recipe, stage))["parts"]


def prepared_of(recipe):
    return [Prepared.open(recipe.data.prepared)] * len(recipe.stages)


def of_part(part, weights):
    model = make_msvqa()
    owner = parts_of_weights(model, model.parts())
    return {name: value for name, value in weights.items() if owner[name] == part}


@pytest.fixture(scope="module")
def first(tiny, tmp_path_factory):
    """A run of which the first stage is trained, and its checkpoint."""
    recipe = recipe_of(tiny, tmp_path_factory.mktemp("first"))
    train(recipe, 0)
    return last(recipe, "reconstruct")


@pytest.fixture(scope="module")
def encoder_files(tmp_path_factory):
    """Weight files of both encoders of the tiny model."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(7)
    recipe = make_recipe(folder)
    model = type(make_msvqa())(recipe.model, make_msvqa().sizes)
    files = []
    for name in ("appearance", "motion"):
        file = folder / f"{name}.safetensors"
        save_file(getattr(model, f"{name}_encoder").state_dict(), file)
        files.append(f"model.{name}.weights={file}")
    return files


@pytest.mark.long
def test_a_frozen_part_has_no_gradients_is_in_eval_mode_and_stays_bit_for_bit(
    tiny, tmp_path, first
):
    recipe = recipe_of(tiny, tmp_path, "stages.1.parts={backbone: frozen}")
    run, job = make_job(recipe, 1, first)
    loop = StageLoop(job, LocalHost(run.stage_dir("answer")))
    loop.run()
    loop.objective.train()
    encoder, network = loop.model.appearance_encoder, loop.model.network
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    assert network.training and all(m.training for m in network.answer.modules())
    assert {group["name"] for group in loop.optimizer.param_groups} == {"rest"}
    before, after = read_weights(first), final_weights(recipe, "answer")
    # With its running statistics of batch norm.
    assert_equal(of_part("backbone", before), of_part("backbone", after))
    assert any(not torch.equal(value, after[n]) for n, value in of_part("rest", before).items())


@pytest.mark.long
def test_an_absent_part_is_neither_built_nor_saved_and_the_rest_starts_as_before(
    tiny, tmp_path, first
):
    names = ("whole", "without")
    for name, parts in zip(names, ("{}", "{decoder: absent}"), strict=True):
        recipe = recipe_of(tiny, tmp_path, f"stages.1.parts={parts}", name=name)
        check_initial_fit(recipe, prepared_of(recipe))
        train(recipe, 1, start=first)
    whole, without = (read_weights(last(recipe_of(tiny, tmp_path, name=n))) for n in names)
    assert of_part("decoder", whole) and not of_part("decoder", without)
    assert_equal({n: v for n, v in whole.items() if n in without}, without)
    loaded = load_checkpoint(last(recipe))
    assert not hasattr(loaded.model, "motion_decoder")
    assert set(manifest(recipe)) == {"backbone", "rest"}
    check_own(Run.open(recipe.run_location), prepared_of(recipe))


@pytest.mark.long
def test_a_fresh_part_may_be_lacking_and_starts_as_at_birth(tiny, tmp_path, first):
    without = recipe_of(tiny, tmp_path, "stages.1.parts={decoder: absent}", name="without")
    train(without, 1, start=first)
    start = last(without)
    outside = f"stages.0.init_from={start}"
    strict = recipe_of(tiny, tmp_path, outside, name="strict")
    with pytest.raises(CheckpointError, match=r"missing appearance_decoder\S+ .*by part: decoder"):
        check_initial_fit(strict, prepared_of(strict))
    with pytest.raises(CheckpointError, match="missing appearance_decoder"):
        train(strict, 0, start=start)
    fresh = recipe_of(tiny, tmp_path, outside, "stages.0.fresh=[decoder]", name="fresh")
    check_initial_fit(fresh, prepared_of(fresh))
    run, job = make_job(fresh, 0, start)
    begun = StageLoop(job, LocalHost(run.stage_dir("reconstruct"))).model.state_dict()
    born = recipe_of(tiny, tmp_path, name="born")
    run, job = make_job(born, 0)
    new = StageLoop(job, LocalHost(run.stage_dir("reconstruct"))).model.state_dict()
    assert_equal(of_part("decoder", begun), of_part("decoder", new))
    assert_equal(of_part("rest", begun), of_part("rest", read_weights(start)))


def test_a_fresh_part_is_taken_from_the_checkpoint_where_it_has_it(tiny, tmp_path, first):
    recipe = recipe_of(tiny, tmp_path, f"stages.0.init_from={first}", "stages.0.fresh=[decoder]")
    run, job = make_job(recipe, 0, first)
    begun = StageLoop(job, LocalHost(run.stage_dir("reconstruct"))).model.state_dict()
    assert_equal(of_part("decoder", begun), of_part("decoder", read_weights(first)))


@pytest.mark.long
def test_a_checkpoint_says_where_each_part_came_from_and_what_trained_it(tiny, tmp_path, first):
    born = read_info(first)["parts"]
    assert {name: part["source"] for name, part in born.items()} == {
        "backbone": "chance", "decoder": "chance", "rest": "chance",
    }  # fmt: skip
    assert {part["trained_by"] for part in born.values()} == {"reconstruct"}
    recipe = recipe_of(tiny, tmp_path, "stages.1.parts={backbone: frozen, decoder: absent}")
    train(recipe, 1, start=first)
    found = manifest(recipe)
    assert {name: part["trained_by"] for name, part in found.items()} == {
        "backbone": "reconstruct", "rest": "answer",
    }  # fmt: skip
    assert {part["checkpoint"] for part in found.values()} == {str(first)}


@pytest.mark.long
def test_a_checkpoint_without_origins_is_resumed_as_before(tiny, tmp_path, first):
    options = "stages.1.checkpoint.every_steps=1"
    whole, cut = (recipe_of(tiny, tmp_path, options, name=name) for name in ("whole", "cut"))
    train(whole, 1, start=first)
    folder = Path(cut.run_location) / "answer"
    with pytest.raises(KeyboardInterrupt):
        train(cut, 1, StoppingHost(folder, 1), start=first)
    file = last(cut) / CHECKPOINT_INFO
    info = json.loads(file.read_text())
    for key in ("parts", "sha256"):
        del info[key]
    file.write_text(json.dumps(info))
    check_own(Run.open(cut.run_location), prepared_of(cut))
    train(cut, 1)
    assert_equal(final_weights(whole, "answer"), final_weights(cut, "answer"))
    assert {part["source"] for part in manifest(cut).values()} == {"checkpoint"}


@pytest.mark.long
def test_an_untrained_part_of_the_users_files_is_not_written_and_read_from_there_again(
    tiny, tmp_path, encoder_files
):
    frozen = [f"stages.{n}.parts={{backbone: frozen}}" for n in (0, 1)]
    recipe = recipe_of(tiny, tmp_path, BORROWING, *encoder_files, *frozen)
    train(recipe, 0)
    start = last(recipe, "reconstruct")
    stored = read_weights(start)
    assert stored and not of_part("backbone", stored)
    part = manifest(recipe, "reconstruct")["backbone"]
    assert (part["source"], part["trained_by"], part["stored"]) == ("files", None, False)
    assert [str(file) in " ".join(encoder_files) for file in part["files"]] == [True, True]
    train(recipe, 1, start=start)
    check_own(Run.open(recipe.run_location), prepared_of(recipe))
    file = encoder_files[0].partition("=")[2]
    kept = dict(load_checkpoint(last(recipe)).model.appearance_encoder.state_dict())
    assert_equal(kept, load_file(file))
    # Another file in its place is refused, and so is none.
    content = Path(file).read_bytes()
    try:
        Path(file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(CheckpointError, match="made with another " + re.escape(file)):
            load_checkpoint(last(recipe))
        Path(file).unlink()
        with pytest.raises(CheckpointError, match="not there: put the file back"):
            load_checkpoint(last(recipe))
    finally:
        Path(file).write_bytes(content)


@pytest.mark.long
def test_a_part_of_the_users_files_is_written_once_it_is_trained(tiny, tmp_path, encoder_files):
    recipe = recipe_of(tiny, tmp_path, BORROWING, *encoder_files)
    train(recipe, 1)
    assert of_part("backbone", read_weights(last(recipe)))
    assert manifest(recipe)["backbone"]["trained_by"] == "answer"
    load_checkpoint(last(recipe))


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stages.1.parts={decoders: frozen}"], r"stages.1.parts.decoders: unknown part.*decoder'"),
        (["stages.1.fresh=[bakbone]"], r"stages.1.fresh.bakbone: unknown part.*'backbone'"),
        (["stages.1.schedule_of={heads: {}}"], "stages.1.schedule_of.heads: unknown part"),
        (["stages.1.parts={rest: absent}"], "stages.1.parts.rest: .*may be absent: decoder"),
        (["stages.0.parts={decoder: absent}"], "stages.0.parts.decoder: objective reconstruction"),
        (["stages.1.optimizer.layer_decay=0.9"], "layer_decay: model msvqa does not say its"),
        (["stages.1.parts={backbone: frozen, rest: frozen}"], "nothing is left to train"),
    ],
)
def test_what_is_said_of_parts_is_checked_against_the_model_before_anything_starts(
    tiny, tmp_path, overrides, words
):
    with pytest.raises(RecipeError, match=words):
        check(recipe_of(tiny, tmp_path, *overrides))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stages.0.fresh=[rest]"], "without init_from"),
        (["stages.1.parts={decoder: absent}", "stages.1.fresh=[decoder]"], "decoder is absent"),
        (
            ["stages.1.parts={backbone: frozen}", "stages.1.optimizer.lr_of={backbone: 1e-5}"],
            "optimizer.lr_of.backbone: parts.backbone is frozen",
        ),
    ],
)
def test_contradictions_about_parts_are_refused(tiny, tmp_path, overrides, words):
    with pytest.raises(RecipeError, match=words):
        recipe_of(tiny, tmp_path, *overrides)


@pytest.mark.long
def test_a_part_that_an_earlier_stage_leaves_out_must_be_named_as_fresh(tiny, tmp_path):
    raw = recipe_of(tiny, tmp_path).to_dict()
    again = raw["stages"][0] | {"name": "again", "init_from": "answer"}
    raw["stages"][1]["parts"] = {"decoder": "absent"}
    stages = [*raw["stages"], again]
    with pytest.raises(RecipeError, match=r"2\.fresh: part 'decoder' is absent in stage 'ans"):
        check(parse(raw | {"stages": stages}))
    check(parse(raw | {"stages": [*stages[:2], again | {"fresh": ["decoder"]}]}))


@pytest.mark.long
def test_a_rehearsal_trains_what_the_stage_trains(tiny, tmp_path):
    recipe = recipe_of(tiny, tmp_path, "stages.1.parts={backbone: frozen, decoder: absent}")
    whole, part = rehearse(recipe, prepared_of(recipe))
    assert part.parameters < whole.parameters
    assert part.trained_parameters < part.parameters


@pytest.mark.long
def test_layers_of_a_part_have_rates_of_their_own_and_resume_exactly(tiny, tmp_path):
    options = (
        BORROWING, "stages.1.optimizer.layer_decay=0.5", "stages.1.optimizer.name=adamw",
        "stages.1.optimizer.decay_vectors=false", "stages.1.optimizer.weight_decay=0.1",
        "stages.1.steps=4", "stages.1.checkpoint.every_steps=2",
        "stages.1.schedule_of={backbone: {name: linear, warmup_epochs: 0.5}}",
    )  # fmt: skip
    whole, cut = (recipe_of(tiny, tmp_path, *options, name=name) for name in ("whole", "cut"))
    train(whole, 1)
    with pytest.raises(KeyboardInterrupt):
        train(cut, 1, StoppingHost(Path(cut.run_location) / "answer", 1))
    train(cut, 1)
    assert_equal(final_weights(whole, "answer"), final_weights(cut, "answer"))
