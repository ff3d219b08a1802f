"""The quick start of UMT, small: all stages train, resume exactly, and keep what is frozen."""

import shutil
from pathlib import Path

import pytest

from msvqa.data.datasets.synthetic_captions import DIRECTIONS, LOOKS
from msvqa.data.text import Vocabulary
from msvqa.engine.checkpoint import read_info
from msvqa.prepare import check_places, prepare_stages, prepare_validations
from msvqa.recipe import parse
from msvqa.run import Run
from tests.captioned_shapes import STAGES, small_quickstart, write_captioned
from tests.engine.test_loop import assert_equal, final_weights
from tests.engine.test_similarity import train
from tests.tiny import make_store


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captioned") / "set"
    write_captioned(folder)
    return folder


def part_of(weights, part):
    return {name: value for name, value in weights.items() if name.startswith(f"{part}.")}


@pytest.mark.long
def test_all_stages_resume_exactly_and_leave_bit_for_bit_what_they_do_not_train(root, tmp_path):
    whole, cut = (small_quickstart(root, tmp_path, f"name={name}") for name in ("whole", "cut"))
    check_places(whole)
    prepared = prepare_stages(whole)
    prepare_validations(whole)
    # Pictures for the teacher, videos for all others.
    for number in (0, 1):
        make_store(whole.of_stage(number), prepared[number])
    for number, stage in enumerate(whole.stages):
        train(whole, number)
        with pytest.raises(KeyboardInterrupt):
            train(cut, number, reports=1)
        train(cut, number)
        assert_equal(final_weights(whole, stage.name), final_weights(cut, stage.name))
    teacher, distil, align, last = (final_weights(whole, name) for name in STAGES)
    for later in (distil, align):
        assert part_of(teacher, "teacher")
        assert_equal(part_of(teacher, "teacher"), part_of(later, "teacher"))
    assert_equal(part_of(teacher, "text"), part_of(distil, "text"))
    assert not part_of(teacher, "heads") and not part_of(last, "teacher")
    trained = {
        name: {part for part, fields in parts.items() if fields["trained_by"] == name}
        for name in STAGES
        for parts in [read_info(Run.open(whole.run_location).checkpoint(name, "last"))["parts"]]
    }
    assert trained == {
        "teacher": {"teacher", "text", "projections"},
        "distil": {"video", "heads"},
        "align": {"video", "text", "fusion", "projections"},
        "whole": {"video", "text", "fusion", "projections"},
    }


def test_one_word_moves_all_stages_to_other_captions(root, tmp_path):
    other = [f"data={{name: caption_files, root: {root}, prepared: {tmp_path}/other}}"]
    recipe = small_quickstart(root, tmp_path, *other)
    assert {view.data.name for view in recipe.views()} == {"caption_files"}
    assert recipe.of_evaluation("backwards").data.files == {"test": "backwards.json"}
    assert [len(p.split("train").media.id) for p in prepare_stages(recipe)] == [48, 28, 28, 28]


def test_who_has_no_pictures_teaches_with_the_frames_of_the_videos(root, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(root, own, ignore=shutil.ignore_patterns("pictures.json"))
    other = [f"data={{name: caption_files, root: {own}, prepared: {tmp_path}/prepared}}"]
    recipe = small_quickstart(root, tmp_path, *other)
    assert {view.data.root for view in recipe.views()} == {str(own)}
    assert recipe.of_evaluation("backwards").data.root == str(own)
    # Written with all its values, it is moved by the same words.
    written = parse(small_quickstart(root, tmp_path).to_dict(), other)
    moved = [
        [view.data.model_dump(exclude={"prepared"}) for view in found.views()]
        for found in (written, recipe)
    ]
    assert moved[0] == moved[1]
    prepared = prepare_stages(recipe)
    assert [len(p.split("train").media.id) for p in prepared] == [28, 28, 28, 28]
    said = f"{own}: train is train.json, there is no pictures.json"
    assert [said in p.info["notes"] for p in prepared] == [True, False, False, False]


def test_words_of_directions_are_known_from_the_places_of_pictures(root, tmp_path):
    pictures = prepare_stages(small_quickstart(root, tmp_path))[0]
    looks = {word for look in LOOKS for word in look.split()}
    assert looks | set(DIRECTIONS) <= set(pictures.lexicon.of(Vocabulary).tokens)
