"""All verbs on the full shape of MSVD-QA: 1 970 videos of 10 s, 50 505 questions.

python -m benchmarks.full_shape                             # drawn questions
python -m benchmarks.full_shape --annotations DIR           # the published ones, about drawn videos

Videos and questions are drawn (benchmarks/msvd_shape.py); then the commands are given as a user
gives them: on all videos, and before that some of them on 200 with their share of the questions. Of
each are told seconds of the clock and of the processors, the largest memory and what Ray's object
store has held. What must be exact (videos in stores, questions of an epoch, answers), and an object
store that grows with the videos, fail the study.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import Count, write
from benchmarks.msvd_shape import WHOLE, Rows, Shape, generate
from benchmarks.process_tree import Condition, Took, follow

PART = 200
NEEDED_BYTES = 14e9
CONFIGS = Path(__file__).parents[1] / "configs"
CLIPS = "clips={num_clips: 8, frames_per_clip: 16, size_px: 100}"
ENCODED_CLIPS = "clips={num_clips: 4, frames_per_clip: 4}"
FEATURES = (
    "features={appearance: {name: resnet, depth: 10, base_width: 16}, appearance_px: 64, "
    "motion: {name: resnext3d, depth: 14, base_width: 16, groups: 1}, motion_px: 64, "
    "appearance_width: 128, motion_width: 256, precision: auto}"
)
STEPS, INTERRUPTED_AFTER, STREAMED_STEPS, TRIAL_STEPS = 12, 4, 4, 20
"""Of the run on pixels; of the same before it gets SIGINT; of one that decodes while it trains; of
each of two trials"""
INTERRUPTED = 130
MAY_GROW = 1.5
"""How much more the object store may hold with all videos than with a part of them"""
NEGLIGIBLE_BYTES = 4e6
"""Of an object store: what may be many times another without meaning anything"""
FASTER_THAN_LINEAR = 1.15
"""CPU seconds for each video of all, over those of the part"""


@dataclass(frozen=True)
class Verb:
    """A command of the package."""

    name: str
    words: Sequence[str]
    output: Path
    """What it writes"""
    also_of_part: bool = False
    """Whether it is given at the smaller size too"""
    interrupt_when: Condition | None = None

    @property
    def code(self) -> int:
        """How it must end."""
        return INTERRUPTED if self.interrupt_when else 0


@dataclass(frozen=True)
class Place:
    """The folder of one size, and what lies where."""

    folder: Path

    @property
    def data(self) -> Path:
        """Videos and questions."""
        return self.folder / "data"

    @property
    def prepared(self) -> Path:
        """What `prepare` writes."""
        return self.folder / "prepared"

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / name

    def store(self, kind: str) -> Path:
        """Return the folder of a store."""
        return self.folder / kind

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows that a run has logged so far."""
        file = self.run(name) / "metrics.jsonl"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def last_step(self, name: str) -> int:
        """Return the last step that a run has logged."""
        return max((row["step"] for row in self.rows(name) if row["kind"] == "train"), default=0)


def verbs(place: Place, rows: Rows) -> Iterator[Verb]:
    """Yield the commands in the order in which they build on each other."""
    own = [f"data.root={place.data}", f"data.prepared={place.prepared}"]
    own += [f"runs={place.folder / 'runs'}", "scaling.workers=1"]
    dualvgr = [str(CONFIGS / "dualvgr/msvd.yaml"), *own, ENCODED_CLIPS, FEATURES]
    dualvgr += [f"features.store={place.store('features')}", "model.hidden_size=256"]
    pixels = [str(CONFIGS / "quickstart.yaml"), *own, "data.name=msvd_qa", CLIPS]
    pixels += [f"clips.store={place.store('clips')}", "data.word_size=300"]
    run, first = place.run("dualvgr"), rows["test"][0]
    named = {video: stem for stem, video in _mapping(place.data)}
    video = place.data / "video" / f"{named[first['video_id']]}.avi"
    space = place.folder / "space.yaml"
    rates = {"stages.answer.optimizer.lr": {"grid": [1e-4, 1e-3]}}
    space.write_text(
        yaml.safe_dump({"name": "two", "fields": rates, "search": "grid"}), encoding="utf-8"
    )
    problems = place.folder / "problems.parquet"
    yield Verb(
        "doctor", ["doctor", *dualvgr, "--data", str(place.data), "--out", str(problems)], problems
    )
    out = ["--root", str(place.data), "--out", str(place.prepared)]
    yield Verb("prepare", ["prepare", "msvd_qa", *out], place.prepared, also_of_part=True)
    yield Verb("extract, pixels", ["extract", *pixels], place.store("clips"), also_of_part=True)
    yield Verb("extract, features", ["extract", *dualvgr], place.store("features"))
    epoch = ["name=dualvgr", "stages.answer.epochs=1"]
    yield Verb("train, DualVGR, an epoch", ["train", *dualvgr, *epoch], run)
    answered = run / "evaluate"
    yield Verb("evaluate", ["evaluate", str(run), "--split", "test"], answered)
    yield Verb("report", ["report", str(run)], run / "report.html")
    train = ["train", *pixels, "name=msvqa", _stage(STEPS)]
    reached = place.run("msvqa")
    yield Verb(
        f"train, MSVQA, interrupted after step {INTERRUPTED_AFTER}",
        train,
        reached,
        interrupt_when=lambda: place.last_step("msvqa") >= INTERRUPTED_AFTER,
    )
    yield Verb(f"train, MSVQA, resumed to step {STEPS}", train, reached)
    yield Verb(
        "predict", ["predict", "--json", str(reached), str(video), first["question"]], reached
    )
    streamed = ["name=streamed", "clips.cache=none", "scaling.data_workers=1"]
    streamed += [_stage(STREAMED_STEPS)]
    yield Verb(
        "train, MSVQA, decoding meanwhile",
        ["train", *pixels, *streamed],
        place.run("streamed"),
        also_of_part=True,
    )
    short = ["stages.answer.epochs=null", f"stages.answer.steps={TRIAL_STEPS}", "name=trials"]
    yield Verb(
        "tune, two trials",
        ["tune", *dualvgr[:1], str(space), *dualvgr[1:], *short],
        place.run("trials-two"),
    )


def _stage(steps: int) -> str:
    return (
        f"stages=[{{name: answer, objective: {{name: answering}}, steps: {steps}, "
        "log_every_steps: 1, batch: {videos: 4, questions_per_video: 8}}]"
    )


def _mapping(data: Path) -> Iterator[tuple[str, int]]:
    for line in (data / "youtube_mapping.txt").read_text(encoding="utf-8").splitlines():
        stem, video = line.split()
        yield stem, int(video.removeprefix("vid"))


# What must be exact


def counts(place: Place, rows: Rows) -> Iterator[Count]:
    """Yield what is the same on every machine, from what the verbs have left."""
    from msvqa.data.prepared import Prepared
    from msvqa.data.store import Store
    from msvqa.run import Run

    asked_about = {row["video_id"] for asked in rows.values() for row in asked}
    for kind in ("clips", "features"):
        store = Store.open(place.store(kind))
        yield _equal(f"videos in the store of {kind}", len(store), len(asked_about))
        yield _equal(f"videos that could not be read, {kind}", len(store.rejected), 0)
    run = Run.open(place.run("dualvgr"))
    prepared = Prepared.open(place.prepared)
    for split, asked in rows.items():
        found = len(prepared.split(split).examples)
        yield _equal(f"questions prepared, {split}", found, len(asked))
    yield from _epoch(place, run, prepared.split("train"))
    metrics, table = run.evaluation("test")
    answered = table["question_id"].to_pylist()
    wanted = sorted(row["id"] for row in rows["test"])
    yield _equal("answers, test", len(answered), len(wanted))
    yield _equal("questions of test that are answered once", _once(answered, wanted), len(wanted))
    yield _equal("answers that are counted, test", metrics["n"], len(wanted))
    steps = [row["step"] for row in place.rows("msvqa") if row["kind"] == "train"]
    made = _once(steps, range(1, STEPS + 1))
    yield _equal("steps that are logged once, interrupted and resumed", made, STEPS)
    trials = [*place.run("trials-two").glob("trial-*/recipe.yaml")]
    yield _equal("trials", len(trials), 2)


def _epoch(place: Place, run: Any, split: Any) -> Iterator[Count]:
    """Yield how often questions count in the epoch that was trained, and if all was trained."""
    from msvqa.data.order import plan_epoch

    plan = plan_epoch(split, run.recipe.stages[-1].batch, seed=run.recipe.seed, epoch=0)
    counting = plan.rows[plan.weight > 0].tolist()
    once = _once(counting, range(len(split)))
    yield _equal("questions that count once in the epoch", once, len(split))
    yield _equal("steps of the epoch", place.last_step("dualvgr"), plan.steps)


def _once(found: Iterable[int], wanted: Iterable[int]) -> int:
    """Return how many of the wanted were found exactly once."""
    times = Counter(found)
    return sum(times[number] == 1 for number in wanted)


def _equal(name: str, value: float, target: float) -> Count:
    return Count(name, value, f"== {target}")


# The study


@dataclass(frozen=True)
class Row:
    """A verb at a size, and what it took."""

    verb: Verb
    size: int
    took: Took
    output_bytes: int

    @property
    def per_video(self) -> float:
        """CPU seconds for a video."""
        return self.took.cpu_s / self.size

    def __str__(self) -> str:
        took = self.took
        return (
            f"{took.s:.0f} s, {took.cpu_s:.0f} CPU s, {took.gb:.2f} GB, object store "
            f"{took.object_store_bytes / 1e6:.2f} MB, output {self.output_bytes / 1e6:.1f} MB"
        )


def perform(place: Place, rows: Rows, size: int, *, is_part: bool) -> Iterator[Row]:
    """Give the commands of one size; yield what each has taken."""
    for number, verb in enumerate(verbs(place, rows)):
        if is_part and not verb.also_of_part:
            continue
        log = place.folder / f"{number:02d}.log"
        took = follow([sys.executable, "-m", "msvqa", *verb.words], log, verb.interrupt_when)
        row = Row(verb, size, took, _bytes_of(verb.output))
        print(f"{size} videos", verb.name, row, log.read_text("utf-8"), sep="\n", file=sys.stderr)
        yield row


def _bytes_of(place: Path) -> int:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def facts(part: Mapping[str, Row], whole: Mapping[str, Row]) -> dict[str, str]:
    """Return what each verb took at its sizes, and whether it has grown faster than the videos."""
    told = {}
    for name, many in whole.items():
        if few := part.get(name):
            told[f"{name}, {few.size} videos"] = str(few)
        told[f"{name}, {many.size} videos"] = str(many)
        if few:
            growth = many.per_video / few.per_video
            verdict = "FASTER than linearly" if growth > FASTER_THAN_LINEAR else "not faster"
            told[f"{name}, CPU s per video, all over part"] = f"{growth:.2f}: {verdict}"
            held = many.took.object_store_bytes / max(few.took.object_store_bytes, 1)
            told[f"{name}, object store, all over part"] = f"{held:.2f}"
    return told


def is_bounded(few: Row, many: Row) -> bool:
    """Whether the object store has not grown with the videos."""
    held = many.took.object_store_bytes
    return held <= max(MAY_GROW * few.took.object_store_bytes, NEGLIGIBLE_BYTES)


def run(
    folder: Path, shapes: tuple[Shape, Shape], annotations: Path | None
) -> tuple[dict[str, str], list[Count]]:
    """Do a part and the whole; return what was measured, and what must be exact."""
    found, checks = [], []
    for shape in shapes:
        place = Place(folder / f"{shape.size}")
        rows = generate(place.data, shape, annotations)
        done = [*perform(place, rows, shape.size, is_part=shape is shapes[0])]
        for row in done:
            name = f"{row.verb.name}, {row.size} videos"
            checks.append(_equal(f"exit code, {name}", row.took.code, row.verb.code))
            checks.append(_equal(f"processes left, {name}", row.took.left, 0))
        found.append({row.verb.name: row for row in done})
        if shape is shapes[1] and all(check.verdict == "exact" for check in checks):
            checks += counts(place, rows)
        shutil.rmtree(place.folder)
    part, whole = found
    for name, few in part.items():
        bounded = int(is_bounded(few, whole[name]))
        checks.append(_equal(f"object store is bounded, {name}", bounded, 1))
    return facts(part, whole), checks


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
        told, checks = run(Path(name), shapes, given.annotations)
    wrong = [check for check in checks if check.verdict == "WRONG"]
    told |= {check.name: f"{check.value} ({check.verdict})" for check in checks}
    table = write("full_shape", [], told)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
