"""Fixtures that every test may use."""

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# Before any import of ray: a local cluster without network services, quick health checks.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a script starts in the background is to ignore it, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LAST = ("slow", "ray")
LONGEST = (
    "test_two_nodes.py", "test_tune.py", "test_ray_jobs.py", "test_object_store.py",
    "test_remote_data.py", "test_interruption.py", "test_listening.py",
)  # fmt: skip
"""Files of tests that take a minute or more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run quick tests first and those that start Ray last; skip what needs an absent GPU.

    Of the last ones files of long tests come first: two run at once, and at the end none waits.
    """
    items.sort(
        key=lambda item: (
            max(LAST.index(m) + 1 if item.get_closest_marker(m) else 0 for m in LAST),
            item.path.name not in LONGEST,
        )
    )
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="this machine has no GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what no encoding has of what a test printed, which xdist would not send."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


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


@pytest.fixture(scope="session")
def ray_local():
    """A cluster of two CPUs on this machine for all tests of the session."""
    import ray

    from tests.forked_python import program, standing_for_python

    with standing_for_python(program()):
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            object_store_memory=300_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def servers() -> Iterator[None]:
    """Servers of all kinds of object stores."""
    from tests.object_store import STORES

    with ExitStack() as stack:
        for server in STORES.values():
            stack.enter_context(server())
        yield
