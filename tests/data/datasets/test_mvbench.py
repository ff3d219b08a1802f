"""MVBench's files: every question is found with its medium, and what is wrong is named."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.processors.frames import Frames
from msvqa.data.sampling import mvbench_frames
from msvqa.errors import DataError
from msvqa.mvbench.drawing import pictures
from msvqa.mvbench.tasks import TASKS
from msvqa.prepare import prepare, summary
from msvqa.recipe import parse_data
from tests.mvbench.conftest import drawn, mini

__all__ = ["drawn", "mini"]


def opened(root, **fields):
    return open_dataset(config_of(root, **fields))


def config_of(root, **fields):
    return parse_data("mvbench", [], root=str(root), prepared=str(root.parent / "p"), **fields)


def edit(root, task, change):
    file = root / "json" / f"{task}.json"
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows))


def test_all_questions_have_their_media(drawn):
    dataset = opened(drawn)
    questions = dataset.read()
    assert questions.problems == []
    assert questions.expected == {task.name: 3 for task in TASKS}
    assert Counter(item.task for item in questions.items) == questions.expected
    found = dataset.found(questions.items)
    assert len(found) == 60
    assert all(at.file.path for at in found.values())
    assert Counter(at.kind for at in found.values()) == {"video": 57, "frames": 3}
    first = questions.items[0]
    assert first.candidates[first.answer] == "Orange."
    assert first.place.id == "video/star_like/action_sequence_000.mp4[1-3]"


def test_it_is_prepared_as_choices_of_a_test_split(mini, tmp_path):
    prepared = prepare(config_of(mini))
    split = prepared.split("test")
    assert split.examples.name == "choices"
    assert "test: 60 of 60 choices, 60 of 60 videos, 0 missing" in summary(prepared)
    tensors = split.examples.tensors(np.array([0, 59]))
    assert tensors["options"].tolist() == [4, 3]
    shown = split.examples.shown(np.array([59]))
    assert shown["options"][0][shown["answer"][0]] == "Yes."
    frame_folder = split.media.kind.index("frames")
    assert split.media.span(frame_folder) == (8.4, 9.6)


@pytest.mark.long
def test_the_frames_processor_draws_as_the_evaluation_does(drawn):
    dataset = opened(drawn)
    manifest = json.loads((drawn / "manifest.json").read_text())
    described = {medium["path"]: medium for medium in manifest["media"]}
    section = {"name": "frames", "frames": 5, "draw": "mvbench", "size_px": 64}
    processor = Frames(Frames.Config(**section))
    media = [m for m in prepared_media(dataset) if m.has_span]
    assert {medium.kind for medium in media} == {"video", "frames"}
    for medium, arrays in zip(media, processor.arrays(media), strict=True):
        recipe = described[str(Path(medium.path).relative_to(drawn))]
        drawn_frames = np.stack(list(pictures(recipe, manifest["frame_size"])))
        chosen = mvbench_frames(recipe["n_frames"], recipe["fps"], medium, 5)
        difference = arrays["frames"].astype(int) - drawn_frames[chosen]
        assert np.abs(difference).mean() < 6, medium.path


def prepared_media(dataset):
    annotated = dataset.annotate()
    from msvqa.data.media import COLUMNS, Media

    return Media(annotated.media.select(COLUMNS.names), str(dataset.root))


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "value", "kind", "said"),
    [
        ("answer", "Pink.", "invalid_row", "the answer 'Pink.' is 0 of the candidates"),
        ("candidates", ["Red.", "Red."], "invalid_row", "is 2 of the candidates"),
        ("candidates", "Red.", "invalid_row", "a list of 2 to 26 texts"),
        ("video", "../../secret.mp4", "outside_root", "leaves the data root"),
        ("video", "a\u0007.mp4", "invalid_row", "control character"),
        (
            "video",
            "gone.mp4",
            "missing_video",
            "row 1: video/star_like/gone.mp4[1-3] of test: no file",
        ),
        ("start", "0:10", "invalid_row", "must be seconds"),
        ("start", float("nan"), "invalid_row", "must be seconds"),
        ("end", 0.5, "odd_bound", "frames within the video are taken"),
        ("question", " ", "invalid_row", "'question': a text is needed"),
    ],
)
def test_a_wrong_row_is_named(mini, key, value, kind, said):
    def change(rows):
        rows[1][key] = value
        rows[1]["answer"] = "Red." if key == "candidates" else rows[1]["answer"]

    edit(mini, "action_sequence", change)
    annotated = opened(mini).annotate()
    (problem,) = annotated.problems
    assert problem.kind == kind
    assert said in problem.detail
    lost = kind == "invalid_row"
    assert annotated.examples.num_rows == 60 - lost
    assert annotated.facts["expected"]["Action Sequence"] == 3


def test_two_options_of_one_text_are_told_and_asked(mini):
    def change(rows):
        rows[0]["candidates"][0] = rows[0]["candidates"][1]

    edit(mini, "action_sequence", change)
    questions = opened(mini).read()
    assert [problem.kind for problem in questions.problems] == ["duplicate_options"]
    assert len(questions.items) == 60


def test_copies_with_another_ending_are_found_and_names_alike_are_not_mixed_up(mini):
    blocks, percept = mini / "video" / "blocks", mini / "video" / "percept"
    (blocks / "moving_count_000.mp4").rename(blocks / "moving_count_000.webm")
    for name, task in (("moving_count", blocks), ("state_change", percept)):
        (task / f"{name}_001.mp4").rename(task / "video_0001.mp4")
        edit(mini, name, lambda rows: rows[1].update(video="video_0001.mp4"))
    dataset = opened(mini)
    found = {place.path: at.file.path for place, at in dataset.found(dataset.read().items).items()}
    renamed = "video/blocks/moving_count_000"
    assert found[f"{renamed}.mp4"] == f"{renamed}.webm"
    assert all(found[f"video/{folder}/video_0001.mp4"] for folder in ("blocks", "percept"))


def test_a_folder_of_frames_must_be_numbered_from_one(mini):
    folder = mini / "video" / "tv_frames" / "episodic_reasoning_000"
    (folder / "00007.jpg").unlink()
    (problem,) = opened(mini).annotate().problems
    assert "frame 7 is absent of 29" in problem.detail


def test_without_a_manifest_the_published_layout_is_read(mini):
    (mini / "manifest.json").unlink()
    star = mini / "video" / "star" / "Charades_v1_480"
    star.parent.mkdir()
    (mini / "video" / "star_like").rename(star)
    dataset = opened(mini)
    found = dataset.found(dataset.read().items)
    present = [place.path for place, at in found.items() if at.file.path]
    assert len(present) == 9
    assert all(path.startswith("video/star/Charades_v1_480/") for path in present)
    (mini / "json" / "state_change.json").unlink()
    with pytest.raises(DataError, match=r"no file .*state_change\.json"):
        opened(mini).read()


def test_bounds_are_not_applied_to_clips_that_are_cut_already(mini):
    manifest = json.loads((mini / "manifest.json").read_text())
    (mini / "video" / "star_like").rename(mini / "video" / "star_segment")
    for task in manifest["tasks"]:
        task["media_root"] = task["media_root"].replace("star_like", "star_segment")
    (mini / "manifest.json").write_text(json.dumps(manifest))
    items = opened(mini).read().items
    assert {item.place.start for item in items if "star_segment" in item.place.path} == {None}
    assert any(item.place.start is not None for item in items)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "Action Sequenze"}, r"tasks\.0\.task: no task .*did you mean 'Action Sequence'"),
        ({"kind": "film"}, r"tasks\.0\.kind"),
        ({"media_root": "../elsewhere"}, r"tasks\.0\.media_root: leaves the data root"),
        ({"annotation": "/etc/passwd"}, r"tasks\.0\.annotation: leaves the data root"),
        ({"bounded": "yes"}, r"tasks\.0\.bounded: a bool is needed"),
        ({"task": "Action Prediction"}, "a task is there twice"),
    ],
)
def test_a_manifest_is_checked(mini, change, said):
    manifest = json.loads((mini / "manifest.json").read_text())
    manifest["tasks"][0] |= change
    (mini / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=said):
        opened(mini).read()
