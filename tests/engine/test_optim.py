"""Learning rates and weight decay by part, by layer and by step."""

import copy
import itertools

import pytest
import torch
from torch import nn

from msvqa.engine.optim import (
    Moment,
    build_optimizer,
    check_parts,
    lr_factor,
    restore_optimizer,
    set_lr,
)
from msvqa.errors import RecipeError
from msvqa.models.layers.memory_layout import use_channels_last
from msvqa.models.model import Model, Sizes
from msvqa.recipe import OptimizerConfig, ScheduleConfig, StageConfig


class Layered(Model):
    """A backbone of an embedding and two layers, and a head."""

    def __init__(self) -> None:
        super().__init__(Model.Config(name="layered"), Sizes())
        self.embedding = nn.Embedding(3, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.head = nn.Linear(2, 2)

    def parts(self):
        return {"backbone": [self.embedding, self.layers], "rest": [self]}

    def depth_of(self, name):
        if name.startswith("layers."):
            return 1 + int(name.split(".")[1])
        return 0 if name.startswith("embedding") else None


def stage_of(**fields):
    return StageConfig.model_validate(
        {"name": "s", "objective": {"name": "answering"}, "steps": 10, **fields}
    )


def rates_of(optimizer):
    """Return rate, decay and number of parameters of each group."""
    return [
        (g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups
    ]


def factors(schedule, steps, **moment):
    return [lr_factor(schedule, Moment(s, 0, **moment)) for s in steps]


def test_parts_have_their_own_rates_and_frozen_parameters_none():
    model = Layered()
    model.head.bias.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(lr=1e-2, lr_of={"backbone": 1e-3}))
    assert rates_of(optimizer) == [("backbone", 1e-3, 0.0, 5), ("rest", 1e-2, 0.0, 1)]
    set_lr(optimizer, stage_of(schedule=ScheduleConfig(warmup_steps=1)), Moment(0, 0, 10))
    assert [g["lr"] for g in optimizer.param_groups] == [5e-4, 5e-3]


def test_all_unknown_parts_are_named_together_with_the_known_ones():
    stage = stage_of(
        init_from="x", parts={"bakbone": "frozen"}, fresh=("heads",),
        schedule_of={"rests": ScheduleConfig()},
        optimizer=OptimizerConfig(lr_of={"backbones": 1.0}, weight_decay_of={"body": 0.1}),
    )  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        check_parts(Layered(), stage)
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == [
        "parts.bakbone", "fresh.heads", "schedule_of.rests", "optimizer.lr_of.backbones",
        "optimizer.weight_decay_of.body",
    ]  # fmt: skip
    assert "did you mean 'backbone'?); the model has backbone, rest" in caught.value.problems[3]


def test_every_part_has_a_schedule_of_its_own():
    stage = stage_of(
        optimizer=OptimizerConfig(lr=1.0, lr_of={"backbone": 0.1}),
        schedule=ScheduleConfig(name="linear"),
        schedule_of={"backbone": ScheduleConfig(name="linear", warmup_steps=3)},
    )
    optimizer = build_optimizer(Layered(), stage.optimizer)
    found = []
    for step in (0, 2, 3, 9):
        set_lr(optimizer, stage, Moment(step, 0, 10))
        found.append(tuple(group["lr"] for group in optimizer.param_groups))
    # The backbone: 1/4 and 3/4 of 0.1, then from 1 in 7 steps to 0. The rest: from 1 in 10 steps.
    assert found == [
        pytest.approx(pair)
        for pair in [(0.025, 1.0), (0.075, 0.8), (0.1, 0.7), (0.1 * (1 - 6 / 7), 0.1)]
    ]


def test_parts_decay_each_by_its_own_and_vectors_not_where_that_is_said():
    config = OptimizerConfig(
        name="adamw", weight_decay=0.1, weight_decay_of={"rest": 0.3}, decay_vectors=False
    )
    assert rates_of(build_optimizer(Layered(), config)) == [
        ("backbone", 1e-4, 0.1, 3), ("backbone", 1e-4, 0.0, 2),
        ("rest", 1e-4, 0.3, 1), ("rest", 1e-4, 0.0, 1),
    ]  # fmt: skip


def test_decay_changes_matrices_and_leaves_vectors():
    model = Layered()
    config = OptimizerConfig(name="adamw", lr=0.5, weight_decay=0.1, decay_vectors=False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        shrunk = before[name] * (1 - 0.5 * 0.1) if value.ndim > 1 else before[name]
        torch.testing.assert_close(value, shrunk)


def test_what_a_model_spares_never_decays():
    class Sparing(Layered):
        undecayed = ("embedding.weight",)

    config = OptimizerConfig(name="adamw", weight_decay=0.1, decay_vectors=False)
    assert rates_of(build_optimizer(Sparing(), config))[:2] == [
        ("backbone", 1e-4, 0.0, 3), ("backbone", 1e-4, 0.1, 2),
    ]  # fmt: skip


def test_each_layer_below_the_top_of_its_part_has_a_smaller_rate():
    config = OptimizerConfig(lr=1.0, lr_of={"backbone": 0.8}, layer_decay=0.5)
    assert rates_of(build_optimizer(Layered(), config)) == [
        ("backbone", 0.1, 0.0, 1), ("backbone", 0.2, 0.0, 2), ("backbone", 0.4, 0.0, 2),
        ("rest", 1.0, 0.0, 2),
    ]  # fmt: skip


def test_a_model_that_does_not_say_its_layers_is_refused_for_layer_decay():
    class Flat(Layered):
        def depth_of(self, name):
            return None

    with pytest.raises(RecipeError, match="layer_decay: model layered does not say its layers"):
        build_optimizer(Flat(), OptimizerConfig(layer_decay=0.5))


def test_a_stage_that_trains_nothing_is_refused():
    model = Layered()
    model.freeze(("backbone", "rest"))
    with pytest.raises(RecipeError, match="nothing is left to train"):
        build_optimizer(model, OptimizerConfig())


def test_step_schedule_is_that_of_dualvgr():
    schedule = ScheduleConfig(name="step", every_epochs=10, factor=0.5)
    rates = [1e-4 * lr_factor(schedule, Moment(0, e, 25)) for e in (0, 9, 10, 20, 24)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5, 2.5e-5])


def test_cosine_warms_up_and_ends_at_the_final_factor():
    schedule = ScheduleConfig(name="cosine", warmup_steps=4, final_factor=0.1)
    found = factors(schedule, range(105), total_steps=104)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[54] == pytest.approx(0.55)
    assert found[104] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(found[4:]))


def test_linear_falls_evenly_from_the_warm_up_to_the_final_factor():
    schedule = ScheduleConfig(name="linear", warmup_steps=2, final_factor=0.2)
    found = factors(schedule, range(7), total_steps=6)
    assert found == pytest.approx([1 / 3, 2 / 3, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_epochs_of_warm_up_are_as_many_steps():
    by_epochs = ScheduleConfig(name="cosine", warmup_epochs=0.29)
    by_steps = ScheduleConfig(name="cosine", warmup_steps=29)
    moments = {"total_steps": 300, "epoch_steps": 100}
    assert factors(by_epochs, range(300), **moments) == factors(by_steps, range(300), **moments)
    with pytest.raises(ValueError, match="either warmup_steps or warmup_epochs"):
        ScheduleConfig(warmup_epochs=1.0, warmup_steps=1)


def test_adamw_decays_weights_where_adam_adds_to_the_gradient():
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = build_optimizer(Layered(), OptimizerConfig(name=name, weight_decay=0.1))
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["weight_decay"] == 0.1


def grow(optimizer, steps):
    """Take steps down the sum of squares of the trained parameters."""
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p**2).sum() for g in optimizer.param_groups for p in g["params"]).backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_steps_are_fused_and_go_on_with_moments_of_steps_that_were_not(name):
    config = OptimizerConfig(name=name, lr=1e-2, weight_decay=0.1)
    fused, plain = Layered(), Layered()
    plain.load_state_dict(fused.state_dict())
    ours = build_optimizer(fused, config)
    assert all(group["fused"] for group in ours.param_groups)
    # As earlier versions stepped.
    earlier = type(ours)(
        [{**group, "fused": None} for group in build_optimizer(plain, config).param_groups]
    )
    grow(earlier, 3)
    state = copy.deepcopy(earlier.state_dict())
    fused.load_state_dict(plain.state_dict())
    restore_optimizer(ours, state)
    assert all(group["fused"] for group in ours.param_groups)
    for optimizer in (ours, earlier):
        grow(optimizer, 4)
    for found, expected in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


class Convolutions(Model):
    """A convolution of frames and one of clips."""

    def __init__(self) -> None:
        super().__init__(Model.Config(name="convolutions"), Sizes())
        self.frames, self.clips = nn.Conv2d(3, 4, 2), nn.Conv3d(3, 4, 2)

    def parts(self):
        return {"rest": [self]}


@pytest.mark.parametrize("laid_out", ["before", "after"])
def test_moments_of_weights_that_lay_otherwise_in_memory_are_laid_out_as_they_are(laid_out):
    before, after, plain = Convolutions(), Convolutions(), Convolutions()
    for model in (after, plain):
        model.load_state_dict(before.state_dict())
    use_channels_last({"before": before, "after": after}[laid_out])
    config = OptimizerConfig(lr=1e-2)
    steps = {name: build_optimizer(model, config) for name, model in
             {"before": before, "after": after, "plain": plain}.items()}  # fmt: skip
    for name in ("before", "plain"):
        grow(steps[name], 3)
    after.load_state_dict(before.state_dict())
    restore_optimizer(steps["after"], copy.deepcopy(steps["before"].state_dict()))
    for name in ("after", "plain"):
        grow(steps[name], 3)
    for found, expected in zip(after.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_parameters_of_several_types_are_stepped_one_by_one():
    model = Layered()
    model.head.weight = type("Cut", (nn.Parameter,), {})(model.head.weight.data)
    groups = build_optimizer(model, OptimizerConfig(lr_of={"backbone": 1e-3})).param_groups
    assert [group["fused"] for group in groups] == [True, False]
    assert groups[1]["foreach"] is False


def test_a_warmup_may_begin_at_nothing_and_a_floor_holds_in_it():
    def factors(**settings):
        schedule = ScheduleConfig(name="cosine", warmup_steps=3, **settings)
        return [lr_factor(schedule, Moment(step, 0, 9)) for step in range(4)]

    assert factors() == [0.25, 0.5, 0.75, 1.0]
    assert factors(rise="from_zero") == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert factors(rise="whole") == [0, 0.5, 1, 1]
    assert factors(rise="whole", least_factor=0.25) == [0.25, 0.5, 1, 1]
