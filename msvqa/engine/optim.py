"""Optimizers over the parts of a model, and learning rates as functions of the step."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from msvqa.errors import RecipeError, did_you_mean, one_of
from msvqa.models.model import Model
from msvqa.models.parts import parameters_of
from msvqa.recipe import OptimizerConfig, ScheduleConfig, StageConfig


@dataclass(frozen=True)
class Moment:
    """When a step is taken, for its learning rates; all numbers count from 0."""

    step: int
    epoch: int
    total_steps: int
    epoch_steps: int = 1
    """Steps of a whole epoch."""


def build_optimizer(model: Model, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer over the trainable parameters; each group keeps its `base_lr`.

    Raises:
        RecipeError: the recipe names a part that the model does not have.
    """
    check_rates(model, config)
    groups = []
    for part, members in parameters_of(model.parts()).items():
        trainable = [parameter for parameter in members if parameter.requires_grad]
        lr = config.lr_of.get(part, config.lr)
        decay = config.weight_decay_of.get(part, config.weight_decay)
        for height, decays, parameters in _alike(model, members, trainable, config):
            rate = lr if height == 0 else lr * (config.layer_decay or 1.0) ** height
            groups.append(
                {
                    "params": parameters, "lr": rate, "base_lr": rate, "name": part,
                    "weight_decay": decay if decays else 0.0,
                }
            )  # fmt: skip
    if not groups:
        raise RecipeError(["parts: nothing is left to train"])
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[config.name](
        groups, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )
    for group in optimizer.param_groups:
        # By their types: to import what cut ones are takes most of a second.
        if len({type(parameter) for parameter in group["params"]}) > 1:
            # What is cut and what is whole cannot be stepped together.
            group["fused"] = group["foreach"] = False
    return optimizer


def _alike(
    model: Model,
    members: Iterable[nn.Parameter],
    trainable: Iterable[nn.Parameter],
    config: OptimizerConfig,
) -> list[tuple[int, bool, list[nn.Parameter]]]:
    """Return the parameters of a part by layers below its top and by whether they decay."""
    heights = _heights(model, members) if config.layer_decay is not None else {}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    spared = {id(p) for name, p in model.named_parameters() if name in model.undecayed}
    for parameter in trainable:
        decays = config.decay_vectors or (parameter.ndim > 1 and id(parameter) not in spared)
        groups.setdefault((heights.get(id(parameter), 0), decays), []).append(parameter)
    return [(height, decays, found) for (height, decays), found in groups.items()]


def _heights(model: Model, members: Iterable[nn.Parameter]) -> dict[int, int]:
    """Return how many layers each parameter of a part is below what stands above its layers.

    As in BEiT: of layers 0 to n the last is 1 below the heads, the first n + 1.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    depths = {id(member): model.depth_of(names[id(member)]) for member in members}
    top = max((depth for depth in depths.values() if depth is not None), default=0)
    return {key: top + 1 - depth for key, depth in depths.items() if depth is not None}


def check_rates(model: Model, config: OptimizerConfig) -> None:
    """Refuse settings of the optimizer for parts or layers that the model does not have.

    Raises:
        RecipeError: lists every one.
    """
    named = {"lr_of": config.lr_of, "weight_decay_of": config.weight_decay_of}
    problems = [
        problem
        for key, rates in named.items()
        for problem in unknown_parts(f"optimizer.{key}", rates, model.parts())
    ]
    if config.layer_decay is not None:
        depths = (model.depth_of(name) for name, _ in model.named_parameters())
        if all(depth is None for depth in depths):
            name = model.config.name
            problems.append(f"optimizer.layer_decay: model {name} does not say its layers")
    if problems:
        raise RecipeError(problems)


def check_parts(model: Model, stage: StageConfig) -> None:
    """Refuse what a stage says of parts that the model does not have.

    Args:
        model: with all of its parts.
        stage: what the recipe says.

    Raises:
        RecipeError: lists every one.
    """
    parts = model.parts()
    problems = [
        *unknown_parts("parts", stage.parts, parts),
        *unknown_parts("fresh", stage.fresh, parts),
        *unknown_parts("schedule_of", stage.schedule_of, parts),
    ]
    try:
        check_rates(model, stage.optimizer)
    except RecipeError as error:
        problems += error.problems
    if problems:
        raise RecipeError(problems)


def unknown_parts(key: str, named: Iterable[str], parts: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the names of parts in a field of a stage."""
    return [
        f"{key}.{name}: unknown part{did_you_mean(name, parts)}; the model has {one_of(parts)}"
        for name in named
        if name not in parts
    ]


def lr_factor(schedule: ScheduleConfig, moment: Moment) -> float:
    """Return what the learning rates are multiplied by at a step."""
    return max(schedule.least_factor, _factor(schedule, moment))


def _factor(schedule: ScheduleConfig, moment: Moment) -> float:
    step = moment.step
    warmup = schedule.warmup_steps or round(schedule.warmup_epochs * moment.epoch_steps)
    if step < warmup:
        return _rise(schedule.rise, step, warmup)
    if schedule.name == "step":
        return float(schedule.factor ** (moment.epoch // schedule.every_epochs))
    if schedule.name in ("cosine", "linear"):
        length = max(1, (schedule.length_steps or moment.total_steps) - warmup)
        progress = min(1.0, (step - warmup) / length)
        cosine = schedule.name == "cosine"
        falling = 0.5 * (1 + math.cos(math.pi * progress)) if cosine else 1 - progress
        return schedule.final_factor + (1 - schedule.final_factor) * falling
    return 1.0


def _rise(kind: str, step: int, warmup: int) -> float:
    """Return the factor of one of the warm-up's steps, see `ScheduleConfig.rise`."""
    if kind == "from_zero":
        return step / warmup
    if kind == "whole":
        return step / max(1, warmup - 1)
    return (step + 1) / (warmup + 1)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up the moments of a checkpoint; rates stay those of the recipe, which may be others.

    Args:
        optimizer: of the parameters that the state is about, in their order.
        state: what an optimizer said of itself, whatever layout in memory its weights had.
    """
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    # Before it is read: where the numbers of steps lie depends on whether groups are fused.
    groups = [{**g, **settings} for g, settings in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == parameter.shape:
                # Fused steps go through the memory of both alike, and look at no strides: weights
                # of convolutions have theirs by `channels_last`, which cutting them takes away.
                moments[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)


def set_lr(optimizer: torch.optim.Optimizer, stage: StageConfig, moment: Moment) -> None:
    """Set the learning rate of every group to its own base times the factor of its part."""
    for group in optimizer.param_groups:
        schedule = stage.schedule_of.get(group["name"], stage.schedule)
        group["lr"] = group["base_lr"] * lr_factor(schedule, moment)


def warms_up_by_epochs(stage: StageConfig) -> bool:
    """Whether the learning rates depend on how many steps an epoch has."""
    return any(s.warmup_epochs for s in (stage.schedule, *stage.schedule_of.values()))
