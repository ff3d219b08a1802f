"""Losses: imitation of the teacher, contrast of media and texts, matching of hard negatives."""

from collections.abc import Iterator
from itertools import product
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.parity.recording import (
    DOUBLE,
    EXACT,
    STORED_AS_FLOAT,
    Comparison,
    Recording,
)
from msvqa import losses
from msvqa.objectives.negatives import negative_weights, paired_rows


def leaf(recording: Recording, name: str) -> Tensor:
    """Return a recorded array as a leaf in double precision."""
    return torch.from_numpy(np.asarray(recording[name])).double().requires_grad_()


def close(
    recording: Recording, name: str, found: Tensor | None, tolerance: float = DOUBLE
) -> Comparison:
    """Compare with a tolerance that grows with the recorded numbers, where they are above 1."""
    assert found is not None
    largest = float(np.abs(recording[name]).max(initial=0)) if name in recording else 0.0
    return recording.compare(name, found, tolerance * max(1.0, largest))


def imitation(recording: Recording) -> Iterator[Comparison]:
    """UTA: every kind, with and without unit length, with gradients where they are recorded."""
    for case, unit, kind in product("abc", (True, False), get_args(losses.Comparison)):
        teacher = leaf(recording, f"{case}_teacher").detach()
        student = leaf(recording, f"{case}_student")
        loss = losses.imitation(student, teacher, kind, unit=unit).mean()
        name = f"{case}_{'l2' if unit else 'none'}_{kind}"
        yield close(recording, name, loss)
        if f"{name}_grad" in recording:
            loss.backward()
            yield close(recording, f"{name}_grad", student.grad, STORED_AS_FLOAT)


def contrastive(recording: Recording) -> Iterator[Comparison]:
    """VTC: soft targets, both directions, gradients; two workers' rows as one batch."""
    for case in ("plain", "frames", "dup", "noid"):
        ids = torch.from_numpy(recording[f"{case}_ids"])
        matches = ids[:, None] == ids if (ids >= 0).all() else torch.eye(len(ids)).bool()
        targets = matches.double() / matches.sum(dim=1, keepdim=True)
        yield recording.compare(f"{case}_targets", targets)
        for aggregate in ("mean", "max"):
            yield from _contrastive_case(recording, case, matches, aggregate)
    yield from _gathered(recording)


def _contrastive_case(
    recording: Recording, case: str, matches: Tensor, aggregate: Literal["mean", "max"]
) -> Iterator[Comparison]:
    inputs = {part: leaf(recording, f"{case}_{part}") for part in ("vision", "text", "temp")}
    sides, logits = _both_sides(inputs, matches, aggregate)
    name = f"{case}_{aggregate}"
    (sum(sides) / 2).backward()
    yield close(recording, f"{name}_sim_v2t", logits)
    yield close(recording, f"{name}_loss_v2t", sides[0])
    yield close(recording, f"{name}_loss_t2v", sides[1])
    yield close(recording, f"{name}_loss", sum(sides) / 2)
    for part, value in inputs.items():
        yield close(recording, f"{name}_grad_{part}", value.grad)


def _both_sides(
    inputs: dict[str, Tensor], matches: Tensor, aggregate: Literal["mean", "max"] = "mean"
) -> tuple[list[Tensor], Tensor]:
    vision, text = (functional.normalize(inputs[part], dim=-1) for part in ("vision", "text"))
    logits = losses.similarity(vision, text, aggregate) / inputs["temp"]
    return [losses.contrastive(side, matches).mean() for side in (logits, logits.T)], logits


def _gathered(recording: Recording) -> Iterator[Comparison]:
    """The whole batch in one process; that workers have its gradients is a test of `gather`."""
    weights = {part: leaf(recording, f"gather_w_{part}") for part in ("vision", "text")}
    temp = leaf(recording, "gather_temp")
    rows = {part: leaf(recording, f"gather_x_{part}").detach() for part in weights}
    inputs = {part: rows[part].flatten(0, 1) @ weights[part].T for part in weights}
    matches = torch.eye(len(inputs["text"])).bool()
    sides, _ = _both_sides(inputs | {"temp": temp}, matches)
    loss = sum(sides) / 2
    loss.backward()
    yield close(recording, "gather_loss", loss)
    for part, value in {
        "w_vision": weights["vision"],
        "w_text": weights["text"],
        "temp": temp,
    }.items():
        yield close(recording, f"gather_grad_{part}", value.grad)
    for rank in range(len(rows["text"])):
        own = {part: rows[part][rank] @ weights[part].detach().T for part in weights}
        alone, _ = _both_sides(own | {"temp": temp.detach()}, torch.eye(len(own["text"])).bool())
        yield close(recording, f"gather_wrong_local_loss_rank{rank}", sum(alone) / 2)


def matching(recording: Recording) -> Iterator[Comparison]:
    """VTM: weights of negatives, order of the pairs, loss and its gradient, a toy end to end."""
    for case in ("a", "b"):
        ids = torch.from_numpy(recording[f"{case}_ids"])
        logits = leaf(recording, f"{case}_sim_v2t").detach()
        # UMT's constant inside the softmax changes nothing: the same as no floor at all.
        for variant, floor in (("const_in_logit", 0.0), ("floor_after_softmax", 1e-4)):
            for way, side in (("v2t", logits), ("t2v", logits.T)):
                found = negative_weights(side, ids[:, None] == ids, floor)
                yield recording.compare(f"{case}_{variant}_weights_{way}", found)
        chosen = [
            torch.from_numpy(recording[f"{case}_{name}"])
            for name in ("neg_vision_for_text", "neg_text_for_vision")
        ]
        video, text, labels = paired_rows(*chosen)
        yield recording.compare(f"{case}_vision_row_index", video, EXACT)
        yield recording.compare(f"{case}_text_row_index", text, EXACT)
        yield recording.compare(f"{case}_labels", labels, EXACT)
        given = leaf(recording, f"{case}_logits")
        loss = losses.cross_entropy(given, labels).mean()
        loss.backward()
        yield recording.compare(f"{case}_loss", loss)
        yield recording.compare(f"{case}_grad_logits", given.grad)
        parts = {
            p: leaf(recording, f"{case}_toy_{p}").detach()
            for p in ("vision", "text", "head_w", "head_b")
        }
        fused = parts["vision"].mean(dim=1)[video] * parts["text"].mean(dim=1)[text]
        toy = functional.linear(fused, parts["head_w"], parts["head_b"])
        yield recording.compare(f"{case}_toy_logits", toy)
        yield recording.compare(f"{case}_toy_loss", losses.cross_entropy(toy, labels).mean())
