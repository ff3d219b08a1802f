"""Nothing is lost to faults. A selection; `make faults` injects all of them."""

import pytest

from tests.faults.bench import Bench
from tests.faults.faults import FAULTS

SHORT = (
    "worker_killed",
    "driver_killed",
    "terminated",
    "checkpoint_truncated",
    "storage_away_for_a_while",
    "decoder_hangs_or_crashes",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost(bench, name):
    assert FAULTS[name](bench, name) == []
