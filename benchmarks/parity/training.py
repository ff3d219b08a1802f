"""Losses and training steps."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.recording import (
    STORED_AS_FLOAT,
    Comparison,
    Recording,
    build_model,
    model_batch,
)
from msvqa import losses
from msvqa.models.reference import to_reference
from msvqa.objectives.answering import Answering


def loss_functions(recording: Recording) -> Iterator[Comparison]:
    """Consistency and dependence."""
    pairs = {"01": (0, 1), "23": (2, 3), "same": (0, 0)}
    for name, pair in pairs.items():
        first, second = (recording.input(f"emb{number}") for number in pair)
        found = losses.consistency(first, second).mean()
        yield recording.compare(f"out64/consistency_{name}", found)
        found = losses.dependence(first, second).sum()
        yield recording.compare(f"out64/dependence_{name}", found)


def train_steps(recording: Recording) -> Iterator[Comparison]:
    """Adam steps on one batch: losses, gradient norm, first gradients, last weights.

    Where a graph attends alike from all nodes, the nodes are equal and the consistency loss divides
    their rounding errors by the smallest norm allowed: such gradients are noise around zero, and
    Adam turns noise into steps. The weights concerned are found by training once more from weights
    that differ in the last digit, and can only be held to the length of Adam's steps.
    """
    log, gradients, after = _train(recording)
    yield recording.compare("out64/log", np.array(log), 1e-6)
    yield _compare_states(recording, "grad", gradients)
    nudged = _train(recording, nudge=1e-15)[2]
    noise = [n for n in after if float(_excess(nudged[n], after[n])) > STORED_AS_FLOAT / 10]
    firm = {name: value for name, value in after.items() if name not in noise}
    yield _compare_states(recording, "after", firm, left_out=noise)
    if noise:
        recorded = recording.state("after")
        differences = [float((after[name] - recorded[name]).abs().max()) for name in noise]
        quantity = f"after/* ({len(noise)} tensors moved by rounding)"
        longest = recording.meta["lr"] * recording.meta["steps"]
        yield Comparison(recording.file, quantity, max(differences), longest)


def _train(
    recording: Recording, nudge: float = 0.0
) -> tuple[list[list[float]], dict[str, Tensor], dict[str, Tensor]]:
    """Return the log, the first gradients and the last weights, by the reference's names."""
    meta = recording.meta
    model = build_model(recording)
    model.load_reference(recording.state(), recording.file)
    if nudge:
        generator = torch.Generator().manual_seed(0)
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.data.mul_(1 + nudge * noise)
    objective = Answering(Answering.Config(alpha=meta["alpha"], beta=meta["beta"]), model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=meta["lr"])
    log: list[list[float]] = []
    gradients: dict[str, Tensor] = {}
    for _ in range(meta["steps"]):
        optimizer.zero_grad()
        parts = objective(model_batch(recording))
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


def _compare_states(
    recording: Recording, folder: str, found: dict[str, Tensor], left_out: Sequence[str] = ()
) -> Comparison:
    """Compare tensors by name, with 1e-6 absolute plus 1e-6 relative as the tolerance."""
    recorded = recording.state(folder)
    expected = {name: value for name, value in recorded.items() if name not in left_out}
    worst = float("inf") if set(found) != set(expected) else 0.0
    for name in set(found) & set(expected):
        worst = max(worst, float(_excess(found[name], expected[name])))
    return Comparison(
        recording.file, f"{folder}/* ({len(expected)} tensors)", worst, STORED_AS_FLOAT
    )


def _excess(found: Tensor, expected: Tensor) -> Tensor:
    """Return the largest |found - expected| / (1 + |expected|)."""
    return ((found - expected).abs() / (1 + expected.abs())).max()
