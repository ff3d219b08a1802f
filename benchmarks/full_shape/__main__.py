"""All verbs on the full shape of MSVD-QA: 1 970 videos of 10 s, 50 505 questions.

python -m benchmarks.full_shape                             # drawn questions
python -m benchmarks.full_shape --annotations DIR           # the published ones, about drawn videos

Videos and questions are drawn (`data_set.py`); then the commands are given as a user
gives them: on all videos, and before that some of them on 200 with their share of the questions. Of
each are told seconds of the clock and of the processors, the largest memory and what Ray's object
store has held. What must be exact (videos in stores, questions of an epoch, answers), and an object
store that grows with the videos, or of which decoders that work ahead take more than their share,
fail the study.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.full_shape.counts import counts, equal
from benchmarks.full_shape.data_set import WHOLE, Rows, Shape, generate
from benchmarks.full_shape.process_tree import follow
from benchmarks.full_shape.table import Row, is_bounded, pairs, write
from benchmarks.full_shape.verbs import Place, verbs
from benchmarks.measure import Count

PART = 200
NEEDED_BYTES = 14e9


def perform(place: Place, rows: Rows, size: int, *, is_part: bool) -> Iterator[Row]:
    """Give the commands of one size; yield what each has taken."""
    for number, verb in enumerate(verbs(place, rows)):
        if is_part and not verb.also_of_part:
            continue
        log = place.folder / f"{number:02d}.log"
        took = follow([sys.executable, "-m", "msvqa", *verb.words], log, verb.interrupt_when)
        row = Row(verb, size, took, _bytes_of(verb.output))
        print(row, log.read_text("utf-8"), sep="\n", file=sys.stderr)
        yield row


def _bytes_of(place: Path) -> int:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def run(
    folder: Path, shapes: tuple[Shape, Shape], annotations: Path | None
) -> tuple[list[Row], list[Count]]:
    """Do a part and the whole; return what was measured, and what must be exact."""
    done: list[Row] = []
    checks: list[Count] = []
    for shape in shapes:
        place = Place(folder / f"{shape.size}")
        rows = generate(place.data, shape, annotations)
        for row in perform(place, rows, shape.size, is_part=shape is shapes[0]):
            done.append(row)
            name = f"{row.verb.name}, {row.size} videos"
            checks.append(equal(f"exit code, {name}", row.took.code, row.verb.code))
            checks.append(equal(f"processes left, {name}", row.took.left, 0))
        if shape is shapes[1] and all(check.verdict == "exact" for check in checks):
            checks += counts(place, rows)
        shutil.rmtree(place.folder)
    for few, many in pairs(done):
        bounded = int(is_bounded(few, many))
        checks.append(equal(f"object store is bounded, {many.verb.name}", bounded, 1))
    return done, checks


def main() -> int:
    """Measure and write the table; 1 where a count is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_shape")
    parser.add_argument("--annotations", type=Path, help="folder with the files of MSVD-QA")
    parser.add_argument("--videos", type=int, default=WHOLE.size, help="of all; fewer: a trial")
    parser.add_argument("--part", type=int, default=PART, help="videos of the first size")
    parser.add_argument("--folder", type=Path, help="where the work is done (a temporary folder)")
    given = parser.parse_args()
    shapes = WHOLE.part(given.part), WHOLE.part(given.videos)
    with tempfile.TemporaryDirectory(prefix="msvqa-shape-", dir=given.folder) as name:
        if shutil.disk_usage(name).free < NEEDED_BYTES * given.videos / WHOLE.size:
            parser.error(f"{name}: less than {NEEDED_BYTES / 1e9:.0f} GB are free, see --folder")
        done, checks = run(Path(name), shapes, given.annotations)
    words = " ".join(sys.argv[1:])
    table = write(f"python -m benchmarks.full_shape {words}".rstrip(), done, checks)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return int(any(check.verdict == "WRONG" for check in checks))


if __name__ == "__main__":
    sys.exit(main())
