"""Talking about a video: messages, words as they come, and an end before the end."""

import pytest

from msvqa.errors import DataError
from msvqa.objectives.dialogue import opened
from msvqa.talker import conversation_of


def test_messages_become_turns_whose_last_answer_is_open():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A cup."},
        {"role": "user", "content": "Which colour?"},
    ]
    found = conversation_of(messages, "video")
    assert [turn.question for turn in found.turns] == ["What is it?", "Which colour?"]
    assert found.turns[0].answer == "A cup."
    assert found.instruction == "Be brief."
    assert opened(found).turns[1].answer
    assert conversation_of("What is it?", "text").turns[0].question == "What is it?"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": " "}],
        [{"role": "assistant", "content": "A cup."}],
        [{"role": "robot", "content": "What?"}],
        [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cup."}],
    ],
)
def test_what_is_no_conversation_is_refused(messages):
    with pytest.raises(DataError, match="messages"):
        conversation_of(messages, "video")
