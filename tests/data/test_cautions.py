"""What is said of questions before they are trained on."""

import pytest

from msvqa.checks.report import Report
from msvqa.checks.videos import check_data
from msvqa.data.cautions import cautions
from msvqa.data.text import tokenize
from msvqa.errors import DataError
from msvqa.evaluate import _questions
from msvqa.prepare import prepare, summary
from msvqa.recipe import parse
from tests.tiny import raw_recipe

HEAD = "video,question,answer,split\n"


def said(*questions):
    rows = [
        {"split": split, "question": question, "answer": answer, "source": "q.csv", "number": n}
        for n, (split, question, answer) in enumerate(questions, start=1)
    ]
    return cautions(rows, {row["question"]: tokenize(row["question"]) for row in rows})


def test_nothing_is_said_of_questions_as_they_should_be():
    usual = ("what is it?", "red")
    assert said(*[(split, *usual) for split in ("train", "val", "test")]) == []


def test_answers_that_differ_in_case_spaces_or_a_full_stop_are_counted():
    answers = ["red", "Red.", "RED", "light  blue", "light blue", "yes", "1.5", "15"]
    (words,) = said(*[("train", "what is it?", a) for a in answers], ("val", "what is it?", "yes"))
    assert words.startswith("5 answers are 2 that differ only in case, spaces or a full stop")
    assert "'red', 'Red.', 'RED'; 'light  blue', 'light blue'" in words


def test_words_and_answers_that_training_never_sees_are_counted_by_split():
    known = [("train", "what is it?", "red"), ("val", "what is it?", "red")]
    assert said(*known, ("test", "is it a zebra?", "red")) == [
        "test: 2 of 4 (50%; 'a', 'zebra') words are in no question of training"
    ]
    assert said(*known, ("test", "what is it?", "Blue")) == [
        "test: 1 of 1 (100%; 'Blue') answers are in no question of training"
    ]


def test_a_question_far_longer_than_the_others_is_named():
    (words,) = said(("train", "what is it " * 50, "red"), *[("val", "what is it?", "red")] * 3)
    assert words.startswith("1 of 4 questions have more than 100 words (row 1 of q.csv: 150,")


def test_a_table_without_validation_says_so_everywhere(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.mp4").touch()
    (data / "q.csv").write_text(
        f"{HEAD}a.mp4,what is it?,red,train\na.mp4,what is it?,Red.,train\n"
    )
    raw = raw_recipe(tmp_path)
    raw["data"] = {"name": "table", "root": str(data), "prepared": str(tmp_path / "p")}
    recipe = parse(raw)
    prepared = prepare(recipe.data)
    told = prepared.info["cautions"]
    assert [words.partition(":")[0] for words in told] == [
        "no question is for validation",
        "2 answers are 1 that differ only in case, spaces or a full stop ('red', 'Red.')",
    ]
    assert summary(prepared)[-2:] == told
    report = Report()
    check_data(data, recipe.data, 5.0, report)
    assert [check.detail for check in report.checks if check.name == "questions"] == told
    with pytest.raises(DataError, match=r"no split 'val': no question .* questions in train"):
        _questions(recipe, prepared, "val")
    with pytest.raises(DataError, match="did you mean 'val'"):
        _questions(recipe, prepared, "vall")
