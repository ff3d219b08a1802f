"""Tables of the user: three formats, split by video, problems by row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.datasets.table import Table, split_by_video
from msvqa.errors import DataError
from msvqa.prepare import prepare

ROWS = [
    {"video": "a.mp4", "question": "who, if anyone, runs?", "answer": "man", "split": "train"},
    {"video": "clips/b.avi", "question": "is it red?", "answer": "yes", "split": "validation"},
    {"video": "c", "question": "how many?", "answer": "2", "split": "Test"},
]


def _config(root, **fields):
    return Table.Config(name="table", root=str(root), prepared=str(root / "prepared"), **fields)


def _write(root, kind, rows):
    (root / "clips").mkdir(exist_ok=True)
    (root / "video").mkdir(exist_ok=True)
    for video in ("a.mp4", "clips/b.avi", "video/c.mp4"):
        (root / video).touch()
    path = root / f"questions.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        mark = "\t" if kind == "tsv" else ","
        lines = [mark.join(f'"{value}"' for value in row.values()) for row in rows]
        names = mark.join(name.title() for name in rows[0])
        path.write_text("\n".join([names, *lines, ""]), encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_data(tmp_path, kind):
    _write(tmp_path, kind, ROWS)
    prepared = prepare(_config(tmp_path))
    train, val, test = (prepared.split(name) for name in ("train", "val", "test"))
    assert train.path == [str(tmp_path / "a.mp4")]
    assert train.question == ["who, if anyone, runs?"]
    assert (val.video_id, val.question_type) == (["clips/b.avi"], ["other"])
    assert (test.path, test.question_id.tolist()) == ([str(tmp_path / "video/c.mp4")], [3])


def test_without_a_split_column_videos_are_divided_and_stay_together(tmp_path):
    (tmp_path / "q.jsonl").write_text(
        "".join(
            json.dumps({"video": f"{n % 50}.mp4", "question": f"what {n}?", "answer": "x"}) + "\n"
            for n in range(200)
        )
    )
    annotations = open_dataset(_config(tmp_path)).read()
    assert "no row of q.jsonl has a split: its videos are divided" in annotations.notes[0]
    rows = annotations.rows
    videos = {
        name: {r.video_id for r in rows if r.split == name} for name in ("train", "val", "test")
    }
    assert {name: len(ids) for name, ids in videos.items()} == {"train": 40, "val": 5, "test": 5}
    assert not videos["train"] & videos["test"] | videos["train"] & videos["val"]
    again = split_by_video(rows, seed=0)
    other = split_by_video(rows, seed=1)
    assert [row.split for row in again] == [row.split for row in rows]
    assert [row.split for row in other] != [row.split for row in rows]


def test_all_problems_are_reported_together_with_their_rows(tmp_path):
    bad = [
        {"video": "a.mp4", "question": "", "answer": "man", "split": "train"},
        {"video": "a.mp4", "question": "who?", "answer": "man", "split": "trian"},
        {"video": "../x.mp4", "question": "who?", "answer": "man", "split": "train"},
        {"video": "/etc/passwd", "question": "who?", "answer": "man", "split": "train"},
        {"question": "who?", "answer": True, "video": "a.mp4", "split": "train"},
        {"question": "who?", "answer": "man", "split": "train"},
    ]
    _write(tmp_path, "jsonl", ROWS + bad)
    with pytest.raises(DataError) as error:
        prepare(_config(tmp_path))
    message = str(error.value)
    assert "6 problems" in message
    for words in (
        "row 4: the question is empty",
        "row 5: split 'trian' is not one of test, train, val (did you mean 'train'?)",
        "../x.mp4 leaves the data root",
        "/etc/passwd leaves the data root",
        "row 8: column 'answer' must be a text, found 'True'",
        "row 9: video missing",
    ):
        assert words in message


def test_many_problems_are_shortened(tmp_path):
    _write(tmp_path, "csv", ROWS + [ROWS[0] | {"question": ""}] * 30)
    with pytest.raises(DataError, match="30 problems") as error:
        prepare(_config(tmp_path))
    assert str(error.value).endswith("and 10 more")


def test_one_video_has_one_id_however_it_is_spelled(tmp_path):
    rows = [
        ROWS[0] | {"video": video} for video in ("a.mp4", "./a.mp4", "", str(tmp_path / "a.mp4"))
    ]
    _write(tmp_path, "jsonl", rows)
    annotations = open_dataset(_config(tmp_path)).read()
    assert {row.video_id for row in annotations.rows} == {"a.mp4"}
    assert [problem.detail for problem in annotations.problems] == [
        "questions.jsonl: row 3: the video is empty"
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", b"video,question,answr\n", r"column answer missing \(did you mean 'answr'"),
        ("q.csv", b"video,question,answer,Video\n", "a column is there twice"),
        ("q.csv", b"", "column video, question, answer missing"),
        ("q.csv", b'video,question,answer\na,"b,c\n', "cannot be read near line 2"),
        ("q.csv", b"video,question,answer\na,b,\xff\n", "cannot be read"),
        ("q.csv", b"video,question,answer\na,b,c,d\n", "row 1: 4 cells under 3 column names"),
        ("q.csv", b"video,question,answer\na,b\n", "row 1: answer missing"),
        ("q.jsonl", b"{}\n[", "line 2 is not valid JSON"),
        ("q.jsonl", b"7\n", "line 1 is not a JSON object"),
        ("q.parquet", b"PAR1", "is not a Parquet file"),
        ("q.xlsx", b"", r"one table \(.csv, .jsonl, .parquet, .tsv\) is needed, found none"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare(_config(tmp_path))


def test_a_row_without_a_split_among_rows_with_one_is_refused(tmp_path):
    _write(tmp_path, "parquet", [*ROWS, ROWS[0] | {"split": None}])
    with pytest.raises(DataError, match="row 4: no split, though other rows have one"):
        prepare(_config(tmp_path))


@pytest.mark.parametrize("video", ["c", "c.mp4", "video/c.mp4", "clips/../video/c.mp4"])
def test_videos_are_found_with_and_without_folder_and_ending(tmp_path, video):
    _write(tmp_path, "csv", ROWS)
    found = open_dataset(_config(tmp_path)).find_video(video, "train")
    assert found.path == "video/c.mp4"


def test_of_two_tables_one_must_be_named(tmp_path):
    first = _write(tmp_path, "csv", ROWS)
    _write(tmp_path, "jsonl", ROWS)
    with pytest.raises(DataError, match=r"found questions\.csv, questions\.jsonl"):
        prepare(_config(tmp_path))
    assert len(prepare(_config(tmp_path, annotations=str(first))).split("train")) == 1
