"""Data of the tiny experiment, made once."""

from pathlib import Path

import pytest

from tests.tiny import make_data


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with generated videos, the prepared folder and the clip store."""
    folder = tmp_path_factory.mktemp("tiny")
    make_data(folder)
    return folder
