"""What MVBench asks of a model: two methods, and a third that may be left out.

    class Mine(Adapter):
        def generate(self, frames, prompt): ...
        def letter_logits(self, frames, prompt, letters): ...

    msvqa mvbench run ROOT --adapter my_module:Mine --model ANYTHING --out FILE

Legend: T frames, n letters.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msvqa.errors import DataError
from msvqa.mvbench.adapters import ADAPTERS
from msvqa.mvbench.prompts import Prompt
from msvqa.sections import resolve


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which model, and how it is run."""

    model: str
    """What the adapter makes of it: a folder, the name of a model on a server."""
    server: str = ""
    """Address of the server; empty where the model is here."""
    prefill: bool = False
    """Whether the server goes on with an answer that was begun, as vLLM does."""
    max_new_tokens: int = 100
    """As the released evaluation generates."""
    device: str = "cpu"
    timeout_s: float = 300.0
    """Longest time for one answer of a server."""


class Adapter(ABC):
    """A model that is asked about frames."""

    supports_prefill: bool = True
    """Whether its answer can be begun for it; else the user's turn ends with that."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def name(self) -> str:
        """What results call the model."""
        return self.source.model

    @abstractmethod
    def generate(self, frames: np.ndarray, prompt: Prompt) -> str:
        """Return what the model says, greedily, without the beginning that it was given.

        Args:
            frames: uint8 (T, H, W, 3), RGB.
            prompt: system, user and the beginning of the answer.
        """

    def letter_logits(
        self, frames: np.ndarray, prompt: Prompt, letters: Sequence[str]
    ) -> np.ndarray:
        """Return how likely each letter is to come next, (n,), up to a constant.

        Raises:
            DataError: the model cannot tell.
        """
        raise DataError(f"{type(self).__name__} gives no logits of letters; --predict generate")

    def text_logprobs(
        self, frames: np.ndarray, prompt: Prompt, texts: Sequence[str]
    ) -> list[np.ndarray]:
        """Return the log-probabilities of each text's tokens, were it the answer; may be left out.

        Raises:
            DataError: the model cannot tell.
        """
        raise DataError(f"{type(self).__name__} gives no likelihood of texts; --predict generate")

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Free what the model holds."""


def open_adapter(name: str, source: Source) -> Adapter:
    """Return the adapter of a name of the table, or of `module:Class`.

    Raises:
        DataError: there is none.
    """
    try:
        kind = resolve(name, ADAPTERS, "adapter")
    except ValueError as error:
        raise DataError(str(error)) from None
    adapter: Adapter = kind(source)
    return adapter
