"""Vocabularies from folders of the user: BERT and RoFormer, and what is wrong with them."""

import json
import pickle

import pytest

from msvqa.data.subwords import Subwords, read_vocabulary
from msvqa.errors import DataError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "北", "京", "北京", "欢", "a", "##b"]


def folder_of(path, kind="bert", pieces=PIECES, **settings):
    path.mkdir(exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (path / "config.json").write_text(json.dumps({"model_type": kind}))
    if settings:
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(path)


def test_bert_cuts_chinese_into_characters_and_words_into_pieces(tmp_path):
    found = read_vocabulary(folder_of(tmp_path)).encode(["北京 Ab", ""], 6)
    assert found.ids.tolist() == [[2, 5, 6, 9, 10, 3], [2, 3, 0, 0, 0, 0]]
    assert found.count.tolist() == [6, 2]


def test_roformer_keeps_a_word_of_the_vocabulary_whole(tmp_path):
    found = read_vocabulary(folder_of(tmp_path, "roformer")).encode(["北京欢"], 8)
    assert found.ids[0, : found.count[0]].tolist() == [2, 7, 8, 3]


@pytest.mark.parametrize("kind", ["bert", "roformer"])
def test_long_titles_are_cut_and_end_as_others_do(tmp_path, kind):
    found = read_vocabulary(folder_of(tmp_path, kind)).encode(["欢" * 100], 5)
    assert found.ids.tolist() == [[2, 8, 8, 8, 3]]


def test_upper_case_stays_where_the_folder_says_so(tmp_path):
    found = read_vocabulary(folder_of(tmp_path, do_lower_case=False)).encode(["A a"], 6)
    assert found.ids.tolist() == [[2, 1, 9, 3, 0, 0]]


@pytest.mark.parametrize("kind", ["bert", "roformer"])
def test_a_used_vocabulary_travels_and_is_saved(tmp_path, kind):
    subwords = read_vocabulary(folder_of(tmp_path, kind))
    first = subwords.encode(["北京"], 6).ids.tolist()
    subwords.save(tmp_path / "text.json")
    for again in (pickle.loads(pickle.dumps(subwords)), Subwords.load(tmp_path / "text.json")):
        assert again == subwords
        assert again.encode(["北京"], 6).ids.tolist() == first
    assert subwords != Subwords(PIECES, kind, lower_case=False)


def test_characters_that_look_like_ends_of_lines_are_pieces(tmp_path):
    pieces = [*PIECES, "\u2028", "\x85", "z"]
    assert read_vocabulary(folder_of(tmp_path, pieces=pieces)).pieces == pieces


@pytest.mark.parametrize(
    ("kind", "pieces", "message"),
    [
        ("gpt2", PIECES, r"config\.json: model_type 'gpt2' is not one of bert, roformer"),
        ("bert", PIECES[1:], r"vocab\.txt: no \[PAD\] in a vocabulary of 10 pieces"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, kind, pieces, message):
    with pytest.raises(DataError, match=message):
        read_vocabulary(folder_of(tmp_path, kind, pieces))


def test_a_folder_without_vocabulary_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no vocab\.txt in .*data\.tokenizer"):
        read_vocabulary(str(tmp_path))


@pytest.mark.parametrize("text", ["[1]", "no JSON", '{"kind": "bert"}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "text.json").write_text(text)
    with pytest.raises(DataError, match=r"text\.json"):
        Subwords.load(tmp_path / "text.json")
