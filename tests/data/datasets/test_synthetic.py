import json
import re
from collections import Counter
from itertools import pairwise

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from msvqa.data.datasets import synthetic
from msvqa.data.datasets.msvd_qa import MSVDQA
from msvqa.data.datasets.synthetic import Scene, Synthetic, generate
from msvqa.errors import DataError

SIZES = {"train": 40, "val": 4, "test": 8}
STEM = re.compile(r"[\w-]{11}_\d+_\d+")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("data") / "shapes", seed=5, videos=SIZES)


def questions_of(root, split):
    return json.loads((root / f"{split}_qa.json").read_text())


def frames_of(path):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.float64)


def files_of(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def scene(**changes):
    usual = {"shape": "circle", "color": "red", "direction": "left", "count": "three"}
    return Scene(**{**usual, "place": "room", "light": "noon", **changes})


def test_the_layout_is_that_of_msvd_qa(root):
    lines = (root / "youtube_mapping.txt").read_text().split("\n")
    stems = [line.split(" ")[0] for line in lines]
    assert [line.split(" ")[1] for line in lines] == [f"vid{n}" for n in range(1, 53)]
    assert all(STEM.fullmatch(stem) for stem in stems)
    assert {p.name for p in (root / "video").iterdir()} == {f"{stem}.avi" for stem in stems}
    rows = [row for split in SIZES for row in questions_of(root, split)]
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert all(set(row) == {"answer", "id", "question", "video_id"} for row in rows)
    for row in rows:
        assert re.fullmatch(r"(what|who|how|where|when)( [a-z]+)+\?", row["question"])
        assert re.fullmatch(r"[a-z]+", row["answer"])


def test_it_reads_as_msvd_qa_with_every_video_present(root):
    dataset = MSVDQA(MSVDQA.Config(name="msvd_qa", root=str(root)))
    annotations = dataset.read()
    assert len(annotations.rows) == sum(SIZES.values()) * len(synthetic.QUESTIONS)
    assert all(dataset.find_video(row.video_id, row.split).path for row in annotations.rows)


def test_splits_share_no_video(root):
    videos = [{row["video_id"] for row in questions_of(root, split)} for split in SIZES]
    assert [len(ids) for ids in videos] == list(SIZES.values())
    assert len(set.union(*videos)) == sum(SIZES.values())
    contents = [path.read_bytes() for path in (root / "video").iterdir()]
    assert len(set(contents)) == len(contents)


def test_answers_are_balanced_in_every_split(root):
    groups = [synthetic.SHAPES, synthetic.CAST.values(), synthetic.COUNTS, synthetic.LIGHTS]
    for split in SIZES:
        counts = Counter(row["answer"] for row in questions_of(root, split))
        for group in groups:
            assert {counts[answer] for answer in group} == {SIZES[split] // 4}


def test_question_words_alone_are_worth_little_more_than_chance(root):
    by_question = {}
    for row in questions_of(root, "train"):
        by_question.setdefault(row["question"], Counter())[row["answer"]] += 1
    right = [
        by_question[row["question"]].most_common(1)[0][0] == row["answer"]
        for row in questions_of(root, "test")
    ]
    assert np.mean(right) < 0.45


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path):
    sizes = {"train": 2, "val": 1, "test": 1}
    first, again, other = (
        files_of(generate(tmp_path / name, seed=seed, videos=sizes))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_videos_are_mpeg4_with_b_frames_of_varying_length_and_rate(root):
    kinds, lengths, rates = set(), set(), set()
    for path in sorted((root / "video").iterdir())[:12]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "mpeg4"
            frames = list(container.decode(stream))
            kinds |= {PictureType(frame.pict_type).name for frame in frames}
            lengths.add(len(frames))
            rates.add(stream.average_rate)
    assert {"I", "P", "B"} <= kinds
    assert len(lengths) > 3 and len(rates) > 3


@pytest.mark.parametrize(("direction", "step"), synthetic.STEPS.items())
def test_only_one_shape_moves_and_in_the_direction_of_the_answer(direction, step):
    rng = np.random.default_rng(3)
    frames = np.stack(list(synthetic._draw(scene(direction=direction), rng))).astype(float)
    changes = [np.abs(b - a).sum(axis=2) > 30 for a, b in pairwise(frames)]
    moments = [np.argwhere(change).mean(axis=0) for change in changes if change.sum() > 20]
    travelled = (moments[-1] - moments[0])[::-1]  # x, y
    along, across = travelled @ step, abs(travelled @ step[::-1])
    assert along > 30 and across < 6
    touched = np.any(changes, axis=0)
    extent = np.ptp(np.argwhere(touched), axis=0)[::-1] * np.abs(step[::-1])
    assert extent.sum() < 45  # no wider than one shape


def test_shapes_stand_apart_so_that_they_can_be_counted():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mover, path = synthetic._route(scene(), 20, rng)
        standing = synthetic._bystanders(mover, path, 3, rng)
        assert len(standing) == 3
        for number, figure in enumerate(standing):
            others = [(f.x, f.y, f.radius) for f in standing[number + 1 :]]
            others += [(x, y, mover.radius) for x, y in path]
            gaps = [np.hypot(figure.x - x, figure.y - y) - figure.radius - r for x, y, r in others]
            assert min(gaps) > 3


@pytest.mark.parametrize("attribute", ["shape", "color", "count", "place", "light"])
def test_every_answer_looks_different(attribute):
    options = {
        "shape": synthetic.SHAPES,
        "color": synthetic.COLORS,
        "count": synthetic.COUNTS,
        "place": synthetic.PLACES,
        "light": synthetic.LIGHTS,
    }[attribute]
    pictures = [
        next(synthetic._draw(scene(**{attribute: option}), np.random.default_rng(7)))
        for option in options
    ]
    for a, b in pairwise(pictures):
        assert np.abs(a.astype(float) - b).mean() > 1


def test_the_data_set_writes_itself_once(tmp_path):
    sizes = {"train_videos": 2, "val_videos": 1, "test_videos": 1}
    config = Synthetic.Config(root=str(tmp_path / "new" / "shapes"), **sizes)
    Synthetic(config).generate()
    before = files_of(tmp_path)
    assert len(before) == 4 + 4
    Synthetic(config).generate()
    assert files_of(tmp_path) == before


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "holiday.avi").write_bytes(b"")
    with pytest.raises(DataError, match="not empty"):
        generate(tmp_path, videos=SIZES)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.avi"]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_ask", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "shapes", videos=SIZES)
    assert list(tmp_path.iterdir()) == []


def test_light_falls_on_moving_and_standing_shapes_alike():
    def light(color):
        return np.asarray(color) * 0.5 + 20

    figure = synthetic.Figure("ring", "green", 40.0, 50.0, 14.0, 0.1)
    standing = synthetic._background("street", np.random.default_rng(0))
    moving = light(standing)
    synthetic._paint(standing, figure)
    synthetic._paint(moving, figure, light)
    np.testing.assert_allclose(moving, light(standing), atol=1e-3)
