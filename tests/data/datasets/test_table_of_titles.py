"""Titled videos of the user and pairs of them: four formats, splits, problems by file and row."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.datasets.table import Table
from msvqa.data.prepared import prepared_location
from msvqa.data.tags import TagList
from msvqa.errors import DataError
from msvqa.prepare import prepare
from tests.own_videos import write_vocabulary

TITLED = [
    {"video": "a.mp4", "title": "a red bear", "tags": ["bears", "7"], "split": "train"},
    {"video": "videos/b.avi", "title": "", "tags": [], "split": "Train"},
    {"video": "c", "title": " blue sea ", "tags": ["sea", "bears"], "split": "validation"},
    {"video": "d.mp4", "title": "green", "tags": ["rare"], "split": "test"},
]
PAIRS = [
    {"video_a": "a", "video_b": "b", "similarity": 0.25, "split": "train"},
    {"video_a": "./videos/b.avi", "video_b": "a.mp4", "similarity": 1, "split": "train"},
    {"video_a": "c", "video_b": "d", "similarity": 0.5, "split": "test"},
]
FILES = ("a.mp4", "videos/b.avi", "video/c.mp4", "d.mp4")


@pytest.fixture
def root(tmp_path):
    """A folder with four videos and a vocabulary."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write_vocabulary(tmp_path / "text", ["a", "red", "bear", "blue", "sea", "green"])
    return tmp_path


def write(file: Path, rows) -> Path:
    kind = file.suffix.removeprefix(".")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        mark = {"csv": ",", "tsv": "\t"}[kind]
        cells = [[_cell(value) for value in row.values()] for row in rows]
        lines = [mark.join(line) for line in [[*rows[0]], *cells]]
        file.write_text("\n".join(lines))
    return file


def _cell(value):
    return "|".join(value) if isinstance(value, list) else str(value)


def config_of(root, annotations=None, titles=None, **fields):
    named = {"annotations": annotations, "titles": titles}
    places = {name: str(root / file) for name, file in named.items() if file}
    given = {"prepared": str(root / "p"), **places, **fields}
    return Table.Config(name="table", root=str(root), **given)


def annotated(root, *args, **fields):
    return open_dataset(config_of(root, *args, **fields)).annotate()


def without(rows, *columns):
    return [{k: v for k, v in row.items() if k not in columns} for row in rows]


def refused(root, *args, **fields) -> str:
    with pytest.raises(DataError) as error:
        prepare(config_of(root, *args, **fields))
    return str(error.value)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_titled_videos_are_the_same_in_every_format(root, kind):
    write(root / f"videos.{kind}", TITLED)
    prepared = prepare(config_of(root, text_length=6))
    assert prepared.kind.name == "tags"
    train, val, test = (prepared.split(name) for name in ("train", "val", "test"))
    assert train.media.id == ["a.mp4", "videos/b.avi"]
    assert train.media.path == [str(root / "a.mp4"), str(root / "videos/b.avi")]
    assert train.examples.shown(np.arange(2))["title"] == ["a red bear", ""]
    assert train.examples.table["tags"].to_pylist() == [[["bears", "7"]], [[]]]
    # Those of training, numbers first: others have no column.
    assert prepared.lexicon.of(TagList) == TagList(["7", "bears"])
    assert (val.media.id, test.media.id) == (["video/c.mp4"], ["d.mp4"])
    assert val.examples.shown(np.arange(1))["title"] == ["blue sea"]
    batch = train.examples.tensors(np.array([0, 1]))
    assert batch["tag_indices"].tolist() == [[0, 1], [-1, -1]]
    assert batch["token_mask"].sum(dim=1).tolist() == [5, 2]
    assert test.examples.tensors(np.array([0]))["tag_indices"].tolist() == [[]]
    assert "1 of 2 titles of training are empty" in " ".join(prepared.info["notes"])


@pytest.mark.parametrize(
    ("given", "tags"),
    [
        ("cats | music;  |cats", ["cats", "music"]), ("", []), (None, []), (7, ["7"]),
        (["a|b", 12, " a "], ["a|b", "12", "a"]),
    ],
)  # fmt: skip
def test_tags_are_a_list_or_a_text_that_marks_divide(root, given, tags):
    write(root / "v.jsonl", [TITLED[0] | {"tags": given}])
    assert annotated(root).examples["tags"].to_pylist() == [[tags]]


def test_tags_need_not_be_there(root):
    write(root / "v.csv", without(TITLED, "tags"))
    found = annotated(root)
    assert found.examples["tags"].to_pylist() == [[[]]] * 4
    assert "no row of v.csv has tags" in " ".join(found.notes)


def test_rows_of_titles_that_cannot_be_used_are_named(root):
    write(
        root / "v.jsonl",
        [
            *TITLED,
            TITLED[0] | {"video": "./a"},
            TITLED[0] | {"title": 5},
            TITLED[0] | {"tags": [True]},
            TITLED[0] | {"tags": 0.5},
            TITLED[0] | {"split": "tran"},
            {"video": "a.mp4", "split": "train"},
            TITLED[0] | {"video": " "},
            TITLED[0] | {"video": "x\x07.mp4"},
            TITLED[0] | {"title": "t" * 10_001},
            TITLED[0] | {"video": "../a.mp4", "title": None},
            TITLED[0] | {"split": ""},
        ],
    )
    message = refused(root)
    for words in (
        "11 problems",
        "v.jsonl: row 5: video a.mp4 is also that of row 1",
        "v.jsonl: row 6: column 'title' must be a text, found '5'",
        "v.jsonl: row 7: a tag must be a text or a whole number, found 'True'",
        "v.jsonl: row 8: column 'tags' must be a list or a text, found '0.5'",
        "v.jsonl: row 9: split 'tran' is not one of test, train, val (did you mean 'train'?)",
        "v.jsonl: row 10: title missing",
        "v.jsonl: row 11: column 'video' must name a file",
        "row 12: 'x\\x07.mp4' cannot be the path of a video: it has the control character",
        "v.jsonl: row 13: column 'title' is longer than 10000 characters",
        "../a.mp4 of train: it leaves the data root",
        "v.jsonl: row 15: no split, though other rows have one",
    ):
        assert words in message


def test_a_video_of_two_splits_is_refused_unless_it_is_allowed(root):
    write(root / "v.jsonl", [*TITLED, TITLED[3] | {"split": "train"}])
    assert "one file is in train and test: d.mp4 (train) and d.mp4 (test)" in refused(root)
    prepared = prepare(config_of(root, shared_videos=("d.mp4",)))
    assert [len(prepared.split(name)) for name in ("train", "val", "test")] == [3, 1, 1]


def test_titled_videos_without_splits_are_divided_by_the_seed(root):
    rows = [{"video": f"{n}.mp4", "title": "a red bear"} for n in range(30)]
    write(root / "v.csv", rows)
    found = annotated(root)
    assert "no row of v.csv has a split: its videos are divided" in found.notes[0]
    assert [found.rows_of(found.media, split)[1] for split in found.splits] == [24, 3, 3]
    other = annotated(root, split_seed=1)
    assert other.media["id"].to_pylist() != found.media["id"].to_pylist()


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_pairs_have_titles_and_tags_of_the_other_table(root, kind):
    write(root / f"pairs.{kind}", PAIRS)
    write(root / f"videos.{kind}", TITLED)
    # Of two tables the one that is not named is that of the pairs.
    prepared = prepare(config_of(root, titles=f"videos.{kind}"))
    assert prepared.kind.name == "pairs"
    train, test = prepared.split("train"), prepared.split("test")
    assert (train.media.id, train.examples.media.tolist()) == (
        ["a.mp4", "videos/b.avi"], [[0, 1], [1, 0]],
    )  # fmt: skip
    assert train.examples.shown(np.arange(2)) == {
        "title_a": ["a red bear", ""],
        "title_b": ["", "a red bear"],
        "similarity": pytest.approx([0.25, 1]),
    }
    assert test.media.id == ["video/c.mp4", "d.mp4"]
    assert test.examples.table["tags"].to_pylist() == [[["sea", "bears"], ["rare"]]]
    assert test.examples.tensors(np.array([0]))["similarity"].tolist() == [0.5]
    assert len(prepared.split("val")) == 0


def test_without_titles_pairs_have_none_and_that_is_said(root):
    write(root / "pairs.csv", PAIRS)
    prepared = prepare(config_of(root))
    assert prepared.split("train").examples.shown(np.arange(2))["title_a"] == ["", ""]
    assert "data.titles names no table of titled videos" in prepared.info["notes"][0]
    assert "4 of 4 titles of training are empty" in " ".join(prepared.info["notes"])


def test_pairs_that_cannot_be_used_are_named(root):
    pair = PAIRS[0]
    rows = [
        *PAIRS,
        *(
            pair | {"similarity": value}
            for value in (1.5, "high", float("nan"), None, True, "-0.1")
        ),
        pair | {"video_b": "videos/b", "video_a": "b"},
        pair | {"video_b": "other.mp4"},
        pair | {"video_a": ""},
        pair | {"split": "both"},
        pair | {"split": None},
        pair | {"similarity": 10**400},
    ]
    (root / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    write(root / "videos.csv", [*TITLED, TITLED[0] | {"title": "again"}])
    message = refused(root, "pairs.jsonl", "videos.csv")
    for words in (
        "13 problems",
        "pairs.jsonl: row 4: the similarity 1.5 is not between 0 and 1",
        "pairs.jsonl: row 5: 'high' is not a number",
        "pairs.jsonl: row 6: the similarity nan is not between 0 and 1",
        "pairs.jsonl: row 7: similarity missing",
        "pairs.jsonl: row 8: column 'similarity' must be a number, found 'True'",
        "pairs.jsonl: row 9: the similarity -0.1 is not between 0 and 1",
        "pairs.jsonl: row 10: both are the video videos/b.avi, which is like itself",
        "pairs.jsonl: row 11: video other.mp4 is not in videos.csv",
        "pairs.jsonl: row 12: column 'video_a' must name a file",
        "pairs.jsonl: row 13: split 'both' is not one of test, train, val",
        "pairs.jsonl: row 14: no split, though other rows have one",
        "pairs.jsonl: row 15: '1000000000000000000000000000000000000000' is not a number",
        "videos.csv: row 5: video a.mp4 is also that of row 1",
    ):
        assert words in message


def test_pairs_of_a_video_in_two_splits_are_refused_unless_it_is_allowed(root):
    write(root / "pairs.csv", [*PAIRS, PAIRS[0] | {"video_b": "c"}])
    assert "one file is in train and test: video/c.mp4 (train)" in refused(root)
    prepared = prepare(config_of(root, shared_videos=("train+test",)))
    assert [len(prepared.split(name)) for name in ("train", "test")] == [3, 1]


def test_a_link_to_a_file_is_the_same_video(root):
    (root / "link.mp4").symlink_to("a.mp4")
    write(root / "pairs.csv", [PAIRS[0] | {"video_a": "link"}, *PAIRS])
    write(root / "videos.csv", TITLED)
    found = annotated(root, "pairs.csv", "videos.csv")
    assert not found.problems
    assert found.media["path"].to_pylist() == ["link.mp4", "videos/b.avi", "video/c.mp4", "d.mp4"]


def test_absent_videos_of_pairs_are_missing(root):
    (root / "d.mp4").unlink()
    write(root / "pairs.csv", PAIRS)
    said = refused(root)
    assert "1 of 4 videos are missing (1 of 3 pairs)" in said
    assert "pairs.csv: row 3: d of test: no file d" in said
    prepared = prepare(config_of(root, allow_missing=True))
    assert [len(prepared.split(name)) for name in ("train", "test")] == [2, 0]


def test_pairs_are_where_the_titles_have_their_videos(root):
    write(root / "pairs.csv", without([*PAIRS, PAIRS[0] | {"video_b": "d"}], "split"))
    write(root / "videos.csv", TITLED)
    prepared = prepare(config_of(root, "pairs.csv", "videos.csv"))
    assert [len(prepared.split(name)) for name in ("train", "val", "test")] == [2, 0, 0]
    notes = " ".join(prepared.info["notes"])
    assert "pairs are where videos.csv has videos: 2 in train, 0 in val, 0 in test" in notes
    assert (
        "2 x a pair of videos of two splits, which is left out, first: pairs.csv: row 3: "
        "video/c.mp4 is in val and d.mp4 in test"
    ) in notes


def pair_names(names):
    return [{"video_a": a, "video_b": b, "similarity": 0.5} for a, b in names]


def divided(root, names, **fields):
    """Return the pairs of each split, and those that are left out, of pairs without splits."""
    write(root / "pairs.csv", pair_names(names))
    found = annotated(root, "pairs.csv", **fields)
    ids, media = found.media["id"].to_pylist(), found.examples["media"].to_pylist()
    pairs = {}
    for split in found.splits:
        first, start = found.rows_of(found.media, split)[0], found.span(found.examples, split)
        pairs[split] = [tuple(ids[first + row] for row in rows) for rows in media[slice(*start)]]
    left_out = [problem for problem in found.problems if problem.kind == "divided_pair"]
    return pairs, left_out, found


def videos_of(pairs):
    return {video for pair in pairs for video in pair}


def test_pairs_that_share_no_video_are_all_kept(root):
    names = [(f"{n}a", f"{n}b") for n in range(30)]
    pairs, left_out, found = divided(root, names)
    assert not left_out
    assert {split: len(found) for split, found in pairs.items()} == {
        "train": 24, "val": 3, "test": 3,
    }  # fmt: skip
    assert "24 in train, 3 in val, 3 in test" in " ".join(found.notes)
    assert divided(root, names)[0] == pairs
    assert divided(root, names, split_seed=1)[0] != pairs


@pytest.mark.long
@pytest.mark.parametrize(
    ("names", "least"),
    [
        ([(f"{n}", f"{n + 1}") for n in range(300)], 290),
        ([(f"{n}", f"{m}") for n in range(40) for m in range(n)], 500),
        ([(f"{n}", f"{n // 2}") for n in range(1, 200)], 150),
    ],
    ids=["chain", "all with all", "tree"],
)
def test_no_video_is_in_two_splits_and_pairs_across_are_named(root, names, least):
    pairs, left_out, _ = divided(root, names)
    of = {split: videos_of(found) for split, found in pairs.items()}
    assert all(pairs.values())
    assert not (of["train"] & of["val"] or of["train"] & of["test"] or of["val"] & of["test"])
    kept = sum(map(len, pairs.values()))
    assert least <= kept == len(names) - len(left_out)
    assert len(pairs["train"]) > 0.5 * len(names)
    assert len({problem.row for problem in left_out}) == len(left_out)


def test_of_few_videos_none_is_held_out(root):
    pairs, left_out, _ = divided(root, [("a", "b"), ("b", "c"), ("d", "e")])
    assert [len(found) for found in pairs.values()] == [3, 0, 0]
    assert not left_out


def test_titles_beside_questions_are_refused(root):
    write(root / "q.csv", [{"video": "a", "question": "who?", "answer": "bear"}])
    write(root / "videos.csv", TITLED)
    message = refused(root, "q.csv", "videos.csv")
    assert "data.titles is for tables of pairs (video_a, video_b, similarity)" in message
    assert "q.csv is one of questions" in message


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("video_a,video_c,similarity", "column video_b missing"),
        ("video_a,video_b", "column similarity missing"),
        ("vidoe,title", r"column video missing \(did you mean 'vidoe'"),
    ],
)
def test_a_column_that_is_missing_is_named(root, head, message):
    (root / "t.csv").write_text(f"{head}\na,b,1\n")
    with pytest.raises(DataError, match=message):
        annotated(root)


def test_what_is_prepared_of_questions_does_not_depend_on_titles(root):
    write(root / "q.csv", [{"video": "a", "question": "who?", "answer": "bear"}])
    first = prepare(config_of(root, "q.csv"))
    settings = first.info["identity"]["settings"]
    assert {*settings} == {
        "name", "answer_top", "word_vectors", "word_size", "annotations", "split_seed",
    }  # fmt: skip
    assert [*first.info["identity"]["sources"]] == ["q.csv"]
    made = (first.path / "prepare.json").stat().st_mtime_ns
    again = prepare(config_of(root, "q.csv", text_length=5))
    assert (again.path / "prepare.json").stat().st_mtime_ns == made


def test_a_change_of_titles_or_vocabulary_is_seen(root):
    write(root / "pairs.csv", PAIRS)
    config = config_of(root, titles=write(root / "videos.csv", TITLED).name)
    prepare(config)
    write(root / "videos.csv", [TITLED[0] | {"title": "green"}, *TITLED[1:]])
    examples = prepare(config).split("train").examples
    assert examples.shown(np.arange(1))["title_a"] == ["green"]
    before = examples.table["tokens"].to_pylist()
    write_vocabulary(root / "text", ["sea", "green", "a", "red"])
    assert (
        prepare(config).split("train").examples.tensors(np.array([0]))["tokens"].tolist() != before
    )


def test_two_tables_of_one_root_are_prepared_in_two_folders(root):
    titled = config_of(root, "videos.csv", prepared=None)
    pairs = config_of(root, "pairs.csv", "videos.csv", prepared=None)
    assert prepared_location(titled) != prepared_location(pairs)
    assert prepared_location(titled) == prepared_location(config_of(root, prepared=None))
