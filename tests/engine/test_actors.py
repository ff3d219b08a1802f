"""Every error that work in an actor raises: one sentence, an exit code, no traceback."""

import pickle

import numpy as np
import pytest

from msvqa.engine.actors import FAILURE, Messenger
from tests.engine.raising_work import (
    check_told,
    extraction,
    prediction,
)
from tests.raising import ALL


@pytest.fixture
def folder(tiny, tmp_path):
    """The data of the tiny experiment, and runs of this test alone."""
    for name in ("data", "p"):
        (tmp_path / name).symlink_to(tiny / name)
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_what_a_predictor_raises_is_one_sentence(folder, capsys, name):
    check_told(handed_on(prediction(folder, name)), name, capsys)


@pytest.mark.long
@pytest.mark.parametrize("name", ["RecipeError", "WeightsError", "disk", "gpu"])
def test_what_a_writer_of_shards_raises_is_one_sentence(folder, capsys, name):
    check_told(handed_on(extraction(folder, name)), name, capsys)


def handed_on(work):
    """Return what an actor hands on in place of its results."""
    (sent,) = Messenger(work)({"part": np.array([0])})[FAILURE]
    return pickle.loads(sent)
