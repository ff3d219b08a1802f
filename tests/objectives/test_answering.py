"""The answering objective."""

import numpy as np
import pytest
import torch

from msvqa.objectives.answering import Answering
from tests.asked import split_of
from tests.models.small import gradients, largest_difference, make_batch, make_dualvgr, make_msvqa

EXACT = {"dropout": 0.0, "state_dropout": 0.0, "answer_norm": "layer"}


def answering(**config):
    return Answering(Answering.Config(**config), make_dualvgr(**EXACT)).double().train()


def part_of(batch, videos, rows):
    """Return some videos of a batch with their questions, as one of two workers gets them."""
    part = {k: v[rows] for k, v in batch.items() if v.ndim and len(v) == 8}
    part |= {key: batch[key][videos] for key in ("appearance", "motion")}
    part["video_index"] = part["video_index"] - videos.start
    return part | {"normalizer": batch["normalizer"] / 2, "workers": torch.tensor(2.0)}


@pytest.mark.parametrize("dependence", ["sum", "mean"])
def test_average_over_two_workers_is_the_global_batch(dependence):
    objective, batch = answering(beta=0.1, dependence=dependence), make_batch()
    batch["weight"][[1, 6, 7]] = 0
    batch["normalizer"] = batch["weight"].sum()
    halves = [
        part_of(batch, slice(0, 2), slice(0, 4)),
        part_of(batch, slice(2, 4), slice(4, 8)),
    ]
    whole = gradients(objective, batch)
    shares = [gradients(objective, half) for half in halves]
    average = {name: (shares[0][name] + shares[1][name]) / 2 for name in whole}
    assert largest_difference(average, whole) <= 1e-12


def test_padding_changes_nothing():
    objective, batch = answering(beta=0.1), make_batch()
    batch["weight"][1::2] = 0
    batch["normalizer"] = torch.tensor(4.0)
    counting = {k: v[::2] for k, v in batch.items() if v.ndim and len(v) == 8}
    counting |= {k: v for k, v in batch.items() if k not in counting}
    assert largest_difference(gradients(objective, batch), gradients(objective, counting)) <= 1e-12


def test_weights_of_the_losses():
    batch = make_batch()
    parts = answering(alpha=2.0, beta=0.5)(batch)
    expected = parts["cross_entropy"] + 2 * parts["consistency"] + 0.5 * parts["dependence"]
    torch.testing.assert_close(parts["loss"], expected)
    only = answering(alpha=0.0, beta=0.0)(batch)
    torch.testing.assert_close(only["loss"], only["cross_entropy"])


def test_mean_dependence_is_the_sum_over_the_number_of_questions():
    batch = make_batch()
    total, mean = (answering(dependence=kind)(batch)["dependence"] for kind in ("sum", "mean"))
    torch.testing.assert_close(total, 8 * mean)


def test_untrained_cross_entropy_is_near_that_of_guessing():
    entropy = float(answering()(make_batch())["cross_entropy"].detach())
    assert abs(entropy - np.log(11)) < 1.5


def test_predictions_are_probabilities_best_first():
    objective, batch = answering().eval(), make_batch()
    objective.top_k = 20
    found = objective.predict(batch)
    assert found["top"].shape == (8, 11)
    torch.testing.assert_close(found["probability"].sum(1), torch.ones(8))
    assert (found["probability"].diff(dim=1) <= 0).all()


def test_accuracy_counts_unknown_answers_as_wrong():
    split = split_of("test", [("v", "q", "what", n) for n in (2, 1, 0, 4)])
    predictions = {"top": np.array([[2, 3], [1, 2], [0, 2], [3, 4]])}
    assert answering().metrics(predictions, split) == {"accuracy": 0.25}
    assert answering().validation_numbers == ("accuracy",)


def test_decoders_stay_as_they_are():
    objective = Answering(Answering.Config(), make_msvqa()).train()
    frozen = [p for module in objective.frozen() for p in module.parameters()]
    before = [p.clone() for p in frozen]
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.1)
    objective(make_batch())["loss"].backward()
    assert all(p.grad is None for p in frozen)
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(frozen, before, strict=True))
    assert not any(m.training for module in objective.frozen() for m in module.modules())


def test_predictions_that_are_not_finite_are_not_right():
    objective, split = answering(), split_of("test", [("v", "q", "what", n) for n in (2, 3, 4)])
    predictions = {"top": np.array([[2], [3], [2]]), "probability": np.ones((3, 1))}
    assert objective.metrics(predictions, split) == {"accuracy": 2 / 3}
    predictions["probability"][1] = np.nan
    assert objective.metrics(predictions, split) == {"accuracy": 1 / 3}
