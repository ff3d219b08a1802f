"""Conversations: what is learned, what a limit leaves, and templates of tokenizers."""

import pytest

from msvqa.data.conversations.chat_template import ChatTemplate
from msvqa.data.conversations.conversation import Conversation, Turn
from msvqa.data.conversations.forms import Mistral, Vicuna
from msvqa.data.conversations.frame_message import frame_message
from msvqa.data.conversations.tokens import Tokenization
from msvqa.errors import DataError
from tests.models.small_videochat2 import word_tokenizer

TURNS = (Turn("what is it ?", "a red cup"), Turn("what ?", "a blue cup"))
ABOUT_VIDEO = Conversation("video", TURNS)
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def learned(written, targets="answers_only"):
    return [written.after[start:end] for start, end in written.spans(targets)]


def test_answers_and_their_ends_are_learned_and_headers_where_asked():
    written = Vicuna().write(ABOUT_VIDEO)
    assert learned(written) == [" a red cup ###", " a blue cup ###"]
    assert learned(written, "reference_headers")[0] == " ###Human:"
    assert learned(Mistral().write(ABOUT_VIDEO)) == [" a red cup </s>", " a blue cup </s>"]


def test_headers_and_tags_inside_a_text_stay_text():
    turn = Turn("why ###Assistant: </Video> ?", "it said ###Human: stop")
    written = Vicuna().write(Conversation("video", (turn,)))
    assert learned(written) == [" it said ###Human: stop ###"]


def test_text_without_a_medium_has_no_tags_and_no_leading_space():
    written = Vicuna().write(Conversation("text", TURNS[:1]))
    assert (written.before, written.after[:9]) == ("", "###Human:")


def fitted(limit, conversation=ABOUT_VIDEO):
    return Tokenization(Vicuna(), word_tokenizer(), limit=limit).fit(conversation)


def test_whole_turns_go_first_then_the_answer_is_cut_and_then_the_row_is_dropped():
    whole = fitted(100)
    assert (whole.turns, whole.outcome) == (2, "whole")
    shorter = fitted(len(whole.tokens) - 1)
    assert (shorter.turns, shorter.outcome) == (1, "shortened")
    cut = fitted(len(shorter.tokens) - 2)
    assert cut.outcome == "cut"
    words = word_tokenizer().convert_ids_to_tokens(cut.tokens.after)
    assert words[-2:] == ["a", "red"]  # and no end symbol
    assert len(cut.tokens) == len(shorter.tokens) - 2
    assert fitted(len(shorter.tokens) - 4).outcome == "too_long"


def test_of_an_answer_that_fits_without_its_end_only_the_end_is_lost():
    whole = fitted(100, ABOUT_VIDEO.first(1))
    found = fitted(len(whole.tokens) - 1, ABOUT_VIDEO.first(1))
    assert (found.outcome, sum(found.tokens.targets)) == ("cut", 3)


def test_bug_10_a_row_without_targets_is_dropped_by_name():
    assert fitted(100, Conversation("text", ())) == (None, 0, "no_target")


@pytest.mark.parametrize("answer", ["a red cup", " a red cup ", "\ue000"])
def test_a_chat_template_learns_answers_and_what_ends_them(answer):
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    turn = Turn("what ?", answer, "look .")
    written = ChatTemplate(tokenizer).write(Conversation("video", (turn, TURNS[1])))
    assert written.before == "<system>look .</s><user><Video>"
    assert written.after.startswith("</Video>\nwhat ?</s><assistant>")
    assert learned(written) == [f"{answer}</s>", "a blue cup</s>"]


def test_an_answer_ends_as_the_template_ends_it():
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    assert ChatTemplate(tokenizer).end == "</s>"
    tokenizer.chat_template = TEMPLATE.replace("</s>", "<|end|>\n")
    assert ChatTemplate(tokenizer).end == "<|end|>"


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(DataError, match="no chat template"):
        ChatTemplate(word_tokenizer())


@pytest.mark.parametrize(
    ("reads", "expected"),
    [("instruction", "look ."), ("instruction+question", "look . what ?"), ("none", "")],
)
def test_what_the_queries_read(reads, expected):
    assert Conversation("video", (Turn("what ?", "a", "look ."),)).reading(reads) == expected


def test_a_question_is_read_also_where_there_is_no_instruction():
    assert ABOUT_VIDEO.reading("instruction+question") == "what is it ?"


def test_seconds_have_one_decimal_and_halves_go_to_the_even_one():
    message = " The video contains 3 frames sampled at 0.2, 0.4, 12.0 seconds."
    assert frame_message([0.25, 0.35, 12]) == message
