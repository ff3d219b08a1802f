"""Distillation: what the student learns, and what stays as it is."""

import pytest
import torch
from pydantic import ValidationError

from msvqa.errors import RecipeError
from msvqa.objectives.distillation import Distillation, ImitationConfig
from tests.models.small import make_dualvgr
from tests.models.small_umt import make_batch, make_umt

ABSENT = ("text", "fusion", "projections")


def distillation(absent=ABSENT, **config):
    objective = Distillation(Distillation.Config.model_validate(config), make_umt(absent))
    for module in objective.frozen():
        module.requires_grad_(False)
    return objective.train()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["attention", "tube", "random", "none"])
def test_it_lowers_the_loss_and_leaves_the_teacher_bit_for_bit(kind):
    objective, batch = distillation(mask={"kind": kind}), make_batch()
    before = {n: v.clone() for n, v in objective.model.teacher.state_dict().items()}
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    torch.manual_seed(0)
    values = []
    for _ in range(40):
        loss = objective(batch)["loss"]
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
        optimizer.step()
        optimizer.zero_grad()
        values.append(float(loss.detach()))
    assert values[-1] < 0.5 * values[0]
    teacher = objective.model.teacher
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[n]) for n, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_the_value_is_told_in_both_kinds_and_evaluation_repeats_itself():
    batch = make_batch()
    parts = distillation(imitation={"kind": "mse"}).eval()(batch)
    again = distillation(imitation={"kind": "mse"}).eval()(batch)
    assert all(torch.equal(value, again[name]) for name, value in parts.items())
    torch.testing.assert_close(parts["loss"].detach(), parts["imitation_mse"])
    torch.testing.assert_close(parts["imitation_l2"], 16 * parts["imitation_mse"])


def test_several_masks_of_a_clip_are_the_mean_of_as_many_losses(monkeypatch):
    batch, looks = make_batch(), []
    one, several = distillation(), distillation(masks_per_clip=3)
    learn = type(several.model).learn
    monkeypatch.setattr(
        type(several.model), "learn", lambda *asked: looks.append(1) or learn(*asked)
    )
    torch.manual_seed(4)
    each = [one(batch) for _ in range(3)]
    looks.clear()
    torch.manual_seed(4)
    found = several(batch)
    assert len(looks) == 1, "one look of the teacher serves all masks"
    values = [float(of["loss"].detach()) for of in each]
    assert len({*values}) == 3
    for name, value in found.items():
        torch.testing.assert_close(value, torch.stack([of[name] for of in each]).mean())
    for loss in (sum(of["loss"] for of in each) / 3, found["loss"]):
        loss.backward()
    for (name, mine), theirs in zip(several.named_parameters(), one.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_one_mask_is_what_it_was_and_evaluation_has_one():
    batch = make_batch()
    torch.manual_seed(4)
    before = distillation()(batch)
    torch.manual_seed(4)
    again = distillation(masks_per_clip=1)(batch)
    assert all(torch.equal(value, again[name]) for name, value in before.items())
    one, three = (distillation(masks_per_clip=n).eval()(batch) for n in (1, 3))
    assert all(torch.equal(value, three[name]) for name, value in one.items())


def test_rows_that_only_fill_a_batch_count_nothing():
    objective, batch = distillation(mask={"kind": "none"}).eval(), make_batch()
    whole = objective(make_batch(rows=4) | {"weight": torch.tensor([1.0, 1, 1, 0]),
                                            "normalizer": torch.tensor(3.0)})  # fmt: skip
    three = {k: v[:3] if v.ndim else torch.tensor(3.0) for k, v in batch.items()}
    torch.testing.assert_close(whole["loss"], objective(three)["loss"])


def test_what_cannot_be_distilled_is_refused():
    with pytest.raises(RecipeError, match=r"parts\.teacher: objective distillation needs it"):
        distillation(absent=("teacher",))
    with pytest.raises(RecipeError, match="needs model umt"):
        Distillation(Distillation.Config(), make_dualvgr())
    with pytest.raises(ValidationError, match="no least value"):
        ImitationConfig(unit=False)
