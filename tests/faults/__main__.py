"""Injects every fault into real processes and prints what was survived: `make faults`."""

import argparse
import os
import re
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.faults import FAULTS


@dataclass(frozen=True)
class Row:
    """What became of one fault."""

    injected: str
    tried: int
    survived: int
    """Tries after which nothing was lost."""
    lost: list[str]
    """What is known to be lost; of a try that failed nothing is known."""
    seconds: float

    def __str__(self) -> str:
        lost = ", ".join(self.lost) or ("nothing" if self.is_survived else "unknown")
        seconds = f"{self.seconds:.0f}"
        return line(self.injected, self.tried, self.survived, seconds, lost)

    @property
    def is_survived(self) -> bool:
        return self.survived == self.tried


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--times", type=int, default=1, help="how often each is tried (1)")
    arguments = parser.parse_args()
    if unknown := {*arguments.faults} - {*FAULTS}:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    rows, start = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="msvqa-faults-") as folder:
        bench = Bench(Path(folder))
        # First what the others are compared with, so that no fault is charged with its time.
        print(f"undisturbed: {bench.undisturbed.recipe.name}", flush=True)
        for name in arguments.faults or FAULTS:
            rows.append(attempt(bench, name, arguments.times))
            print(rows[-1], flush=True)
    minutes = (time.monotonic() - start) / 60
    print("\n" + line("injected", "tried", "survived", "s each", "lost"))
    print(*rows, sep="\n")
    survived = sum(row.is_survived for row in rows)
    print(f"{survived} of {len(rows)} faults survived without loss, in {minutes:.0f} minutes")
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[2]:.1f}")
    return 0 if survived == len(rows) else 1


def attempt(bench: Bench, name: str, times: int) -> Row:
    """Inject a fault some times."""
    survived, lost, start = 0, [], time.monotonic()
    for number in range(times):
        try:
            found = FAULTS[name](bench, f"{name}-{number}")
        except Exception:
            traceback.print_exc()
            continue
        lost += found
        survived += not found
    injected = re.split("[:;]", FAULTS[name].__doc__ or name)[0]
    return Row(injected, times, survived, lost, (time.monotonic() - start) / times)


def line(injected: object, tried: object, survived: object, seconds: object, lost: object) -> str:
    return f"{injected:<62} {tried:>5} {survived:>8} {seconds:>6}   {lost}"


if __name__ == "__main__":
    sys.exit(main())
