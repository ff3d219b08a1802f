"""Prints the table of all comparisons.

    python -m benchmarks.parity [FOLDER] [--system NAME]

FOLDER holds the recorded files of one system; its name says which (see `SYSTEMS`), unless --system
does. By default `golden/videoqa` below $MSVQA_SHARED. Exits with 1 when a difference exceeds its
tolerance, or when a file or a quantity of the folder is not compared.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.parity import SYSTEMS, compare_file, recordings_of
from benchmarks.parity.recording import SHARED


def main() -> int:
    """Print the table; return 1 if anything differs."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED / "golden" / "videoqa")
    parser.add_argument("--system", choices=sorted(SYSTEMS))
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    files = recordings_of(folder) if folder.is_dir() else []
    if not files:
        print(f"no recorded files in {folder}; name the folder, or set MSVQA_SHARED")
        return 1
    results = []
    print(f"{'file':<34}{'quantity':<40}{'difference':>12}{'tolerance':>12}")
    for path in files:
        for result in compare_file(path, arguments.system):
            results.append(result)
            mark = "" if result.passed else "  FAILED"
            print(
                f"{result.file:<34}{result.quantity:<40}{result.difference:>12.1e}"
                f"{result.tolerance:>12.1e}{mark}"
            )
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} of {len(results)} quantities of {len(files)} files agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
