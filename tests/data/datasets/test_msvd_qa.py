"""The MSVD-QA layout: what is read, what is refused, and how videos are found."""

import copy
import json

import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.problems import find_annotation_problems
from msvqa.errors import DataError
from msvqa.prepare import prepare
from msvqa.recipe import DataConfig
from tests.msvd_folder import QUESTIONS, STEMS, write_msvd


def _dataset(root):
    return open_dataset(DataConfig(name="msvd_qa", root=str(root)))


def _with(split, position, **changes):
    questions = copy.deepcopy(QUESTIONS)
    element = questions[split][position]
    element |= {key: value for key, value in changes.items() if value is not ...}
    for key in [key for key, value in changes.items() if value is ...]:
        del element[key]
    return questions


@pytest.mark.parametrize("folder", ["video", "YouTubeClips"])
@pytest.mark.parametrize("suffix", [".avi", ".MP4", ".webm"])
def test_videos_are_found_in_both_folders_with_any_ending(tmp_path, folder, suffix):
    root = write_msvd(tmp_path, videos=())
    (root / folder).mkdir(exist_ok=True)
    (root / folder / f"{STEMS[1]}{suffix}").touch()
    found = _dataset(root).find_video("1", "train")
    assert found.path == f"{folder}/{STEMS[1]}{suffix}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": ...}, "train_qa.json: element (from 0) 1: key 'answer' is missing"),
        ({"answer": ..., "anwser": "man"}, "did you mean 'anwser'"),
        ({"answer": 3}, "key 'answer' must be a text, found a whole number '3'"),
        ({"id": True}, "key 'id' must be a whole number, found true or false"),
        ({"video_id": "1"}, "key 'video_id' must be a whole number"),
        ({"id": 2**70}, "does not fit into 64 bits"),
        ({"question": " ? "}, "the question is empty"),
        ({"answer": " "}, "the answer is empty"),
        ({"question": "who \ud800?"}, "not valid Unicode"),
        ({"question": "a" * 20_000}, "longer than"),
        ({"id": 0}, "id 0 is also that of train_qa.json row 0"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, words):
    dataset = _dataset(write_msvd(tmp_path, _with("train", 1, **changes)))
    annotations = dataset.read()
    (problem,) = annotations.problems
    assert words in problem.detail
    assert (problem.path, problem.row) == ("train_qa.json", 1)
    assert len(annotations.rows) == 6


@pytest.mark.parametrize(
    "text", ["", "{}", "[1, 2", "[" * 200_000, "[" + "9" * 5_000 + "]", b"\xff\xfe[]"]
)
def test_a_file_that_is_no_list_is_refused_by_name(tmp_path, text):
    root = write_msvd(tmp_path)
    (root / "val_qa.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=r"val_qa\.json"):
        _dataset(root).read()


def test_an_element_that_is_no_object_is_named(tmp_path):
    root = write_msvd(tmp_path)
    (root / "val_qa.json").write_text(json.dumps([7, None, QUESTIONS["val"][0]]))
    annotations = _dataset(root).read()
    assert [problem.row for problem in annotations.problems] == [0, 1]


@pytest.mark.parametrize(
    ("line", "words"),
    [("one", "line 2: 'one' is not"), ("x vid", "line 2"), ("other vid1", "line 2: vid1 already")],
)
def test_a_mapping_line_that_cannot_be_used_is_named(tmp_path, line, words):
    root = write_msvd(tmp_path)
    (root / "youtube_mapping.txt").write_text(f"{STEMS[1]} vid1\n{line}\n")
    (problem,) = find_annotation_problems(_dataset(root))
    assert problem.kind == "invalid_source"
    assert words in problem.detail


@pytest.mark.parametrize("stem", ["../secret", "/etc/passwd", "..", "a/b", "a\\b"])
def test_a_name_that_leaves_the_root_is_never_opened(tmp_path, stem):
    (tmp_path / "secret.avi").touch()
    root = write_msvd(tmp_path / "data", stems=STEMS | {1: stem}, videos=(2,))
    found = _dataset(root).find_video("1", "train")
    assert (found.leaves_root, found.path) == (True, "")


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_that_leaves_the_root_is_never_opened(tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{STEMS[1]}.avi").touch()
    root = write_msvd(tmp_path / "data", videos=())
    if link == "file":
        (root / "video" / f"{STEMS[1]}.avi").symlink_to(outside / f"{STEMS[1]}.avi")
    else:
        (root / "YouTubeClips").symlink_to(outside)
    found = _dataset(root).find_video("1", "train")
    assert (found.leaves_root, found.path) == (True, "")


def test_a_link_inside_the_root_is_followed(tmp_path):
    root = write_msvd(tmp_path, videos=(2,))
    (root / "video" / f"{STEMS[1]}.avi").symlink_to(root / "video" / f"{STEMS[2]}.avi")
    assert _dataset(root).find_video("1", "train").path == f"video/{STEMS[1]}.avi"


def test_the_first_word_is_the_kind_of_a_question(tmp_path):
    dataset = _dataset(write_msvd(tmp_path))
    types = [dataset.question_type(q) for q in ("Who is it?", "which one?", "", "where?")]
    assert types == ["who", "other", "other", "other"]


def _prepare(root):
    prepared = root.parent / f"{root.name}-prepared"
    return prepare(DataConfig(name="msvd_qa", root=str(root), prepared=str(prepared)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_files_of_other_systems_are_read_alike(tmp_path, encoding, end):
    root = write_msvd(tmp_path)
    expected = _prepare(root).split("train")
    for file in [*root.glob("*.json"), root / "youtube_mapping.txt"]:
        text = file.read_text().replace(", ", ",\n").replace(" vid", "\tvid")
        file.write_bytes(text.replace("\n", end).encode(encoding))
    split = _prepare(root).split("train")
    assert (split.media.path, split.examples.question) == (
        expected.media.path,
        expected.examples.question,
    )


@pytest.mark.parametrize("name", ["train_qa.json", "youtube_mapping.txt"])
def test_a_code_page_is_refused_with_its_line_and_a_guess(tmp_path, name):
    root = write_msvd(tmp_path, stems=STEMS | {1: "caf\u00e9 o\u00f9"})
    text = (root / name).read_text().replace("cats", "caf\u00e9s").replace(", {", ",\n{")
    line = text.encode("cp1252").partition(b"\xe9")[0].count(b"\n") + 1
    (root / name).write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError, match=rf"{name}: line {line}: byte 0xe9 .* cp1252 .*as UTF-8"):
        _prepare(root)


def test_a_key_given_twice_is_refused(tmp_path):
    root = write_msvd(tmp_path)
    (root / "val_qa.json").write_text('[{"id": 1, "answer": "a", "answer": "b"}]')
    with pytest.raises(DataError, match=r"val_qa.json.*key 'answer' is there twice.*\"id\": 1"):
        _prepare(root)
