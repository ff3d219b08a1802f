"""MSVQA against a plain learner on few videos: accuracy for equal processor time.

python -m benchmarks.small_data

The quick start's recipe is trained by the package's own loop in this process, with one thread. The
plain learner, a small 3D CNN with a bag of words, gets the same clips and as many CPU seconds.
Counted for both: building, batches, steps, validation. Counted for neither: drawing, preparing and
decoding the videos, and the prediction of the test split at the end.
"""

import argparse
import datetime
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import RESULTS, machine
from benchmarks.textured_shapes import QUESTIONS, VIDEOS, generate, kind_of
from msvqa import metrics
from msvqa.data.batch import Batch, weighted_mean
from msvqa.data.examples.questions import Questions
from msvqa.data.loader import evaluation_batches, training_batches
from msvqa.data.order import plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location, store_spec
from msvqa.data.split import Split
from msvqa.data.store import Entry, write_index, write_shard
from msvqa.engine.checkpoint import checkpoint_name, load_checkpoint
from msvqa.engine.inputs import Inputs, open_inputs
from msvqa.engine.loop import Saver, StageJob, StageLoop
from msvqa.engine.prediction import objective_of, predict_split
from msvqa.prepare import prepare
from msvqa.recipe import BatchConfig, Recipe, load
from msvqa.run import Run

RECIPE = "configs/quickstart.yaml"
SEEDS = (0, 1, 2)
LEAD = 0.05
"""By how much MSVQA should lead"""
BATCH = 16
"""Videos at a time, for the plain learner as in the recipe"""
PLAIN_LR = 1e-3
LOOKS = 16
"""How often the plain learner is validated"""
FACTS = ("lead", "lead_interval", "question_only", "videos", "questions")
CPU = torch.device("cpu")

Summary = dict[str, Any]


# The plain learner


class PlainLearner(nn.Module):
    """Four 3D convolutions and the mean of the words, joined by a hidden layer."""

    def __init__(self, words: int, answers: int, width: int = 16, hidden: int = 128) -> None:
        super().__init__()
        self.clips = nn.Sequential(
            *_convolution(3, width, stride=(1, 2, 2)),
            nn.MaxPool3d((1, 2, 2), ceil_mode=True),
            *_convolution(width, 2 * width),
            nn.MaxPool3d(2, ceil_mode=True),
            *_convolution(2 * width, 4 * width),
            nn.MaxPool3d(2, ceil_mode=True),
            *_convolution(4 * width, 8 * width),
        )
        self.words = nn.EmbeddingBag(words, hidden, mode="mean", padding_idx=0)
        self.answer = nn.Sequential(
            nn.Linear(8 * width + hidden, hidden), nn.ReLU(), nn.Linear(hidden, answers)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (Q, A)."""
        clips = batch["clips"].float().sub(127.5).div(127.5)  # (V, C, F, H, W, 3)
        maps = self.clips(clips.flatten(0, 1).movedim(-1, 1))  # (V·C, D, ...)
        videos = maps.flatten(2).mean(dim=2).unflatten(0, clips.shape[:2]).mean(dim=1)  # (V, D)
        words = self.words(batch["question"])
        logits: Tensor = self.answer(torch.cat([videos[batch["video_index"]], words], dim=1))
        return logits


def _convolution(before: int, after: int, stride: tuple[int, int, int] = (1, 1, 1)) -> list[Any]:
    convolution = nn.Conv3d(before, after, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm3d(after), nn.ReLU(inplace=True)]


def train_plain(data: "Data", seed: int, seconds: float) -> tuple[PlainLearner, int]:
    """Train until so many CPU seconds are used; return the best by validation, and the steps.

    Adam's rate falls as half a cosine over the time, which here is known beforehand. After every
    sixteenth of the time the validation split is looked at.
    """
    start = time.process_time()
    torch.manual_seed(seed)
    model = PlainLearner(*data.prepared.lexicon.sizes().values())
    optimizer = torch.optim.Adam(model.parameters(), lr=PLAIN_LR)
    best, looks, steps = (-1.0, model.state_dict()), 0, 0
    for batch in data.endless_batches(seed):
        done = (time.process_time() - start) / seconds
        if done * LOOKS >= looks + 1:
            looks = int(done * LOOKS)
            accuracy = metrics.mean(predict_plain(model, data.inputs["val"]))
            if accuracy > best[0]:
                best = accuracy, {name: value.clone() for name, value in model.state_dict().items()}
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = PLAIN_LR * 0.5 * (1 + math.cos(math.pi * done))
        entropy = nn.functional.cross_entropy(model(batch), batch["answer"], reduction="none")
        weighted_mean(entropy, batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
    model.load_state_dict(best[1])
    return model, steps


@torch.no_grad()
def predict_plain(model: PlainLearner, inputs: Inputs) -> np.ndarray:
    """Return which questions of a split are answered rightly."""
    split = inputs.split
    right = np.zeros(len(split), dtype=bool)
    model.eval()
    for batch in evaluation_batches(split, inputs.source, range(len(split.media)), BATCH):
        right[batch["row"].numpy()] = (model(batch).argmax(dim=1) == batch["answer"]).numpy()
    model.train()
    return right


# MSVQA


class DiskHost:
    """Runs the loop in this process without Ray and keeps every checkpoint."""

    rank, device = 0, CPU

    def __init__(self, folder: Path) -> None:
        self.folder, self.best = folder, (-math.inf, folder)

    def latest_checkpoint(self) -> Path | None:
        """Return none: every stage starts anew."""
        return None

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Write the checkpoint and remember the best."""
        folder = self.folder / checkpoint_name(save.step)
        save(folder)
        self.best = max(self.best, (numbers["score"], folder))


def train_msvqa(data: "Data", recipe: Recipe) -> tuple[Path, float]:
    """Train all stages of a recipe; return the best checkpoint of the last, and the CPU seconds."""
    start = time.process_time()
    run = Run.create(recipe)
    checkpoints: dict[str | None, Path] = {}
    for number, stage in enumerate(recipe.stages):
        host = DiskHost(run.stage_dir(stage.name))
        initial = checkpoints.get(stage.init_from)
        job = StageJob(
            recipe=recipe.to_dict(),
            stage=number,
            run=run.location,
            prepared=data.prepared.location,
            store=data.store,
            init_from=str(initial) if initial else None,
        )
        StageLoop(job, host).run()
        checkpoints[stage.name] = host.best[1]
    return checkpoints[recipe.stages[-1].name], time.process_time() - start


def predict_msvqa(checkpoint: Path, inputs: Inputs) -> np.ndarray:
    """Return which questions of a split are answered rightly."""
    rows = predict_split(objective_of(load_checkpoint(checkpoint)), inputs, BATCH)
    right = np.zeros(len(inputs.split), dtype=bool)
    answer_id = inputs.split.of(Questions).answer_id
    right[rows["row"]] = metrics.is_right(rows["top"][:, 0], answer_id[rows["row"]])
    return right


# Both


@dataclass(frozen=True)
class Data:
    """The drawn videos, prepared and decoded once for both learners."""

    prepared: Prepared
    store: str
    inputs: Mapping[str, Inputs]

    @classmethod
    def make(cls, recipe: Recipe) -> "Data":
        """Prepare and decode the data set that a recipe names."""
        prepared = prepare(recipe.data)
        splits = {name: prepared.split(name) for name in VIDEOS}
        ids = [video for split in splits.values() for video in split.media.id]
        media = (medium for split in splits.values() for medium in split.media)
        entries = [
            Entry(video_id=video, outcome="ok", arrays=dict(arrays))
            for video, arrays in zip(ids, processor_of(recipe).arrays(media), strict=True)
        ]
        folder, spec = Path(store_location(recipe)), store_spec(recipe)
        folder.mkdir(parents=True)
        pieces = [
            entries[first : first + spec.videos_per_shard]
            for first in range(0, len(entries), spec.videos_per_shard)
        ]
        shards = [write_shard(folder, n, spec, piece, {}) for n, piece in enumerate(pieces)]
        write_index(folder, spec, shards, {})
        inputs = {name: open_inputs(recipe, prepared, str(folder), name) for name in splits}
        return cls(prepared, str(folder), inputs)

    def endless_batches(self, seed: int) -> Iterator[Batch]:
        """Yield the training batches of one epoch after another, as the package makes them."""
        train = self.inputs["train"]
        for epoch in itertools.count():
            batch = BatchConfig(videos=BATCH, questions_per_video=len(QUESTIONS))
            plan = plan_epoch(train.split, batch, seed=seed, epoch=epoch)
            yield from training_batches(train.split, train.source, plan)


@dataclass(frozen=True)
class Result:
    """What one learner reached with one seed."""

    learner: str
    seed: int
    cpu_s: float
    right: np.ndarray
    """Which questions of the test split."""
    detail: str

    def row(self, split: Split) -> dict[str, Any]:
        """Return the accuracies as plain data, with a bootstrap interval by video."""
        low, high = metrics.interval_by_video(self.right, split.examples.medium)
        kinds = [kind_of(question) for question in split.of(Questions).question]
        each = metrics.mean_of_each(self.right.astype(float), kinds)
        return {
            "learner": self.learner,
            "seed": self.seed,
            "cpu_s": round(self.cpu_s, 1),
            "accuracy": round(metrics.mean(self.right), 4),
            "interval": [round(low, 4), round(high, 4)],
            **{kind: round(each[kind][0], 4) for kind in QUESTIONS},
            "detail": self.detail,
        }


def compare(data: Data, recipe: Recipe) -> list[Result]:
    """Train both learners with the seed of the recipe, for equal CPU seconds."""
    test = data.inputs["test"]
    checkpoint, seconds = train_msvqa(data, recipe)
    step = int(checkpoint.name.partition("-")[2])
    ours = predict_msvqa(checkpoint, test)
    model, steps = train_plain(data, recipe.seed, seconds)
    return [
        Result("msvqa", recipe.seed, seconds, ours, f"best after step {step}"),
        Result("plain", recipe.seed, seconds, predict_plain(model, test), f"{steps} steps"),
    ]


def lead_interval(results: Sequence[Result], video: np.ndarray) -> tuple[float, float]:
    """Return a bootstrap interval by video of the mean lead over all seeds."""
    signs = {"msvqa": 1.0, "plain": -1.0}
    seeds = len({result.seed for result in results})
    lead = sum(signs[result.learner] * result.right for result in results) / seeds
    return metrics.interval_by_video(np.asarray(lead), video)


def recipe_of(folder: Path, seed: int, changes: Sequence[str]) -> Recipe:
    """Return the quick start on the drawn videos, for one process."""
    return load(
        RECIPE,
        [
            f"name=seed{seed}", f"seed={seed}", f"runs={folder / 'runs'}", "scaling.workers=1",
            "data.name=msvd_qa", f"data.root={folder / 'data'}",
            f"data.prepared={folder / 'prepared'}", *changes,
        ],
    )  # fmt: skip


def run(folder: Path, seeds: Sequence[int], videos: Mapping[str, int], *changes: str) -> Summary:
    """Draw, decode, train both learners with every seed; return what they reached."""
    torch.set_num_threads(1)
    generate(folder / "data", videos=videos)
    recipes = [recipe_of(folder, seed, changes) for seed in seeds]
    data = Data.make(recipes[0])
    results = [result for recipe in recipes for result in compare(data, recipe)]
    return summarize(results, data)


def summarize(results: Sequence[Result], data: Data) -> Summary:
    """Return the rows of all results, the lead and what the questions alone give."""
    train, test = data.inputs["train"].split, data.inputs["test"].split
    alone = metrics.text_baselines(train.of(Questions), test.of(Questions))["question_only"]
    rows = [result.row(test) for result in results]
    low, high = lead_interval(results, test.examples.medium)
    means = {
        name: metrics.mean(np.array([row["accuracy"] for row in rows if row["learner"] == name]))
        for name in ("msvqa", "plain")
    }
    return {
        "rows": rows,
        "question_only": round(
            metrics.mean(metrics.is_right(alone, test.of(Questions).answer_id)), 4
        ),
        "lead": round(means["msvqa"] - means["plain"], 4),
        "lead_interval": [round(low, 4), round(high, 4)],
        "videos": {name: len(inputs.split.media) for name, inputs in data.inputs.items()},
        "questions": {name: len(inputs.split) for name, inputs in data.inputs.items()},
    }


def write(summary: Summary) -> Path:
    """Write the results as JSON and as a table, named by date; return the path of the table."""
    summary = {"machine": machine(), **summary}
    columns = ["learner", "seed", "cpu_s", "accuracy", "interval", *QUESTIONS, "detail"]
    lines = [
        "# small_data", "",
        "`python -m benchmarks.small_data` with " + json.dumps(summary["machine"]), "",
        _line(columns), "|" + "---|" * len(columns),
        *(_line(row[name] for name in columns) for row in summary["rows"]),
        "", "| fact | value |", "|---|---|",
        *(f"| {key} | {_cell(summary[key])} |" for key in FACTS), "",
    ]  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{datetime.date.today().isoformat()}-small_data.md"
    file.write_text("\n".join(lines), encoding="utf-8")
    file.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return file


def _line(values: Iterable[Any]) -> str:
    return "| " + " | ".join(map(_cell, values)) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    return str(value)


def main() -> int:
    """Run and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_data")
    parser.add_argument("changes", nargs="*", help="key=value: changes of the recipe")
    changes = parser.parse_args().changes
    with tempfile.TemporaryDirectory(prefix="msvqa-small-data-") as name:
        summary = run(Path(name), SEEDS, VIDEOS, *changes)
    table = write(summary)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return 0 if summary["lead"] >= LEAD else 1


if __name__ == "__main__":
    sys.exit(main())
