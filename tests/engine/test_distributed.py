"""Two workers and one worker with the same global batch have the same gradients."""

from pathlib import Path

import pytest
import torch

from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import load_checkpoint, read_info
from msvqa.engine.inputs import open_inputs
from msvqa.engine.loop import StageLoop, train_stage
from msvqa.engine.parallel import Replicas
from msvqa.engine.prediction import objective_of, predict_split
from msvqa.evaluators.evaluator import evaluator_of
from msvqa.recipe import EvaluationConfig
from tests.engine.gloo import run_in_processes
from tests.local_host import LocalHost
from tests.tiny import make_job, make_recipe


def first_gradients(rank: int, tiny: Path, folder: Path, stage: int) -> dict[str, torch.Tensor]:
    """Return the gradients of the first step, averaged over workers as the optimizer sees them."""
    recipe = make_recipe(
        tiny,
        f"runs={folder}",
        f"name=worker{rank}",
        f"stages.{stage}.sync_batch_norm=true",
        "stages.0.batch.videos=4",
        "stages.1.batch.videos=4",
        # Dropout is drawn by every worker for itself.
        "model.dropout=0.0",
        "model.state_dropout=0.0",
        "model.decoder.dropout=0.0",
        # Large enough that a wrong reduction of the sum shows beside the cross-entropy.
        "stages.1.objective.beta=1e-3",
    )
    run, job = make_job(recipe, stage)
    host = LocalHost(run.path / "checkpoints")
    host.rank = rank
    loop = StageLoop(job, host)
    # In float64, where a wrong reduction stands out from rounding.
    loop.model.double()
    parallel = Replicas(loop.objective.train(), loop.device)
    batch = next(iter(loop._batches(loop._plan(0), 0)))
    parallel(batch)["loss"].backward()
    return {n: p.grad for n, p in loop.model.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1])
def test_two_workers_and_one_have_the_same_first_gradients(tiny, tmp_path, stage):
    expected = first_gradients(0, tiny, tmp_path / "one", stage)
    shares = run_in_processes(2, first_gradients, tmp_path, tiny, tmp_path / "two", stage)
    for share in shares:
        assert share.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(share[name], gradient, rtol=1e-7, atol=1e-10, msg=name)


def validated(rank: int, tiny: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Train the first stage; return the score of its last checkpoint, by each worker's part."""
    recipe = make_recipe(tiny, f"runs={folder}", f"name=worker{rank}", "stages.0.epochs=2")
    run, job = make_job(recipe, 0)
    host = LocalHost(run.path / "reconstruct")
    host.rank = rank
    train_stage(job, host)
    score = read_info(host.latest_checkpoint())["score"]
    return {"score": torch.tensor(score, dtype=torch.float64)}


@pytest.mark.slow
def test_the_score_of_a_checkpoint_is_that_of_what_was_saved(tiny, tmp_path):
    """Each worker has seen other videos, and its batch norm with it."""
    scores = [share["score"] for share in run_in_processes(2, validated, tmp_path, tiny, tmp_path)]
    run, job = make_job(
        make_recipe(tiny, f"runs={tmp_path}", "name=worker0", "stages.0.epochs=2"), 0
    )
    objective = objective_of(
        load_checkpoint(LocalHost(run.path / "reconstruct").latest_checkpoint())
    )
    prepared = Prepared.open(run.recipe.data.prepared)
    inputs = open_inputs(run.recipe, prepared, job.store, "val")
    evaluator = evaluator_of(objective.evaluator)(EvaluationConfig())
    rows = predict_split(objective, inputs, 8)
    order = rows.pop("row").argsort()
    metrics = evaluator.validate({key: value[order] for key, value in rows.items()}, inputs.split)
    name, _ = evaluator.monitor
    assert scores[0] == scores[1]
    assert abs(scores[0].item()) == pytest.approx(metrics[name], rel=1e-5)
