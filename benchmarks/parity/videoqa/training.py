"""Losses and training steps."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.recording import STORED_AS_FLOAT, Comparison, Recording, compare
from benchmarks.parity.videoqa.model import build_model, model_batch
from msvqa import losses
from msvqa.models.reference import to_reference
from msvqa.objectives.answering import Answering

NOISE = 1e-9
"""Recorded gradients below this are rounding errors around zero."""


def loss_functions(recording: Recording) -> Iterator[Comparison]:
    """Consistency and dependence of the recorded pairs, such as `01` or `same`."""

    def run(dtype: torch.dtype) -> dict[str, Tensor]:
        found = {}
        for name in recording.names("out"):
            quantity = name.partition("/")[2]
            loss, _, pair = quantity.partition("_")
            numbers = (0, 0) if pair == "same" else map(int, pair)
            views = [recording.input(f"emb{number}", dtype) for number in numbers]
            if loss == "consistency":
                found[quantity] = losses.consistency(*views).mean()
            elif loss == "dependence":
                found[quantity] = losses.dependence(*views).sum()
        return found

    yield from recording.compare_runs(run)
    for name in recording.names("in/"):
        recording.ignore(name, "a view that is in none of the pairs")


def train_steps(recording: Recording) -> Iterator[Comparison]:
    """Adam steps on one batch: losses, gradient norm, first gradients, last weights.

    A graph may attend alike from all nodes. Its nodes are then equal, the gradient of some weights
    is zero in exact arithmetic, and the recorded one is what rounding left of it (below 1e-9). Adam
    turns such noise into steps, so these weights can only be held to the length of the steps.
    """
    log, gradients, after = _train(recording, torch.float64)
    yield recording.compare("out64/log", np.array(log), 1e-6)
    yield _compare_states(recording, "grad", gradients)
    yield from _compare_weights(recording, after)
    expected = recording["out64/log"]
    relative = np.array(_train(recording, torch.float32)[0]) / expected
    yield compare(recording.file, "out64/log in float32, ratio", relative, relative**0, 1e-3)


def _train(
    recording: Recording, dtype: torch.dtype
) -> tuple[list[list[float]], dict[str, Tensor], dict[str, Tensor]]:
    """Return the log, the first gradients and the last weights, by the reference's names."""
    meta = recording.meta
    model = build_model(recording)
    model.load_reference(recording.state(), recording.file)
    objective = Answering(Answering.Config(alpha=meta["alpha"], beta=meta["beta"]), model)
    objective.to(dtype).train()
    batch = model_batch(recording, dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=meta["lr"])
    log: list[list[float]] = []
    gradients: dict[str, Tensor] = {}
    for _ in range(meta["steps"]):
        optimizer.zero_grad()
        parts = objective(batch)
        parts["loss"].backward()
        gradients = gradients or {
            n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None
        }
        norm = nn.utils.clip_grad_norm_(model.parameters(), meta["clip"])
        optimizer.step()
        columns = ("loss", "cross_entropy", "consistency", "dependence")
        log.append([*(float(parts[name].detach()) for name in columns), float(norm)])
    heads = meta["heads"]
    after = to_reference(model.network.state_dict(), heads)
    return log, to_reference(gradients, heads), after


def _compare_weights(recording: Recording, after: dict[str, Tensor]) -> Iterator[Comparison]:
    """Compare the last weights, those that rounding moved apart from the others."""
    recorded, gradients = recording.state("after"), recording.state("grad")
    firm, moved, loose = dict(after), 0, 0.0
    for name, gradient in gradients.items():
        noise = (gradient != 0) & (gradient.abs() < NOISE)
        if noise.any():
            firm[name] = torch.where(noise, recorded[name], after[name])
            moved += int(noise.sum())
            loose = max(loose, float((after[name] - recorded[name])[noise].abs().max()))
    yield _compare_states(recording, "after", firm)
    longest = recording.meta["lr"] * recording.meta["steps"]
    yield Comparison(recording.file, f"after/*, {moved} moved by rounding", loose, longest)


def _compare_states(recording: Recording, folder: str, found: dict[str, Tensor]) -> Comparison:
    """Compare tensors by name, with 1e-6 absolute plus 1e-6 relative as the tolerance."""
    expected = recording.state(folder)
    worst = float("inf") if set(found) != set(expected) else 0.0
    for name in set(found) & set(expected):
        error = (found[name] - expected[name]).abs() / (1 + expected[name].abs())
        worst = max(worst, float(error.max()))
    return Comparison(
        recording.file, f"{folder}/* ({len(expected)} tensors)", worst, STORED_AS_FLOAT
    )
