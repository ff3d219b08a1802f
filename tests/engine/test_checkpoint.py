"""Checkpoints that were damaged: none is ever taken for whole, and the one before it is kept."""

import json
import shutil

import pytest

from msvqa.data.lexicon import Lexicon
from msvqa.data.text import AnswerList, Vocabulary
from msvqa.engine.checkpoint import (
    Content,
    Position,
    checkpoint_name,
    find_initial,
    load_weights,
    newest_checkpoint,
    read_info,
    save_checkpoint,
)
from msvqa.errors import CheckpointError
from msvqa.run import CHECKPOINT_INFO, Run
from msvqa.storage import RemoteFolder
from tests.models.small import make_dualvgr
from tests.object_store import BUCKET, STORES
from tests.tiny import make_recipe

STEPS = (2, 4, 6)
FILES = ("weights.safetensors", "training_state.pt", "vocabulary.json", "checkpoint.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A stage's folder with the checkpoints of three steps."""
    folder = tmp_path_factory.mktemp("checkpoints")
    recipe, model = make_recipe(folder), make_dualvgr()
    words = [Vocabulary.build([["what", "is"]]), AnswerList.build(["a cat"], top=1)]
    for step in STEPS:
        content = Content(
            recipe=recipe, model=model, examples="questions", lexicon=Lexicon(words),
            training_state={"optimizer": {"step": step}}, score=None, finished=False,
            position=Position(stage="answer", step=step),
        )  # fmt: skip
        save_checkpoint(folder / "answer" / checkpoint_name(step), content)
    return folder / "answer"


@pytest.fixture
def stage(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "answer")


def newest(stage, file):
    return stage / checkpoint_name(STEPS[-1]) / file


def refuse(stage, file):
    """The newest is refused by name, also in the next try; on request the one before is taken."""
    for _ in range(2):
        with pytest.raises(CheckpointError, match="damaged_checkpoint=previous") as caught:
            newest_checkpoint(stage)
        assert str(newest(stage, file)) in str(caught.value)
    previous = stage / checkpoint_name(STEPS[-2])
    assert newest_checkpoint(stage, or_previous=True) == str(previous)
    assert newest_checkpoint(stage) == str(previous), "the damaged one is out of the way"
    assert (stage / f".damaged-{checkpoint_name(STEPS[-1])}").is_dir(), "and still there"


def test_the_newest_is_taken(stage):
    assert newest_checkpoint(stage) == str(stage / checkpoint_name(STEPS[-1]))
    assert read_info(newest_checkpoint(stage))["position"]["step"] == STEPS[-1]
    assert newest_checkpoint(stage, or_previous=True) == str(stage / checkpoint_name(STEPS[-1]))


def test_a_stage_without_checkpoints_has_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_damage(stage, file, left):
    path = newest(stage, file)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    refuse(stage, file)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.9])
def test_a_flipped_bit_is_damage(stage, file, place):
    path = newest(stage, file)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    refuse(stage, file)


def test_weights_that_are_not_finite_are_named_and_not_taken(stage, whole):
    content = Content(
        recipe=make_recipe(stage), model=make_dualvgr(), examples="questions",
        lexicon=Lexicon(), training_state={}, score=0.5, finished=True,
        position=Position(stage="answer", step=STEPS[-1]),
    )  # fmt: skip
    name, weight = next(iter(content.model.named_parameters()))
    weight.data.flatten()[0] = float("nan")
    save_checkpoint(stage / checkpoint_name(STEPS[-1]), content)
    with pytest.raises(CheckpointError, match=rf"not finite: {name}; the training had diverged"):
        find_initial(str(newest(stage, "")), Run(stage, content.recipe))
    with pytest.raises(CheckpointError, match=rf"not finite: {name}; take another one"):
        load_weights(make_dualvgr(), content.model.state_dict(), "a checkpoint")
    refuse(stage, "weights.safetensors")


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_damage(stage, file):
    newest(stage, file).unlink()
    refuse(stage, "")


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"format": "two"}', "\xff"])
def test_a_description_that_is_none_is_damage(stage, text):
    newest(stage, "checkpoint.json").write_bytes(text.encode("latin-1"))
    refuse(stage, "checkpoint.json")


def test_every_number_of_the_description_is_protected(stage):
    path = newest(stage, "checkpoint.json")
    info = json.loads(path.read_text())
    info["position"]["step"] += 1
    path.write_text(json.dumps(info))
    refuse(stage, "checkpoint.json")


def test_a_newer_format_says_that_msvqa_is_too_old(stage):
    path = newest(stage, "checkpoint.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(CheckpointError, match=r"has format 99.*update msvqa"):
        newest_checkpoint(stage)


def test_what_is_written_aside_is_no_checkpoint(stage):
    last = stage / checkpoint_name(STEPS[-1])
    last.rename(last.with_name(f".{last.name}"))
    assert newest_checkpoint(stage) == str(stage / checkpoint_name(STEPS[-2]))


def test_all_may_be_damaged(stage):
    for path in stage.glob("step-*/weights.safetensors"):
        path.write_bytes(b"")
    assert newest_checkpoint(stage, or_previous=True) is None


@pytest.mark.long
@pytest.mark.parametrize("scheme", STORES)
def test_what_was_not_sent_to_its_end_is_no_checkpoint(stage, tmp_path, monkeypatch, scheme):
    monkeypatch.setenv("MSVQA_CACHE", str(tmp_path / "cache"))
    with STORES[scheme]():
        place = f"{scheme}://{BUCKET}/{tmp_path.name}/answer"
        folder = RemoteFolder(place)
        shutil.copytree(stage, folder.path, dirs_exist_ok=True)
        first, second, third = map(checkpoint_name, STEPS)
        folder.put(first, last=CHECKPOINT_INFO)
        folder.put(second, last=CHECKPOINT_INFO)
        # As a process leaves it that was killed before it could send the rest.
        folder.put(f"{third}/weights.safetensors", f"{third}/training_state.pt")
        assert newest_checkpoint(place) == f"{place}/{second}"
        folder.put(third, last=CHECKPOINT_INFO)
        assert newest_checkpoint(place) == f"{place}/{third}"
