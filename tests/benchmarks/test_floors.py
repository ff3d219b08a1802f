"""Minimum rates of the short rows: nothing may become twice as slow unseen."""

import pytest

from benchmarks.instrument import Options, measured
from benchmarks.measure import Ratio
from benchmarks.rows.floors import FLOORS, beyond
from benchmarks.rows.setting import CPU
from benchmarks.rows.table import ROWS

ATTEMPTS, ROUNDS = 3, 2
"""Other work on the machine may disturb a measurement, but hardly three of them."""
MEASUREMENTS = sorted(
    {row.measured_by for row in ROWS if any(name.startswith(f"{row.id} ") for name in FLOORS)}
)


@pytest.mark.slow
@pytest.mark.parametrize("measured_by", MEASUREMENTS)
def test_nothing_is_twice_as_slow_as_it_was(measured_by):
    rows = [row for row in ROWS if row.measured_by == measured_by]
    names = {name for name in FLOORS if name.split()[0] in {row.id for row in rows}}
    left = names
    for _ in range(ATTEMPTS):
        found = measured(rows, Options("cpu", rounds=ROUNDS), CPU)
        assert names <= {finding.name for finding in found}
        slow = {name: said for name, said in beyond(found).items() if name in left}
        left = set(slow)
        if not slow:
            return
    assert not slow


def test_what_is_beyond_its_minimum_is_named_with_it():
    name = next(name for name, floor in FLOORS.items() if floor.startswith(">="))
    low = 0.9 * float(FLOORS[name].split()[1])
    assert beyond([Ratio(name, 100.0, 100.0, 100.0)]) == {}
    assert beyond([Ratio("another", 0.0, 0.0, 0.0)]) == {}
    assert beyond([Ratio(name, low, low, low)]) == {name: f"{low:.3g}, not {FLOORS[name]}"}
