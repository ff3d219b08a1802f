"""Learning rates by group and by step."""

import itertools

import pytest
import torch
from torch import nn

from msvqa.engine.optim import build_optimizer, lr_factor, set_lr
from msvqa.errors import RecipeError
from msvqa.recipe import OptimizerConfig, ScheduleConfig


class TwoGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

    def parameter_groups(self):
        return {"backbone": list(self.backbone.parameters()), "rest": list(self.head.parameters())}


def test_groups_have_their_own_rates_and_frozen_parameters_none():
    model = TwoGroups()
    model.head.bias.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(lr=1e-2, lr_of={"backbone": 1e-3}))
    rates = {g["name"]: (g["lr"], len(g["params"])) for g in optimizer.param_groups}
    assert rates == {"backbone": (1e-3, 2), "rest": (1e-2, 1)}
    set_lr(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [5e-4, 5e-3]


def test_an_unknown_group_is_named_with_the_known_ones():
    with pytest.raises(
        RecipeError, match=r"lr_of\.backbones.*did you mean 'backbone'.*backbone, rest"
    ):
        build_optimizer(TwoGroups(), OptimizerConfig(lr_of={"backbones": 1.0}))


def test_step_schedule_is_that_of_dualvgr():
    schedule = ScheduleConfig(name="step", every_epochs=10, factor=0.5)
    rates = [
        1e-4 * lr_factor(schedule, step=0, epoch=e, total_steps=25) for e in (0, 9, 10, 20, 24)
    ]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5, 2.5e-5])


def test_cosine_warms_up_and_ends_at_the_final_factor():
    schedule = ScheduleConfig(name="cosine", warmup_steps=4, final_factor=0.1)
    factors = [lr_factor(schedule, step=s, epoch=0, total_steps=104) for s in range(105)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[54] == pytest.approx(0.55)
    assert factors[104] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[4:]))


def test_adamw_decays_weights_where_adam_adds_to_the_gradient():
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = build_optimizer(TwoGroups(), OptimizerConfig(name=name, weight_decay=0.1))
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["weight_decay"] == 0.1
