"""DualVGR on all questions of MSVD-QA, with features drawn from a seed: accuracy, time, memory.

python -m benchmarks.dualvgr --root data/msvd-qa

The features (benchmarks/synthetic_features.py) show what the answers of a video are. So a model
that reads them must beat what the text alone gives, also on test videos; how clearly says nothing
about real videos. Widths are small, for a few minutes on two cores.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.loops import batches_in_memory, our_loop, plain_loop
from benchmarks.measure import Ratio, ratio, write
from benchmarks.rows.setting import Setting
from benchmarks.rows.training import GROUPED, costs_of_groups
from benchmarks.synthetic_features import Synthesis
from benchmarks.synthetic_features import write as write_features
from msvqa import cli, metrics
from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.questions import Questions
from msvqa.data.loader import MediaSource
from msvqa.data.processors.processor import store_location
from msvqa.engine.checkpoint import load_checkpoint
from msvqa.engine.inputs import Inputs, model_sizes, open_inputs
from msvqa.engine.loop import StageJob
from msvqa.engine.prediction import objective_of, predict_split
from msvqa.models.model import build_model
from msvqa.objectives.answering import Answering
from msvqa.prepare import prepare
from msvqa.recipe import BatchConfig, Recipe, load, parse_data
from msvqa.run import Run

RECIPE = "configs/dualvgr/msvd.yaml"
WIDTH, FRAMES, HIDDEN = 256, 4, 256
EPOCHS = 2
QUESTIONS = 256
STEPS = {1: 4, GROUPED: 12}
"""Steps of a timed part of an epoch, by questions per video: at k = 1 a step takes longer"""
ROUNDS = 5


def overrides(root: Path, folder: Path, files: tuple[Path, Path]) -> list[str]:
    """Return what the command line changes in the published recipe."""
    features = (
        f"{{appearance_hdf5: {files[0]}, motion_hdf5: {files[1]}, "
        f"appearance_width: {WIDTH}, motion_width: {WIDTH}}}"
    )
    return [
        "name=synthetic-features", f"runs={folder / 'runs'}", f"data.root={root}",
        f"data.prepared={folder / 'prepared'}", f"clips.frames_per_clip={FRAMES}",
        f"features={features}", f"model.hidden_size={HIDDEN}", f"stages.answer.epochs={EPOCHS}",
        "stages.answer.optimizer.lr=1e-3",
        "stages.answer.schedule={name: cosine, warmup_steps: 20}",
        # One row for each epoch, with its time.
        "stages.answer.log_every_steps=1000000",
        f"scaling.cpus_per_worker={cpus()}",
    ]  # fmt: skip


def cpus() -> int:
    """Return the CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def main() -> int:
    """Train, evaluate, compare, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dualvgr")
    parser.add_argument("--root", type=Path, required=True, help="folder with the annotations")
    root = parser.parse_args().root.absolute()
    with tempfile.TemporaryDirectory(prefix="msvqa-dualvgr-") as name:
        folder = Path(name)
        synthesis = Synthesis(
            appearance_width=WIDTH, motion_width=WIDTH, frames_per_clip=FRAMES, dtype="float16"
        )
        files = write_features(parse_data("msvd_qa", root=str(root)), folder / "f.h5", synthesis)
        changes = overrides(root, folder, files)
        run = folder / "runs" / "synthetic-features"
        for words in (["train", RECIPE, *changes], ["evaluate", str(run), "--split", "test"]):
            if code := cli.main(words):
                return code
        facts = accuracies(run) | epochs(run)
        ratios = [*compare_loops(load(RECIPE, changes)), *compare_groups()]
    table = write("dualvgr", ratios, facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return 0 if facts["verdict"] == "beats the text alone" else 1


# Accuracy


def accuracies(path: Path) -> dict[str, str]:
    """Return the test accuracies of a run beside what the text alone gives."""
    found, _ = Run.open(path).evaluation("test")
    rows = {**found["per_type"], "all": found}
    facts = {f"test accuracy, {name}": _accuracy(row) for name, row in rows.items() if row["n"]}
    low, _ = found["accuracy_interval"]
    beaten = low > max(found["type_only_accuracy"], found["question_only_accuracy"])
    other = accuracy_with_features_of_other_videos(path)
    return facts | {
        "test accuracy, all, features of another video": f"{other:.4f}",
        "verdict": "beats the text alone" if beaten else "does not beat the text alone",
    }


def _accuracy(row: Mapping[str, Any]) -> str:
    low, high = row["accuracy_interval"]
    return (
        f"{row['accuracy']:.4f} ({low:.4f} to {high:.4f}), n {row['n']}; type only "
        f"{row['type_only_accuracy']:.4f}, question only {row['question_only_accuracy']:.4f}, "
        f"best possible {row['best_possible']:.4f}"
    )


class OtherVideos:
    """Gives every video the features of another one of the split."""

    def __init__(self, source: MediaSource, videos: int) -> None:
        self.source, self.videos = source, videos

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield the features of the videos half a split further on."""
        shift = self.videos // 2
        return self.source.batches([[(row + shift) % self.videos for row in g] for g in groups])


def accuracy_with_features_of_other_videos(path: Path) -> float:
    """Return the test accuracy where the features belong to another video."""
    loaded = load_checkpoint(Run.open(path).checkpoint())
    inputs = _open(loaded.recipe, "test")
    source = OtherVideos(inputs.source, len(inputs.split.media))
    rows = predict_split(objective_of(loaded), Inputs(split=inputs.split, source=source), 8)
    right = metrics.is_right(rows["top"][:, 0], inputs.split.of(Questions).answer_id[rows["row"]])
    return metrics.mean(right)


def epochs(path: Path) -> dict[str, str]:
    """Return time and memory of the training."""
    run = Run.open(path)
    rows = [row for row in run.metrics() if row["kind"] == "train"]
    questions = len(_open(run.recipe, "train").split)
    seconds = [questions / row["questions_per_s"] for row in rows]
    return {
        "training questions": str(questions),
        "seconds per epoch, without validation": ", ".join(f"{s:.1f}" for s in seconds),
        "waiting for data": ", ".join(f"{row['waiting']:.1%}" for row in rows),
        "peak memory of the training process, GB": f"{max(row['memory_gb'] for row in rows):.2f}",
        "threads": str(cpus()),
        "sizes": f"{WIDTH} wide features, {FRAMES} frames, hidden {HIDDEN}, {EPOCHS} epochs",
    }


def _open(recipe: Recipe, split: str) -> Inputs:
    prepared = prepare(recipe.data, need_videos=False)
    return open_inputs(recipe, prepared, str(store_location(recipe)), split)


# Speed


def compare_loops(recipe: Recipe) -> list[Ratio]:
    """Time parts of an epoch: our loop, a plain loop over batches in memory, and k = 1."""
    torch.set_num_threads(cpus())
    jobs = {k: _job(recipe, k) for k in STEPS}
    in_memory = _batches_in_memory(recipe)
    methods = {
        "ours": lambda: our_loop(jobs[GROUPED]),
        "plain": lambda: _plain_loop(recipe, in_memory),
        "k=1": lambda: our_loop(jobs[1]),
    }
    costs: dict[str, list[float]] = {name: [] for name in methods}
    order, shuffler = list(methods), random.Random(0)
    for _ in range(ROUNDS):
        shuffler.shuffle(order)
        for name in order:
            costs[name].append(methods[name]())
    part = f"{STEPS[GROUPED]} steps of 32 x {GROUPED} questions"
    return [
        ratio(f"epoch: our loop / plain loop, data in memory ({part})", costs, "ours", "plain"),
        ratio(f"epoch: k = 1 ({STEPS[1]} steps of 256 x 1) / k = {GROUPED}", costs, "k=1", "ours"),
    ]


def _job(recipe: Recipe, k: int) -> StageJob:
    raw = recipe.to_dict()
    raw["name"] = f"timed-{k}"
    length = {"epochs": None, "steps": STEPS[k]}
    raw["stages"][0] |= length | {"batch": {"videos": QUESTIONS // k, "questions_per_video": k}}
    folder = Path(raw["runs"]) / raw["name"]
    folder.mkdir(parents=True, exist_ok=True)
    prepared, store = raw["data"]["prepared"], str(store_location(recipe))
    return StageJob(recipe=raw, stage=0, run=str(folder), prepared=prepared, store=store)


def _plain_loop(recipe: Recipe, batches: Sequence[Batch]) -> float:
    model = build_model(recipe, model_sizes(recipe, prepare(recipe.data, need_videos=False)))
    return plain_loop(Answering(Answering.Config(), model), batches, recipe.stages[0].optimizer.lr)


def _batches_in_memory(recipe: Recipe) -> list[Batch]:
    inputs = _open(recipe, "train")
    batch = BatchConfig(videos=QUESTIONS // GROUPED, questions_per_video=GROUPED)
    return batches_in_memory(inputs, batch, STEPS[GROUPED])


def compare_groups(questions: int = 64) -> list[Ratio]:
    """Time a step at the published sizes, with random features: k = 1 and k = 8."""
    with tempfile.TemporaryDirectory() as folder:
        costs, _ = costs_of_groups(questions, Setting(folder=Path(folder), rounds=ROUNDS))
    name = f"step at the published sizes: k = 1 / k = {GROUPED}, {questions} questions"
    return [ratio(name, costs, "k=1", f"k={GROUPED}")]


if __name__ == "__main__":
    sys.exit(main())
