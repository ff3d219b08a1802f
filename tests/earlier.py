"""Two runs as an earlier version left them: stopped within an epoch, and how they ended there.

`python -m tests.earlier FOLDER` writes them with the version that is installed. What is kept in
`tests/assets/earlier` was written before a change that was to leave every number as it is:

    tiny/       clips, two stages, the second one stopped after step 3 of 12
    featured/   features from HDF5 files, stopped after step 2 of 12

Each holds the annotations (and videos), the prepared folder, the store, the run, and in `ended/`
the weights, the predictions and the metrics that the earlier version came to. `@FOLDER@` stands
for the folder that everything was in.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of
from msvqa.data.store import Store
from msvqa.engine.asking import Question
from msvqa.engine.checkpoint import WEIGHTS, checkpoint_name
from msvqa.engine.loop import train_stage
from msvqa.engine.prediction import Part, PredictionJob, Predictor
from msvqa.evaluate import Asked, record
from msvqa.recipe import Recipe
from msvqa.run import Run
from tests import featured, tiny
from tests.local_host import LocalHost

ASSETS = Path(__file__).parent / "assets" / "earlier"
STOPPED_AFTER = {"tiny": 3, "featured": 2}
PLACE = "@FOLDER@"
SMALLER = (
    "model.hidden_size=8", "model.appearance.base_width=4", "model.motion.base_width=4",
    "data.word_size=16", "data.answer_top=100", "stages.answer.checkpoint.every_steps=3",
)  # fmt: skip
ENDED = ("predictions.parquet", "metrics.json")


def unpack(name: str, folder: Path) -> Path:
    """Copy one of the runs with its data to a folder, whose name it then has in its files."""
    shutil.copytree(ASSETS / name, folder, dirs_exist_ok=True)
    _replace(folder, PLACE, str(folder))
    return folder


def finish(folder: Path, recipe: Recipe, prepared: Prepared, store: Store) -> Run:
    """Train what is left of the stages in this process, and evaluate on the test split."""
    start: Path | None = None
    for number, stage in enumerate(recipe.stages):
        run, job = tiny.make_job(recipe, number, start)
        host = LocalHost(run.stage_dir(stage.name))
        train_stage(job, host)
        start = host.latest_checkpoint()
    assert start is not None
    job = PredictionJob(
        checkpoint=str(start),
        prepared=prepared.location,
        store=store.location,
        split="test",
        recipe=recipe.to_dict(),
    )
    questions = prepared.split("test", processor_of(recipe).reads_files)
    part = Part(Question("predict", "both"), range(len(questions.media)))
    rows = Predictor(job, "cpu")(part)
    order = np.argsort(rows["row"])
    predictions = {key: value[order] for key, value in rows.items()}
    record(Asked.of(run, [], questions.name, None), start, prepared, questions, predictions)
    return run


def _write(name: str, folder: Path) -> None:
    if name == "tiny":
        recipe = tiny.make_recipe(folder, *SMALLER)
        prepared, store = tiny.make_data(folder, recipe)
    else:
        featured.write_data(folder)
        more = ("stages.answer.checkpoint.every_steps=2", "stages.answer.epochs=2")
        recipe = featured.make_recipe(folder, *more)
        prepared, store = featured.make_store(recipe)
    run = finish(folder, recipe, prepared, store)
    ended, stage = folder / "ended", run.stage_dir("answer")
    ended.mkdir()
    for file in ENDED:
        shutil.move(run.evaluation_dir("test") / file, ended / file)
    checkpoints = sorted(stage.glob("step-*"))
    shutil.move(checkpoints[-1] / WEIGHTS, ended / WEIGHTS)
    for checkpoint in checkpoints:
        if checkpoint.name != checkpoint_name(STOPPED_AFTER[name]):
            shutil.rmtree(checkpoint)
    for rest in ("evaluate", "tensorboard"):
        shutil.rmtree(run.path / rest)
    for lock in folder.rglob(".lock"):
        lock.unlink()
    _replace(folder, str(folder), PLACE)


def _replace(folder: Path, old: str, new: str) -> None:
    """Change a word in the files that say where things are; checkpoints say it to nobody."""
    for file in (*folder.glob("p/prepare.json"), *folder.glob("runs/*/recipe.yaml")):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(old, new), encoding="utf-8")


def main() -> None:
    """Write both runs into the folder that the command line names."""
    torch.set_num_threads(1)
    for name in STOPPED_AFTER:
        folder = Path(sys.argv[1]).absolute() / name
        folder.mkdir(parents=True)
        _write(name, folder)


if __name__ == "__main__":
    main()
