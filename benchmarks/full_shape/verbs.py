"""The commands of the study, in the order in which they build on each other."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.full_shape.data_set import Rows, mapping
from benchmarks.full_shape.process_tree import Condition

CONFIGS = Path(__file__).parents[2] / "configs"
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
    works_ahead: bool = False
    """Whether decoders fill the object store while it trains"""

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
    yield from _on_features(place, own)
    first = rows["test"][0]
    video = place.data / "video" / f"{mapping(place.data)[first['video_id']]}.avi"
    yield from _on_pixels(place, own, (str(video), first["question"]))


def _on_features(place: Place, own: Sequence[str]) -> Iterator[Verb]:
    recipe = str(CONFIGS / "dualvgr/msvd.yaml")
    fields = [*own, ENCODED_CLIPS, FEATURES, f"features.store={place.store('features')}"]
    fields += ["model.hidden_size=256"]
    problems, run = place.folder / "problems.parquet", place.run("dualvgr")
    looked = ["--data", str(place.data), "--out", str(problems)]
    yield Verb("doctor", ["doctor", recipe, *fields, *looked], problems)
    out = ["--root", str(place.data), "--out", str(place.prepared)]
    yield Verb("prepare", ["prepare", "msvd_qa", *out], place.prepared, also_of_part=True)
    yield Verb("extract, features", ["extract", recipe, *fields], place.store("features"))
    epoch = ["name=dualvgr", "stages.answer.epochs=1"]
    yield Verb("train, DualVGR, an epoch", ["train", recipe, *fields, *epoch], run)
    yield Verb("evaluate", ["evaluate", str(run), "--split", "test"], run / "evaluate")
    yield Verb("report", ["report", str(run)], run / "report.html")
    space, rates = place.folder / "space.yaml", {"grid": [1e-4, 1e-3]}
    searched = {"name": "two", "search": "grid", "fields": {"stages.answer.optimizer.lr": rates}}
    space.write_text(yaml.safe_dump(searched), encoding="utf-8")
    short = ["name=trials", "stages.answer.epochs=null", f"stages.answer.steps={TRIAL_STEPS}"]
    yield Verb(
        "tune, two trials", ["tune", recipe, str(space), *fields, *short], place.run("trials-two")
    )


def _on_pixels(place: Place, own: Sequence[str], asked: tuple[str, str]) -> Iterator[Verb]:
    pixels = [str(CONFIGS / "quickstart.yaml"), *own, "data.name=msvd_qa", CLIPS]
    # As prepared for the features.
    pixels += [f"clips.store={place.store('clips')}", "data.word_size=300"]
    yield Verb("extract, pixels", ["extract", *pixels], place.store("clips"), also_of_part=True)
    train, run = ["train", *pixels, "name=msvqa", _stage(STEPS)], place.run("msvqa")
    yield Verb(
        f"train, MSVQA, interrupted after step {INTERRUPTED_AFTER}",
        train,
        run,
        interrupt_when=lambda: place.last_step("msvqa") >= INTERRUPTED_AFTER,
    )
    yield Verb(f"train, MSVQA, resumed to step {STEPS}", train, run)
    yield Verb("predict", ["predict", "--json", str(run), *asked], run)
    streamed = ["name=streamed", "clips.cache=none", "scaling.data_workers=1"]
    yield Verb(
        "train, MSVQA, decoding meanwhile",
        ["train", *pixels, *streamed, _stage(STREAMED_STEPS)],
        place.run("streamed"),
        also_of_part=True,
        works_ahead=True,
    )


def _stage(steps: int) -> str:
    return (
        f"stages=[{{name: answer, objective: {{name: answering}}, steps: {steps}, "
        "log_every_steps: 1, batch: {videos: 4, questions_per_video: 8}}]"
    )
