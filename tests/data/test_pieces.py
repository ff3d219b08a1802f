"""Captions and questions as pieces of words: how they are cut, kept, read anew, and refused."""

import json

import numpy as np
import pytest

from msvqa.data.examples.questions import Questions
from msvqa.data.lexicon import Lexicon
from msvqa.data.pieces import answer_pieces, clean
from msvqa.data.subwords import Subwords
from msvqa.data.text import AnswerList
from msvqa.errors import DataError
from msvqa.prepare import prepare, summary
from msvqa.recipe import parse_data
from tests.bert_folder import PIECES, write_vocabulary
from tests.caption_folder import write_captions
from tests.msvd_folder import write_msvd

ROWS = {
    "train": [
        {"video": "a.mp4", "caption": ["A red ball.", "a RED-ball"]},
        {"video": "b.mp4", "caption": "the dog is rolling the blue ball, " + "the dog " * 30},
    ],
    "val": [{"video": "c.mp4", "caption": "an unheard ball"}],
}
ID = {piece: number for number, piece in enumerate(PIECES)}


def pieces_of(ids):
    return [PIECES[number] for number in ids]


def captions(tmp_path, **fields):
    root = write_captions(tmp_path / "data", ROWS)
    tokenizer = write_vocabulary(tmp_path / "bert")
    fields = {"tokenizer": tokenizer, "text_length": 8} | fields
    return parse_data("caption_files", [], root=str(root), prepared=str(tmp_path / "p"), **fields)


def questions(tmp_path, **fields):
    root = write_msvd(tmp_path / "data")
    return parse_data("msvd_qa", [], root=str(root), prepared=str(tmp_path / "p"), **fields)


def test_texts_are_cleaned_as_the_published_weights_know_them():
    assert clean(' A "red-ball", isn\'t it?  <person>/dog; ') == "a red ball isnt it person dog"


def test_captions_become_pieces_between_what_begins_and_ends_them(tmp_path):
    prepared = prepare(captions(tmp_path))
    train = prepared.split("train").examples
    batch = train.tensors(np.arange(2))
    assert batch["text_length"].tolist() == [5, 8]
    assert pieces_of(batch["text"][0].tolist()) == [
        "[CLS]", "a", "red", "ball", "[SEP]", "[PAD]", "[PAD]", "[PAD]",
    ]  # fmt: skip
    assert pieces_of(batch["text"][1].tolist())[4:] == ["roll", "##ing", "the", "[SEP]"], "cut"
    first, second = (train.table["tokens"][0].as_py()[n] for n in (0, 1))
    assert first == second, "a hyphen is a space"
    unseen = prepared.split("val").examples.tensors(np.arange(1))["text"][0].tolist()
    assert pieces_of(unseen) == ["[CLS]", "[UNK]", "un", "##heard", "ball", "[SEP]"]
    assert prepared.info["splits"]["train"]["texts"] == 3
    assert f"{len(PIECES)} pieces of words" in "\n".join(summary(prepared))
    assert prepared.lexicon.sizes() == {
        "text": len(PIECES), "text_start": 2, "text_end": 3, "text_mask": 4,
    }  # fmt: skip


def test_without_a_tokenizer_folders_are_what_they_were(tmp_path):
    prepared = prepare(captions(tmp_path, tokenizer=None))
    assert prepared.lexicon.names == ["vocabulary"]
    assert not {"tokenizer", "text_length"} & {*prepared.info["identity"]["settings"]}
    assert prepare(captions(tmp_path)).lexicon.names == ["text"], "it is built anew"
    assert not (tmp_path / "p" / "vocabulary.json").exists()


def test_another_vocabulary_builds_the_folder_anew(tmp_path):
    config = captions(tmp_path)
    assert len(prepare(config).lexicon.of(Subwords)) == len(PIECES)
    write_vocabulary(tmp_path / "bert", [*PIECES, "rolling"])
    prepared = prepare(config)
    assert len(prepared.lexicon.of(Subwords)) == len(PIECES) + 1
    assert len(PIECES) in prepared.split("train").examples.tensors(np.arange(2))["text"]


def test_a_folder_that_is_no_tokenizer_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no vocab\.txt in .*data\.tokenizer"):
        prepare(captions(tmp_path, tokenizer=str(tmp_path)))


def test_questions_become_pieces_and_answers_stay_classes(tmp_path):
    config = questions(tmp_path, tokenizer=write_vocabulary(tmp_path / "bert"), text_length=6)
    prepared = prepare(config)
    asked = prepared.split("train").of(Questions)
    assert pieces_of(asked.tensors(np.arange(1))["question"][0].tolist()) == [
        "[CLS]", "what", "is", "a", "man", "[SEP]",
    ]  # fmt: skip
    words = prepare(questions(tmp_path))
    assert words.lexicon.names == ["vocabulary", "answers"]
    np.testing.assert_array_equal(words.split("train").of(Questions).answer_id, asked.answer_id)
    assert prepare(config).info["splits"]["test"]["unknown_words"] == 2  # "where" and "it"


def test_answers_are_written_as_they_are_and_other_classes_have_no_pieces(tmp_path):
    root = write_msvd(tmp_path / "data")
    rows = json.loads((root / "train_qa.json").read_text())
    rows[0]["answer"] = "t-shirt"
    (root / "train_qa.json").write_text(json.dumps(rows))
    data = parse_data(
        "msvd_qa", [], root=str(root), prepared=str(tmp_path / "p"),
        tokenizer=write_vocabulary(tmp_path / "bert"),
    )  # fmt: skip
    lexicon = prepare(data).lexicon
    table = answer_pieces(lexicon)
    row = lexicon.of(AnswerList).encode("t-shirt", train=True)
    assert pieces_of(table[row].tolist()) == ["t", "-", "shirt"]
    assert (table[:2] == -1).all()
    man = table[lexicon.of(AnswerList).encode("man", train=True)]
    assert man.tolist() == [ID["man"], -1, -1]


def test_words_cannot_be_read_by_a_model_of_pieces(tmp_path):
    pieces = prepare(captions(tmp_path / "a")).lexicon
    data = prepare(questions(tmp_path / "b"))
    with pytest.raises(DataError, match=r"were to be read as pieces|was trained with pieces"):
        data.reading(pieces, adds=True).split("train")


def test_a_stage_adds_the_lists_that_its_checkpoint_lacks(tmp_path):
    pieces = prepare(captions(tmp_path / "a")).lexicon
    config = questions(tmp_path / "b", tokenizer=write_vocabulary(tmp_path / "b" / "bert"))
    own = prepare(config)
    with pytest.raises(DataError, match="it has no answers"):
        own.reading(pieces)
    read = own.reading(pieces, adds=True)
    assert {*read.lexicon.names} == {"text", "answers"}
    np.testing.assert_array_equal(
        read.split("train").of(Questions).tokens, own.split("train").of(Questions).tokens
    )


def test_captions_are_read_anew_with_other_pieces(tmp_path):
    prepared = prepare(captions(tmp_path))
    other = Subwords([*PIECES[:5], "ball"])
    read = prepared.reading(Lexicon([other]))
    assert read.split("train").examples.tensors(np.arange(1))["text"][0].tolist() == [
        2, 1, 1, 5, 3,
    ]  # fmt: skip
