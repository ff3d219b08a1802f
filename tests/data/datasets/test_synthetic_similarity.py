"""The generated set needs frames and titles: what can be known of each alone, and of both."""

import numpy as np
import pytest

from msvqa.data.datasets.synthetic_similarity import (
    TOPICS,
    WORDS_OF_TOPIC,
    World,
    generate,
)
from msvqa.data.records import parse_example, read_records
from msvqa.errors import DataError
from tests.similar_videos import config_of, write_similar


def spearman(found, expected):
    ranks = []
    for values in (found, expected):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    return np.corrcoef(*ranks)[0, 1]


def topics(world, path):
    """Return the topics of frames and title of every video, by the nearest look and the words."""
    found = {}
    for record in read_records(path):
        features = parse_example(record.content)
        frames = np.stack([np.frombuffer(row, "<f2") for row in features["frame_feature"]])
        seen = np.square(world.look - frames.mean(axis=0, dtype=float)).sum(axis=1).argmin()
        words = [world.words.index(c) for c in features["title"][0].decode()]
        read = np.bincount(np.array(words) // WORDS_OF_TOPIC, minlength=TOPICS).argmax()
        found[features["id"][0].decode()] = int(seen), int(read)
    return found


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_media_tell_more_than_twice_what_each_does(tmp_path, seed):
    config = write_similar(
        tmp_path / "set", pairwise_videos=600, pairs=2000, width=64, drawing_seed=seed
    )
    world = World.of(seed, config.width)
    of = topics(world, tmp_path / "set/pairwise/pairwise.tfrecords")
    lines = (tmp_path / "set/pairwise/label.tsv").read_text().splitlines()
    pairs = [(of[a], of[b], float(y)) for a, b, y in (line.split("\t") for line in lines)]
    label = [y for *_, y in pairs]
    of_frames, of_titles = world.meaning.mean(axis=1), world.meaning.mean(axis=0)
    frames = spearman([of_frames[a[0]] @ of_frames[b[0]] for a, b, _ in pairs], label)
    titles = spearman([of_titles[a[1]] @ of_titles[b[1]] for a, b, _ in pairs], label)
    both = spearman([world.meaning[a] @ world.meaning[b] for a, b, _ in pairs], label)
    assert 0.25 < frames < 0.45 and 0.25 < titles < 0.45, "near 0.35"
    assert both > 0.9
    assert 15 <= len(set(label)) <= 21


def test_equal_arguments_make_equal_files(tmp_path):
    files = []
    for name in ("a", "b"):
        write_similar(tmp_path / name)
        found = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        files.append({path.relative_to(tmp_path / name): path.read_bytes() for path in found})
    assert files[0] == files[1]
    assert len(files[0]) == 9


def test_parts_share_no_video(tmp_path):
    write_similar(tmp_path / "set")
    files = list((tmp_path / "set").rglob("*.tfrecords"))
    ids = [parse_example(r.content)["id"][0] for file in files for r in read_records(file)]
    assert len(ids) == len(set(ids)) == 40 + 48 + 24 + 24
    assert all(len(name) == 19 for name in ids)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine.txt").touch()
    with pytest.raises(DataError, match="is not empty"):
        generate(tmp_path / "set", config_of(tmp_path / "set"))
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_too_many_pairs_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(DataError, match="too many"):
        write_similar(tmp_path / "set", pairs=10_000)
    assert not list(tmp_path.iterdir())
