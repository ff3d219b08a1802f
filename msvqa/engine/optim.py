"""Optimizers over named parameter groups, and learning rates as functions of the step."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from msvqa.errors import RecipeError, did_you_mean, one_of
from msvqa.models.model import Model
from msvqa.recipe import OptimizerConfig, ScheduleConfig


def build_optimizer(model: Model, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer over the trainable parameters; each group keeps its `base_lr`.

    Raises:
        RecipeError: `lr_of` names a group that the model does not have.
    """
    groups = model.parameter_groups()
    check_groups(groups, config)
    parameters = []
    for name, members in groups.items():
        trainable = [p for p in members if p.requires_grad]
        lr = config.lr_of.get(name, config.lr)
        if trainable:
            parameters.append({"params": trainable, "lr": lr, "base_lr": lr, "name": name})
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[config.name](
        parameters, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )


def check_groups(groups: Mapping[str, Iterable[nn.Parameter]], config: OptimizerConfig) -> None:
    """Refuse learning rates for parameter groups that do not exist."""
    problems = [
        f"optimizer.lr_of.{name}: unknown parameter group{did_you_mean(name, groups)}; "
        f"the model has {one_of(groups)}"
        for name in config.lr_of
        if name not in groups
    ]
    if problems:
        raise RecipeError(problems)


def lr_factor(schedule: ScheduleConfig, *, step: int, epoch: int, total_steps: int) -> float:
    """Return what the learning rates are multiplied by at a step (from 0)."""
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    if schedule.name == "step":
        return float(schedule.factor ** (epoch // schedule.every_epochs))
    if schedule.name == "cosine":
        length = max(1, total_steps - schedule.warmup_steps)
        progress = min(1.0, (step - schedule.warmup_steps) / length)
        falling = 0.5 * (1 + math.cos(math.pi * progress))
        return schedule.final_factor + (1 - schedule.final_factor) * falling
    return 1.0


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up the moments of a checkpoint; rates stay those of the recipe, which may be others."""
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to its own base times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
