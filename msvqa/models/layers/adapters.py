"""Low-rank adapters of a language model: which of its layers get one.

Paper: Hu et al., "LoRA", ICLR 2022, https://arxiv.org/abs/2106.09685.
"""

import warnings
from typing import Any

from peft import LoraConfig, get_peft_model
from pydantic import Field
from torch import nn

from msvqa.errors import RecipeError, one_of
from msvqa.sections import Config


class AdapterConfig(Config):
    """Rank, scale and places of the adapters."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    """Their output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Linear layers, by whole last parts of their names."""


def adapt(language: nn.Module, config: AdapterConfig) -> Any:
    """Return a language model with adapters, as the library `peft` wraps it.

    Raises:
        RecipeError: a target names no linear layer, with the names that there are.
    """
    linear = [name for name, module in language.named_modules() if isinstance(module, nn.Linear)]
    there = sorted({name.rpartition(".")[2] for name in linear})
    absent = [target for target in config.targets if not _names_any(target, linear)]
    if absent or not config.targets:
        what = ", ".join(absent) or "nothing"
        raise RecipeError(
            [f"model.adapter.targets: no linear layer of the language model is {what}; there are "
             f"{one_of(there)}"]
        )  # fmt: skip
    adapters = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # `peft` asks for a name that `transformers` will drop: nothing that a user could change.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(language, adapters)


def adapter_modules(language: nn.Module) -> list[nn.Module]:
    """Return what the adapters of a model add to it."""
    return [
        module
        for name, module in language.named_modules()
        if name.rpartition(".")[2] in ("lora_A", "lora_B", "lora_dropout")
    ]


def _names_any(target: str, names: list[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for name in names)
