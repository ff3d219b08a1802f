"""Parity: compares this project with what the reference systems computed and recorded.

One folder of recordings for each system; file names repeat between them, so the checks are chosen
by the folder's name.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from benchmarks.parity.recording import EXACT, Comparison, Recording

Check = Callable[[Recording], Iterator[Comparison]]

SYSTEMS: dict[str, str] = {
    "mvbench": "benchmarks.parity.mvbench:CHECKS",
    "similarity": "benchmarks.parity.similarity:CHECKS",
    "umt": "benchmarks.parity.umt:CHECKS",
    "videochat2": "benchmarks.parity.videochat2:CHECKS",
    "videoqa": "benchmarks.parity.videoqa:CHECKS",
}
"""Systems by the name of their folder, and the tables of what compares each recorded file."""

RECORDINGS = (".npz", ".json")
"""Endings of recorded files; what else lies in a folder is read by the checks that need it."""


def checks_of(system: str) -> Mapping[str, Check]:
    """Return what compares the recorded files of a system; nothing for one that is not known."""
    if system not in SYSTEMS:
        return {}
    module, _, name = SYSTEMS[system].partition(":")
    checks: Mapping[str, Check] = getattr(import_module(module), name)
    return checks


def recordings_of(folder: Path) -> list[Path]:
    """Return the recorded files of a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix in RECORDINGS)


def compare_file(path: Path, system: str | None = None) -> list[Comparison]:
    """Return all comparisons of one recorded file.

    What cannot be read, what nothing compares, and every recorded array that the check did not
    look at is a failure of its own, by name: a recording may have other sizes and other cases
    than those that are known, but nothing in it is passed over.

    Args:
        path: the recorded file.
        system: the system that it is of; by default its folder's name.
    """
    system = system or path.resolve().parent.name
    check = checks_of(system).get(path.stem)
    if check is None:
        return [Comparison(path.stem, f"not compared: {system} has no check", float("inf"), EXACT)]
    results: list[Comparison] = []
    try:
        recording = Recording(path)
        results += check(recording)
    except Exception as error:  # whatever a damaged recording leads to
        what = f"cannot be compared: {type(error).__name__}: {error}"
        return [*results, Comparison(path.stem, what, float("inf"), EXACT)]
    left_out = [Comparison(path.stem, f"{n}: not compared", float("inf"), EXACT)
                for n in recording.unread()]  # fmt: skip
    return [*results, *left_out]
