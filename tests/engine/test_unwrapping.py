"""Errors of worker processes, as Ray hands them on."""

import pytest
from ray.exceptions import RayTaskError

from msvqa.engine.unwrapping import causes, user_error
from msvqa.errors import DataError, StorageError


@pytest.mark.parametrize(
    ("cause", "kind"),
    [(OSError(28, "No space left on device"), StorageError), (DataError("row 7"), DataError)],
)
def test_the_reason_is_told_and_not_the_traceback_of_the_wrapper(cause, kind):
    wrapped = RayTaskError("f", "a long\ntraceback", cause).as_instanceof_cause()
    assert isinstance(wrapped, type(cause)), "Ray gives the wrapper the class of its cause"
    assert list(causes(wrapped)) == [cause]
    told = user_error(wrapped)
    assert isinstance(told, kind)
    assert "traceback" not in str(told)
    assert "\x1b" not in str(told)


def test_a_wrapper_without_a_cause_is_all_there_is():
    wrapped = RayTaskError("f", "a long\ntraceback", None)
    assert list(causes(wrapped)) == [wrapped]
