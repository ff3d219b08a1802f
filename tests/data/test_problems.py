"""What `doctor --data` finds in annotations."""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.problems import find_annotation_problems, write_problems
from msvqa.data.schema import PROBLEM_KINDS, PROBLEMS
from msvqa.recipe import DataConfig
from tests.msvd_folder import QUESTIONS, STEMS, write_msvd


def _dataset(root):
    return open_dataset(DataConfig(name="msvd_qa", root=str(root)))


def test_a_good_folder_has_no_problems(tmp_path):
    assert find_annotation_problems(_dataset(write_msvd(tmp_path))) == []


def test_every_problem_is_found_by_name(tmp_path):
    train = [
        *QUESTIONS["train"],
        QUESTIONS["train"][1] | {"id": 20},
        QUESTIONS["train"][1] | {"id": 21, "answer": "woman"},
        QUESTIONS["train"][1] | {"id": 20},
        {"id": 22, "video_id": 99, "question": "who is it?", "answer": "man"},
        {"id": 23, "video_id": 4, "question": "who is it?", "answer": "man"},
        {"id": 24, "video_id": 6, "question": "who is it?", "answer": "man"},
        {"id": 25, "video_id": 7, "question": "who is it?", "answer": "man"},
        {"id": 26, "video_id": 1, "question": "?", "answer": "man"},
    ]
    stems = STEMS | {6: STEMS[1], 7: "../7"}
    root = write_msvd(tmp_path, QUESTIONS | {"train": train}, stems, videos=(1, 2, 3, 4))
    (root / "video" / f"{STEMS[2]}.mp4").touch()
    problems = find_annotation_problems(_dataset(root))
    assert Counter(problem.kind for problem in problems) == {
        "empty_text": 1,
        "duplicate_id": 1,
        "duplicate_question": 1,
        "unknown_video": 1,
        "missing_video": 1,
        "outside_root": 1,
        "two_files": 1,
        "two_splits": 1,
        "shared_file": 1,
    }
    assert {problem.kind for problem in problems} <= set(PROBLEM_KINDS)
    by_kind = {problem.kind: problem for problem in problems}
    assert by_kind["unknown_video"].video_id == "99"
    assert (by_kind["missing_video"].path, by_kind["missing_video"].split) == (
        f"video/{STEMS[5]}.avi",
        "test",
    )
    assert by_kind["two_files"].path == f"video/{STEMS[2]}.avi"
    assert by_kind["two_splits"].video_id == "4"
    assert by_kind["duplicate_id"].question_id == 20

    write_problems(problems, tmp_path / "problems.parquet")
    table = pq.read_table(tmp_path / "problems.parquet")
    assert table.schema.equals(PROBLEMS)
    assert table["detail"].to_pylist() == [problem.detail for problem in problems]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    root = write_msvd(tmp_path)
    (root / "val_qa.json").unlink()
    (problem,) = find_annotation_problems(_dataset(root))
    assert problem.kind == "invalid_source"
    assert "val_qa.json" in problem.detail


@pytest.mark.long
def test_the_real_annotations_repeat_18_questions(msvd_annotations):
    problems = find_annotation_problems(_dataset(msvd_annotations))
    assert Counter(problem.kind for problem in problems) == {
        "missing_video": 1910,
        "duplicate_question": 18,
    }
