"""Nothing is lost to faults."""

import pytest

from tests.faults.bench import Bench
from tests.faults.faults import FAULTS


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.ray
@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost(bench, name):
    assert FAULTS[name](bench, name) == []
