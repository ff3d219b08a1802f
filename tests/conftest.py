"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

# Before any import of ray: a local cluster without network services, quick health checks.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60")

SHARED = Path(os.environ.get("MSVQA_SHARED", Path(__file__).parents[2] / "shared"))


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(
            f"reference data is absent: {folder} (set MSVQA_SHARED to the folder that holds it)"
        )
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with inputs, weights and outputs of the reference systems."""
    return _folder("golden")


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder with real video clips, good and broken."""
    return _folder("data/clips")


@pytest.fixture(scope="session")
def msvd_annotations() -> Path:
    """Folder with the real MSVD-QA annotations."""
    return _folder("data/msvd-qa")
