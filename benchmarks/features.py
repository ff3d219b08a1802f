"""Features to a batch: our store and buffers against opening HDF5 files for every question.

python -m benchmarks.features

Rows L1 and L2 of `python -m benchmarks`, with what fresh memory costs and milliseconds per batch.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.measure import pin_to_one_core, write
from benchmarks.rows.setting import Setting
from benchmarks.rows.stores import QUESTIONS, compare_features, costs_of_features


def main() -> int:
    """Run and write the results."""
    pin_to_one_core()
    with tempfile.TemporaryDirectory() as name:
        costs = costs_of_features(Setting(folder=Path(name)))
    facts = {f"ms per batch of {QUESTIONS}, {k}": f"{1e3 * min(v):.2f}" for k, v in costs.items()}
    table = write("features", compare_features(costs), facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
