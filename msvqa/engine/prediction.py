"""Predictions for a split: every question exactly once, whatever the number of workers."""

import numpy as np
import torch

from msvqa.data.batch import to_device
from msvqa.data.loader import evaluation_batches
from msvqa.data.order import evaluation_order
from msvqa.engine.inputs import Inputs
from msvqa.objectives.objective import Objective


@torch.no_grad()
def predict_split(
    objective: Objective,
    inputs: Inputs,
    device: torch.device,
    *,
    worker: int = 0,
    workers: int = 1,
    videos_per_batch: int,
) -> dict[str, np.ndarray]:
    """Return one worker's share of the predictions, with `row`: the question's row in the split.

    The shares of all workers together hold every row once. Workers do not communicate.
    """
    split = inputs.split
    videos = evaluation_order(split.video_row, len(split.video_id), workers)[worker]
    return predict_videos(objective, inputs, device, videos, videos_per_batch)


@torch.no_grad()
def predict_videos(
    objective: Objective,
    inputs: Inputs,
    device: torch.device,
    videos: list[int],
    videos_per_batch: int,
) -> dict[str, np.ndarray]:
    """Return predictions for all questions of some videos of a split."""
    was_training = objective.training
    objective.eval()
    collected: dict[str, list[np.ndarray]] = {}
    for batch in evaluation_batches(inputs.split, inputs.source, videos, videos_per_batch):
        on_device = to_device(batch, device)
        rows = {"row": on_device["row"], **objective.predict(on_device)}
        for key, value in rows.items():
            array = value.float() if value.dtype == torch.bfloat16 else value
            collected.setdefault(key, []).append(array.cpu().numpy())
    objective.train(was_training)
    return {key: np.concatenate(parts) for key, parts in collected.items()}
