"""Tokens, vocabularies and answer lists."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import word_tokenize

from msvqa.data.text import AnswerList, Vocabulary, tokenize
from msvqa.errors import DataError


def test_tokens_follow_the_treebank_rules():
    assert tokenize("What is a man's dog doing?") == [
        "what",
        "is",
        "a",
        "man",
        "'s",
        "dog",
        "doing",
    ]
    assert tokenize("who cannot fill 3/4 cup?") == ["who", "can", "not", "fill", "3/4", "cup"]
    assert tokenize("who says 'o sole mio?")[2:4] == ["'", "o"]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["cannot", "gonna", "gimme", "dog", "3", "2nd", "wanna"]), max_size=6)
)
def test_words_alone_and_together_give_the_same_tokens(words):
    text = " ".join(words)
    assert tokenize(text) == word_tokenize(text, preserve_line=True)


def test_a_question_without_its_mark_keeps_its_last_letter():
    assert (
        tokenize("who is running") == tokenize("who is running?") == tokenize(" who is running. ")
    )


@pytest.mark.parametrize("question", ["", "?", "  ? "])
def test_a_question_without_words_has_no_tokens(question):
    assert tokenize(question) == []


def test_vocabulary_is_in_order_of_first_appearance():
    vocabulary = Vocabulary.build([["what", "is"], ["is", "it"]])
    assert vocabulary.tokens == ["<NULL>", "<UNK>", "what", "is", "it"]
    assert vocabulary.encode(["it", "was", "what"]) == [4, 1, 2]


def test_equally_frequent_answers_keep_the_order_of_the_file():
    answers = AnswerList.build(["dog", "cat", "man", "cat", "bird"], top=3)
    assert answers.answers == ["<UNK0>", "<UNK1>", "cat", "dog", "man"]
    assert [answers.encode("bird", train) for train in (True, False)] == [0, 1]
    assert answers.decode(2) == "cat"


@pytest.mark.long
@settings(max_examples=50)
@given(st.lists(st.text(max_size=5), unique=True))
def test_a_vocabulary_survives_json(words):
    vocabulary = Vocabulary.build([words])
    assert Vocabulary.from_json(vocabulary.to_json()).tokens == vocabulary.tokens


@pytest.mark.parametrize("text", ["{}", "[", "[1]", '["<NULL>", "<UNK>", "a", "a"]', "[" * 100_000])
def test_what_is_not_a_word_list_is_refused(text, tmp_path):
    (tmp_path / "vocabulary.json").write_text(text)
    with pytest.raises(DataError, match=r"vocabulary\.json"):
        Vocabulary.load(tmp_path / "vocabulary.json")
