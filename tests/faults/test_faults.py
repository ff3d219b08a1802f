"""Nothing is lost to faults, and a table says so only then.

These are a selection; `make faults` injects all of them.
"""

import pytest

from tests.faults.__main__ import attempt
from tests.faults.bench import Bench
from tests.faults.faults import FAULTS
from tests.marks import again

# That a worker is killed is also seen where a run lives in an object store.
SHORT = (
    "driver_killed",
    "decoder_hangs_or_crashes",
    *again(
        (
            "worker_killed",
            "worker_killed_of_a_model_in_pieces",
            "terminated",
            "checkpoint_truncated",
            "storage_away_for_a_while",
        )
    ),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost(bench, name):
    assert FAULTS[name](bench, name) == []


def goes_well(bench, name):
    """A fault."""
    return []


def loses_once(bench, name):
    """A fault."""
    return ["step 3"] if name.endswith("-1") else []


def fails_once(bench, name):
    """A fault."""
    assert not name.endswith("-1")
    return []


@pytest.mark.parametrize(
    ("fault", "survived", "lost"),
    [(goes_well, 3, "nothing"), (loses_once, 2, "step 3"), (fails_once, 2, "unknown")],
)
def test_a_row_tells_what_became_of_a_fault(monkeypatch, capsys, fault, survived, lost):
    monkeypatch.setitem(FAULTS, "fault", fault)
    row = attempt(None, "fault", 3)
    assert str(row).split(maxsplit=5) == ["A", "fault.", "3", str(survived), "0", lost]
    assert row.is_survived == (lost == "nothing")
    assert ("AssertionError" in capsys.readouterr().err) == (lost == "unknown")
