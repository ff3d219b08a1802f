"""Errors survive the way from one process to another, with all that they know."""

import copy
import errno
import pickle
import threading

import pytest

from msvqa.engine.unwrapping import sendable
from msvqa.errors import DataError, MSVQAError, RecipeError, StoppedError, VideoError
from tests.raising import ALL, WORDS, made


def sent(error):
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("name", ALL)
def test_every_error_arrives_as_it_was_sent(name):
    error = made(name)
    error.noted = errno.ENOSPC
    for arrived in (sent(error), copy.copy(error)):
        assert type(arrived) is type(error)
        assert (str(arrived), vars(arrived)) == (str(error), vars(error))
        assert WORDS in str(arrived)


def test_what_errors_know_arrives():
    assert sent(RecipeError(["a", "b"], "space")).problems == ["a", "b"]
    assert sent(VideoError("timeout", "too long")).outcome == "timeout"
    stopped = StoppedError("asked to stop")
    stopped.signal_number = 15
    assert sent(stopped).signal_number == 15


class OwnError(DataError):
    """As a plug-in may define one: with a constructor of its own."""

    def __init__(self, video: str, lock: object) -> None:
        self.video, self.lock = video, lock
        super().__init__(f"no subtitles for {video}")


def test_errors_of_others_arrive_whatever_their_constructor_takes():
    assert (sent(OwnError("a", 1)).video, str(sent(OwnError("a", 1)))) == (
        "a",
        "no subtitles for a",
    )
    unsendable = OwnError("b", threading.Lock())
    arrived = sent(sendable(unsendable, unsendable))
    assert (type(arrived), str(arrived)) == (DataError, "no subtitles for b")


def test_what_was_raised_elsewhere_is_shown_with_its_lines():
    try:
        raise MSVQAError("far away")
    except MSVQAError as error:
        (note,) = sent(sendable(error, error)).__notes__
    assert 'raise MSVQAError("far away")' in note
