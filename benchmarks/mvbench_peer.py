"""A peer beside our counting: lmms-eval's own scores of the answers in a file of results.

python -m benchmarks.mvbench_peer RESULTS.jsonl --peer FOLDER

`pip install --no-deps --target FOLDER lmms-eval==0.7.3 loguru` fills the folder; only the module
that counts MVBench is read from there. Prints the mean of all questions by the peer, by our matcher
`lmms_eval`, and how many questions the two judge differently, which are listed; then the exit code
is 1.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = Path("lmms_eval/tasks/mvbench/utils.py")


def peer_of(folder: Path) -> ModuleType:
    """Return the module that counts, of a folder that pip has filled.

    Raises:
        SystemExit: it is not there.
    """
    if not (folder / MODULE).is_file():
        raise SystemExit(
            f"{folder}: there is no {MODULE}: see python -m benchmarks.mvbench_peer -h"
        )
    sys.path.append(str(folder))  # for loguru, which it imports
    spec = importlib.util.spec_from_file_location("peer", folder / MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of results; its first line says how they were made."""
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        yield json.loads(line)


def judged(peer: ModuleType, row: dict[str, Any]) -> dict[str, Any]:
    """Return what the peer says of one answer."""
    options = row["options"]
    right = options[ord(row["gold"]) - ord("A")]
    found: dict[str, Any] = peer.mvbench_process_results(
        {"candidates": options, "answer": right}, [row["text"]]
    )["mvbench_accuracy"]
    return found


def main() -> int:
    """Print both counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mvbench_peer")
    parser.add_argument("results", type=Path)
    parser.add_argument("--peer", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    peer, rows = peer_of(arguments.peer), list(answers(arguments.results))
    theirs = [judged(peer, row) for row in rows]
    ours = [bool(row["verdicts"]["lmms_eval"]) for row in rows]
    print(f"lmms-eval: {peer.mvbench_aggregate_results(theirs):.2f} of {len(rows)} questions")
    print(f"matcher lmms_eval: {100 * sum(ours) / len(rows):.2f}")
    differing = [
        row
        for row, found, own in zip(rows, theirs, ours, strict=True)
        if bool(found["score"]) != own
    ]
    print(f"judged differently: {len(differing)}")
    for row in differing:
        print(f"  {row['task']} {row['index']}: {row['text']!r}, right is {row['gold']}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
