"""Tables of the user: three formats, split by video, problems by row."""

import json
import os
import unicodedata
from pathlib import Path

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
    assert train.media.path == [str(tmp_path / "a.mp4")]
    assert train.examples.question == ["who, if anyone, runs?"]
    assert (val.media.id, val.examples.question_type) == (["clips/b.avi"], ["other"])
    assert test.media.path == [str(tmp_path / "video/c.mp4")]
    assert test.examples.question_id.tolist() == [3]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_as_spreadsheet_programs_write_it(tmp_path, mark, encoding, end):
    rows = [
        ["\ufeffVideo ", "note", "QUESTION", "answer", " Split"],
        ["a.mp4", "", '"what, if ""any""; is\tthe c\u00f4l\u00f6ur | here?"', "\u8d64", "train"],
        ["a.mp4", "1", ' "is it red?"', "yes", "train"],
    ]
    text = end.join([mark.join(row) for row in rows[:2]] + ["", mark.join(rows[2]), ""])
    for name, head in (("q.csv", ""), ("r.txt", f"sep={mark}{end}"), ("s.tsv", end)):
        file = tmp_path / name
        file.write_bytes((head + text).encode(encoding))
        read = open_dataset(_config(tmp_path, annotations=str(file))).read()
        assert not read.problems
        assert [(row.question, row.answer, row.number) for row in read.rows] == [
            ('what, if "any"; is\tthe c\u00f4l\u00f6ur | here?', "\u8d64", 1),
            ("is it red?", "yes", 3),
        ]


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


def _write_videos(root, videos, rows):
    for video in videos:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        (root / video).touch()
    content = [{"question": "who?", "answer": "man", **row} for row in rows]
    (root / "q.jsonl").write_text("\n".join(map(json.dumps, content)))


HELD_OUT = {"videos/v3.mp4": "test", "v8.mp4": "val"}
NFC, NFD = "Z\u00e1znam v\u00a013", "Za\u0301znam v\u00a013"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "file", ["clip.mp4", f"{NFC}.mp4", f"{NFD}.mp4", "\u8d64\u3044\u3000\u68d2.mp4"]
)
def test_all_spellings_of_a_file_are_one_video_whatever_their_order(tmp_path, file, order):
    others = [f"videos/{n}.mp4" for n in range(9)]
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    stem = file.removesuffix(".mp4")
    spellings = [
        *(stem, file, f"videos/{file}", f"./videos//{file}", f"videos\\{file}", f" {file} "),
        *(f"{stem}.MP4", str(tmp_path / "videos" / file), f"../{tmp_path.name}/videos/{file}"),
        *(f"{tmp_path}/elsewhere/videos/{file}", f"link/{stem}", "hard.mp4", "videos/soft"),
        *(unicodedata.normalize(form, file) for form in ("NFC", "NFD")),
    ]
    rows = [{"video": video} for video in [*spellings, *others]][::order]
    _write_videos(tmp_path, [f"videos/{file}", *others], rows)
    (tmp_path / "link").symlink_to("videos")
    (tmp_path / "videos" / "soft.mp4").symlink_to(file)
    os.link(tmp_path / "videos" / file, tmp_path / "hard.mp4")
    annotations = open_dataset(_config(tmp_path)).read()
    assert not annotations.problems
    about = [row for row in annotations.rows if row.video_id not in others]
    assert len(about) == len(spellings)
    assert len({(row.video_id, row.split) for row in about}) == 1
    assert {Path(row.video_id).name for row in about} == {file}
    assert any("spelled in several ways and counts as one" in note for note in annotations.notes)


def test_ids_and_splits_of_videos_that_are_spelled_once_stay_as_they_were(tmp_path):
    videos = [f"videos/v{n}.mp4" for n in range(12)]
    named = [v if n % 2 else v.removeprefix("videos/") for n, v in enumerate(videos)]
    _write_videos(tmp_path, videos, [{"video": video} for video in named])
    annotations = open_dataset(_config(tmp_path)).read()
    assert [row.video_id for row in annotations.rows] == named
    # As the version before divided them.
    assert {row.video_id: row.split for row in annotations.rows if row.split != "train"} == HELD_OUT
    assert len(annotations.notes) == 1


def test_a_file_under_two_names_in_two_splits_is_refused(tmp_path):
    rows = [{"video": "v.mp4", "split": "train"}, {"video": "videos/v", "split": "test"}]
    _write_videos(tmp_path, ["videos/v.mp4"], rows)
    with pytest.raises(DataError, match=r"video videos/v is in train and test; a test on it"):
        prepare(_config(tmp_path))


def test_a_name_that_ends_in_a_space_is_tried_before_it_is_stripped(tmp_path):
    rows = [{"video": " v ", "split": "train"}, {"video": " w.mp4 ", "split": "val"}]
    _write_videos(tmp_path, [" v .mp4", "v.mp4", "w.mp4"], rows)
    prepared = prepare(_config(tmp_path))
    assert prepared.split("train").media.path == [str(tmp_path / " v .mp4")]
    assert prepared.split("val").media.path == [str(tmp_path / "w.mp4")]


ORDINARY = (
    "Screen Recording at 9.52.38\u202fAM", "\u8d64\u3044\u3000\u68d2", NFC, NFD, "100%", "a#b",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u200f", "soft\u00adhyphen",
    "-first", "~", "e" * 251, "\u8d64" * 83, "a&b;c|d", "'\"", "back\\slash", "[x]", "con", "a?b*c",
)  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_whatever_a_file_system_allows_is_an_ordinary_name(tmp_path, name):
    rows = [{"video": name, "split": "train"}, {"video": f"d/{name}.mp4", "split": "val"}]
    _write_videos(tmp_path, [f"{name}.mp4", f"d/{name}.mp4"], rows)
    prepared = prepare(_config(tmp_path))
    assert prepared.split("train").media.path == [str(tmp_path / f"{name}.mp4")]
    assert prepared.split("val").media.id == [f"d/{name}.mp4"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\x1b[31m.mp4", r"it has the control character '\x1b'"),
        ("a\nb.mp4", r"it has the control character '\n'"),
        ("a\0.mp4", r"it has the control character '\x00'"),
        (f"{'e' * 256}.mp4", "a name in it has 260 bytes, and file systems allow 255"),
        ("/".join(["d" * 200] * 21), "it has 4220 bytes, and file systems allow 4096"),
    ],
)
def test_a_name_that_no_file_should_have_is_refused_with_the_reason(tmp_path, name, words):
    _write_videos(tmp_path, ["v.mp4"], [{"video": "v", "split": "train"}, {"video": name}])
    with pytest.raises(DataError) as error:
        prepare(_config(tmp_path))
    assert f"cannot be the path of a video: {words}" in str(error.value)


def test_an_absent_video_is_told_with_what_was_tried(tmp_path):
    rows = [
        {"video": video, "split": "train"} for video in ("x\\v.mp4", "w", "V.mp4", "\u00a0u.mp4")
    ]
    _write_videos(tmp_path, ["v.mp4"], rows)
    with pytest.raises(DataError, match="4 of 4 videos are missing") as error:
        prepare(_config(tmp_path))
    for words in (
        "it has a backslash, as paths of Windows have, and there is no x/v.mp4 either",
        "row 2: video w of train (1 question): no file w (or another ending of videos)\n",
        "row 3: video V.mp4 of train (1 question): no file V.mp4; there is 'v.mp4'",
        "names without ending were tried with .avi, .mp4,",
        ".gif, ",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("video", ["v.mp4", "v", "videos/v.mp4", "ROOT/videos/v.mp4"])
def test_links_lead_out_of_the_root_on_demand_alone(tmp_path, video):
    root, disk = tmp_path / "data", tmp_path / "disk"
    row = {"video": video.replace("ROOT", str(root)), "split": "train"}
    for folder in (root, disk):
        folder.mkdir()
    (root / "videos").symlink_to(disk)
    _write_videos(root, ["videos/v.mp4"], [row])
    with pytest.raises(DataError) as error:
        prepare(_config(root))
    assert (
        f"videos/v.mp4 leaves the data root by a link, to {disk}/v.mp4; data.follow_links=true"
        in (str(error.value))
    )
    prepared = prepare(_config(root, follow_links=True))
    assert prepared.split("train").media.path == [str(root / "videos/v.mp4")]
    with pytest.raises(DataError, match="leaves the data root by a link"):
        prepare(_config(root))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", b"video,question,answr\n", r"column answer missing \(did you mean 'answr'"),
        ("q.csv", b"video,question,answer,Video\n", "a column is there twice"),
        ("q.csv", b"", r"q.csv is empty \(0 bytes\)"),
        ("q.csv", b"\n \n", "column video, question, answer missing"),
        ("q.csv", b"x" * 200_000, "cannot be read near line 1: field larger than"),
        ("q.csv", b"video:question:answer\n", "missing.*'video:question:answer' in its first line"),
        (
            "q.csv",
            b"PK\x03\x04",
            "text is needed, and this is a zip archive, as workbooks of Excel",
        ),
        ("q.csv", b'video,question,answer\na,"b,c\n', "cannot be read near line 2"),
        ("q.csv", b'sep=;\nvideo;question;answer\n\na;"b;c\nd;e;f\n', "cannot be read near line 4"),
        ("q.csv", b"video,question,answer\na,b,\xff\n", "q.csv: line 2: byte 0xff at position 26"),
        ("q.csv", b"video,question,answer\na,b,c,d\n", "row 1: 4 cells under 3 column names"),
        ("q.csv", b"video,question,answer\na,b\n", "row 1: answer missing"),
        ("q.jsonl", b"{}\n[", "line 2 is not valid JSON"),
        (
            "q.jsonl",
            b'{"video": "a", "Video": "b"}',
            "row 1: a column is there twice: video, Video",
        ),
        ("q.jsonl", b'\n{"video": "a", "video": "b"}', "line 2 .*key 'video' is there twice"),
        ("q.jsonl", b'{"video": NaN}', "row 1: column 'video' must be a text, found 'nan'"),
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


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_with_captions_gives_captions_in_every_format(tmp_path, kind):
    rows = [
        {"video": "a.mp4", "caption": "a cat", "split": "train", "start": "", "end": ""},
        {"video": "./a", "caption": "it sleeps", "split": "train", "start": "", "end": ""},
        {"video": "a.mp4", "caption": "it wakes", "split": "train", "start": "1.5", "end": "4"},
        {"video": "clips/b.avi", "caption": "a dog", "split": "val", "start": "", "end": ""},
    ]
    _write(tmp_path, kind, rows)
    for name in ("a.mp4", "clips/b.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    prepared = prepare(_config(tmp_path))
    train = prepared.split("train")
    assert train.media.id == ["a.mp4", "a.mp4[1.5-4]"]
    assert train.examples.table["captions"].to_pylist() == [["a cat", "it sleeps"], ["it wakes"]]
    assert prepared.split("val").media.id == ["clips/b.avi"]


def test_captions_without_a_split_are_divided_by_video(tmp_path):
    rows = [{"video": f"{n}.mp4", "caption": f"{n} {k}"} for n in range(10) for k in range(2)]
    _write(tmp_path, "csv", rows)
    for n in range(10):
        (tmp_path / f"{n}.mp4").touch()
    prepared = prepare(_config(tmp_path))
    videos = [prepared.split(name).media.id for name in ("train", "val", "test")]
    assert [len(ids) for ids in videos] == [8, 1, 1]
    assert "its videos are divided" in prepared.info["notes"][0]
